//! When probes take a backend up or down: `rise` and `fall`. Pure: no clock, no sockets.

use std::num::NonZeroU32;

use crate::config::model::{Health, Initial};

/// The health of one backend.
#[derive(Clone, Debug)]
pub(super) struct RiseFall {
    rise: NonZeroU32,
    fall: NonZeroU32,
    state: HealthState,
    /// Probes in a row that contradict `state`.
    against: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HealthState {
    /// Before the first probe; out of rotation until one passes.
    Unknown,
    /// The first pass is enough, whatever `rise` is: none has passed yet, or the server stated another role.
    AwaitsPass,
    Up,
    Down,
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeResult {
    Passed,
    /// Counts towards `fall`.
    Failed,
    /// The server itself says that it cannot serve: nothing that another probe would see differently.
    Unfit,
    /// The server itself says that it has another role, until it says otherwise.
    WrongRole,
}

/// What a probe has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateChange {
    Up,
    Down,
}

impl RiseFall {
    pub(super) fn new(health: &Health) -> RiseFall {
        let state = match health.initial {
            Initial::Probe => HealthState::Unknown,
            Initial::Up => HealthState::Up,
        };
        RiseFall { rise: health.rise, fall: health.fall, state, against: 0 }
    }

    /// As [`RiseFall::new`], where it is known already whether the backend is up.
    pub(super) fn resumed(health: &Health, known: Option<bool>) -> RiseFall {
        let state = known.map(|up| if up { HealthState::Up } else { HealthState::Down });
        let new = RiseFall::new(health);
        RiseFall { state: state.unwrap_or(new.state), ..new }
    }

    /// Goes by another configuration from now on; what is known stays.
    pub(super) fn adjust(&mut self, health: &Health) {
        (self.rise, self.fall) = (health.rise, health.fall);
    }

    /// Takes the outcome of a probe into account. A first probe that fails is a change too, so that the log says once why
    /// a backend is not used from the start.
    pub(super) fn observe(&mut self, result: ProbeResult) -> Option<StateChange> {
        let passed = result == ProbeResult::Passed;
        let (speaks_against, needed, next) = match (self.state, result) {
            (HealthState::Unknown | HealthState::Up, ProbeResult::WrongRole) => (true, 1, HealthState::AwaitsPass),
            (HealthState::Up, ProbeResult::Unfit) => (true, 1, HealthState::Down),
            (HealthState::Down, ProbeResult::WrongRole) => {
                (self.state, self.against) = (HealthState::AwaitsPass, 0);
                return None;
            }
            (HealthState::Unknown, ProbeResult::Passed) => (true, 1, HealthState::Up),
            (HealthState::Unknown, _) => (true, 1, HealthState::AwaitsPass),
            (HealthState::AwaitsPass, _) => (passed, 1, HealthState::Up),
            (HealthState::Up, _) => (!passed, self.fall.get(), HealthState::Down),
            (HealthState::Down, _) => (passed, self.rise.get(), HealthState::Up),
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
        Some(if next == HealthState::Up { StateChange::Up } else { StateChange::Down })
    }

    /// Whether the backend is thought to be down.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, HealthState::AwaitsPass | HealthState::Down)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::HealthCheck;
    use crate::pool::testing::health;

    /// What each of a row of probes changes: `+` passes or goes up, `-` fails or goes down, `u` is unfit, `r` has another role,
    /// `.` changes nothing.
    fn changes(tracked: &mut RiseFall, probes: &str) -> String {
        let result = |probe| match probe {
            '+' => ProbeResult::Passed,
            'u' => ProbeResult::Unfit,
            'r' => ProbeResult::WrongRole,
            _ => ProbeResult::Failed,
        };
        let change = |probe| match tracked.observe(result(probe)) {
            Some(StateChange::Up) => '+',
            Some(StateChange::Down) => '-',
            None => '.',
        };
        probes.chars().map(change).collect()
    }

    #[test]
    fn rises_and_falls() {
        let probe = RiseFall::new(&health(HealthCheck::Tcp)); // rise 2, fall 3
        let up = RiseFall::new(&Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
        for (start, probes, expected) in [
            (&probe, "++++", "+..."),
            (&probe, "---+", "-..+"),
            (&probe, "+--+---", "+.....-"),
            (&probe, "+---+-++", "+..-...+"),
            (&probe, "-+---++", "-+..-.+"),
            (&up, "+---", "...-"),
            (&up, "--+---++", ".....-.+"),
            // What the server says of itself counts at once.
            (&up, "r+r-+", "-+-.+"),
            (&up, "u++u+u++", "-.+-...+"),
            (&probe, "r+", "-+"),
            (&probe, "u+", "-+"),
            (&up, "---r+", "..-.+"),
            (&up, "--r---+", "..-...+"),
            (&up, "ur+", "-.+"),
            (&probe, "-r+", "-.+"),
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
                Health { initial, rise: number(rise), fall: number(fall), ..health(HealthCheck::Tcp) };
            let mut tracked = RiseFall::new(&config);
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
                    (true, true) => Some(StateChange::Up),
                    (true, false) => Some(StateChange::Down),
                };
                prop_assert_eq!(tracked.observe(if passed { ProbeResult::Passed } else { ProbeResult::Failed }), expected, "probe {} of {:?}", n, probes);
                prop_assert_eq!(tracked.is_down(), !is_up);
            }
        }
    }
}
