//! When the backend answers, from the direction in which bytes move: nothing is parsed.

use std::time::{Duration, Instant};

/// Time to first byte, and turnarounds, of one pair of sockets.
#[derive(Debug)]
pub(super) struct Timing {
    first_byte: FirstByte,
    /// Start of the write that handed the backend its last byte, until it answers.
    request_sent: Option<Instant>,
    turnaround: Option<Duration>,
}

/// The backend's first byte.
#[derive(Clone, Copy, Debug)]
enum FirstByte {
    /// Timed since the client's first byte; before that, since the connect.
    Awaited {
        since: Instant,
        client_spoke: bool,
    },
    Measured(Duration),
    Reported,
}

impl Timing {
    pub(super) fn new(now: Instant) -> Timing {
        Timing {
            first_byte: FirstByte::Awaited { since: now, client_spoke: false },
            request_sent: None,
            turnaround: None,
        }
    }

    /// Directions that moved bytes in one turn. `now` is the start of the turn: the backend's bytes were there then, and
    /// answer what was written in earlier turns. `at` is the start of the turn's last write to the backend, if timed.
    pub(super) fn moved(&mut self, from_client: bool, from_backend: bool, now: Instant, at: Option<Instant>) {
        if from_backend {
            if let Some(sent) = self.request_sent.take() {
                self.turnaround = Some(now.saturating_duration_since(sent));
            }
            if let FirstByte::Awaited { since, .. } = self.first_byte {
                self.first_byte = FirstByte::Measured(now.saturating_duration_since(since));
            }
        }
        if from_client {
            self.request_sent = at;
            if let FirstByte::Awaited { client_spoke: false, .. } = self.first_byte {
                self.first_byte = FirstByte::Awaited { since: at.unwrap_or(now), client_spoke: true };
            }
        }
    }

    /// The backend's first byte has come before.
    pub(super) fn skip_first_byte(&mut self) {
        self.first_byte = FirstByte::Reported;
    }

    pub(super) fn take_first_byte(&mut self) -> Option<Duration> {
        let FirstByte::Measured(took) = self.first_byte else { return None };
        self.first_byte = FirstByte::Reported;
        Some(took)
    }

    pub(super) fn take_turnaround(&mut self) -> Option<Duration> {
        self.turnaround.take()
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
