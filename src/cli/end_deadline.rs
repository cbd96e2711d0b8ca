//! When a process that was asked to end must be gone, also if its control thread is stuck. Pure.

use std::time::Duration;

use tidegate::config::model::Shutdown;
use tokio::time::Instant;

/// From a request to end until it is carried out without the control thread, when that one does not move.
const UNHEEDED: Duration = Duration::from_millis(500);

/// What a drain takes beyond its deadline: connections are closed, and their ends are logged.
const DRAIN_END: Duration = Duration::from_secs(2);

/// The deadline, by the requests so far.
#[derive(Debug, Default)]
pub(super) struct EndDeadline {
    stage: u32,
    at: Option<Instant>,
    delay_end: Option<Instant>,
    /// When the first request came, if that was before anything was accepted.
    early: Option<Instant>,
}

impl EndDeadline {
    /// `None` before a request, and for a drain without end.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// A request to end. `accepts`: there may be connections, which it drains.
    pub(super) fn request(&mut self, now: Instant, accepts: bool, Shutdown { delay, drain }: &Shutdown) {
        let drain = drain.saturating_add(DRAIN_END);
        // Within the delay, a request ends the delay, and the drain begins.
        let limit = if self.delay_end.take().is_some_and(|end| now < end) {
            drain
        } else {
            self.stage += 1;
            self.early = None;
            match self.stage {
                1 if accepts => {
                    // The control thread begins to count a little later.
                    let counted = delay.saturating_add(UNHEEDED);
                    self.delay_end = (!delay.is_zero()).then(|| now.checked_add(counted)).flatten();
                    delay.saturating_add(drain)
                }
                1 => {
                    self.early = Some(now);
                    UNHEEDED
                }
                2 => UNHEEDED,
                _ => Duration::ZERO,
            }
        };
        self.at = now.checked_add(limit);
    }

    /// The deadline has passed. Whether the process must end: not if the request came while the first listeners opened, as what
    /// they have accepted since drains.
    pub(super) fn is_overdue(&mut self, accepts: bool, Shutdown { delay, drain }: &Shutdown) -> bool {
        let Some(asked) = self.early.take().filter(|_| accepts) else { return true };
        self.at = asked.checked_add(delay.saturating_add(*drain).saturating_add(DRAIN_END));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn shutdown(delay: u64) -> Shutdown {
        Shutdown { delay: SECOND * delay as u32, drain: SECOND * 30 }
    }

    fn after(deadline: &EndDeadline, start: Instant) -> Duration {
        deadline.at().unwrap() - start
    }

    #[test]
    fn request_drains_a_second_one_ends_that_and_a_third_ends_at_once() {
        let (mut deadline, now) = (EndDeadline::default(), Instant::now());
        assert_eq!(deadline.at(), None);
        deadline.request(now, true, &shutdown(0));
        assert_eq!(after(&deadline, now), SECOND * 32);
        deadline.request(now + SECOND, true, &shutdown(0));
        assert_eq!(after(&deadline, now), SECOND + UNHEEDED);
        deadline.request(now + SECOND, true, &shutdown(0));
        assert_eq!(after(&deadline, now), SECOND);
        assert!(deadline.is_overdue(true, &shutdown(0)));
    }

    #[test]
    fn request_within_the_delay_begins_the_drain() {
        let (mut deadline, now) = (EndDeadline::default(), Instant::now());
        deadline.request(now, true, &shutdown(5));
        assert_eq!(after(&deadline, now), SECOND * 37);
        deadline.request(now + SECOND, true, &shutdown(5));
        assert_eq!(after(&deadline, now), SECOND * 33);
        deadline.request(now + SECOND, true, &shutdown(5));
        assert_eq!(after(&deadline, now), SECOND + UNHEEDED);
    }

    #[test]
    fn early_request_has_the_time_of_a_drain_if_listeners_have_opened_meanwhile() {
        let (mut deadline, now) = (EndDeadline::default(), Instant::now());
        deadline.request(now, false, &shutdown(0));
        assert_eq!(after(&deadline, now), UNHEEDED);
        assert!(!deadline.is_overdue(true, &shutdown(3)), "connections drain");
        assert_eq!(after(&deadline, now), SECOND * 35, "counted from the request");
        assert!(deadline.is_overdue(true, &shutdown(3)), "once");
    }

    #[test]
    fn early_request_ends_what_accepts_nothing_and_a_second_one_what_does() {
        let now = Instant::now();
        let early = || {
            let mut deadline = EndDeadline::default();
            deadline.request(now, false, &shutdown(3));
            deadline
        };
        assert!(early().is_overdue(false, &shutdown(3)));
        let mut deadline = early();
        deadline.request(now, true, &shutdown(3));
        assert!(deadline.is_overdue(true, &shutdown(3)));
    }
}
