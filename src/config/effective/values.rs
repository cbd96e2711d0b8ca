//! Values as a file has them.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::model::Rate;

/// Those that are there.
pub(super) fn some<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

pub(super) fn text(value: impl Display) -> Value {
    Value::String(value.to_string())
}

/// 0 is no limit.
pub(super) fn limit(limit: Option<NonZeroU32>) -> Value {
    json!(limit.map_or(0, u32::from))
}

pub(super) fn rate(rate: Option<Rate>) -> Value {
    rate.map_or(json!(0), |rate| json!(rate.to_string()))
}

/// 0s is off.
pub(super) fn optional(length: Option<Duration>) -> Value {
    period(length.unwrap_or_default())
}

/// As the file has it: a whole number of milliseconds, seconds, minutes or hours.
pub(super) fn period(length: Duration) -> Value {
    let millis = length.as_millis();
    let (count, unit) = match millis {
        0 => (0, "s"),
        _ if millis.is_multiple_of(3_600_000) => (millis / 3_600_000, "h"),
        _ if millis.is_multiple_of(60_000) => (millis / 60_000, "m"),
        _ if millis.is_multiple_of(1000) => (millis / 1000, "s"),
        _ => (millis, "ms"),
    };
    Value::String(format!("{count}{unit}"))
}
