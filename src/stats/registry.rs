//! Ids of listeners, pools and backends: one for each name, never reused in a process.
//!
//! Samples, histograms and rates go by id. A place in the configuration would give the histograms of a removed backend to its
//! neighbour.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

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

none_by_default!(ListenerId, PoolId, BackendId);

/// Issues ids. One for a process.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Issued>);

#[derive(Debug, Default)]
struct Issued {
    listeners: Names<Arc<str>>,
    pools: Names<Arc<str>>,
    backends: Names<(PoolId, Arc<str>)>,
}

/// The numbers of names of one kind.
#[derive(Debug)]
struct Names<K> {
    known: HashMap<K, u32>,
    next: u32,
}

impl<K> Default for Names<K> {
    fn default() -> Names<K> {
        Names { known: HashMap::new(), next: 0 }
    }
}

impl<K: Eq + Hash> Names<K> {
    fn number(&mut self, name: K) -> u32 {
        let next = &mut self.next;
        *self.known.entry(name).or_insert_with(|| {
            let number = *next;
            *next = next.saturating_add(1);
            number
        })
    }
}

impl Registry {
    /// The id of the listener with this name.
    pub fn listener(&self, name: &Arc<str>) -> ListenerId {
        let number = self.issued(|issued| issued.listeners.number(Arc::clone(name)));
        u16::try_from(number).map_or(ListenerId::NONE, ListenerId)
    }

    /// The id of the pool with this name.
    pub fn pool(&self, name: &Arc<str>) -> PoolId {
        PoolId(self.issued(|issued| issued.pools.number(Arc::clone(name))))
    }

    /// The id of the pool's backend with this name.
    pub fn backend(&self, pool: PoolId, name: &Arc<str>) -> BackendId {
        BackendId(self.issued(|issued| issued.backends.number((pool, Arc::clone(name)))))
    }

    /// Forgets the name of a backend that is gone for good. One that has this name later gets a new id.
    pub fn forget_backend(&self, pool: PoolId, name: &Arc<str>) {
        self.issued(|issued| issued.backends.known.remove(&(pool, Arc::clone(name))));
    }

    fn issued<T>(&self, with: impl FnOnce(&mut Issued) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn a_name_keeps_its_id() {
        let registry = Registry::default();
        let pools = [registry.pool(&name("a")), registry.pool(&name("b"))];
        assert_ne!(pools[0], pools[1]);
        let backends = pools.map(|pool| registry.backend(pool, &name("db")));
        assert_ne!(backends[0], backends[1], "of the same name in two pools");
        assert_eq!(pools.map(|pool| registry.backend(pool, &name("db"))), backends);
        assert_eq!(registry.pool(&name("b")), pools[1]);
        assert_eq!(registry.listener(&name("in")), registry.listener(&name("in")));
    }

    #[test]
    fn a_backend_that_is_removed_shares_its_id_with_none_that_is_added() {
        let registry = Registry::default();
        let pool = registry.pool(&name("p"));
        let first = registry.backend(pool, &name("one"));
        let mut seen = vec![first, registry.backend(pool, &name("two"))];
        registry.forget_backend(pool, &name("one"));
        for added in ["three", "one", "four"] {
            let id = registry.backend(pool, &name(added));
            assert!(!seen.contains(&id), "{added} got {id:?} of another");
            seen.push(id);
        }
    }

    #[test]
    fn listeners_beyond_the_last_id_have_none() {
        let registry = Registry::default();
        let ids: Vec<ListenerId> = (0..65_537).map(|n| registry.listener(&name(&n.to_string()))).collect();
        assert!(!ids[..65_535].contains(&ListenerId::NONE));
        assert_eq!(ids[65_535..], [ListenerId::NONE; 2]);
    }
}
