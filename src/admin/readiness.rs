//! Whether connections should be sent here now.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::sources::Sources;
use crate::server::DataPlane;

/// Whether connections should be sent here now: as [`not_ready`] is empty, without the cost of its texts.
pub(super) fn is_ready(Sources { plane, draining, .. }: &Sources) -> bool {
    let members = plane.members();
    let mut pools = members.listeners.iter().flat_map(|listener| listener.pools());
    !draining.load(Ordering::Relaxed) && pools.all(|pool| pool.is_usable())
}

/// Why no connection should be sent here now; empty when all is well.
pub(super) fn not_ready(Sources { plane, draining, .. }: &Sources) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining.load(Ordering::Relaxed) {
        reasons.push("draining: no new connection is accepted".to_owned());
    }
    reasons.extend(unusable_pools(plane));
    reasons
}

/// Why some connections would get no backend now: each listener with each of its pools that has none.
pub fn unusable_pools(plane: &DataPlane) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut seen = HashSet::new();
    for listener in &plane.members().listeners {
        for pool in listener.pools() {
            let (name, pool_name) = (&listener.config().name, pool.name());
            // A pool may be that of several routes.
            if !pool.is_usable() && seen.insert((name, pool_name)) {
                reasons.push(format!("listener {name}: no backend of pool {pool_name} is up"));
            }
        }
    }
    reasons
}
