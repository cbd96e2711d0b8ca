//! Latency histograms, recorded by each worker for itself and merged by who asks.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Two significant digits: a value is known to within 1 %.
const DIGITS: u8 = 2;

/// How long one stage took, in microseconds, as an HDR histogram that grows with its largest value.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// Made when first used: a backend that is never used costs nothing.
    histogram: Option<Box<Histogram<u32>>>,
}

impl Latency {
    /// Counts one value.
    pub fn record(&mut self, duration: Duration) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new(DIGITS).ok().map(Box::new);
        }
        if let Some(histogram) = &mut self.histogram {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            // An auto-resizing histogram takes every u64 there is memory for.
            let _ = histogram.record(micros);
        }
    }

    /// Adds what another worker has recorded.
    pub fn merge(&mut self, other: &Latency) {
        match (&mut self.histogram, &other.histogram) {
            (_, None) => {}
            (Some(mine), Some(theirs)) => {
                // Both resize and have the same digits.
                let _ = mine.add(&**theirs);
            }
            (none, Some(theirs)) => *none = Some(theirs.clone()),
        }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// The duration that `quantile` (0 to 1) of the values do not exceed; `None` without values.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let histogram = self.histogram.as_ref()?;
        Some(Duration::from_micros(histogram.value_at_quantile(quantile)))
    }
}

/// What a worker measures of one backend.
#[derive(Clone, Debug, Default)]
pub struct BackendLatency {
    /// From the start of a connect to its success.
    pub connect: Latency,
    /// From the client's first byte handed to the backend to the backend's first byte; from the connect on
    /// when the backend speaks first.
    pub first_byte: Latency,
}

impl BackendLatency {
    /// Adds what another worker has recorded.
    pub fn merge(&mut self, other: &BackendLatency) {
        self.connect.merge(&other.connect);
        self.first_byte.merge(&other.first_byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        for micros in 1..=10_000 {
            latency.record(Duration::from_micros(micros));
        }
        for (quantile, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let got = latency.quantile(quantile).unwrap().as_micros() as f64;
            assert!((got - exact).abs() <= exact / 100.0, "{quantile}: {got} for {exact}");
        }
    }

    #[test]
    fn merging_loses_nothing() {
        let (mut all, mut one, mut two) = (Latency::default(), Latency::default(), Latency::default());
        one.record(Duration::from_micros(7));
        two.record(Duration::from_secs(3600));
        all.merge(&Latency::default());
        all.merge(&one);
        all.merge(&two);
        assert_eq!(all.count(), 2);
        assert!(all.quantile(1.0).unwrap() >= Duration::from_secs(3600));
        assert_eq!(all.quantile(0.1), Some(Duration::from_micros(7)));
    }
}
