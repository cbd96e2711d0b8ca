//! Answers take little of the CPU, however many ask: what they take beyond a share of it is waited for.
//!
//! The thread's low priority is not enough for that. While it is in the kernel, where sending is, a worker that shares its
//! CPU waits.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// The share of one CPU that answers may take for long, 1 %, unless they take long each ...
const SHARE: f64 = 0.01;
/// ... as nobody waits longer than this for his turn to come.
const LONGEST: Duration = Duration::from_millis(100);
/// What they may take at once, in seconds of CPU time, after a time in which nobody asked.
const AT_ONCE: f64 = 0.25;
/// What it takes to send an answer, and to receive the next question, as a part of what it takes to make it.
const SENDING: f64 = 0.5;

/// How much of the CPU answers have taken.
#[derive(Debug)]
pub(super) struct Pace {
    /// CPU time that may be taken, in seconds; below zero, it is waited for.
    left: Cell<f64>,
    at: Cell<Instant>,
    /// One answer is made at a time, in the order in which they were asked for.
    turn: Mutex<()>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { left: Cell::new(AT_ONCE), at: Cell::new(now), turn: Mutex::default() }
    }

    /// How long to wait before another answer is made.
    fn wait(&self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at.replace(now));
        self.left.set((self.left.get() + passed.as_secs_f64() * SHARE).min(AT_ONCE));
        Duration::from_secs_f64((-self.left.get() / SHARE).max(0.0))
    }

    fn spend(&self, cpu_time: f64) {
        let least = -SHARE * LONGEST.as_secs_f64();
        self.left.set((self.left.get() - cpu_time * (1.0 + SENDING)).max(least));
    }

    /// Makes an answer; before that, waits until there is CPU time for it, if it may wait.
    pub(super) async fn made<T>(&self, may_wait: bool, answer: impl Future<Output = T>) -> T {
        let _turn = if may_wait { Some(self.turn.lock().await) } else { None };
        let wait = self.wait(Instant::now());
        if may_wait && !wait.is_zero() {
            sleep(wait).await;
        }
        let before = cpu_time();
        let answer = answer.await;
        self.spend(cpu_time() - before);
        answer
    }
}

/// CPU time of this thread, in seconds.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_long_answers_take_no_more_than_their_share() {
        let start = Instant::now();
        let (pace, mut now, mut spent) = (Pace::new(start), start, 0.0);
        for _ in 0..10_000 {
            now += pace.wait(now);
            assert!(pace.wait(now) < Duration::from_micros(1));
            pace.spend(0.0005);
            spent += 0.0005 * (1.0 + SENDING);
        }
        let share = (spent - AT_ONCE) / (now - start).as_secs_f64();
        assert!((share - SHARE).abs() < SHARE / 50.0, "{share}");
    }

    #[test]
    fn nobody_waits_long_for_his_turn() {
        let start = Instant::now();
        let pace = Pace::new(start);
        (0..10).for_each(|_| pace.spend(1.0));
        let wait = pace.wait(start);
        assert!(wait.abs_diff(LONGEST) < Duration::from_micros(1), "{wait:?}");
    }

    #[test]
    fn who_asks_seldom_does_not_wait() {
        let (start, cost) = (Instant::now(), 0.07);
        let pace = Pace::new(start);
        for second in (0..1000).step_by(10) {
            assert_eq!(pace.wait(start + Duration::from_secs(second)), Duration::ZERO, "{second}");
            pace.spend(cost);
        }
        // And what was not used is not saved up for ever.
        pace.wait(start + Duration::from_secs(100_000));
        assert_eq!(pace.left.get(), AT_ONCE);
    }
}
