//! Our histograms in Prometheus' buckets, classic and native.
//!
//! Ours are narrower than either (at most 1 % of their values), so that a count goes over whole: one of our buckets
//! that lies across a bound counts where its highest value does. Count and sum are exact.

use crate::stats::histogram::Histogram;

/// Upper bounds of the classic buckets in microseconds, each inclusive; one without a bound follows.
const BOUNDS: [u64; 19] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 25_000_000, 60_000_000,
];

/// Buckets of an octave are 2^SCHEMA: each is 4.4 % wider than the one before.
pub(super) const SCHEMA: i32 = 4;

/// What lies below counts as zero, in seconds: less than the microsecond that is measured, and a bound of every schema.
pub(super) const ZERO: f64 = 1.0 / (1 << 21) as f64;

const MICROS: f64 = 1e6;

/// A histogram in both forms.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Distribution {
    pub(super) count: u64,
    /// In seconds.
    pub(super) sum: f64,
    /// Upper bound in seconds, and the count of that bucket alone. The last bound is infinite.
    pub(super) classic: Vec<(f64, u64)>,
    pub(super) native: Native,
}

/// The buckets of a native histogram, as Prometheus writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Native {
    /// The count of those that took less than a microsecond.
    pub(super) zero: u64,
    /// Runs of buckets: how many are left out before, and how many there are.
    pub(super) spans: Vec<(i32, u32)>,
    /// The count of each bucket, less that of the one before.
    pub(super) deltas: Vec<i64>,
}

impl Distribution {
    /// `None` without values.
    pub(super) fn of(histogram: &Histogram) -> Option<Distribution> {
        (histogram.count() > 0).then(|| Distribution {
            count: histogram.count(),
            sum: histogram.sum() as f64 / MICROS,
            classic: classic(histogram),
            native: native(histogram),
        })
    }
}

fn classic(histogram: &Histogram) -> Vec<(f64, u64)> {
    let mut ranges = histogram.ranges().peekable();
    let mut below = |bound: u64| {
        let mut count = 0;
        while let Some((_, _, more)) = ranges.next_if(|(_, highest, _)| *highest <= bound) {
            count += more;
        }
        count
    };
    let mut buckets: Vec<_> = BOUNDS.iter().map(|bound| (*bound as f64 / MICROS, below(*bound))).collect();
    buckets.push((f64::INFINITY, below(u64::MAX)));
    buckets
}

fn native(histogram: &Histogram) -> Native {
    let mut native = Native::default();
    // The bucket before, and its count.
    let mut last: Option<(i32, u64)> = None;
    let mut counts: Vec<(i32, u64)> = Vec::new();
    for (_, highest, count) in histogram.ranges() {
        match (place(highest), counts.last_mut()) {
            (None, _) => native.zero += count,
            (Some(place), Some(bucket)) if bucket.0 == place => bucket.1 += count,
            (Some(place), _) => counts.push((place, count)),
        }
    }
    for (place, count) in counts {
        match (last, native.spans.last_mut()) {
            (Some((before, _)), Some(span)) if before + 1 == place => span.1 += 1,
            (Some((before, _)), _) => native.spans.push((place - before - 1, 1)),
            (None, _) => native.spans.push((place, 1)),
        }
        native.deltas.push(count as i64 - last.map_or(0, |(_, count)| count as i64));
        last = Some((place, count));
    }
    native
}

