//! Numbers drawn for a pick, and the scan that ends it when no draw does.

use super::candidate::Live;

/// How often a pick whose first choice cannot take a connection draws again by weight before it scans:
/// enough that a few full backends do not load their neighbours in the list, few enough to cost nothing.
pub(super) const REDRAWS: u64 = 8;

/// The first candidate that can take a connection, beginning at `start` modulo `count` and going round.
/// The last resort of the algorithms: bounded, and sees everyone.
pub(super) fn scan(count: usize, start: u64, live: &impl Live) -> Option<usize> {
    let begin = below(start, count);
    (begin..count).chain(0..begin).find(|&index| live.can_take(index))
}

/// Maps 64 uniform bits to `0..bound` without a division (Lemire, "Fast random integer generation in
/// an interval", 2019; without its rejection step, as the bias is below 2^-32 for the bounds used here).
pub(super) fn below(uniform: u64, bound: usize) -> usize {
    ((u128::from(uniform) * bound as u128) >> 64) as usize
}

/// A pseudo-random number, `attempt` steps after `seed`: the finalizer of SplitMix64 (Steele,
/// Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(super) fn redraw(seed: u64, attempt: u64) -> u64 {
    let mut z = seed.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::Fixed;

    #[test]
    fn scanning_sees_everyone_once() {
        for start in [0, 1, u64::MAX / 3, u64::MAX] {
            for only in 0..5 {
                let live = Fixed::takers((0..5).map(|i| i == only));
                assert_eq!(scan(5, start, &live), Some(only));
            }
        }
        assert_eq!(scan(0, 7, &Fixed::takers([])), None);
    }
}
