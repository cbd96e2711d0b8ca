//! Drawing by weight: cumulative weights and a binary search.

use super::candidate::{Candidate, Live};
use super::sampling::below;

/// Candidates on a line, each as long as its weight.
#[derive(Debug)]
pub(super) struct Weighted {
    /// Where each candidate ends; the last is the sum of all weights.
    ends: Box<[u64]>,
}

impl Weighted {
    pub(super) fn new(candidates: &[Candidate]) -> Weighted {
        let mut sum = 0;
        let end = |c: &Candidate| {
            sum += u64::from(c.weight.max(1));
            sum
        };
        Weighted { ends: candidates.iter().map(end).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn weight(&self, index: usize) -> u64 {
        self.ends[index] - self.begin(index)
    }

    /// One of all, each as likely as its weight says; `None` when there is none.
    pub(super) fn draw(&self, uniform: u64) -> Option<usize> {
        let sum = *self.ends.last()?;
        Some(self.at(below(uniform, sum as usize) as u64))
    }

    /// One of all but `not`; `None` when there is no other.
    pub(super) fn draw_other(&self, uniform: u64, not: usize) -> Option<usize> {
        let gap = self.weight(not);
        let rest = *self.ends.last()? - gap;
        if rest == 0 {
            return None;
        }
        let point = below(uniform, rest as usize) as u64;
        Some(self.at(if point < self.begin(not) { point } else { point + gap }))
    }

    /// How likely each is to be drawn of those who can take a connection.
    pub(super) fn chances(&self, live: &impl Live) -> Vec<f64> {
        let weight = |index| if live.can_take(index) { self.weight(index) } else { 0 };
        let sum: u64 = (0..self.len()).map(weight).sum();
        (0..self.len()).map(|index| weight(index) as f64 / (sum as f64).max(1.0)).collect()
    }

    fn begin(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn at(&self, point: u64) -> usize {
        self.ends.partition_point(|&end| end <= point)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sampling::redraw;
    use super::super::testing::{candidates, check_shares};
    use super::*;

    proptest! {
        #[test]
        fn draws_by_weight(weights in prop::collection::vec(1..20_u32, 1..8), seed: u64) {
            let line = Weighted::new(&candidates(&weights));
            let mut chosen = vec![0; weights.len()];
            for attempt in 0..20_000 {
                chosen[line.draw(redraw(seed, attempt)).unwrap()] += 1;
            }
            check_shares(&chosen, &weights, 0.02)?;
        }

        #[test]
        fn draws_the_others_by_weight(
            mut weights in prop::collection::vec(1..20_u32, 2..8), not in 0..8_usize, seed: u64,
        ) {
            let not = not % weights.len();
            let line = Weighted::new(&candidates(&weights));
            let mut chosen = vec![0; weights.len()];
            for attempt in 0..20_000 {
                chosen[line.draw_other(redraw(seed, attempt), not).unwrap()] += 1;
            }
            prop_assert_eq!(chosen[not], 0);
            weights[not] = 0;
            check_shares(&chosen, &weights, 0.02)?;
        }
    }

    #[test]
    fn nobody_else() {
        assert_eq!(Weighted::new(&[]).draw(5), None);
        assert_eq!(Weighted::new(&candidates(&[3])).draw_other(5, 0), None);
    }
}