/// The native bucket of a value: the one whose upper bound, 2^(place / 2^SCHEMA) seconds, is the first not below it.
/// `None` is the zero bucket.
fn place(micros: u64) -> Option<i32> {
    let seconds = micros as f64 / MICROS;
    (seconds > ZERO).then(|| (seconds.log2() * f64::from(1 << SCHEMA)).ceil() as i32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    /// The buckets of a native histogram: upper bound in seconds, count.
    fn unpacked(native: &Native) -> Vec<(f64, u64)> {
        let (mut place, mut count) = (0, 0);
        let mut buckets = vec![(ZERO, native.zero)];
        let mut deltas = native.deltas.iter();
        for &(offset, length) in &native.spans {
            place += offset;
            for _ in 0..length {
                count += deltas.next().unwrap();
                buckets.push(((f64::from(place) / f64::from(1 << SCHEMA)).exp2(), u64::try_from(count).unwrap()));
                place += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        buckets
    }

    fn quantile(buckets: &[(f64, u64)], quantile: f64) -> f64 {
        let count: u64 = buckets.iter().map(|(_, count)| count).sum();
        let rank = ((quantile * count as f64).ceil() as u64).max(1);
        let mut below = 0;
        let reached = buckets.iter().find(|(_, count)| {
            below += count;
            below >= rank
        });
        reached.unwrap().0
    }

    #[test]
    fn what_has_no_values_is_left_out() {
        assert_eq!(Distribution::of(&Histogram::default()), None);
    }

    #[test]
    fn classic_buckets_count_up_to_their_bounds() {
        let values = [0, 50, 51, 100, 101, 200, 999, 1_000, 1_001, 2_000_000, 60_000_000, 61_000_000, u64::MAX / 2];
        let got = Distribution::of(&of(&values[..12])).unwrap();
        let count = |bound: f64| got.classic.iter().find(|(known, _)| *known == bound).unwrap().1;
        // 1,000 shares a bucket of ours (1,000 to 1,007) with what is above the bound, as does 60,000,000.
        let wanted = [(0.00005, 2), (0.0001, 2), (0.00025, 2), (0.001, 1), (0.0025, 2), (2.5, 1), (60.0, 0)];
        for (bound, wanted) in wanted {
            assert_eq!(count(bound), wanted, "{bound}");
        }
        assert_eq!((count(f64::INFINITY), got.count, got.sum), (2, 12, 123.003_502));
        assert_eq!(Distribution::of(&of(&values)).unwrap().count, 13);
    }

    #[test]
    fn native_buckets_are_those_of_prometheus() {
        // A second is the upper bound of bucket 0; what is just above belongs to the next.
        assert_eq!(
            (place(1_000_000), place(1_000_001), place(2_000_000), place(500_000)),
            (Some(0), Some(1), Some(16), Some(-16))
        );
        assert_eq!((place(0), place(1)), (None, Some(-318)));
        let native = native(&of(&[0, 0, 250_000, 250_000, 250_000, 270_000, 100, 101]));
        // The highest values of our buckets are 251,903 µs, 270,335 µs, 100 µs and 101 µs.
        assert_eq!(native.zero, 2);
        assert_eq!(native.spans, [(-212, 1), (180, 2)]);
        assert_eq!(native.deltas, [2, 1, -2]);
    }

    proptest! {
        #[test]
        fn quantiles_of_both_are_ours(values in prop::collection::vec(0..100_000_000_u64, 1..300)) {
            let histogram = of(&values);
            let got = Distribution::of(&histogram).unwrap();
            let native = unpacked(&got.native);
            prop_assert_eq!(native.iter().map(|(_, count)| count).sum::<u64>(), got.count);
            prop_assert_eq!(got.classic.iter().map(|(_, count)| count).sum::<u64>(), got.count);
            prop_assert_eq!(got.sum, values.iter().sum::<u64>() as f64 / MICROS);
            for q in [0.0, 0.5, 0.9, 0.99, 1.0] {
                let ours = histogram.quantile(q).unwrap() as f64 / MICROS;
                // A bucket of the schema is 4.4 % wide, one of ours 0.8 %, and the largest value is known exactly.
                let theirs = quantile(&native, q);
                let width = (1.0 / f64::from(1 << SCHEMA)).exp2() * 1.008;
                prop_assert!(theirs.max(1e-6) >= ours && theirs <= ours.max(ZERO) * width, "{q}: {ours} {theirs}");
                let classic = quantile(&got.classic, q);
                prop_assert!(classic >= ours, "{q}: {ours} {classic}");
            }
        }
    }
}
