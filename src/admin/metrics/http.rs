//! Metrics of HTTP: of listeners and backends, and of routes.

use super::family::{Labels, MetricFamily, SampleValue, counter, gauge, latency, of_listener};
use crate::admin::snapshot_model::{HttpStats, RouteStats, Snapshot};
use crate::stats::latency::Latencies;

/// Of the configured routes of listeners with `protocol: http`, and of what matches none.
pub(super) fn routes(snapshot: &Snapshot, latencies: &Latencies) -> Vec<MetricFamily> {
    let all = || {
        snapshot.listeners.iter().flat_map(|listener| {
            listener.routes.iter().map(|route| {
                let mut labels = of_listener(listener);
                labels.push(("route", route.name.clone()));
                (labels, route)
            })
        })
    };
    let each = |value: fn(&RouteStats) -> u64| -> Vec<_> {
        all().map(|(labels, route)| (labels, SampleValue::Whole(value(route)))).collect()
    };
    let by_class = all().flat_map(|(labels, route)| {
        route.http.iter().flat_map(HttpStats::by_class).map(move |(class, count)| {
            let mut labels = labels.clone();
            labels.push(("class", class.name().to_owned()));
            (labels, SampleValue::Whole(count))
        })
    });
    let requests = |route: &RouteStats| route.http.as_ref().map_or(0, |http| http.requests);
    let no_response = |route: &RouteStats| route.http.as_ref().map_or(0, |http| http.no_response);
    vec![
        counter("tidegate_route_http_requests", "HTTP requests, with and without a response", None, each(requests)),
        counter("tidegate_route_http_responses", "HTTP responses completed, by status class", None, by_class.collect()),
        counter(
            "tidegate_route_http_no_response",
            "HTTP requests whose connection ended before the response did",
            None,
            each(no_response),
        ),
        gauge("tidegate_route_http_requests_open", "HTTP requests under way", None, each(|route| route.requests_open)),
        counter("tidegate_route_retries", "Requests sent again, or connects tried again", None, each(|it| it.retries)),
        latency("tidegate_route_latency", all().map(|(labels, route)| (labels, latencies.route(route.id)))),
    ]
}

/// Requests, responses, those without, and connections that are not watched any more.
pub(super) fn families<'a, I: Iterator<Item = (Labels, &'a HttpStats)>>(
    names: [&'static str; 4],
    all: impl Fn() -> I,
) -> [MetricFamily; 4] {
    let [requests, responses, no_response, passthrough] = names;
    let each = |value: fn(&HttpStats) -> u64| -> Vec<_> {
        all().map(|(labels, http)| (labels, SampleValue::Whole(value(http)))).collect()
    };
    let by_class = all().flat_map(|(labels, http)| {
        http.responses.iter().map(move |responses| {
            let mut labels = labels.clone();
            let (method, class) = (responses.method.name(), responses.class.name());
            labels.extend([("method", method.to_owned()), ("class", class.to_owned())]);
            (labels, SampleValue::Whole(responses.count))
        })
    });
    [
        counter(requests, "HTTP requests, with and without a response", None, each(|http| http.requests)),
        counter(responses, "HTTP responses completed, by method and status class", None, by_class.collect()),
        counter(
            no_response,
            "HTTP requests whose connection ended before the response did",
            None,
            each(|http| http.no_response),
        ),
        counter(
            passthrough,
            "Connections passed through unwatched from then on: upgrades, tunnels, invalid HTTP",
            None,
            each(|http| http.passthrough),
        ),
    ]
}
