//! Metrics of queries.

use super::family::{Labels, MetricFamily, SampleValue, counter};
use crate::admin::snapshot_model::QueryStats;

/// Names of the metrics: queries, errors, pipelined ones, those without an answer, and connections that are not watched any more.
pub(super) type QueryNames = [&'static str; 5];

pub(super) const OF_LISTENERS: QueryNames = [
    "tidegate_listener_queries",
    "tidegate_listener_query_errors",
    "tidegate_listener_queries_pipelined",
    "tidegate_listener_queries_no_response",
    "tidegate_listener_query_passthrough",
];

pub(super) const OF_BACKENDS: QueryNames = [
    "tidegate_backend_queries",
    "tidegate_backend_query_errors",
    "tidegate_backend_queries_pipelined",
    "tidegate_backend_queries_no_response",
    "tidegate_backend_query_passthrough",
];

/// Of listeners or backends with these labels.
pub(super) fn families<'a, I: Iterator<Item = (Labels, &'a [QueryStats])>>(
    names: QueryNames,
    all: impl Fn() -> I,
) -> [MetricFamily; 5] {
    let [queries, errors, pipelined, no_response, passthrough] = names;
    let all: Vec<(Labels, &QueryStats)> = all()
        .flat_map(|(labels, protocols)| {
            protocols.iter().map(move |stats| {
                let mut labels = labels.clone();
                labels.push(("protocol", stats.protocol.name().to_owned()));
                (labels, stats)
            })
        })
        .collect();
    let each = |value: fn(&QueryStats) -> u64| -> Vec<_> {
        all.iter().map(|(labels, stats)| (labels.clone(), SampleValue::Whole(value(stats)))).collect()
    };
    let by = |name: &'static str, values: fn(&QueryStats) -> Vec<(&str, u64)>| -> Vec<_> {
        let each = all.iter().flat_map(|(labels, stats)| {
            values(stats).into_iter().map(move |(value, count)| {
                let mut labels = labels.clone();
                labels.push((name, value.to_owned()));
                (labels, SampleValue::Whole(count))
            })
        });
        each.collect()
    };
    [
        counter(
            queries,
            "Queries answered, by the first word of the statement or by command",
            None,
            by("statement", |stats| stats.statements.iter().map(|it| (it.statement.as_str(), it.count)).collect()),
        ),
        counter(
            errors,
            "Errors sent by servers, by class of SQLSTATE or first word",
            None,
            by("class", |stats| stats.errors.iter().map(|it| (it.class.as_str(), it.count)).collect()),
        ),
        counter(
            pipelined,
            "Queries answered that were sent before the one ahead of them was answered",
            None,
            each(|stats| stats.pipelined),
        ),
        counter(
            no_response,
            "Queries without an answer: the connection ended, or an error before them skipped them",
            None,
            each(|stats| stats.no_response),
        ),
        counter(
            passthrough,
            "Connections whose queries are not watched any more, by reason",
            None,
            by("reason", |stats| stats.passthrough.iter().map(|it| (it.reason.name(), it.count)).collect()),
        ),
    ]
}
