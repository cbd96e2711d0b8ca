//! What the tests of the algorithms share: live numbers that stand still, and the laws that hold for all.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::candidate::{Candidate, Live};
use super::identity;
use super::sampling::redraw;

/// Live numbers that stand still.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) connections: Vec<u32>,
    pub(super) latency_us: Vec<u32>,
    pub(super) can_take: Vec<bool>,
}

impl Fixed {
    /// Nobody has a connection, everybody can take one.
    pub(super) fn all(count: usize) -> Fixed {
        Fixed::takers((0..count).map(|_| true))
    }

    /// Nobody has a connection, some can take one.
    pub(super) fn takers(can_take: impl IntoIterator<Item = bool>) -> Fixed {
        let can_take: Vec<bool> = can_take.into_iter().collect();
        let idle = vec![0; can_take.len()];
        Fixed { connections: idle.clone(), latency_us: idle, can_take }
    }

    /// Any numbers, decided by `seed`; about one candidate in `scarce` can take a connection.
    pub(super) fn any(count: usize, seed: u64, scarce: u64) -> Fixed {
        let number = |what: u64, i: usize| redraw(seed ^ (what << 32), i as u64 + 1);
        Fixed {
            connections: (0..count).map(|i| (number(1, i) % 9) as u32).collect(),
            latency_us: (0..count).map(|i| (number(2, i) % 9) as u32).collect(),
            can_take: (0..count).map(|i| number(3, i).is_multiple_of(scarce)).collect(),
        }
    }
}

impl Live for Fixed {
    fn connections(&self, index: usize) -> u32 {
        self.connections[index]
    }

    fn latency_us(&self, index: usize) -> u32 {
        self.latency_us[index]
    }

    fn can_take(&self, index: usize) -> bool {
        self.can_take[index]
    }
}

/// Candidates `b0`, `b1`, ... of these weights.
pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let named = |(i, &weight): (usize, &u32)| Candidate { identity: identity(&format!("b{i}")), weight };
    weights.iter().enumerate().map(named).collect()
}

/// The laws: the index is in range, it can take a connection, and there is one exactly if anybody can.
pub(super) fn check_pick(
    count: usize,
    seed: u64,
    pick: impl Fn(u64, &Fixed) -> Option<usize>,
) -> Result<(), TestCaseError> {
    for scarce in [1, 2, 16, 1 << 40] {
        let live = Fixed::any(count, seed, scarce);
        for step in 0..32 {
            match pick(redraw(seed, step), &live) {
                Some(index) => prop_assert!(live.can_take[index], "{index} of {live:?}"),
                None => prop_assert!(!live.can_take.contains(&true), "none of {live:?}"),
            }
        }
    }
    Ok(())
}

/// Whether each share of `chosen` is within `tolerance` (a fraction of the whole) of its weight's.
pub(super) fn check_shares(chosen: &[u32], weights: &[u32], tolerance: f64) -> Result<(), TestCaseError> {
    let picks: u32 = chosen.iter().sum();
    let sum: u32 = weights.iter().sum();
    for (&times, &weight) in chosen.iter().zip(weights) {
        let share = f64::from(times) / f64::from(picks);
        let ideal = f64::from(weight) / f64::from(sum);
        prop_assert!((share - ideal).abs() <= tolerance, "{chosen:?} for {weights:?}");
    }
    Ok(())
}
