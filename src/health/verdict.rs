//! When probes that pass or fail make a backend go up or down. Pure: no clock, no sockets.

use std::num::NonZeroU32;

use crate::config::model::{Health, Initial};

/// What is known of one backend.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    rise: NonZeroU32,
    fall: NonZeroU32,
    state: State,
    /// Probes in a row that speak against `state`.
    against: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No probe yet, and not to be used before one has passed.
    Unknown,
    /// Probes have only ever failed; the first pass is enough.
    NeverUp,
    Up,
    Down,
}

/// What a probe has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

impl Verdict {
    pub(super) fn new(health: &Health) -> Verdict {
        let state = match health.initial {
            Initial::Probe => State::Unknown,
            Initial::Up => State::Up,
        };
        Verdict { rise: health.rise, fall: health.fall, state, against: 0 }
    }

    /// Goes by another configuration from now on; what is known stays.
    pub(super) fn adjust(&mut self, health: &Health) {
        (self.rise, self.fall) = (health.rise, health.fall);
    }

    /// Takes the outcome of a probe into account. A first probe that fails is a change too, so that it is told once why
    /// a backend is not used from the start.
    pub(super) fn observe(&mut self, passed: bool) -> Option<Change> {
        let (speaks_against, needed, next) = match self.state {
            State::Unknown if passed => (true, 1, State::Up),
            State::Unknown => (true, 1, State::NeverUp),
            State::NeverUp => (passed, 1, State::Up),
            State::Up => (!passed, self.fall.get(), State::Down),
            State::Down => (passed, self.rise.get(), State::Up),
        };
        if !speaks_against {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.state = next;
        Some(if next == State::Up { Change::Up } else { Change::Down })
    }

    /// Whether the backend is thought to be down.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::NeverUp | State::Down)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Check;
    use crate::pool::testing::health;

    /// What each of a row of probes changes: `+` passes or goes up, `-` fails or goes down, `.` changes nothing.
    fn changes(verdict: &mut Verdict, probes: &str) -> String {
        let change = |probe| match verdict.observe(probe == '+') {
            Some(Change::Up) => '+',
            Some(Change::Down) => '-',
            None => '.',
        };
        probes.chars().map(change).collect()
    }

    #[test]
    fn rises_and_falls() {
        let probe = Verdict::new(&health(Check::Tcp)); // rise 2, fall 3
        let up = Verdict::new(&Health { initial: Initial::Up, ..health(Check::Tcp) });
        for (start, probes, expected) in [
            (&probe, "++++", "+..."),
            (&probe, "---+", "-..+"),
            (&probe, "+--+---", "+.....-"),
            (&probe, "+---+-++", "+..-...+"),
            (&probe, "-+---++", "-+..-.+"),
            (&up, "+---", "...-"),
            (&up, "--+---++", ".....-.+"),
        ] {
            assert_eq!(changes(&mut start.clone(), probes), expected, "for {probes}");
        }
    }

    proptest! {
        /// Against the definition, which looks at the whole history each time.
        #[test]
        fn is_what_the_history_says(
            rise in 1..4_u32, fall in 1..4_u32, up: bool, probes in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            let initial = if up { Initial::Up } else { Initial::Probe };
            let number = |n| NonZeroU32::new(n).unwrap();
            let config =
                Health { initial, rise: number(rise), fall: number(fall), ..health(Check::Tcp) };
            let mut verdict = Verdict::new(&config);
            let mut is_up = up;
            let mut last_change = 0;
            for n in 1..=probes.len() {
                let history = &probes[..n];
                let passed = history[n - 1];
                let row = history[last_change..].iter().rev().take_while(|&&p| p == passed).count();
                let enough = match passed {
                    true if !up && history.iter().filter(|&&p| p).count() == 1 => 1,
                    true => rise,
                    false => fall,
                };
                let first_is_bad = !up && n == 1 && !passed;
                let change = passed != is_up && row >= enough as usize;
                if change {
                    is_up = passed;
                    last_change = n;
                }
                let expected = match (change || first_is_bad, passed) {
                    (false, _) => None,
                    (true, true) => Some(Change::Up),
                    (true, false) => Some(Change::Down),
                };
                prop_assert_eq!(verdict.observe(passed), expected, "probe {} of {:?}", n, probes);
                prop_assert_eq!(verdict.is_down(), !is_up);
            }
        }
    }
}
