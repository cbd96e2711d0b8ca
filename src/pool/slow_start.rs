//! The share of its weight that a backend gets while it warms up.

use std::time::{Duration, Instant};

/// A full weight. Whole parts rather than a fraction, because the order of round robin is made of whole
/// numbers, and a new snapshot is only needed when a part is added.
pub(super) const PARTS: u32 = 16;

/// How many [`PARTS`] of its weight a backend gets at `now`, when it came back at `since`: from one part, in
/// even steps, to all of them once `over` has passed. All of them without a `since`.
pub(super) fn parts(since: Option<Instant>, now: Instant, over: Duration) -> u32 {
    let Some(since) = since else { return PARTS };
    let elapsed = now.saturating_duration_since(since);
    if elapsed >= over {
        return PARTS;
    }
    let grown = elapsed.as_nanos() * u128::from(PARTS - 1) / over.as_nanos();
    1 + grown as u32
}

/// The share of `most` that goes with these parts, at least one.
pub(super) fn share(most: u32, parts: u32) -> u32 {
    if parts >= PARTS {
        return most;
    }
    (u64::from(most) * u64::from(parts)).div_ceil(PARTS.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_a_sixteenth_to_all() {
        let start = Instant::now();
        let over = Duration::from_secs(15);
        let at = |ms| parts(Some(start), start + Duration::from_millis(ms), over);
        assert_eq!([at(0), at(999), at(1_000), at(7_500)], [1, 1, 2, 8]);
        assert_eq!([at(14_999), at(15_000), at(90_000)], [15, 16, 16]);
    }

    #[test]
    fn share_is_at_least_one() {
        assert_eq!([1, 2, 8, 16].map(|parts| share(3, parts)), [1, 1, 2, 3]);
        assert_eq!([share(u32::MAX, 15), share(u32::MAX, 16)], [4_026_531_840, u32::MAX]);
    }

    #[test]
    fn without_slow_start_all_at_once() {
        let start = Instant::now();
        assert_eq!(parts(None, start, Duration::from_secs(9)), PARTS);
        assert_eq!(parts(Some(start), start, Duration::ZERO), PARTS);
    }
}
