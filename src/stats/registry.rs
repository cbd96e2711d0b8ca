//! Ids of listeners, routes, pools and backends, never reused in a process.
//!
//! Samples, histograms and rates go by id. A place in the configuration would give the histograms of a removed backend to its
//! neighbour.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

/// A listener's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListenerId(u16);

/// A pool's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PoolId(u32);

/// A backend's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackendId(u32);

/// The id of a listener's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u16);

impl RouteId {
    /// Of no route. Every route after the first 65,535 of a process gets it: nothing is timed of those.
    pub const NONE: RouteId = RouteId(u16::MAX);

    /// As a number, which [`RouteId::of_bits`] takes.
    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn of_bits(bits: u16) -> RouteId {
        RouteId(bits)
    }
}

impl ListenerId {
    /// Of no listener. Every listener after the first 65,535 of a process gets it: nothing is measured of those.
    pub const NONE: ListenerId = ListenerId(u16::MAX);
}

impl PoolId {
    /// Of no pool.
    pub const NONE: PoolId = PoolId(u32::MAX);
}

impl BackendId {
    /// Of no backend.
    pub const NONE: BackendId = BackendId(u32::MAX);
}

/// No id, until one is issued.
macro_rules! none_by_default {
    ($($id:ident),+) => {$(
        impl Default for $id {
            fn default() -> $id {
                $id::NONE
            }
        }

        impl std::str::FromStr for $id {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<$id, Self::Err> {
                text.parse().map($id)
            }
        }

        impl std::fmt::Display for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

none_by_default!(ListenerId, RouteId, PoolId, BackendId);

/// Issues ids. One for a process; its clones issue from the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Issued>);

#[derive(Debug, Default)]
struct Issued {
    listeners: AtomicU32,
    routes: AtomicU32,
    pools: AtomicU32,
    backends: AtomicU32,
}

impl Registry {
    /// An id for a listener.
    pub fn listener(&self) -> ListenerId {
        u16::try_from(next(&self.0.listeners)).map_or(ListenerId::NONE, ListenerId)
    }

    /// An id for a route.
    pub fn route(&self) -> RouteId {
        u16::try_from(next(&self.0.routes)).map_or(RouteId::NONE, RouteId)
    }

    /// An id for a pool.
    pub fn pool(&self) -> PoolId {
        PoolId(next(&self.0.pools))
    }

    /// An id for a backend.
    pub fn backend(&self) -> BackendId {
        BackendId(next(&self.0.backends))
    }
}

/// The next number. The last one is that of `NONE`, and stays: a hundred backends a second reach it after 497 days, and nothing is
/// measured of the later ones.
fn next(issued: &AtomicU32) -> u32 {
    issued.try_update(Relaxed, Relaxed, |number| number.checked_add(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_issued_once() {
        let registry = Registry::default();
        let ids: Vec<BackendId> = (0..100).map(|_| registry.clone().backend()).collect();
        assert!(ids.iter().enumerate().all(|(place, id)| !ids[..place].contains(id)));
        assert_ne!(registry.pool(), registry.pool());
    }

    #[test]
    fn ids_beyond_the_last_are_none() {
        let registry = Registry::default();
        let listeners: Vec<ListenerId> = (0..65_537).map(|_| registry.listener()).collect();
        assert!(!listeners[..65_535].contains(&ListenerId::NONE));
        assert_eq!(listeners[65_535..], [ListenerId::NONE; 2]);
        registry.0.backends.store(u32::MAX - 1, Relaxed);
        assert_ne!(registry.backend(), BackendId::NONE);
        assert_eq!([registry.backend(), registry.backend()], [BackendId::NONE; 2]);
    }
}
