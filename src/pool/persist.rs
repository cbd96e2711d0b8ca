//! Session persistence: which backend a client had last. Bounded by a number of clients and by time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lru::LruCache;

use crate::config::model::PersistConfig;
use crate::stats::registry::BackendId;

/// Entries that one [`PersistTable::expire`] removes at most: it runs every 100 ms, under the lock of the table.
const EXPIRED_AT_ONCE: usize = 10_000;

/// The backends of clients, the one that was seen last first.
#[derive(Debug)]
pub(super) struct PersistTable(Mutex<LruCache<u64, Persistent>>);

#[derive(Debug)]
struct Persistent {
    backend: BackendId,
    seen: Instant,
}

impl Default for PersistTable {
    fn default() -> PersistTable {
        PersistTable(Mutex::new(LruCache::unbounded()))
    }
}

impl PersistTable {
    /// The backend that a client had last, unless that was too long ago.
    pub(super) fn get(&self, client: u64, rules: &PersistConfig, now: Instant) -> Option<BackendId> {
        let entries = self.entries();
        let entry = entries.peek(&client)?;
        is_fresh(entry, rules, now).then_some(entry.backend)
    }

    /// The client has this backend now.
    pub(super) fn set(&self, client: u64, backend: BackendId, rules: &PersistConfig, now: Instant) {
        let mut entries = self.entries();
        entries.put(client, Persistent { backend, seen: now });
        while entries.len() > rules.size.get() as usize {
            entries.pop_lru();
        }
    }

    /// A connection of the client to this backend ends: that is when it was last seen. Nothing if it has another one by now.
    pub(super) fn ended(&self, client: u64, backend: BackendId, rules: &PersistConfig, now: Instant) {
        if self.get(client, rules, now).is_none_or(|last| last == backend) {
            self.set(client, backend, rules, now);
        }
    }

    /// Removes those that were not seen for too long, and those beyond the size; all where there are no rules any more.
    pub(super) fn expire(&self, rules: Option<&PersistConfig>, now: Instant) {
        let mut entries = self.entries();
        let Some(rules) = rules else {
            if !entries.is_empty() {
                *entries = LruCache::unbounded();
            }
            return;
        };
        for _ in 0..EXPIRED_AT_ONCE {
            let is_over = entries.len() > rules.size.get() as usize;
            match entries.peek_lru() {
                Some((_, entry)) if is_over || !is_fresh(entry, rules, now) => entries.pop_lru(),
                _ => return,
            };
        }
    }

    /// Clients that are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<u64, Persistent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(entry: &Persistent, rules: &PersistConfig, now: Instant) -> bool {
    now.saturating_duration_since(entry.seen) < rules.ttl
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::stats::registry::Registry;

    fn rules(ttl_s: u64, size: u32) -> PersistConfig {
        PersistConfig { ttl: Duration::from_secs(ttl_s), size: NonZeroU32::new(size).unwrap() }
    }

    #[derive(Clone, Debug)]
    enum PersistStep {
        Set(u64, usize),
        End(u64, usize),
        Wait(u64),
        Expire,
        Resize(u32),
    }

    fn step() -> impl Strategy<Value = PersistStep> {
        prop_oneof![
            4 => (0_u64..12, 0_usize..3).prop_map(|(client, backend)| PersistStep::Set(client, backend)),
            2 => (0_u64..12, 0_usize..3).prop_map(|(client, backend)| PersistStep::End(client, backend)),
            2 => (0_u64..8).prop_map(PersistStep::Wait),
            1 => Just(PersistStep::Expire),
            1 => (1_u32..10).prop_map(PersistStep::Resize),
        ]
    }

    proptest! {
        /// Against a list in the order of the last sight.
        #[test]
        fn remembers_what_a_list_would(steps in prop::collection::vec(step(), 1..120)) {
            let registry = Registry::default();
            let backends = [registry.backend(), registry.backend(), registry.backend()];
            let (table, mut now, mut rules) = (PersistTable::default(), Instant::now(), rules(10, 5));
            let mut model: Vec<(u64, BackendId, Instant)> = Vec::new();
            for step in steps {
                match step {
                    PersistStep::Set(client, backend) => {
                        table.set(client, backends[backend], &rules, now);
                        model.retain(|(it, ..)| *it != client);
                        model.push((client, backends[backend], now));
                        let over = model.len().saturating_sub(rules.size.get() as usize);
                        model.drain(..over);
                    }
                    PersistStep::End(client, backend) => {
                        table.ended(client, backends[backend], &rules, now);
                        let other = |(it, last, seen): &(u64, BackendId, Instant)| {
                            *it == client && *last != backends[backend] && now - *seen < rules.ttl
                        };
                        if !model.iter().any(other) {
                            model.retain(|(it, ..)| *it != client);
                            model.push((client, backends[backend], now));
                            let over = model.len().saturating_sub(rules.size.get() as usize);
                            model.drain(..over);
                        }
                    }
                    PersistStep::Wait(seconds) => now += Duration::from_secs(seconds),
                    PersistStep::Expire => {
                        table.expire(Some(&rules), now);
                        let over = model.len().saturating_sub(rules.size.get() as usize);
                        model.drain(..over);
                    }
                    PersistStep::Resize(size) => rules.size = NonZeroU32::new(size).unwrap(),
                }
                for client in 0..12 {
                    let entry = model.iter().find(|(it, ..)| *it == client);
                    let expected = entry.filter(|(.., seen)| now - *seen < rules.ttl).map(|(_, backend, _)| *backend);
                    prop_assert_eq!(table.get(client, &rules, now), expected, "client {}", client);
                }
                prop_assert!(table.len() <= 9, "never more than the largest size");
            }
            now += rules.ttl;
            table.expire(Some(&rules), now);
            prop_assert_eq!(table.len(), 0);
        }
    }

    #[test]
    fn without_rules_nothing_is_kept() {
        let (table, rules, now) = (PersistTable::default(), rules(10, 5), Instant::now());
        table.set(1, Registry::default().backend(), &rules, now);
        table.expire(None, now);
        assert_eq!(table.len(), 0);
    }
}
