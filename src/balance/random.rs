//! At random, each as likely as its weight says.

use super::candidate::{Candidate, Live};
use super::sampling::{REDRAWS, redraw, scan};
use super::weighted::Weighted;

/// The candidates by weight.
#[derive(Debug)]
pub struct Random {
    line: Weighted,
}

impl Random {
    pub(super) fn new(candidates: &[Candidate]) -> Random {
        Random { line: Weighted::new(candidates) }
    }

    pub(super) fn pick(&self, random: u64, live: &impl Live) -> Option<usize> {
        let first = self.line.draw(random)?;
        if live.can_take(first) {
            return Some(first);
        }
        draw_again(&self.line, random, live)
    }

    /// How likely each is to be chosen.
    pub(super) fn chances(&self, live: &impl Live) -> Vec<f64> {
        self.line.chances(live)
    }
}

/// Another one, by weight if a few draws find one that can take a connection, otherwise by scanning.
pub(super) fn draw_again(line: &Weighted, random: u64, live: &impl Live) -> Option<usize> {
    (1..=REDRAWS)
        .filter_map(|attempt| line.draw(redraw(random, attempt)))
        .find(|&index| live.can_take(index))
        .or_else(|| scan(line.len(), redraw(random, 0), live))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fixed, candidates, check_pick, check_shares};
    use super::*;

    proptest! {
        #[test]
        fn picks_whoever_can_take(weights in prop::collection::vec(1..1000_u32, 0..40), seed: u64) {
            let balancer = Random::new(&candidates(&weights));
            check_pick(weights.len(), seed, |random, live| balancer.pick(random, live))?;
        }

        #[test]
        fn by_weight_also_when_one_is_full(
            mut weights in prop::collection::vec(1..20_u32, 2..8), seed: u64,
        ) {
            let balancer = Random::new(&candidates(&weights));
            let mut live = Fixed::all(weights.len());
            live.can_take[0] = false;
            let mut chosen = vec![0; weights.len()];
            for attempt in 0..20_000 {
                chosen[balancer.pick(redraw(seed, attempt), &live).unwrap()] += 1;
            }
            prop_assert_eq!(chosen[0], 0);
            // Redraws end in a scan when the full one outweighs all others.
            let tolerance = if weights[0] * 2 > weights.iter().sum() { 1.0 } else { 0.03 };
            weights[0] = 0;
            check_shares(&chosen, &weights, tolerance)?;
        }
    }
}
