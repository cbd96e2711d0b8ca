//! `/lb/status` and `/lb-metrics`: the plain JSON that simple balancers made customary. What counts as a request is in
//! [`requests`](super::requests).

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::requests::{Requests, http_pools};
use super::view::{self, Backend, View};

/// Where a date has more than four digits of a year.
const END_OF_TIME: f64 = 253_402_300_799.0;

/// `/lb/status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    backends: Vec<BackendStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BackendStatus {
    url: String,
    /// Whether it takes connections.
    healthy: bool,
    state: &'static str,
    active_connections: u64,
    total_requests: u64,
}

/// `/lb-metrics`.
#[derive(Debug, Serialize)]
pub(super) struct Metrics {
    uptime_seconds: u64,
    total_requests: u64,
    success_requests: u64,
    failed_requests: u64,
    retry_attempts: u64,
    /// Mean since the start.
    avg_latency_ms: f64,
    /// Those that take connections.
    healthy_backends: usize,
    /// Those among them without health checks.
    unchecked_backends: usize,
    total_backends: usize,
    backends: Vec<BackendMetrics>,
}

#[derive(Debug, Serialize)]
struct BackendMetrics {
    url: String,
    /// `healthy`, `unhealthy`, or `unchecked` without health checks.
    state: &'static str,
    active_connections: u64,
    total_requests: u64,
    total_failures: u64,
    /// RFC 3339; `null` before the first health check, and without any.
    last_checked: Option<String>,
}

/// Every backend of every pool, in the order of the configuration.
pub(super) fn status(view: &View) -> Status {
    let backend = |(backend, http): (&Backend, bool)| BackendStatus {
        url: url(backend, http),
        healthy: backend.up,
        state: health(backend),
        active_connections: backend.open,
        total_requests: Requests::of_backend(backend, http).total,
    };
    Status { backends: backends(view).map(backend).collect() }
}

/// Totals, and every backend of every pool.
pub(super) fn metrics(view: &View) -> Metrics {
    let all = Requests::of_view(view);
    let backend = |(backend, http): (&Backend, bool)| {
        let requests = Requests::of_backend(backend, http);
        BackendMetrics {
            url: url(backend, http),
            state: health(backend),
            active_connections: backend.open,
            total_requests: requests.total,
            total_failures: requests.failed,
            last_checked: last_checked(backend),
        }
    };
    Metrics {
        uptime_seconds: view.uptime as u64,
        total_requests: all.total,
        success_requests: all.succeeded,
        failed_requests: all.failed,
        retry_attempts: all.retries,
        avg_latency_ms: all.average_ms(),
        healthy_backends: backends(view).filter(|(backend, _)| backend.up).count(),
        unchecked_backends: backends(view).filter(|(backend, _)| backend.status() == view::Status::Unchecked).count(),
        total_backends: backends(view).count(),
        backends: backends(view).map(backend).collect(),
    }
}

/// Each with whether HTTP is watched on the way to it.
fn backends(view: &View) -> impl Iterator<Item = (&Backend, bool)> {
    let http = http_pools(view);
    view.pools.iter().flat_map(move |pool| {
        let http = http.contains(pool.name.as_str());
        pool.backends.iter().map(move |backend| (backend, http))
    })
}

/// `http://host:port` where HTTP is watched, otherwise `tcp://host:port`, as nothing is known of what is spoken; a unix
/// socket as `unix:/path`.
fn url(backend: &Backend, http: bool) -> String {
    match (backend.address.starts_with("unix:"), http) {
        (true, _) => backend.address.clone(),
        (false, true) => format!("http://{}", backend.address),
        (false, false) => format!("tcp://{}", backend.address),
    }
}

/// `healthy`, `unhealthy`, or `unchecked` without health checks.
pub(super) fn health(backend: &Backend) -> &'static str {
    match backend.status() {
        view::Status::Up => "healthy",
        view::Status::Down => "unhealthy",
        view::Status::Unchecked => "unchecked",
        view::Status::Leaving => "draining",
    }
}

/// When the last health check ended.
pub(super) fn last_checked(backend: &Backend) -> Option<String> {
    backend.checks.as_ref()?.last.as_ref().map(|check| date(check.time))
}

/// Seconds since 1970 as RFC 3339 has them.
pub(super) fn date(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds.clamp(0.0, END_OF_TIME)).unwrap_or_default();
    crate::log::date::rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::view::{Check, Checks, Http, Listener, Pool};
    use super::*;

    fn view() -> View {
        let check = Check { time: 1_763_683_200.5, took_us: 300, passed: true, reason: None };
        let one = Backend {
            name: "a".to_owned(),
            address: "10.0.0.1:80".to_owned(),
            up: true,
            open: 2,
            connections: 12,
            failures: 1,
            connect_failures: 3,
            checks: Some(Checks { count: 5, failed: 0, last: Some(check) }),
            ..Backend::default()
        };
        let two = Backend { name: "b".to_owned(), address: "unix:/run/b.sock".to_owned(), ..Backend::default() };
        let web = Backend {
            address: "web.example:81".to_owned(),
            up: true,
            connections: 1,
            http: Some(Http { requests: 40, ..Http::default() }),
            ..Backend::default()
        };
        let pool = |name: &str, backends| Pool { name: name.to_owned(), backends, ..Pool::default() };
        let listener = |pool: &str, sniffs_http| Listener {
            pools: vec![pool.to_owned()],
            sniffs_http,
            accepted: 15,
            ended: 12,
            retries: 3,
            ..Listener::default()
        };
        View {
            uptime: 61.9,
            listeners: vec![listener("tcp", false), listener("web", true)],
            pools: vec![pool("tcp", vec![one, two]), pool("web", vec![web])],
            ..View::default()
        }
    }

    #[test]
    fn the_status_in_its_shape() {
        let shape = json!({"backends": [
            {"url": "tcp://10.0.0.1:80", "healthy": true, "state": "healthy", "activeConnections": 2, "totalRequests": 12},
            {"url": "unix:/run/b.sock", "healthy": false, "state": "unhealthy", "activeConnections": 0, "totalRequests": 0},
            {"url": "http://web.example:81", "healthy": true, "state": "unchecked", "activeConnections": 0, "totalRequests": 40},
        ]});
        assert_eq!(serde_json::to_value(status(&view())).unwrap(), shape);
    }

    #[test]
    fn the_metrics_in_their_shape() {
        let backend = |url: &str, state: &str, active: u64, total: u64, failures: u64, checked: Option<&str>| {
            json!({
                "url": url, "state": state, "active_connections": active, "total_requests": total,
                "total_failures": failures, "last_checked": checked,
            })
        };
        let shape = json!({
            "uptime_seconds": 61, "total_requests": 15, "success_requests": 12, "failed_requests": 0,
            "retry_attempts": 6, "avg_latency_ms": 0.0, "healthy_backends": 2,
            "unchecked_backends": 1, "total_backends": 3,
            "backends": [
                backend("tcp://10.0.0.1:80", "healthy", 2, 12, 4, Some("2025-11-21T00:00:00.500Z")),
                backend("unix:/run/b.sock", "unhealthy", 0, 0, 0, None),
                backend("http://web.example:81", "unchecked", 0, 40, 0, None),
            ],
        });
        assert_eq!(serde_json::to_value(metrics(&view())).unwrap(), shape);
    }

    #[test]
    fn any_number_is_a_date() {
        assert_eq!(date(0.0), "1970-01-01T00:00:00.000Z");
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(date(odd).ends_with('Z'), "{odd}");
        }
    }
}
