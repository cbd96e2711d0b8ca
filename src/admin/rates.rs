//! How many connections and requests begin in a second, and when the last one did: by a look at the counters each second,
//! and before each view.

use std::time::{Duration, Instant, SystemTime};

use super::view::Rate;
use crate::pool::Pool;
use crate::server::Shared;
use crate::stats::http::HttpCounts;
use crate::stats::latency::{Latencies, Measured};
use crate::stats::rate::Meter;

/// A look that comes earlier does not end a second: the one before it was late.
const LEAST: Duration = Duration::from_millis(500);

/// Of each listener, pool and backend.
#[derive(Debug)]
pub(super) struct Rates {
    /// When the second began that is not over.
    turned: Instant,
    /// How much of it had passed at the last look.
    passed: Duration,
    listeners: Vec<Meter>,
    /// HTTP's, by listener.
    requests: Vec<Meter>,
    pools: Vec<Meter>,
    /// Of all pools, one after the other.
    backends: Vec<Meter>,
}

impl Rates {
    pub(super) fn new(shared: &Shared, now: Instant) -> Rates {
        let none = |count| vec![Meter::default(); count];
        let (listeners, pools) = (shared.listeners().len(), shared.pools().len());
        let backends = shared.pools().iter().map(|pool| pool.backends().len()).sum();
        Rates {
            turned: now,
            passed: Duration::ZERO,
            listeners: none(listeners),
            requests: none(listeners),
            pools: none(pools),
            backends: none(backends),
        }
    }

    /// Looks at the counters.
    pub(super) fn look(&mut self, shared: &Shared, latencies: &Latencies, now: Instant) {
        self.passed = now.saturating_duration_since(self.turned);
        let now = SystemTime::now();
        let listeners = self.listeners.iter_mut().zip(&mut self.requests);
        for (place, (listener, (sessions, requests))) in shared.listeners().iter().zip(listeners).enumerate() {
            sessions.look(listener.counters().accepted(), now);
            let http = latencies.listener(place).and_then(Measured::http);
            requests.look(http.map_or(0, HttpCounts::requests), now);
        }
        let mut backends = self.backends.iter_mut();
        for (pool, meter) in shared.pools().iter().zip(&mut self.pools) {
            for (backend, meter) in pool.backends().iter().zip(&mut backends) {
                meter.look(backend.counters().connections(), now);
            }
            meter.look(sessions(pool), now);
        }
    }

    /// A second may be over, after a look.
    pub(super) fn turn(&mut self) {
        if self.passed < LEAST {
            return;
        }
        for meters in [&mut self.listeners, &mut self.requests, &mut self.pools, &mut self.backends] {
            meters.iter_mut().for_each(|meter| meter.turn(self.passed));
        }
        self.turned += self.passed;
        self.passed = Duration::ZERO;
    }

    /// Connections accepted.
    pub(super) fn listener(&self, place: usize) -> Rate {
        self.of(self.listeners.get(place))
    }

    /// Requests of HTTP.
    pub(super) fn requests(&self, listener: usize) -> Rate {
        self.of(self.requests.get(listener))
    }

    /// Connections that were for the pool, whether they got a backend or not.
    pub(super) fn pool(&self, place: usize) -> Rate {
        self.of(self.pools.get(place))
    }

    /// Connections that the backend was given.
    pub(super) fn backend(&self, place: usize) -> Rate {
        self.of(self.backends.get(place))
    }

    /// When the backend was given its last connection.
    pub(super) fn last_session(&self, backend: usize) -> Option<SystemTime> {
        self.backends.get(backend)?.grew()
    }

    fn of(&self, meter: Option<&Meter>) -> Rate {
        meter.map(|meter| Rate { now: meter.rate(self.passed), max: meter.most(self.passed) }).unwrap_or_default()
    }
}

fn sessions(pool: &Pool) -> u64 {
    pool.refused() + pool.backends().iter().map(|backend| backend.counters().connections()).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::PoolIndex;
    use crate::pool::testing::{backends, pool};

    const SECOND: Duration = Duration::from_secs(1);

    /// A pool of two backends, and what looks at it.
    fn observed(start: Instant) -> (std::sync::Arc<Shared>, Rates) {
        let pools = vec![Pool::new(&pool(backends(&[1, 1])), PoolIndex(0), 1)];
        let shared = Shared::new(pools, Vec::new(), Vec::new(), 1, 10);
        let rates = Rates::new(&shared, start);
        (shared, rates)
    }

    #[test]
    fn a_pool_is_more_than_its_busiest_backend() {
        let start = Instant::now();
        let (shared, mut rates) = observed(start);
        let (latencies, pool) = (Latencies::new(0, &[2]), &shared.pools()[0]);
        let mut second = |at: u32, counts: [usize; 2], refused: usize| {
            for (backend, count) in pool.backends().iter().zip(counts) {
                (0..count).for_each(|_| backend.counters().connected());
            }
            (0..refused).for_each(|_| pool.record_refusal());
            rates.look(&shared, &latencies, start + SECOND * at);
            rates.turn();
            [rates.backend(0), rates.backend(1), rates.pool(0)].map(|rate| (rate.now, rate.max))
        };
        assert_eq!(second(1, [0, 0], 0), [(0, 0); 3]);
        assert_eq!(second(2, [5, 1], 0), [(5, 5), (1, 1), (6, 6)]);
        // Not the sum of the most of each: that was never in one second.
        assert_eq!(second(3, [0, 4], 3), [(0, 5), (4, 4), (7, 7)]);
        assert_eq!(second(4, [0, 0], 0), [(0, 5), (0, 4), (0, 7)]);
        assert!(rates.last_session(0).is_some() && rates.last_session(2).is_none());
    }

    #[test]
    fn the_second_that_is_not_over_counts_too() {
        let start = Instant::now();
        let (shared, mut rates) = observed(start);
        let (latencies, backend) = (Latencies::new(0, &[2]), &shared.pools()[0].backends()[1]);
        rates.look(&shared, &latencies, start + SECOND / 4);
        assert_eq!((rates.backend(1), rates.last_session(1)), (Rate::default(), None));
        (0..3).for_each(|_| backend.counters().connected());
        rates.look(&shared, &latencies, start + SECOND / 4);
        assert_eq!(rates.backend(1), Rate { now: 3, max: 3 });
        assert!(rates.last_session(0).is_none() && rates.last_session(1).is_some());
        // A tick that follows one that was late makes no second of a quarter.
        rates.turn();
        (0..3).for_each(|_| backend.counters().connected());
        rates.look(&shared, &latencies, start + SECOND);
        rates.turn();
        assert_eq!(rates.backend(1), Rate { now: 6, max: 6 });
    }
}
