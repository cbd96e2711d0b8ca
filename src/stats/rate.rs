//! How many a second: from looks at a counter that is kept anyway, so that whatever is counted pays nothing for it.
//! Pure: what has passed comes in.

use std::time::{Duration, SystemTime};

/// A counter that only grows, looked at now and then: how fast it does, and when it last did.
#[derive(Clone, Debug, Default)]
pub struct RateCounter {
    /// As of the last look.
    count: u64,
    grew: Option<SystemTime>,
    /// Where it was when the second began that is not over.
    began: u64,
    /// How much it grew in the second before.
    before: u64,
    /// The most that it grew in a second that is over.
    most: u64,
}

impl RateCounter {
    /// It stands there now.
    pub fn observe(&mut self, count: u64, now: SystemTime) {
        if count > self.count {
            self.count = count;
            self.grew = Some(now);
        }
    }

    /// The second is over. In truth so much has `passed`: who looks may come late.
    pub fn tick(&mut self, passed: Duration) {
        self.before = self.in_a_second(passed);
        self.most = self.most.max(self.before);
        self.began = self.count;
    }

    /// How much it grew in the last second, of which so much has `passed` since the one before was over: of that one the
    /// rest, as if it had been even.
    pub fn rate(&self, passed: Duration) -> u64 {
        let rest = (1.0 - passed.as_secs_f64()).max(0.0);
        self.in_a_second(passed) + (self.before as f64 * rest).round() as u64
    }

    /// The most that it ever grew in a second, the one that is not over among them.
    pub fn most(&self, passed: Duration) -> u64 {
        self.most.max(self.in_a_second(passed))
    }

    /// When it was last seen to have grown.
    pub fn grew(&self) -> Option<SystemTime> {
        self.grew
    }

    /// How much it grew in this second; when that is long over, in one of those that have passed since at least.
    fn in_a_second(&self, passed: Duration) -> u64 {
        ((self.count - self.began) as f64 / passed.as_secs_f64().max(1.0)).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// One that grew by so much in each second.
    fn after(seconds: &[u64]) -> RateCounter {
        let (mut counter, mut count) = (RateCounter::default(), 0);
        for more in seconds {
            count += more;
            counter.observe(count, UNIX_EPOCH);
            counter.tick(SECOND);
        }
        counter
    }

    #[test]
    fn the_most_is_that_of_the_best_second() {
        assert_eq!(after(&[]).most(Duration::ZERO), 0);
        assert_eq!(after(&[3, 40, 0, 7]).most(SECOND / 2), 40);
        let mut counter = after(&[3, 40, 0, 7]);
        counter.observe(50 + 41, UNIX_EPOCH);
        assert_eq!(counter.most(SECOND / 10), 41, "also when it is not over");
        counter.tick(SECOND);
        assert_eq!(counter.most(Duration::ZERO), 41);
    }

    #[test]
    fn who_comes_late_makes_no_second_of_several() {
        let mut counter = after(&[10]);
        counter.observe(10 + 45, UNIX_EPOCH);
        let late = SECOND * 3;
        assert_eq!((counter.rate(late), counter.most(late)), (15, 15));
        counter.tick(late);
        assert_eq!((counter.rate(Duration::ZERO), counter.most(Duration::ZERO)), (15, 15));
        counter.observe(10 + 45 + 1, UNIX_EPOCH);
        assert_eq!(counter.rate(SECOND * 100), 1, "what was there is never nothing");
    }

    #[test]
    fn the_rate_is_that_of_the_last_second_and_not_of_what_has_begun() {
        let mut counter = after(&[100, 20]);
        assert_eq!(counter.rate(Duration::ZERO), 20);
        assert_eq!(counter.rate(SECOND / 4), 15);
        counter.observe(120 + 8, UNIX_EPOCH);
        assert_eq!(counter.rate(SECOND / 4), 8 + 15);
        assert_eq!(counter.rate(SECOND), 8);
        counter.tick(SECOND);
        counter.tick(SECOND);
        assert_eq!(counter.rate(Duration::ZERO), 0);
    }

    #[test]
    fn it_grew_when_it_was_seen_to() {
        let at = |seconds| UNIX_EPOCH + SECOND * seconds;
        let mut counter = RateCounter::default();
        counter.observe(0, at(1));
        assert_eq!(counter.grew(), None);
        for (count, now, grew) in [(2, 2, 2), (2, 3, 2), (3, 4, 4)] {
            counter.observe(count, at(now));
            assert_eq!(counter.grew(), Some(at(grew)));
        }
        counter.tick(SECOND);
        assert_eq!(counter.grew(), Some(at(4)));
    }
}
