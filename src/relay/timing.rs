//! When the backend answers, by the direction in which bytes move: nothing is parsed.

use std::time::{Duration, Instant};

/// What is timed of one pair of sockets.
#[derive(Debug)]
pub(super) struct Timing {
    first_byte: FirstByte,
    /// When the last byte was handed to the backend that nothing has come back for.
    asked: Option<Instant>,
    answered: Option<Duration>,
}

/// The backend's first byte.
#[derive(Clone, Copy, Debug)]
enum FirstByte {
    /// It is timed from then; by the client's first byte, or by the connect before that.
    Awaited { since: Instant, client_spoke: bool },
    /// It took so long.
    Came(Duration),
    /// And that was told.
    Told,
}

impl Timing {
    pub(super) fn new(now: Instant) -> Timing {
        Timing { first_byte: FirstByte::Awaited { since: now, client_spoke: false }, asked: None, answered: None }
    }

    /// What one turn has moved. `now` is when it began: what came from the backend was there then, and answers what
    /// was handed to it in turns before. `at` is when the handing over of the client's last bytes began, if that matters.
    pub(super) fn moved(&mut self, from_client: bool, from_backend: bool, now: Instant, at: Option<Instant>) {
        if from_backend {
            if let Some(asked) = self.asked.take() {
                self.answered = Some(now.saturating_duration_since(asked));
            }
            if let FirstByte::Awaited { since, .. } = self.first_byte {
                self.first_byte = FirstByte::Came(now.saturating_duration_since(since));
            }
        }
        if from_client {
            self.asked = at;
            if let FirstByte::Awaited { client_spoke: false, .. } = self.first_byte {
                self.first_byte = FirstByte::Awaited { since: at.unwrap_or(now), client_spoke: true };
            }
        }
    }

    pub(super) fn take_first_byte(&mut self) -> Option<Duration> {
        let FirstByte::Came(took) = self.first_byte else { return None };
        self.first_byte = FirstByte::Told;
        Some(took)
    }

    pub(super) fn take_turnaround(&mut self) -> Option<Duration> {
        self.answered.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What each turn tells: who moved bytes in it, `>` client, `<` backend, `x` both, `.` nobody. A turn comes every
    /// millisecond, and what it hands over is handed over half a millisecond later.
    fn turnarounds(turns: &str) -> Vec<(usize, Duration)> {
        let start = Instant::now();
        let mut timing = Timing::new(start);
        let turn = |(number, who): (usize, char)| {
            let now = start + MS * number as u32;
            timing.moved(matches!(who, '>' | 'x'), matches!(who, '<' | 'x'), now, Some(now + MS / 2));
            timing.take_turnaround().map(|took| (number, took))
        };
        turns.chars().enumerate().filter_map(turn).collect()
    }

    #[test]
    fn a_turnaround_is_measured_each_time_the_direction_turns() {
        let half = MS / 2;
        assert_eq!(turnarounds(">..<"), [(3, MS * 2 + half)]);
        assert_eq!(turnarounds(">>.<<<.<"), [(3, MS + half)], "from the last byte to the first");
        assert_eq!(turnarounds("><><..<>.<"), [(1, half), (3, half), (9, MS + half)]);
        assert_eq!(turnarounds("<.<.>"), [], "nobody asked, and nobody answered");
        assert_eq!(turnarounds(">.x.<"), [(2, MS + half), (4, MS + half)], "answered, and asked again");
        assert_eq!(turnarounds("x.<"), [(2, MS + half)], "what was there already answers nothing");
    }

    #[test]
    fn without_a_clock_there_is_no_turnaround_but_a_first_byte() {
        let start = Instant::now();
        let mut timing = Timing::new(start);
        timing.moved(true, false, start + MS, None);
        timing.moved(false, true, start + MS * 3, None);
        assert_eq!((timing.take_turnaround(), timing.take_first_byte()), (None, Some(MS * 2)));
        assert_eq!(timing.take_first_byte(), None, "once");
    }
}
