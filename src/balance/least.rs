//! The search that `least_connections` and `least_latency` share.

use std::cmp::Ordering;

use super::Live;

/// The candidate with the least score among those that can take a connection; of several, the
/// (`turn` modulo their number)-th, so that equals are chosen in turn.
///
/// Two passes rather than one that remembers the equals: idle pools have as many equals as candidates,
/// and a pick must not allocate. Scores may change between the passes; the worst that comes of it is
/// one that was the least a moment ago.
pub(super) fn least<S: Copy>(
    count: usize,
    turn: u64,
    live: &impl Live,
    score: impl Fn(usize) -> S,
    compare: impl Fn(S, S) -> Ordering,
) -> Option<usize> {
    let mut best: Option<(S, usize)> = None;
    let mut equals = 0_u64;
    for index in 0..count {
        if !live.can_take(index) {
            continue;
        }
        let own = score(index);
        match best.map_or(Ordering::Less, |(least, _)| compare(own, least)) {
            Ordering::Less => {
                best = Some((own, index));
                equals = 1;
            }
            Ordering::Equal => equals += 1,
            Ordering::Greater => {}
        }
    }

    let (least, first) = best?;
    let before = (turn % equals) as usize;
    if before == 0 {
        return Some(first);
    }
    (first..count)
        .filter(|&index| live.can_take(index) && compare(score(index), least).is_eq())
        .nth(before)
        .or(Some(first))
}
