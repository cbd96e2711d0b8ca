//! Pacing: a bandwidth limit for each direction of a connection.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What may be sent at once after a pause, in time at the rate: 2.5 % of what a second allows.
const BURST: Duration = Duration::from_millis(25);

const NANOS: u128 = 1_000_000_000;

/// The pacers of a connection. Times are the caller's.
#[derive(Debug)]
pub struct Pacing {
    pub(super) to_backend: Pacer,
    pub(super) to_client: Pacer,
}

impl Pacing {
    /// For `rate` bytes a second in each direction.
    pub fn new(rate: NonZeroU64) -> Pacing {
        Pacing { to_backend: Pacer::new(rate), to_client: Pacer::new(rate) }
    }

    /// When a direction that was held back goes on; `None` if none was.
    pub fn wake_at(&self) -> Option<Instant> {
        [&self.to_backend, &self.to_client].into_iter().filter_map(Pacer::wake_at).min()
    }
}

/// The generic cell rate algorithm (ITU-T I.371) over bytes.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: NonZeroU64,
    /// When what was sent so far is paid for at the rate.
    paid_at: Cell<Option<Instant>>,
    held: Cell<bool>,
}

impl Pacer {
    fn new(rate: NonZeroU64) -> Pacer {
        Pacer { rate, paid_at: Cell::new(None), held: Cell::new(false) }
    }

    /// Bytes that may be read now: none until half a burst is allowed, so that a slow connection wakes 80 times a second at most.
    pub(super) fn allowance(&self, now: Instant) -> usize {
        self.held.set(false);
        let earned = match self.paid_at.get() {
            None => self.burst(),
            Some(paid_at) => (now + self.burst()).saturating_duration_since(paid_at).min(self.burst()),
        };
        if earned < self.burst() / 2 {
            return 0;
        }
        // At least one byte, whose time `burst` is not below.
        usize::try_from(earned.as_nanos() * u128::from(self.rate.get()) / NANOS).unwrap_or(usize::MAX).max(1)
    }

    /// Bytes that were read, and whether more may have been there.
    pub(super) fn spend(&self, bytes: usize, held: bool, now: Instant) {
        self.held.set(held);
        if bytes > 0 {
            let paid_at = self.paid_at.get().map_or(now, |at| at.max(now));
            self.paid_at.set(Some(paid_at + self.time_of(bytes as u64)));
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let paid_at = self.paid_at.get().filter(|_| self.held.get())?;
        paid_at.checked_sub(self.burst() / 2)
    }

    /// The longer of [`BURST`] and the time of two bytes.
    fn burst(&self) -> Duration {
        BURST.max(self.time_of(2))
    }

    fn time_of(&self, bytes: u64) -> Duration {
        // Within 64 bits: a turn's bytes at one byte a second are less than 600 years.
        Duration::from_nanos((u128::from(bytes) * NANOS).div_ceil(self.rate.get().into()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Bytes of a sender that always has some, when it is asked at each wake, and late by up to a millisecond.
    fn sent(rate: u64, until: Duration, late_us: &[u64]) -> Vec<(Duration, usize)> {
        let pacer = Pacer::new(NonZeroU64::new(rate).unwrap());
        let begin = Instant::now();
        let (mut now, mut sent, mut late) = (begin, Vec::new(), late_us.iter().cycle());
        while now < begin + until {
            // Turns of 256 KiB.
            let bytes = pacer.allowance(now).min(256 * 1024);
            pacer.spend(bytes, true, now);
            sent.push((now - begin, bytes));
            now = now.max(pacer.wake_at().unwrap()) + Duration::from_micros(late.next().unwrap() + 1);
        }
        sent
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn each_second_has_the_rate_within_five_percent(
            rate in prop_oneof![10_000_u64..1_000_000, 1_000_000_u64..200_000_000],
            late_us in prop::collection::vec(0_u64..1_000, 1..20),
        ) {
            let sent = sent(rate, SECOND * 3, &late_us);
            for start in 0..20 {
                let from = SECOND * start / 10;
                let bytes: usize = sent.iter().filter(|(at, _)| (from..from + SECOND).contains(at)).map(|(_, n)| n).sum();
                let ratio = bytes as f64 / rate as f64;
                prop_assert!((0.95..=1.05).contains(&ratio), "{} of the rate from {:?}", ratio, from);
            }
            let longest = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
            prop_assert!(longest <= Duration::from_millis(30), "{:?}", longest);
        }
    }

    #[test]
    fn slow_rates_send_single_bytes() {
        let total = |rate, seconds| sent(rate, SECOND * seconds, &[0]).iter().map(|(_, bytes)| bytes).sum::<usize>();
        assert!((10..=12).contains(&total(1, 10)), "{}", total(1, 10));
        assert!((300..=303).contains(&total(30, 10)), "{}", total(30, 10));
    }

    #[test]
    fn only_what_was_held_back_wakes() {
        let (pacer, now) = (Pacer::new(NonZeroU64::new(1000).unwrap()), Instant::now());
        assert_eq!((pacer.allowance(now), pacer.wake_at()), (25, None));
        pacer.spend(25, false, now);
        assert_eq!(pacer.wake_at(), None);
        assert_eq!(pacer.allowance(now), 0);
        pacer.spend(0, true, now);
        assert_eq!(pacer.wake_at(), Some(now + BURST / 2));
        assert_eq!(pacer.allowance(now + SECOND), 25, "no more than a burst, however long the pause");
    }
}
