//! Session persistence: which backend a client had last. Bounded by a number of clients and by time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Shared with the holds of the client's open connections.
    holds: Arc<()>,
}

/// Keeps the entry of a client from expiring, as a reference does in HAProxy's stick tables. It may still make room for another one.
#[derive(Debug)]
pub(super) struct PersistHold(#[allow(dead_code, reason = "counted by the entry")] Arc<()>);

impl Default for PersistTable {
    fn default() -> PersistTable {
        PersistTable(Mutex::new(LruCache::unbounded()))
    }
}

impl PersistTable {
    /// The backend that a client had last, unless that was too long ago and it has no connection.
    pub(super) fn get(&self, client: u64, rules: &PersistConfig, now: Instant) -> Option<BackendId> {
        let entries = self.entries();
        let entry = entries.peek(&client)?;
        (entry.is_open() || entry.is_fresh(rules, now)).then_some(entry.backend)
    }

    /// The client has this backend now, for as long as the hold lives and for `ttl` after it was seen last.
    pub(super) fn set(&self, client: u64, backend: BackendId, rules: &PersistConfig, now: Instant) -> PersistHold {
        let mut entries = self.entries();
        let holds = entries.peek(&client).map_or_else(Arc::default, |known| Arc::clone(&known.holds));
        let hold = PersistHold(Arc::clone(&holds));
        entries.put(client, Persistent { backend, seen: now, holds });
        while entries.len() > rules.size.get() as usize {
            entries.pop_lru();
        }
        hold
    }

    /// A connection of the client to this backend ends: that is when it was last seen. If it has another one by now, it keeps that.
    pub(super) fn ended(&self, client: u64, backend: BackendId, rules: &PersistConfig, now: Instant) {
        let last = self.get(client, rules, now).unwrap_or(backend);
        let _ended = self.set(client, last, rules, now);
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
                Some((_, entry)) if !is_over && entry.is_fresh(rules, now) => return,
                Some((client, entry)) if !is_over && entry.is_open() => {
                    let client = *client;
                    // It is seen now, and is not looked at again for `ttl`.
                    entries.get_mut(&client).into_iter().for_each(|entry| entry.seen = now);
                }
                Some(_) => drop(entries.pop_lru()),
                None => return,
            }
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

impl Persistent {
    fn is_fresh(&self, rules: &PersistConfig, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < rules.ttl
    }

    /// Whether the client has a connection.
    fn is_open(&self) -> bool {
        Arc::strong_count(&self.holds) > 1
    }
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
        /// A client gets a backend.
        Open(u64, usize),
        /// One of the open connections ends.
        End(prop::sample::Index),
        /// One of them was never connected.
        GiveUp(prop::sample::Index),
        Wait(u64),
        Expire,
        Resize(u32),
    }

    fn step() -> impl Strategy<Value = PersistStep> {
        prop_oneof![
            4 => (0_u64..12, 0_usize..3).prop_map(|(client, backend)| PersistStep::Open(client, backend)),
            2 => any::<prop::sample::Index>().prop_map(PersistStep::End),
            1 => any::<prop::sample::Index>().prop_map(PersistStep::GiveUp),
            2 => (0_u64..12).prop_map(PersistStep::Wait),
            1 => Just(PersistStep::Expire),
            1 => (1_u32..10).prop_map(PersistStep::Resize),
        ]
    }

    /// An entry of the model. Connections know it by its number.
    #[derive(Clone, Copy)]
    struct ModelEntry {
        number: usize,
        client: u64,
        backend: usize,
        seen: Instant,
    }

    /// A list in the order of the last sight.
    #[derive(Default)]
    struct PersistModel {
        entries: Vec<ModelEntry>,
        /// Client, backend, and number of the entry.
        open: Vec<(u64, usize, usize)>,
        numbers: usize,
    }

    impl PersistModel {
        fn is_open(&self, entry: &ModelEntry) -> bool {
            self.open.iter().any(|(.., number)| *number == entry.number)
        }

        fn get(&self, client: u64, rules: &PersistConfig, now: Instant) -> Option<usize> {
            let entry = self.entries.iter().find(|it| it.client == client)?;
            (self.is_open(entry) || now - entry.seen < rules.ttl).then_some(entry.backend)
        }

        fn set(&mut self, client: u64, backend: usize, rules: &PersistConfig, now: Instant) -> usize {
            self.numbers += 1;
            let known = self.entries.iter().find(|it| it.client == client);
            let number = known.map_or(self.numbers, |known| known.number);
            self.entries.retain(|it| it.client != client);
            self.entries.push(ModelEntry { number, client, backend, seen: now });
            self.shrink(rules);
            number
        }

        fn shrink(&mut self, rules: &PersistConfig) {
            let over = self.entries.len().saturating_sub(rules.size.get() as usize);
            self.entries.drain(..over);
        }

        fn expire(&mut self, rules: &PersistConfig, now: Instant) {
            self.shrink(rules);
            let old: Vec<ModelEntry> = self.entries.iter().copied().filter(|it| now - it.seen >= rules.ttl).collect();
            self.entries.retain(|it| now - it.seen < rules.ttl);
            let held = old.into_iter().filter(|it| self.is_open(it)).map(|it| ModelEntry { seen: now, ..it });
            let held: Vec<ModelEntry> = held.collect();
            self.entries.extend(held);
        }
    }

    proptest! {
        #[test]
        fn remembers_what_a_list_would(steps in prop::collection::vec(step(), 1..120)) {
            let registry = Registry::default();
            let backends = [registry.backend(), registry.backend(), registry.backend()];
            let (table, mut now, mut rules) = (PersistTable::default(), Instant::now(), rules(10, 5));
            let (mut model, mut holds) = (PersistModel::default(), Vec::new());
            for step in steps {
                match step {
                    PersistStep::Open(client, backend) => {
                        holds.push(table.set(client, backends[backend], &rules, now));
                        let number = model.set(client, backend, &rules, now);
                        model.open.push((client, backend, number));
                    }
                    PersistStep::End(_) | PersistStep::GiveUp(_) if holds.is_empty() => {}
                    PersistStep::End(which) => {
                        let (client, backend, _) = model.open[which.index(holds.len())];
                        table.ended(client, backends[backend], &rules, now);
                        let last = model.get(client, &rules, now).unwrap_or(backend);
                        model.set(client, last, &rules, now);
                        holds.remove(which.index(holds.len()));
                        model.open.remove(which.index(model.open.len()));
                    }
                    PersistStep::GiveUp(which) => {
                        holds.remove(which.index(holds.len()));
                        model.open.remove(which.index(model.open.len()));
                    }
                    PersistStep::Wait(seconds) => now += Duration::from_secs(seconds),
                    PersistStep::Expire => {
                        table.expire(Some(&rules), now);
                        model.expire(&rules, now);
                        prop_assert_eq!(table.len(), model.entries.len());
                    }
                    PersistStep::Resize(size) => rules.size = NonZeroU32::new(size).unwrap(),
                }
                for client in 0..12 {
                    let expected = model.get(client, &rules, now).map(|backend| backends[backend]);
                    prop_assert_eq!(table.get(client, &rules, now), expected, "client {}", client);
                }
                prop_assert!(table.len() <= 9, "never more than the largest size, whatever is open");
            }
            holds.clear();
            now += rules.ttl;
            table.expire(Some(&rules), now);
            prop_assert_eq!(table.len(), 0);
        }
    }

    #[test]
    fn without_rules_nothing_is_kept() {
        let (table, rules, now) = (PersistTable::default(), rules(10, 5), Instant::now());
        let _hold = table.set(1, Registry::default().backend(), &rules, now);
        table.expire(None, now);
        assert_eq!(table.len(), 0);
    }
}
