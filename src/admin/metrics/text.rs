//! Metrics as OpenMetrics text, by prometheus-client.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::family::{MetricFamily, SampleValue, Values};

/// All of them, to the end mark.
pub(super) fn encode(families: Vec<MetricFamily>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Families(Vec<MetricFamily>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.values {
                Values::Counters(_) => MetricType::Counter,
                Values::Gauges(_) => MetricType::Gauge,
                Values::Histograms(_) => MetricType::Histogram,
            };
            let mut metrics = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), kind)?;
            match &family.values {
                Values::Counters(counters) => {
                    for (labels, value) in counters {
                        let mut metric = metrics.encode_family(labels)?;
                        match value {
                            SampleValue::Whole(value) => metric.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                            SampleValue::Real(value) => metric.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                        }
                    }
                }
                Values::Gauges(gauges) => {
                    for (labels, value) in gauges {
                        let mut metric = metrics.encode_family(labels)?;
                        match i64::try_from(*value) {
                            Ok(value) => metric.encode_gauge(&value)?,
                            Err(value) => metric.encode_gauge(&value)?,
                        }
                    }
                }
                Values::Histograms(histograms) => {
                    for (labels, value) in histograms {
                        let mut metric = metrics.encode_family(labels)?;
                        metric.encode_histogram::<NoLabelSet>(value.sum, value.count, &value.classic, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}
