//! Metrics of `protocol: udp`.

use super::family::{Labels, MetricFamily, SampleValue, counter};
use crate::admin::snapshot_model::DatagramStats;

/// Of listeners.
pub(super) fn families<'a, I: Iterator<Item = (Labels, &'a DatagramStats)>>(all: impl Fn() -> I) -> Vec<MetricFamily> {
    let each = |value: fn(&DatagramStats) -> u64| -> Vec<_> {
        all().map(|(labels, stats)| (labels, SampleValue::Whole(value(stats)))).collect()
    };
    let drops = all().flat_map(|(labels, stats)| {
        stats.dropped.iter().map(move |(cause, count)| {
            let mut labels = labels.clone();
            labels.push(("cause", cause.clone()));
            (labels, SampleValue::Whole(*count))
        })
    });
    vec![
        counter("tidegate_listener_datagrams_in", "Datagrams sent to backends", None, each(|it| it.datagrams_in)),
        counter("tidegate_listener_datagrams_out", "Datagrams sent to clients", None, each(|it| it.datagrams_out)),
        counter("tidegate_listener_datagrams_dropped", "Datagrams dropped, by cause", None, drops.collect()),
        counter(
            "tidegate_listener_sessions_moved",
            "Sessions that went on with another backend after an ICMP error",
            None,
            each(|it| it.moved_sessions),
        ),
    ]
}
