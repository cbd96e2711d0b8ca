//! Metrics as protobuf messages of Prometheus: the only form in which it takes native histograms.
//!
//! Of `io.prometheus.client` (prometheus/client_model, `metrics.proto`) there is here what is written; numbers and
//! types of the fields are its own.

use prost::Message;

use super::buckets::{Distribution, SCHEMA, ZERO};
use super::family::{Labels, MetricFamily, SampleValue, Values};

/// All of them, each behind its length.
pub(super) fn encode(families: Vec<MetricFamily>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for family in families {
        // Fails only where there is no room, and a vector grows.
        let _ = FamilyMessage::from(family).encode_length_delimited(&mut bytes);
    }
    bytes
}

#[derive(Clone, PartialEq, Message)]
struct FamilyMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<ValueMessage>,
    #[prost(message, optional, tag = "3")]
    counter: Option<ValueMessage>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A counter or a gauge.
#[derive(Clone, Copy, PartialEq, Message)]
struct ValueMessage {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramMessage {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl From<MetricFamily> for FamilyMessage {
    fn from(family: MetricFamily) -> FamilyMessage {
        let name = family.sample_name();
        let (kind, metric) = match family.values {
            Values::Counters(counters) => {
                let metric = |(labels, value): (Labels, SampleValue)| Metric {
                    counter: Some(ValueMessage { value: value.into() }),
                    ..Metric::of(labels)
                };
                (MetricType::Counter, counters.into_iter().map(metric).collect())
            }
            Values::Gauges(gauges) => {
                let metric = |(labels, value): (Labels, SampleValue)| Metric {
                    gauge: Some(ValueMessage { value: value.into() }),
                    ..Metric::of(labels)
                };
                (MetricType::Gauge, gauges.into_iter().map(metric).collect())
            }
            Values::Histograms(histograms) => {
                let metric = |(labels, value): (Labels, Distribution)| Metric {
                    histogram: Some(value.into()),
                    ..Metric::of(labels)
                };
                (MetricType::Histogram, histograms.into_iter().map(metric).collect())
            }
        };
        let unit = family.unit.map(|unit| unit.as_str().to_owned()).unwrap_or_default();
        FamilyMessage { name, help: family.help.to_owned(), kind: kind.into(), metric, unit }
    }
}

impl Metric {
    fn of(labels: Labels) -> Metric {
        let label = labels.into_iter().map(|(name, value)| LabelPair { name: name.to_owned(), value }).collect();
        Metric { label, ..Metric::default() }
    }
}

impl From<Distribution> for HistogramMessage {
    fn from(value: Distribution) -> HistogramMessage {
        let mut cumulative_count = 0;
        let bucket = |(upper_bound, count): (f64, u64)| {
            cumulative_count += count;
            Bucket { cumulative_count, upper_bound }
        };
        HistogramMessage {
            sample_count: value.count,
            sample_sum: value.sum,
            bucket: value.classic.into_iter().map(bucket).collect(),
            schema: SCHEMA,
            zero_threshold: ZERO,
            zero_count: value.native.zero,
            positive_span: value
                .native
                .spans
                .into_iter()
                .map(|(offset, length)| BucketSpan { offset, length })
                .collect(),
            positive_delta: value.native.deltas,
        }
    }
}
