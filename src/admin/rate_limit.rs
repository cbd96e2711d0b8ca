//! The generic cell rate algorithm (ITU-T I.371, virtual scheduling) for what the admin interface does itself.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// An event per interval on average, and a burst of events after a pause.
#[derive(Debug)]
pub(super) struct RateLimit {
    interval: Duration,
    /// How far the schedule may run ahead of the clock.
    tolerance: Duration,
    /// When the next event is due if events are spaced evenly.
    due: Cell<Instant>,
}

impl RateLimit {
    /// `burst` is at least 1.
    pub(super) fn new(interval: Duration, burst: u32, now: Instant) -> RateLimit {
        RateLimit { interval, tolerance: interval * burst.saturating_sub(1), due: Cell::new(now) }
    }

    /// Waits until the next event may happen, and counts it. Does not count it when dropped before.
    pub(super) async fn acquire(&self) {
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            sleep_until(Instant::now() + wait).await;
        }
        self.take(Instant::now());
    }

    fn wait(&self, now: Instant) -> Duration {
        self.due.get().saturating_duration_since(now + self.tolerance)
    }

    fn take(&self, now: Instant) {
        self.due.set(self.due.get().max(now) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn burst_then_one_per_interval() {
        let start = Instant::now();
        let limit = RateLimit::new(INTERVAL, 3, start);
        let mut times = Vec::new();
        for _ in 0..6 {
            limit.acquire().await;
            times.push(start.elapsed().as_millis());
        }
        assert_eq!(times, [0, 0, 0, 100, 200, 300]);
        sleep_until(start + Duration::from_secs(100)).await;
        let later = Instant::now();
        for _ in 0..4 {
            limit.acquire().await;
        }
        assert_eq!(later.elapsed(), INTERVAL, "a long pause saves up one burst and no more");
    }
}
