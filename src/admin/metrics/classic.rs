//! Metrics in Prometheus' text format 0.0.4: what its readers before OpenMetrics know, and most agents.
//!
//! It differs from OpenMetrics in what HELP and TYPE name (the name of the samples, `_total` included), and in that it has
//! neither UNIT lines nor an end mark.

use std::fmt::{Display, Write};

use super::buckets::Distribution;
use super::family::{Labels, MetricFamily, SampleValue, Values};

/// All of them.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        let name = family.sample_name();
        let kind = match family.values {
            Values::Counters(_) => "counter",
            Values::Gauges(_) => "gauge",
            Values::Histograms(_) => "histogram",
        };
        // Writing to a string does not fail.
        _ = writeln!(text, "# HELP {name} {}", escaped(family.help, false));
        _ = writeln!(text, "# TYPE {name} {kind}");
        match &family.values {
            Values::Counters(values) | Values::Gauges(values) => {
                for (labels, value) in values {
                    match value {
                        SampleValue::Whole(value) => sample(&mut text, &name, labels, None, value),
                        SampleValue::Real(value) => sample(&mut text, &name, labels, None, value),
                    }
                }
            }
            Values::Histograms(values) => {
                for (labels, value) in values {
                    histogram(&mut text, &name, labels, value);
                }
            }
        }
    }
    text
}

fn histogram(text: &mut String, name: &str, labels: &Labels, value: &Distribution) {
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    for (bound, count) in &value.classic {
        below += count;
        let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
        sample(text, &bucket, labels, Some(&bound), below);
    }
    sample(text, &format!("{name}_sum"), labels, None, value.sum);
    sample(text, &format!("{name}_count"), labels, None, value.count);
}

/// A line; `bound` is the label `le` of a bucket.
fn sample(text: &mut String, name: &str, labels: &Labels, bound: Option<&str>, value: impl Display) {
    text.push_str(name);
    let labels = labels.iter().map(|(label, value)| (*label, value.as_str())).chain(bound.map(|bound| ("le", bound)));
    let mut before = '{';
    for (label, value) in labels {
        _ = write!(text, "{before}{label}=\"{}\"", escaped(value, true));
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
    _ = writeln!(text, " {value}");
}

/// A label's value, or what follows HELP, in which quotes are no end.
fn escaped(text: &str, is_label: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if is_label => escaped.push_str("\\\""),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Unit;

    use super::*;
    use crate::stats::histogram::Histogram;

    #[test]
    fn each_type_is_written_as_the_format_has_it() {
        let mut values = Histogram::default();
        [40, 60, 70_000_000].into_iter().for_each(|micros| values.record(micros));
        let distribution = Distribution::of(&values).unwrap();
        let odd = vec![("pool", "a\"b\\c\nd".to_owned()), ("backend", "ü".to_owned())];
        let families = [
            MetricFamily {
                name: "x_downtime",
                help: "How long \\ it\nwas \"down\"",
                unit: Some(Unit::Seconds),
                values: Values::Counters(vec![(odd, SampleValue::Real(1.5))]),
            },
            MetricFamily {
                name: "x_open",
                help: "Now",
                unit: None,
                values: Values::Gauges(vec![(Labels::new(), SampleValue::Whole(u64::MAX))]),
            },
            MetricFamily {
                name: "x_latency",
                help: "Latency",
                unit: Some(Unit::Seconds),
                values: Values::Histograms(vec![(vec![("stage", "connect".to_owned())], distribution)]),
            },
        ];
        let text = encode(&families);
        let (first, rest) = text.split_once("x_latency_seconds_bucket").unwrap();
        assert_eq!(
            first,
            "# HELP x_downtime_seconds_total How long \\\\ it\\nwas \"down\"\n\
             # TYPE x_downtime_seconds_total counter\n\
             x_downtime_seconds_total{pool=\"a\\\"b\\\\c\\nd\",backend=\"ü\"} 1.5\n\
             # HELP x_open Now\n\
             # TYPE x_open gauge\n\
             x_open 18446744073709551615\n\
             # HELP x_latency_seconds Latency\n\
             # TYPE x_latency_seconds histogram\n"
        );
        assert!(rest.starts_with("{stage=\"connect\",le=\"0.00005\"} 1\n"), "{rest}");
        let last: Vec<&str> = rest.lines().rev().take(4).collect();
        assert_eq!(
            last,
            [
                "x_latency_seconds_count{stage=\"connect\"} 3",
                "x_latency_seconds_sum{stage=\"connect\"} 70.0001",
                "x_latency_seconds_bucket{stage=\"connect\",le=\"+Inf\"} 3",
                "x_latency_seconds_bucket{stage=\"connect\",le=\"60\"} 2",
            ]
        );
    }
}
