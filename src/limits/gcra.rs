//! Rate limit: a number of events per period, evenly, and as many at once after a pause.
//!
//! A token bucket, written as the generic cell rate algorithm (ITU-T I.371, its virtual scheduling form): all that there is
//! to remember is one moment, at which the bucket would be full again.

use std::time::Duration;

use crate::config::model::Rate;

/// The nanoseconds of a clock of the caller's, from a start of its own.
pub(super) type Nanos = u64;

/// A rate, prepared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gcra {
    /// From one to the next.
    interval: Nanos,
    /// In which a bucket that is empty fills.
    span: Nanos,
}

impl Gcra {
    pub(super) fn new(rate: Rate) -> Gcra {
        let count = u64::from(rate.count.get());
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(Nanos::MAX);
        // A rate of more than one a nanosecond is none.
        let interval = (per / count).max(1);
        Gcra { interval, span: interval.saturating_mul(count) }
    }

    /// In which a bucket that is empty fills: what was last used so long ago is as good as new.
    pub(super) fn span(self) -> Nanos {
        self.span
    }

    /// Takes one of a bucket that is full again at `full_at`: when it then is.
    ///
    /// # Errors
    /// It is empty, for so long.
    pub(super) fn take(self, full_at: Nanos, now: Nanos) -> Result<Nanos, Duration> {
        // Emptier than empty is one of a slower rate from before.
        let full_at = full_at.clamp(now, now.saturating_add(self.span)).saturating_add(self.interval);
        match full_at.saturating_sub(now.saturating_add(self.span)) {
            0 => Ok(full_at),
            wait => Err(Duration::from_nanos(wait)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn pace(count: u32, per: Duration) -> Gcra {
        Gcra::new(Rate { count: NonZeroU32::new(count).unwrap(), per })
    }

    #[test]
    fn as_many_at_once_and_then_one_at_a_time() {
        let pace = pace(3, Duration::from_secs(1));
        let mut full_at = 0;
        let mut take = |now| pace.take(full_at, now).map(|next| full_at = next);
        let start = 10 * SECOND;
        assert_eq!([take(start), take(start), take(start)], [Ok(()); 3]);
        assert_eq!(take(start), Err(Duration::from_nanos(333_333_333)), "and what is refused is not counted");
        assert_eq!(take(start + 333_333_332), Err(Duration::from_nanos(1)));
        assert_eq!(take(start + 333_333_333), Ok(()));
        assert_eq!(take(start + 333_333_334), Err(Duration::from_nanos(333_333_332)));
        let later = start + 100 * SECOND;
        assert_eq!([take(later), take(later), take(later)], [Ok(()); 3]);
        assert!(take(later).is_err(), "a long pause saves up no more than that");
    }

    #[test]
    fn the_ends_of_the_range() {
        let fastest = pace(u32::MAX, Duration::from_secs(1));
        assert_eq!(fastest.take(0, 5), Ok(6));
        let slowest = pace(1, Duration::from_secs(3600));
        assert_eq!(slowest.take(0, 0), Ok(3600 * SECOND));
        // No longer than a whole bucket takes, whatever rate there was before.
        assert_eq!(slowest.take(Nanos::MAX, 0).unwrap_err(), Duration::from_secs(3600));
    }

    proptest! {
        /// No interval admits more than its burst and its refill, and the announced wait is never exceeded.
        #[test]
        fn never_more_than_the_rate(count in 1..50_u32, gaps in prop::collection::vec(0..SECOND / 10, 1..200)) {
            let pace = pace(count, Duration::from_secs(1));
            let (mut full_at, mut now, mut taken) = (0, 0, Vec::new());
            for gap in gaps {
                now += gap;
                match pace.take(full_at, now) {
                    Ok(next) => {
                        full_at = next;
                        taken.push(now);
                    }
                    Err(wait) => {
                        let then = now + wait.as_nanos() as u64;
                        prop_assert!(pace.take(full_at, then).is_ok());
                        prop_assert!(pace.take(full_at, then - 1).is_err());
                    }
                }
            }
            for (place, &first) in taken.iter().enumerate() {
                for (more, &last) in taken[place..].iter().enumerate() {
                    let came_back = (last - first) / (SECOND / u64::from(count));
                    prop_assert!((more as u64) < u64::from(count) + came_back, "{more} in {}", last - first);
                }
            }
        }
    }
}
