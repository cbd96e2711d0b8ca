//! A metric family, and the numbers that it holds.

use prometheus_client::registry::Unit;

use super::buckets::Distribution;
use crate::admin::snapshot_model::ListenerStats;
use crate::stats::latency::{Measured, Stage};

/// Names and values of a metric's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Metrics of one name.
#[derive(Debug)]
pub(super) struct MetricFamily {
    /// Without its unit, and without the `_total` of a counter.
    pub(super) name: &'static str,
    /// Its HELP text.
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) values: Values,
}

/// The values of a family, each with its labels.
#[derive(Debug)]
pub(super) enum Values {
    Counters(Vec<(Labels, SampleValue)>),
    Gauges(Vec<(Labels, SampleValue)>),
    Histograms(Vec<(Labels, Distribution)>),
}

/// The value of a counter or a gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SampleValue {
    Whole(u64),
    Real(f64),
}

impl MetricFamily {
    /// The name of its samples: with the unit, and with the `_total` of a counter.
    pub(super) fn sample_name(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let total = if matches!(self.values, Values::Counters(_)) { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.values {
            Values::Counters(values) | Values::Gauges(values) => values.is_empty(),
            Values::Histograms(values) => values.is_empty(),
        }
    }
}

pub(super) fn counter(
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    values: Vec<(Labels, SampleValue)>,
) -> MetricFamily {
    MetricFamily { name, help, unit, values: Values::Counters(values) }
}

pub(super) fn gauge(
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    values: Vec<(Labels, SampleValue)>,
) -> MetricFamily {
    MetricFamily { name, help, unit, values: Values::Gauges(values) }
}

pub(super) fn latency<'a>(
    name: &'static str,
    all: impl Iterator<Item = (Labels, Option<&'a Measured>)>,
) -> MetricFamily {
    let histograms = all.flat_map(|(labels, measured)| {
        Stage::ALL.into_iter().filter_map(move |stage| {
            let distribution = Distribution::of(measured?.stage(stage)?.total())?;
            let mut labels = labels.clone();
            labels.push(("stage", stage.name().to_owned()));
            Some((labels, distribution))
        })
    });
    let values = Values::Histograms(histograms.collect());
    MetricFamily { name, help: "Latency of each stage of a connection", unit: Some(Unit::Seconds), values }
}

pub(super) fn of_listener(listener: &ListenerStats) -> Labels {
    vec![("listener", listener.name.clone())]
}

impl From<u64> for SampleValue {
    fn from(value: u64) -> SampleValue {
        SampleValue::Whole(value)
    }
}

impl From<u32> for SampleValue {
    fn from(value: u32) -> SampleValue {
        SampleValue::Whole(value.into())
    }
}

impl From<usize> for SampleValue {
    fn from(value: usize) -> SampleValue {
        SampleValue::Whole(value as u64)
    }
}

impl From<bool> for SampleValue {
    fn from(value: bool) -> SampleValue {
        SampleValue::Whole(value.into())
    }
}

impl From<SampleValue> for f64 {
    fn from(value: SampleValue) -> f64 {
        match value {
            SampleValue::Whole(value) => value as f64,
            SampleValue::Real(value) => value,
        }
    }
}

/// Written without a fraction where it has none; the error is the value as it is written otherwise.
impl TryFrom<SampleValue> for i64 {
    type Error = f64;

    fn try_from(value: SampleValue) -> Result<i64, f64> {
        match value {
            SampleValue::Whole(whole) => i64::try_from(whole).map_err(|_| whole as f64),
            SampleValue::Real(real) => Err(real),
        }
    }
}
