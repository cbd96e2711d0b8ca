//! Smooth weighted round robin: with weights 5, 1, 1 the order is a a b a c a a, not a a a a a b c.
//!
//! The classical algorithm adds to every candidate's credit its weight, chooses the one with the
//! highest credit (the first of equals) and takes the sum of all weights from it. That is O(n) for a pick
//! and needs a lock; but its order repeats after sum / gcd steps, so it is written down once and a pick
//! only looks it up.

use super::candidate::{Candidate, Live};
use super::sampling::{REDRAWS, below, redraw, scan};

/// Longest schedule (512 KiB). Weights whose sum is above it are scaled down to it and rounded, none to less
/// than one: each share is then off by at most one part in 131,072 of the whole, and the schedule may
/// be longer than this by at most one step a candidate.
const MAX_STEPS: u64 = 131_072;

/// The order of the smooth algorithm, written down.
#[derive(Debug)]
pub struct RoundRobin {
    schedule: Box<[u32]>,
    count: usize,
}

impl RoundRobin {
    pub(super) fn new(candidates: &[Candidate]) -> RoundRobin {
        let weights: Vec<u64> = candidates.iter().map(|c| u64::from(c.weight.max(1))).collect();
        RoundRobin { schedule: schedule(&reduce(weights)), count: candidates.len() }
    }

    pub(super) fn pick(&self, turn: u64, live: &impl Live) -> Option<usize> {
        let steps = self.schedule.len();
        let at = |step: usize| self.schedule.get(step).map(|&index| index as usize);
        let scheduled = at((turn % (steps.max(1) as u64)) as usize)?;
        if live.can_take(scheduled) {
            return Some(scheduled);
        }
        // Going on to the next step instead would give all of a full one's share to the next one in
        // the order; a jump to a random step gives it to all others by their weights.
        (1..=REDRAWS)
            .filter_map(|attempt| at(below(redraw(turn, attempt), steps)))
            .find(|&index| live.can_take(index))
            .or_else(|| scan(self.count, redraw(turn, 0), live))
    }
}

/// The same proportions in numbers as small as possible, with a sum that is not too long for a schedule.
fn reduce(mut weights: Vec<u64>) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    weights.iter_mut().for_each(|w| *w /= divisor);
    let sum: u64 = weights.iter().sum();
    if sum > MAX_STEPS {
        weights.iter_mut().for_each(|w| *w = ((*w * MAX_STEPS + sum / 2) / sum).max(1));
    }
    weights
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Candidates of the same weight. They are chosen one after the other, so that only the head of the line has
/// to be looked at: a step costs as much as there are different weights (at most 511 of them
/// have a sum within [`MAX_STEPS`]), not as there are candidates.
struct Line {
    weight: i64,
    /// Of the head; the same as of those behind it, and by the sum of all weights more than of those before it.
    credit: i64,
    members: Vec<u32>,
    head: usize,
}

fn schedule(weights: &[u64]) -> Box<[u32]> {
    let sum: u64 = weights.iter().sum();
    let mut order: Vec<u32> = (0..weights.len() as u32).collect();
    order.sort_by_key(|&index| weights[index as usize]); // stable: members stay in order
    let mut lines: Vec<Line> = order
        .chunk_by(|&a, &b| weights[a as usize] == weights[b as usize])
        .map(|members| Line {
            weight: weights[members[0] as usize] as i64,
            credit: 0,
            members: members.to_vec(),
            head: 0,
        })
        .collect();

    (0..sum)
        .filter_map(|_| {
            for line in &mut lines {
                line.credit += line.weight;
            }
            let line = lines
                .iter_mut()
                .max_by(|a, b| a.credit.cmp(&b.credit).then_with(|| b.members[b.head].cmp(&a.members[a.head])))?;
            let chosen = line.members[line.head];
            line.head += 1;
            if line.head == line.members.len() {
                line.head = 0;
                line.credit -= sum as i64;
            }
            Some(chosen)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fixed, candidates, check_pick};
    use super::*;

    fn order(weights: &[u32], picks: u64) -> Vec<usize> {
        let balancer = RoundRobin::new(&candidates(weights));
        let live = Fixed::all(weights.len());
        (0..picks).map(|turn| balancer.pick(turn, &live).unwrap()).collect()
    }

    /// The textbook form of the algorithm.
    fn classical(weights: &[u32]) -> Vec<usize> {
        let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
        let mut credit = vec![0; weights.len()];
        (0..sum)
            .map(|_| {
                let mut best = 0;
                for i in 0..weights.len() {
                    credit[i] += i64::from(weights[i]);
                    if credit[i] > credit[best] {
                        best = i;
                    }
                }
                credit[best] -= sum;
                best
            })
            .collect()
    }

    #[test]
    fn the_smooth_order() {
        assert_eq!(order(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&[1, 2], 6), [1, 0, 1, 1, 0, 1]);
        assert_eq!(order(&[1, 1], 4), [0, 1, 0, 1]);
        assert_eq!(order(&[7], 3), [0, 0, 0]);
        assert_eq!(order(&[300, 300, 600], 4), [2, 0, 1, 2]);
    }

    #[test]
    fn nobody_to_choose() {
        assert_eq!(RoundRobin::new(&[]).pick(3, &Fixed::all(0)), None);
    }

    #[test]
    fn the_share_of_a_full_one_goes_to_all_others() {
        let balancer = RoundRobin::new(&candidates(&[1, 1, 1, 1]));
        let live = Fixed::takers([false, true, true, true]);
        let mut chosen = [0; 4];
        (0..12_000).for_each(|turn| chosen[balancer.pick(turn, &live).unwrap()] += 1);
        assert_eq!(chosen[0], 0);
        assert!(chosen[1..].iter().all(|&n| (3_800..4_200).contains(&n)), "{chosen:?}");
    }

    #[test]
    fn a_schedule_that_would_be_too_long_is_scaled() {
        let weights: Vec<u32> = (1..=1000).collect();
        let balancer = RoundRobin::new(&candidates(&weights));
        let steps = balancer.schedule.len();
        assert!(steps <= MAX_STEPS as usize + weights.len(), "{steps}");
        let mut chosen = vec![0_u32; weights.len()];
        balancer.schedule.iter().for_each(|&i| chosen[i as usize] += 1);
        let sum: u32 = weights.iter().sum();
        for (&weight, &times) in weights.iter().zip(&chosen) {
            let ideal = f64::from(weight) / f64::from(sum) * steps as f64;
            assert!(times >= 1 && (f64::from(times) - ideal).abs() <= 1.0, "{weight}: {times}");
        }
    }

    proptest! {
        #[test]
        fn is_the_classical_algorithm(weights in prop::collection::vec(1..60_u32, 1..12)) {
            let whole = classical(&weights);
            prop_assert_eq!(order(&weights, whole.len() as u64), whole.clone());
            // A whole cycle is exact.
            for (i, &w) in weights.iter().enumerate() {
                prop_assert_eq!(whole.iter().filter(|&&c| c == i).count(), w as usize);
            }
        }

        #[test]
        fn picks_whoever_can_take(weights in prop::collection::vec(1..1000_u32, 0..40), seed: u64) {
            let balancer = RoundRobin::new(&candidates(&weights));
            check_pick(weights.len(), seed, |turn, live| balancer.pick(turn, live))?;
        }
    }
}
