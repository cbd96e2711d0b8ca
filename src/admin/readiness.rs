//! Whether connections should be sent here now.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::sources::Sources;
use crate::config::model::ListenerState;
use crate::pool::Pool;
use crate::server::{DataPlane, Listener};

/// Whether connections should be sent here now: as [`not_ready`] is empty, without the cost of its texts.
pub(super) fn is_ready(Sources { plane, draining, .. }: &Sources) -> bool {
    !draining.load(Ordering::Relaxed) && serves(plane)
}

/// Why no connection should be sent here now; empty when all is well.
pub(super) fn not_ready(Sources { plane, draining, .. }: &Sources) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining.load(Ordering::Relaxed) {
        reasons.push("draining: tidegate is shutting down".to_owned());
    }
    reasons.extend(why_not_serving(plane));
    reasons
}

/// Whether connections of a pool get a backend, or are refused on purpose: it is configured without one.
fn serves_or_refuses(pool: &Arc<Pool>) -> bool {
    pool.is_usable() || pool.settings().backends.is_empty()
}

/// Whether every listener accepts connections, and each of its pools has a backend for them, unless it is to have none.
pub fn serves(plane: &DataPlane) -> bool {
    let serves = |listener: &Listener| {
        listener.config().state == ListenerState::Ready && listener.pools().all(serves_or_refuses)
    };
    plane.members().listeners.iter().all(|listener| serves(listener))
}

/// Why some connections would not be accepted, or get no backend now: each listener with its state, or with each of its pools
/// that has none.
pub fn why_not_serving(plane: &DataPlane) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut seen = HashSet::new();
    for listener in &plane.members().listeners {
        let name = &listener.config().name;
        match listener.config().state {
            ListenerState::Ready => {}
            ListenerState::Paused => {
                reasons.push(format!("listener {name}: paused: new connections wait"));
                continue;
            }
            ListenerState::Drain => {
                reasons.push(format!("listener {name}: drained: new connections are refused"));
                continue;
            }
        }
        for pool in listener.pools() {
            let pool_name = pool.name();
            // A pool may be that of several routes.
            if !serves_or_refuses(pool) && seen.insert((name, pool_name)) {
                reasons.push(format!("listener {name}: no backend of pool {pool_name} is up"));
            }
        }
    }
    reasons
}
