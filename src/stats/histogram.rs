//! Histograms of microseconds in the layout of HdrHistogram with two significant digits: a value is known to within 1 %.
//!
//! [`Histogram`] is dense, for what has no end; [`Sparse`] is for a short span of time, and [`Packed`] for those that are
//! over, of which there are many.

use hdrhistogram::Histogram as Hdr;

/// Buckets of an octave: 128 make a bucket at most 1/128 of its values wide.
const PER_OCTAVE: u64 = 128;

/// Significant decimal digits that this layout has at HdrHistogram.
pub const DIGITS: u8 = 2;

/// The bucket of a value: itself below 256, then 128 an octave; at most 7,423.
fn bucket(micros: u64) -> u16 {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(8);
    // The second term is below 256, and the shift at most 56.
    (u64::from(shift) * PER_OCTAVE + (micros >> shift)) as u16
}

/// The smallest and the largest value of a bucket.
fn bounds(bucket: u16) -> (u64, u64) {
    let bucket = u64::from(bucket);
    if bucket < 2 * PER_OCTAVE {
        return (bucket, bucket);
    }
    let shift = bucket / PER_OCTAVE - 1;
    let lowest = (bucket % PER_OCTAVE + PER_OCTAVE) << shift;
    (lowest, lowest + ((1 << shift) - 1))
}

/// How often each duration was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The bucket of the first of `counts`; what lies outside of them is zero.
    first: u16,
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// Counts one value, in microseconds.
    pub fn record(&mut self, micros: u64) {
        *self.at(bucket(micros)) += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(micros);
        self.max = self.max.max(micros);
    }

    /// Adds what another one has.
    pub fn merge(&mut self, other: &Histogram) {
        for (bucket, count) in other.buckets() {
            *self.at(bucket) += count;
        }
        self.add(other.count, other.sum, other.max);
    }

    /// Adds what is measured in a span of time.
    pub fn merge_sparse(&mut self, other: &Sparse) {
        self.merge_counts(other.counts.iter().copied(), other.sum, other.max);
    }

    /// Adds what was measured in a span of time that is over.
    pub fn merge_packed(&mut self, other: &Packed) {
        self.merge_counts(other.counts(), other.sum, other.max);
    }

    fn merge_counts(&mut self, counts: impl Iterator<Item = (u16, u32)>, sum: u64, max: u64) {
        let mut all = 0;
        for (bucket, count) in counts {
            *self.at(bucket) += u64::from(count);
            all += u64::from(count);
        }
        self.add(all, sum, max);
    }

    fn add(&mut self, count: u64, sum: u64, max: u64) {
        self.count += count;
        self.sum = self.sum.saturating_add(sum);
        self.max = self.max.max(max);
    }

    /// The count of a bucket, for which room is made.
    fn at(&mut self, bucket: u16) -> &mut u64 {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = usize::from(self.first - bucket);
            self.counts.splice(..0, std::iter::repeat_n(0, more));
            self.first = bucket;
        }
        let place = usize::from(bucket - self.first);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        &mut self.counts[place]
    }

    fn buckets(&self) -> impl Iterator<Item = (u16, u64)> {
        (self.first..).zip(&self.counts).filter(|(_, count)| **count > 0).map(|(bucket, count)| (bucket, *count))
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, in microseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest of them, exactly, in microseconds; 0 without values.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Their mean in microseconds; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// What `quantile` (0 to 1) of the values do not exceed, in microseconds: the upper end of a bucket, as HdrHistogram
    /// gives it, but never above the largest value. `None` without values.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = self.rank(quantile);
        let mut below = 0;
        let reaches = |(_, count): &(u16, u64)| {
            below += count;
            below >= rank
        };
        self.buckets().find(reaches).map(|(bucket, _)| bounds(bucket).1.min(self.max))
    }

    /// [`Histogram::quantile`] of each of these, which rise; 0 without values. One pass over the buckets for all.
    pub fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [u64; N] {
        let mut buckets = self.buckets();
        let (mut below, mut highest) = (0, 0);
        quantiles.map(|quantile| {
            let rank = self.rank(quantile);
            while below < rank
                && let Some((bucket, count)) = buckets.next()
            {
                below += count;
                highest = bounds(bucket).1.min(self.max);
            }
            highest
        })
    }

    /// How many values there are up to this quantile.
    fn rank(&self, quantile: f64) -> u64 {
        ((quantile.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).clamp(1, self.count.max(1))
    }

    /// The buckets that are not empty, in rising order: smallest value, largest value, count.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.buckets().map(|(bucket, count)| {
            let (lowest, highest) = bounds(bucket);
            (lowest, highest, count)
        })
    }

    /// The same as a histogram of HdrHistogram's own, for its formats.
    pub fn to_hdr(&self) -> Option<Hdr<u64>> {
        let mut hdr = Hdr::new(DIGITS).ok()?;
        for (lowest, _, count) in self.ranges() {
            hdr.record_n(lowest, count).ok()?;
        }
        Some(hdr)
    }
}

/// The same for a span of time in which few different values come: buckets in rising order, with their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    counts: Vec<(u16, u32)>,
    sum: u64,
    max: u64,
}

