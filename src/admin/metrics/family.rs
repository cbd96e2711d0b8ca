//! A metric family, and the numbers that it holds.

use prometheus_client::registry::Unit;

use super::buckets::Distribution;

/// Names and values of a metric's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Metrics of one name.
#[derive(Debug)]
pub(super) struct Family {
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
    Counters(Vec<(Labels, Number)>),
    Gauges(Vec<(Labels, Number)>),
    Histograms(Vec<(Labels, Distribution)>),
}

/// The value of a counter or a gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl Family {
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
    values: Vec<(Labels, Number)>,
) -> Family {
    Family { name, help, unit, values: Values::Counters(values) }
}

pub(super) fn gauge(
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    values: Vec<(Labels, Number)>,
) -> Family {
    Family { name, help, unit, values: Values::Gauges(values) }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Number {
        Number::Whole(value.into())
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Number {
        Number::Whole(value as u64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Number {
        Number::Whole(value.into())
    }
}

impl From<Number> for f64 {
    fn from(value: Number) -> f64 {
        match value {
            Number::Whole(value) => value as f64,
            Number::Real(value) => value,
        }
    }
}

/// Written without a fraction where it has none; the error is the value as it is written otherwise.
impl TryFrom<Number> for i64 {
    type Error = f64;

    fn try_from(value: Number) -> Result<i64, f64> {
        match value {
            Number::Whole(whole) => i64::try_from(whole).map_err(|_| whole as f64),
            Number::Real(real) => Err(real),
        }
    }
}
