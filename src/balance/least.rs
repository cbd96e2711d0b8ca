//! The search that `least_connections` and `least_latency` share.

use super::candidate::Live;

/// Equals that are remembered while searching.
const REMEMBERED: usize = 32;

/// The candidate with the least score among those that can take a connection; of several, the
/// (`turn` modulo their number)-th, so that equals are chosen in turn.
///
/// Scores are floating point, as one division is cheaper than comparing fractions by cross multiplication,
/// and no less exact: equal fractions have equal quotients, and different ones of integers whose products are
/// below 2^53 have different quotients, in the right order.
///
/// A pick must not allocate, and an idle pool has as many equals as candidates: those beyond the first few are
/// looked for once more. Scores may have changed by then; the worst that comes of it is one that was
/// the least a moment ago.
pub(super) fn least(count: usize, turn: u64, live: &impl Live, score: impl Fn(usize) -> f64) -> Option<usize> {
    let mut best = f64::INFINITY;
    let mut equals = 0;
    let mut first = [0; REMEMBERED];
    for index in 0..count {
        let own = score(index);
        if own > best || !live.can_take(index) {
            continue;
        }
        if own < best {
            best = own;
            equals = 0;
        }
        if let Some(place) = first.get_mut(equals) {
            *place = index;
        }
        equals += 1;
    }

    let wanted = (turn % (equals as u64).max(1)) as usize;
    match first.get(wanted) {
        _ if equals == 0 => None,
        Some(&index) => Some(index),
        None => (first[REMEMBERED - 1] + 1..count)
            .filter(|&index| score(index) <= best && live.can_take(index))
            .nth(wanted - REMEMBERED)
            .or(Some(first[0])),
    }
}
