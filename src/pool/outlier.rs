//! Outlier detection: which backends fail for clients, and for how long they are left out. Decides only; reads no clock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::model::OutlierConfig;

/// Failures of one kind of a backend, counted by all workers.
#[derive(Debug, Default)]
pub(super) struct Failures {
    in_a_row: AtomicU32,
    /// When the last ones were, the oldest first: at most as many as eject.
    recent: Mutex<VecDeque<Instant>>,
}

impl Failures {
    /// Counts one more. True if there are enough of them to eject the backend.
    pub(super) fn failed(&self, rules: &OutlierConfig, now: Instant) -> bool {
        let limit = rules.failures.get();
        let Some(window) = rules.window else {
            return self.in_a_row.fetch_add(1, Relaxed).saturating_add(1) >= limit;
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(now);
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > window;
        while recent.len() > limit as usize || recent.front().is_some_and(is_old) {
            recent.pop_front();
        }
        recent.len() >= limit as usize
    }

    /// Ends a row of failures.
    pub(super) fn succeeded(&self) {
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// Forgets them.
    pub(super) fn clear(&self) {
        self.in_a_row.store(0, Relaxed);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Ejections of a backend: the present one, and how many came in close succession.
#[derive(Clone, Debug, Default)]
pub(super) struct Ejections {
    until: Option<Instant>,
    /// Multiplies the length of the next ejection, less one.
    succession: u32,
    /// When the last one ended.
    ended: Option<Instant>,
    /// Health checks passed in a row since it began.
    passes: u32,
}

impl Ejections {
    /// Whether the backend is ejected.
    pub(super) fn is_ejected(&self) -> bool {
        self.until.is_some()
    }

    /// Ejects the backend; returns for how long. The n-th ejection in close succession lasts n times `ejection`; each `ejection`
    /// of time without one takes one off, as with Envoy's outlier detection.
    pub(super) fn begin(&mut self, rules: &OutlierConfig, now: Instant) -> Duration {
        if let Some(ended) = self.ended {
            let quiet = now.saturating_duration_since(ended).as_nanos() / rules.ejection.as_nanos().max(1);
            self.succession = self.succession.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX));
        }
        self.succession = self.succession.saturating_add(1);
        let length = rules.ejection.saturating_mul(self.succession).min(rules.max_ejection);
        // More would only delay the way back.
        self.succession = self.succession.min(rules.max_ejection.div_duration_f64(rules.ejection).ceil() as u32);
        (self.until, self.passes) = (Some(now + length), 0);
        length
    }

    /// When the present one ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// A health check passed. True if that is the `rise`-th in a row, which ends the ejection.
    pub(super) fn passed(&mut self, rise: u32) -> bool {
        self.passes += 1;
        self.passes >= rise
    }

    /// A health check failed.
    pub(super) fn check_failed(&mut self) {
        self.passes = 0;
    }

    /// Ends the present one.
    pub(super) fn end(&mut self, now: Instant) {
        (self.until, self.ended) = (None, Some(now));
    }
}

/// How many of `backends` may be ejected at once.
pub(super) fn most_ejected(rules: &OutlierConfig, backends: usize) -> usize {
    backends * usize::from(rules.max_ejected) / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::testing::outlier;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_eject_and_a_success_ends_the_row() {
        let (failures, rules, now) = (Failures::default(), outlier(3, Duration::ZERO), Instant::now());
        assert_eq!([failures.failed(&rules, now), failures.failed(&rules, now)], [false, false]);
        failures.succeeded();
        assert_eq!([0; 3].map(|_| failures.failed(&rules, now)), [false, false, true]);
        failures.clear();
        assert!(!failures.failed(&rules, now));
    }

    #[test]
    fn share_of_backends_is_rounded_down() {
        let rules = outlier(1, Duration::ZERO); // 50 %
        assert_eq!([0, 1, 2, 3, 4, 5].map(|backends| most_ejected(&rules, backends)), [0, 0, 1, 1, 2, 2]);
        let all = OutlierConfig { max_ejected: 100, ..rules };
        assert_eq!(most_ejected(&all, 3), 3);
    }

    #[test]
    fn ejections_grow_to_the_maximum_and_shrink_with_quiet_time() {
        let rules = OutlierConfig { ejection: SECOND * 10, max_ejection: SECOND * 25, ..outlier(1, Duration::ZERO) };
        let (mut ejections, mut now) = (Ejections::default(), Instant::now());
        let mut next = |quiet: u32| {
            now += SECOND * quiet;
            let length = ejections.begin(&rules, now);
            assert!(ejections.is_ejected() && !ejections.is_over(now) && ejections.is_over(now + length));
            now += length;
            ejections.end(now);
            assert!(!ejections.is_ejected());
            length.as_secs()
        };
        assert_eq!([next(0), next(1), next(9), next(0)], [10, 20, 25, 25]);
        assert_eq!([next(10), next(20), next(1000)], [25, 20, 10]);
    }

    #[test]
    fn health_checks_in_a_row_end_one() {
        let (mut ejections, rules) = (Ejections::default(), outlier(1, Duration::ZERO));
        ejections.begin(&rules, Instant::now());
        assert!(!ejections.passed(2));
        ejections.check_failed();
        assert_eq!([ejections.passed(2), ejections.passed(2)], [false, true]);
    }

    proptest! {
        /// Against a list of all failures so far.
        #[test]
        fn window_counts_what_is_in_it(
            steps in prop::collection::vec(0_u64..4_000, 1..60),
            limit in 1_u32..6,
            window_ms in 1_u64..5_000,
        ) {
            let window = Duration::from_millis(window_ms);
            let (failures, rules) = (Failures::default(), outlier(limit, window));
            let (mut now, mut all) = (Instant::now(), Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                all.push(now);
                let within = all.iter().filter(|&&at| now - at <= window).count();
                prop_assert_eq!(failures.failed(&rules, now), within >= limit as usize);
                prop_assert!(failures.recent.lock().unwrap().len() <= limit as usize);
            }
        }
    }
}
