//! Two at random, and the less loaded of them (Mitzenmacher, "The power of two choices in randomized
//! load balancing", 1996): nearly as even as looking at all, at the cost of looking at two, and instances
//! that do not know of each other don't all rush to the same idle backend.

use super::candidate::{Candidate, Live};
use super::random::draw_again;
use super::sampling::redraw;
use super::weighted::Weighted;

/// The candidates by weight.
#[derive(Debug)]
pub struct PowerOfTwo {
    line: Weighted,
}

impl PowerOfTwo {
    pub(super) fn new(candidates: &[Candidate]) -> PowerOfTwo {
        PowerOfTwo { line: Weighted::new(candidates) }
    }

    pub(super) fn pick(&self, random: u64, live: &impl Live) -> Option<usize> {
        let one = self.line.draw(random)?;
        // Not one of the numbers that drawing again would use.
        let two = self.line.draw_other(redraw(!random, 0), one);
        let two = two.filter(|&index| live.can_take(index));
        match (live.can_take(one), two) {
            (true, None) => Some(one),
            (true, Some(two)) => Some(if self.is_less_loaded(two, one, live) { two } else { one }),
            (false, Some(two)) => Some(two),
            (false, None) => draw_again(&self.line, random, live),
        }
    }

    fn is_less_loaded(&self, one: usize, than: usize, live: &impl Live) -> bool {
        // a / b < c / d, without dividing
        let (a, b) = (live.connections(one), self.line.weight(one));
        let (c, d) = (live.connections(than), self.line.weight(than));
        u64::from(a) * d < u64::from(c) * b
    }

    /// How likely each is to be chosen.
    pub(super) fn chances(&self, live: &impl Live) -> Vec<f64> {
        let count = self.line.len();
        let sum: u64 = (0..count).map(|index| self.line.weight(index)).sum();
        let share = |index: usize, of: u64| self.line.weight(index) as f64 / of as f64;
        let again = self.line.chances(live);
        let mut chances = vec![0.0; count];
        let mut neither = 0.0;
        for one in 0..count {
            let rest = sum - self.line.weight(one);
            if rest == 0 {
                return again;
            }
            for two in (0..count).filter(|&two| two != one) {
                let chance = share(one, sum) * share(two, rest);
                match (live.can_take(one), live.can_take(two)) {
                    (true, true) if self.is_less_loaded(two, one, live) => chances[two] += chance,
                    (true, _) => chances[one] += chance,
                    (false, true) => chances[two] += chance,
                    (false, false) => neither += chance,
                }
            }
        }
        chances.iter().zip(&again).map(|(chance, share)| chance + neither * share).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fixed, candidates, check_pick, check_shares};
    use super::*;

    #[test]
    fn of_two_always_the_less_loaded() {
        let balancer = PowerOfTwo::new(&candidates(&[1, 4]));
        let live = Fixed { connections: vec![2, 7], ..Fixed::all(2) };
        assert!((0..1_000).all(|n| balancer.pick(redraw(1, n), &live) == Some(1)));
    }

    #[test]
    fn never_the_most_loaded_of_three() {
        let balancer = PowerOfTwo::new(&candidates(&[1, 1, 1]));
        let live = Fixed { connections: vec![3, 9, 5], ..Fixed::all(3) };
        assert!((0..1_000).all(|n| balancer.pick(redraw(2, n), &live) != Some(1)));
    }

    proptest! {
        #[test]
        fn picks_whoever_can_take(weights in prop::collection::vec(1..1000_u32, 0..40), seed: u64) {
            let balancer = PowerOfTwo::new(&candidates(&weights));
            check_pick(weights.len(), seed, |random, live| balancer.pick(random, live))?;
        }

        #[test]
        fn idle_ones_by_weight(weights in prop::collection::vec(1..20_u32, 1..8), seed: u64) {
            let balancer = PowerOfTwo::new(&candidates(&weights));
            let live = Fixed::all(weights.len());
            let mut chosen = vec![0; weights.len()];
            for attempt in 0..20_000 {
                chosen[balancer.pick(redraw(seed, attempt), &live).unwrap()] += 1;
            }
            check_shares(&chosen, &weights, 0.02)?;
        }

        #[test]
        fn connections_that_stay_are_shared_by_weight(
            weights in prop::collection::vec(1..6_u32, 2..6), seed: u64,
        ) {
            let balancer = PowerOfTwo::new(&candidates(&weights));
            let mut live = Fixed::all(weights.len());
            for attempt in 0..20_000 {
                let index = balancer.pick(redraw(seed, attempt), &live).unwrap();
                live.connections[index] += 1;
            }
            check_shares(&live.connections, &weights, 0.02)?;
        }
    }
}
