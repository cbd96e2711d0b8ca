//! Session persistence: which backend a client had last. Bounded by a number of clients and by time.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lru::LruCache;

use crate::config::model::PersistConfig;
use crate::stats::registry::BackendId;

/// Entries that one [`PersistTable::expire`] removes at most: it runs every 100 ms, under the lock of the table.
const EXPIRED_AT_ONCE: usize = 10_000;

/// Which backends clients had last.
#[derive(Debug)]
pub(super) struct PersistTable(Mutex<PersistEntries>);

#[derive(Debug)]
struct PersistEntries {
    /// The one that was seen last first.
    clients: LruCache<u64, Persistent>,
    /// How many connections hold an entry, of those that are held.
    holds: HashMap<HoldId, u32>,
    issued: u32,
}

#[derive(Debug)]
struct Persistent {
    backend: BackendId,
    seen: Instant,
    id: HoldId,
}

/// The entry that a connection keeps from expiring, as a reference does in HAProxy's stick tables. It may still make room for another
/// one. A number, which fits into a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HoldId(NonZeroU32);

impl Default for PersistTable {
    fn default() -> PersistTable {
        PersistTable(Mutex::new(PersistEntries { clients: LruCache::unbounded(), holds: HashMap::new(), issued: 0 }))
    }
}

impl PersistTable {
    /// The backend that a client had last, unless that was too long ago and it has no connection.
    pub(super) fn get(&self, client: u64, rules: &PersistConfig, now: Instant) -> Option<BackendId> {
        self.entries().get(client, rules, now)
    }

    /// A connection gets this backend: its client has it until [`PersistTable::release`], and for `ttl` after it was seen last.
    pub(super) fn hold(&self, client: u64, backend: BackendId, rules: &PersistConfig, now: Instant) -> HoldId {
        let mut entries = self.entries();
        let id = entries.put(client, backend, rules, now);
        *entries.holds.entry(id).or_default() += 1;
        id
    }

    /// The connection is gone.
    pub(super) fn release(&self, id: HoldId) {
        let mut entries = self.entries();
        if let Some(holds) = entries.holds.get_mut(&id) {
            *holds -= 1;
            if *holds == 0 {
                entries.holds.remove(&id);
            }
        }
    }

    /// A connection of the client to this backend ends: that is when it was last seen. If it has another one by now, it keeps that.
    pub(super) fn ended(&self, client: u64, backend: BackendId, rules: &PersistConfig, now: Instant) {
        let mut entries = self.entries();
        let last = entries.get(client, rules, now).unwrap_or(backend);
        entries.put(client, last, rules, now);
    }

    /// Removes those that were not seen for too long, and those beyond the size; all where there are no rules any more.
    pub(super) fn expire(&self, rules: Option<&PersistConfig>, now: Instant) {
        let mut entries = self.entries();
        let Some(rules) = rules else {
            if !entries.clients.is_empty() {
                entries.clients = LruCache::unbounded();
            }
            return;
        };
        for _ in 0..EXPIRED_AT_ONCE {
            let is_over = entries.clients.len() > rules.size.get() as usize;
            match entries.clients.peek_lru() {
                Some((_, entry)) if !is_over && entry.is_fresh(rules, now) => return,
                Some((client, entry)) if !is_over && entries.is_held(entry) => {
                    let client = *client;
                    // It is seen now, and is not looked at again for `ttl`.
                    entries.clients.get_mut(&client).into_iter().for_each(|entry| entry.seen = now);
                }
                Some(_) => drop(entries.clients.pop_lru()),
                None => return,
            }
        }
    }

    /// Clients that are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries().clients.len()
    }

    fn entries(&self) -> MutexGuard<'_, PersistEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PersistEntries {
    fn get(&self, client: u64, rules: &PersistConfig, now: Instant) -> Option<BackendId> {
        let entry = self.clients.peek(&client)?;
        (self.is_held(entry) || entry.is_fresh(rules, now)).then_some(entry.backend)
    }

    fn put(&mut self, client: u64, backend: BackendId, rules: &PersistConfig, now: Instant) -> HoldId {
        let known = self.clients.peek(&client).map(|known| known.id);
        let id = known.unwrap_or_else(|| {
            // After four billion, numbers come again: by then nothing holds an entry that had the same.
            self.issued = self.issued.wrapping_add(1);
            HoldId(NonZeroU32::new(self.issued).unwrap_or(NonZeroU32::MIN))
        });
        self.clients.put(client, Persistent { backend, seen: now, id });
        while self.clients.len() > rules.size.get() as usize {
            self.clients.pop_lru();
        }
        id
    }

    /// Whether the client has a connection.
    fn is_held(&self, entry: &Persistent) -> bool {
        self.holds.contains_key(&entry.id)
    }
}

impl Persistent {
    fn is_fresh(&self, rules: &PersistConfig, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < rules.ttl
    }
}

#[cfg(test)]
mod tests {
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
                        holds.push(table.hold(client, backends[backend], &rules, now));
                        let number = model.set(client, backend, &rules, now);
                        model.open.push((client, backend, number));
                    }
                    PersistStep::End(_) | PersistStep::GiveUp(_) if holds.is_empty() => {}
                    PersistStep::End(which) => {
                        let (client, backend, _) = model.open[which.index(holds.len())];
                        table.ended(client, backends[backend], &rules, now);
                        let last = model.get(client, &rules, now).unwrap_or(backend);
                        model.set(client, last, &rules, now);
                        table.release(holds.remove(which.index(holds.len())));
                        model.open.remove(which.index(model.open.len()));
                    }
                    PersistStep::GiveUp(which) => {
                        table.release(holds.remove(which.index(holds.len())));
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
            holds.into_iter().for_each(|hold| table.release(hold));
            now += rules.ttl;
            table.expire(Some(&rules), now);
            prop_assert_eq!(table.len(), 0);
            prop_assert!(table.entries().holds.is_empty(), "nothing stays of connections that are gone");
        }
    }

    #[test]
    fn without_rules_nothing_is_kept() {
        let (table, rules, now) = (PersistTable::default(), rules(10, 5), Instant::now());
        table.hold(1, Registry::default().backend(), &rules, now);
        table.expire(None, now);
        assert_eq!(table.len(), 0);
    }
}
