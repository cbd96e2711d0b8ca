//! Fewest connections for its weight; equals in turn.

use super::candidate::{Candidate, Live};
use super::least::least;

/// The weights by which connections are divided.
#[derive(Debug)]
pub struct LeastConnections {
    weights: Box<[f64]>,
}

impl LeastConnections {
    pub(super) fn new(candidates: &[Candidate]) -> LeastConnections {
        LeastConnections { weights: candidates.iter().map(|c| f64::from(c.weight.max(1))).collect() }
    }

    pub(super) fn pick(&self, turn: u64, live: &impl Live) -> Option<usize> {
        least(self.weights.len(), turn, live, |index| f64::from(live.connections(index)) / self.weights[index])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fixed, candidates, check_pick};
    use super::*;

    #[test]
    fn equals_in_turn() {
        let balancer = LeastConnections::new(&candidates(&[1, 1, 2, 1]));
        let live = Fixed { connections: vec![1, 2, 2, 1], ..Fixed::all(4) };
        let chosen: Vec<_> = (0..6).map(|turn| balancer.pick(turn, &live).unwrap()).collect();
        assert_eq!(chosen, [0, 2, 3, 0, 2, 3]);
    }

    #[test]
    fn connections_that_stay_are_shared_by_weight() {
        let weights = [1, 2, 5];
        let balancer = LeastConnections::new(&candidates(&weights));
        let mut live = Fixed::all(3);
        for turn in 0..80 {
            let index = balancer.pick(turn, &live).unwrap();
            live.connections[index] += 1;
        }
        assert_eq!(live.connections, [10, 20, 50]);
    }

    proptest! {
        #[test]
        fn picks_whoever_can_take(weights in prop::collection::vec(1..1000_u32, 0..40), seed: u64) {
            let balancer = LeastConnections::new(&candidates(&weights));
            check_pick(weights.len(), seed, |turn, live| balancer.pick(turn, live))?;
        }

        #[test]
        fn nobody_has_fewer_for_its_weight(
            weights in prop::collection::vec(1..4_u32, 1..20), seed: u64, turn: u64,
        ) {
            let live = Fixed::any(weights.len(), seed, 2);
            let score = |i: usize| f64::from(live.connections[i]) / f64::from(weights[i]);
            if let Some(index) = LeastConnections::new(&candidates(&weights)).pick(turn, &live) {
                for other in (0..weights.len()).filter(|&i| live.can_take[i]) {
                    prop_assert!(score(index) <= score(other), "{index} before {other} of {live:?}");
                }
            }
        }

        #[test]
        fn every_equal_gets_its_turn(count in 1..120_usize, seed: u64) {
            let live = Fixed { can_take: Fixed::any(count, seed, 2).can_take, ..Fixed::all(count) };
            let balancer = LeastConnections::new(&candidates(&vec![1; count]));
            let able = live.can_take.iter().filter(|&&c| c).count();
            let mut chosen: Vec<_> = (0..able as u64).filter_map(|t| balancer.pick(t, &live)).collect();
            chosen.dedup();
            prop_assert_eq!(chosen.len(), able);
        }
    }
}
