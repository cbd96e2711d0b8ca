//! How many connections and requests begin in a second, and when the last one did: by a look at the counters each second,
//! and before each snapshot.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::snapshot_model::RateStats;
use crate::pool::Pool;
use crate::server::DataPlane;
use crate::stats::http::HttpCounts;
use crate::stats::latency::{Latencies, Measured};
use crate::stats::queries::QueryCounts;
use crate::stats::rate::RateCounter;
use crate::stats::registry::{BackendId, ListenerId, PoolId};

/// A look that comes earlier does not end a second: the one before it was late.
const MIN_TICK: Duration = Duration::from_millis(500);

/// Of each listener, pool and backend.
#[derive(Debug)]
pub(super) struct Rates {
    /// When the second began that is not over.
    turned: Instant,
    /// How much of it had passed at the last look.
    passed: Duration,
    listeners: BTreeMap<ListenerId, ListenerRates>,
    pools: BTreeMap<PoolId, RateCounter>,
    backends: BTreeMap<BackendId, RateCounter>,
}

#[derive(Debug, Default)]
struct ListenerRates {
    connections: RateCounter,
    /// HTTP's.
    requests: RateCounter,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Rates {
        Rates {
            turned: now,
            passed: Duration::ZERO,
            listeners: BTreeMap::new(),
            pools: BTreeMap::new(),
            backends: BTreeMap::new(),
        }
    }

    /// Looks at the counters. What is gone is forgotten.
    pub(super) fn observe(&mut self, plane: &DataPlane, latencies: &Latencies, now: Instant) {
        self.passed = now.saturating_duration_since(self.turned);
        let now = SystemTime::now();
        let mut listeners = std::mem::take(&mut self.listeners);
        let mut pools = std::mem::take(&mut self.pools);
        let mut backends = std::mem::take(&mut self.backends);
        for listener in plane.listeners() {
            let mut rates = listeners.remove(&listener.id()).unwrap_or_default();
            rates.connections.observe(listener.counters().accepted(), now);
            let measured = latencies.listener(listener.id());
            let http = measured.and_then(Measured::http).map_or(0, HttpCounts::requests);
            let queries = measured.and_then(Measured::queries).map_or(0, QueryCounts::queries);
            rates.requests.observe(http + queries, now);
            self.listeners.insert(listener.id(), rates);
        }
        for pool in plane.pools() {
            for backend in pool.backends().iter() {
                let mut counter = backends.remove(&backend.id()).unwrap_or_default();
                counter.observe(backend.counters().connections(), now);
                self.backends.insert(backend.id(), counter);
            }
            let mut counter = pools.remove(&pool.id()).unwrap_or_default();
            counter.observe(sessions(&pool), now);
            self.pools.insert(pool.id(), counter);
        }
    }

    /// A second may be over, after a look.
    pub(super) fn tick(&mut self) {
        if self.passed < MIN_TICK {
            return;
        }
        let listeners = self.listeners.values_mut().flat_map(|rates| [&mut rates.connections, &mut rates.requests]);
        let counters = listeners.chain(self.pools.values_mut()).chain(self.backends.values_mut());
        counters.for_each(|counter| counter.tick(self.passed));
        self.turned += self.passed;
        self.passed = Duration::ZERO;
    }

    /// Connections accepted.
    pub(super) fn listener(&self, id: ListenerId) -> RateStats {
        self.of(self.listeners.get(&id).map(|rates| &rates.connections))
    }

    /// Requests of HTTP.
    pub(super) fn requests(&self, listener: ListenerId) -> RateStats {
        self.of(self.listeners.get(&listener).map(|rates| &rates.requests))
    }

    /// Connections that were for the pool, whether they got a backend or not.
    pub(super) fn pool(&self, id: PoolId) -> RateStats {
        self.of(self.pools.get(&id))
    }

    /// Connections that the backend was given.
    pub(super) fn backend(&self, id: BackendId) -> RateStats {
        self.of(self.backends.get(&id))
    }

    /// When the backend was given its last connection.
    pub(super) fn last_session(&self, backend: BackendId) -> Option<SystemTime> {
        self.backends.get(&backend)?.grew()
    }

    fn of(&self, counter: Option<&RateCounter>) -> RateStats {
        counter
            .map(|counter| RateStats { now: counter.rate(self.passed), max: counter.most(self.passed) })
            .unwrap_or_default()
    }
}

fn sessions(pool: &Pool) -> u64 {
    pool.refused()
        + pool.departed().connections
        + pool.backends().iter().map(|backend| backend.counters().connections()).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::pool::testing::{backends, pool};
    use crate::server::Members;
    use crate::stats::registry::Registry;

    const SECOND: Duration = Duration::from_secs(1);

    /// A pool of two backends, and what looks at it.
    fn observed(start: Instant) -> (std::sync::Arc<DataPlane>, Rates) {
        let pools = vec![Pool::new(pool(backends(&[1, 1])), &Registry::default(), 1)];
        let plane = DataPlane::new();
        plane.set_members(Members::new(Vec::new(), Vec::new(), pools, HashMap::new()));
        let rates = Rates::new(start);
        (plane, rates)
    }

    #[test]
    fn a_pool_is_more_than_its_busiest_backend() {
        let start = Instant::now();
        let (plane, mut rates) = observed(start);
        let (latencies, pool) = (Latencies::default(), &plane.pools()[0]);
        let ids: Vec<BackendId> = pool.backends().iter().map(|backend| backend.id()).collect();
        let mut second = |at: u32, counts: [usize; 2], refused: usize| {
            for (backend, count) in pool.backends().iter().zip(counts) {
                (0..count).for_each(|_| backend.counters().connected());
            }
            (0..refused).for_each(|_| pool.record_refusal());
            rates.observe(&plane, &latencies, start + SECOND * at);
            rates.tick();
            [rates.backend(ids[0]), rates.backend(ids[1]), rates.pool(pool.id())].map(|rate| (rate.now, rate.max))
        };
        assert_eq!(second(1, [0, 0], 0), [(0, 0); 3]);
        assert_eq!(second(2, [5, 1], 0), [(5, 5), (1, 1), (6, 6)]);
        // Not the sum of the most of each: that was never in one second.
        assert_eq!(second(3, [0, 4], 3), [(0, 5), (4, 4), (7, 7)]);
        assert_eq!(second(4, [0, 0], 0), [(0, 5), (0, 4), (0, 7)]);
        assert!(rates.last_session(ids[0]).is_some() && rates.last_session(BackendId::NONE).is_none());
    }

    #[test]
    fn the_second_that_is_not_over_counts_too() {
        let start = Instant::now();
        let (plane, mut rates) = observed(start);
        let (latencies, backends) = (Latencies::default(), plane.pools()[0].backends());
        let (other, backend) = (backends[0].id(), &backends[1]);
        rates.observe(&plane, &latencies, start + SECOND / 4);
        assert_eq!((rates.backend(backend.id()), rates.last_session(backend.id())), (RateStats::default(), None));
        (0..3).for_each(|_| backend.counters().connected());
        rates.observe(&plane, &latencies, start + SECOND / 4);
        assert_eq!(rates.backend(backend.id()), RateStats { now: 3, max: 3 });
        assert!(rates.last_session(other).is_none() && rates.last_session(backend.id()).is_some());
        // A tick that follows one that was late makes no second of a quarter.
        rates.tick();
        (0..3).for_each(|_| backend.counters().connected());
        rates.observe(&plane, &latencies, start + SECOND);
        rates.tick();
        assert_eq!(rates.backend(backend.id()), RateStats { now: 6, max: 6 });
    }
}