impl Sparse {
    /// Counts one value, in microseconds.
    pub fn record(&mut self, micros: u64) {
        let bucket = bucket(micros);
        match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(place) => self.counts[place].1 = self.counts[place].1.saturating_add(1),
            Err(place) => self.counts.insert(place, (bucket, 1)),
        }
        self.sum = self.sum.saturating_add(micros);
        self.max = self.max.max(micros);
    }

    /// Adds what another one has.
    pub fn merge(&mut self, other: &Sparse) {
        for &(bucket, count) in &other.counts {
            match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
                Ok(place) => self.counts[place].1 = self.counts[place].1.saturating_add(count),
                Err(place) => self.counts.insert(place, (bucket, count)),
            }
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// A [`Sparse`] that nothing is added to any more, in about two bytes a bucket: for each, how far it is from the one
/// before, and its count, as numbers of 7 bits a byte (LEB128).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Box<[u8]>,
    sum: u64,
    max: u64,
}

impl Packed {
    /// Packs what was counted.
    pub fn new(sparse: &Sparse) -> Packed {
        let mut bytes = Vec::with_capacity(2 * sparse.counts.len());
        let mut last = 0;
        for &(bucket, count) in &sparse.counts {
            push_number(&mut bytes, u32::from(bucket - last));
            push_number(&mut bytes, count);
            last = bucket;
        }
        Packed { bytes: bytes.into(), sum: sparse.sum, max: sparse.max }
    }

    fn counts(&self) -> impl Iterator<Item = (u16, u32)> {
        let (mut rest, mut last) = (&*self.bytes, 0);
        std::iter::from_fn(move || {
            // Each number was a difference of buckets, or a count.
            last += take_number(&mut rest)? as u16;
            Some((last, take_number(&mut rest)?))
        })
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in (0..u32::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Some(number)
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

    #[test]
    fn the_layout_has_no_hole_and_is_that_of_hdr() {
        for bucket_number in 0..7_423_u16 {
            assert_eq!(bounds(bucket_number).1 + 1, bounds(bucket_number + 1).0, "after bucket {bucket_number}");
        }
        assert_eq!(bounds(7_423).1, u64::MAX);
        let hdr = Hdr::<u64>::new_with_bounds(1, u64::MAX / 2, DIGITS).unwrap();
        for value in (0..50).map(|shift| (1 << shift) + (1 << shift) / 3) {
            let (lowest, highest) = bounds(bucket(value));
            assert_eq!((lowest, highest), (hdr.lowest_equivalent(value), hdr.highest_equivalent(value)), "{value}");
        }
    }

    #[test]
    fn quantiles_are_those_of_hdr() {
        let histogram = of(&(1..=10_000).collect::<Vec<_>>());
        let hdr = histogram.to_hdr().unwrap();
        for quantile in [0.0, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            let (got, wanted) = (histogram.quantile(quantile).unwrap(), hdr.value_at_quantile(quantile).min(10_000));
            assert_eq!(got, wanted, "{quantile}");
        }
        assert_eq!(Histogram::default().quantiles([0.5, 1.0]), [0, 0]);
        assert_eq!((histogram.count(), histogram.max(), histogram.mean()), (10_000, 10_000, Some(5_000.5)));
        assert_eq!((Histogram::default().quantile(0.5), Histogram::default().mean()), (None, None));
    }

    proptest! {
        #[test]
        fn quantiles_in_one_pass_are_those_of_many(
            values in prop::collection::vec(0..100_000_u64, 1..300),
            mut wanted in prop::array::uniform5(0.0..=1.0),
        ) {
            wanted.sort_by(f64::total_cmp);
            let histogram = of(&values);
            prop_assert_eq!(histogram.quantiles(wanted), wanted.map(|quantile| histogram.quantile(quantile).unwrap()));
        }

        #[test]
        fn each_value_lies_in_its_bucket(value: u64) {
            let (lowest, highest) = bounds(bucket(value));
            prop_assert!((lowest..=highest).contains(&value));
            prop_assert!(highest - lowest <= lowest / 100);
        }

        #[test]
        fn packing_loses_nothing(counts in prop::collection::btree_map(0..7_424_u16, 1..=u32::MAX, 0..100)) {
            let sparse = Sparse { counts: counts.into_iter().collect(), sum: 7, max: 9 };
            prop_assert_eq!(Packed::new(&sparse).counts().collect::<Vec<_>>(), sparse.counts);
        }

        #[test]
        fn however_they_are_parted_the_sum_is_the_same(values in prop::collection::vec(0..u64::MAX / 1000, 0..200), parts in 1..5_usize) {
            let whole = of(&values);
            let (mut dense, mut sparse, mut all) = (Histogram::default(), Sparse::default(), Histogram::default());
            for part in values.chunks(values.len() / parts + 1) {
                dense.merge(&of(part));
                let mut span = Sparse::default();
                part.iter().for_each(|value| span.record(*value));
                sparse.merge(&span);
            }
            all.merge_packed(&Packed::new(&sparse));
            prop_assert_eq!(dense.ranges().collect::<Vec<_>>(), whole.ranges().collect::<Vec<_>>());
            prop_assert_eq!(all.ranges().collect::<Vec<_>>(), whole.ranges().collect::<Vec<_>>());
            prop_assert_eq!((all.count(), all.sum(), all.max()), (whole.count(), whole.sum(), whole.max()));
            prop_assert_eq!(all.count(), values.len() as u64);
        }
    }
}
