//! The least expected wait: latency times the connections that share it, divided by weight. Equals in turn.
//!
//! One that was never measured looks fast and is tried soon, but the connections that it is given meanwhile
//! count against it, so that it is not given all of them.

use super::candidate::{Candidate, Live};
use super::least::least;

/// The weights by which the expected wait is divided.
#[derive(Debug)]
pub struct LeastLatency {
    weights: Box<[f64]>,
}

impl LeastLatency {
    pub(super) fn new(candidates: &[Candidate]) -> LeastLatency {
        LeastLatency { weights: candidates.iter().map(|c| f64::from(c.weight.max(1))).collect() }
    }

    pub(super) fn pick(&self, turn: u64, live: &impl Live) -> Option<usize> {
        least(self.weights.len(), turn, live, |index| {
            let latency = f64::from(live.latency_us(index)) + 1.0;
            let sharing = f64::from(live.connections(index)) + 1.0;
            latency * sharing / self.weights[index]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fixed, candidates, check_pick};
    use super::*;

    #[test]
    fn the_fast_one_until_it_is_loaded() {
        let balancer = LeastLatency::new(&candidates(&[1, 1]));
        let mut live = Fixed { latency_us: vec![999, 99], ..Fixed::all(2) };
        let mut chosen = [0; 2];
        for turn in 0..110 {
            let index = balancer.pick(turn, &live).unwrap();
            live.connections[index] += 1;
            chosen[index] += 1;
        }
        assert_eq!(chosen, [10, 100]);
    }

    #[test]
    fn the_unmeasured_one_is_tried() {
        let balancer = LeastLatency::new(&candidates(&[1, 1]));
        let live = Fixed { latency_us: vec![50, 0], ..Fixed::all(2) };
        assert_eq!(balancer.pick(0, &live), Some(1));
    }

    #[test]
    fn the_ends_of_the_range() {
        let balancer = LeastLatency::new(&candidates(&[u32::MAX, 1]));
        let most = vec![u32::MAX; 2];
        let live = Fixed { latency_us: most.clone(), connections: most, ..Fixed::all(2) };
        assert_eq!(balancer.pick(0, &live), Some(0));
    }

    proptest! {
        #[test]
        fn picks_whoever_can_take(weights in prop::collection::vec(1..1000_u32, 0..40), seed: u64) {
            let balancer = LeastLatency::new(&candidates(&weights));
            check_pick(weights.len(), seed, |turn, live| balancer.pick(turn, live))?;
        }

        #[test]
        fn nobody_is_expected_to_answer_sooner(
            weights in prop::collection::vec(1..4_u32, 1..20), seed: u64, turn: u64,
        ) {
            let live = Fixed::any(weights.len(), seed, 2);
            let score = |i: usize| {
                f64::from(live.latency_us[i] + 1) * f64::from(live.connections[i] + 1)
                    / f64::from(weights[i])
            };
            if let Some(index) = LeastLatency::new(&candidates(&weights)).pick(turn, &live) {
                for other in (0..weights.len()).filter(|&i| live.can_take[i]) {
                    prop_assert!(score(index) <= score(other), "{index} before {other} of {live:?}");
                }
            }
        }
    }
}
