//! `/lb/status` and `/lb-metrics`: the plain JSON that simple balancers made customary. What counts as a request is in
//! [`requests`](super::requests).

use serde::Serialize;

use super::health::{health, last_checked};
use super::requests::{RequestTotals, http_pools};
use crate::admin::snapshot_model::{BackendStats, BackendStatus, Snapshot};

/// `/lb/status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::admin) struct LbStatus {
    backends: Vec<LbBackendStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LbBackendStatus {
    url: String,
    /// Whether it takes connections.
    healthy: bool,
    state: &'static str,
    active_connections: u64,
    total_requests: u64,
}

/// `/lb-metrics`.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct LbMetrics {
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
    backends: Vec<LbBackendMetrics>,
}

#[derive(Debug, Serialize)]
struct LbBackendMetrics {
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
pub(in crate::admin) fn status(snapshot: &Snapshot) -> LbStatus {
    let backend = |(backend, http): (&BackendStats, bool)| LbBackendStatus {
        url: url(backend, http),
        healthy: backend.up,
        state: health(backend),
        active_connections: backend.open,
        total_requests: RequestTotals::of_backend(backend, http).total,
    };
    LbStatus { backends: backends(snapshot).map(backend).collect() }
}

/// Totals, and every backend of every pool.
pub(in crate::admin) fn metrics(snapshot: &Snapshot) -> LbMetrics {
    let all = RequestTotals::of_view(snapshot);
    let backend = |(backend, http): (&BackendStats, bool)| {
        let requests = RequestTotals::of_backend(backend, http);
        LbBackendMetrics {
            url: url(backend, http),
            state: health(backend),
            active_connections: backend.open,
            total_requests: requests.total,
            total_failures: requests.failed,
            last_checked: last_checked(backend),
        }
    };
    LbMetrics {
        uptime_seconds: snapshot.uptime as u64,
        total_requests: all.total,
        success_requests: all.succeeded,
        failed_requests: all.failed,
        retry_attempts: all.retries,
        avg_latency_ms: all.average_ms(),
        healthy_backends: backends(snapshot).filter(|(backend, _)| backend.up).count(),
        unchecked_backends: backends(snapshot)
            .filter(|(backend, _)| backend.status() == BackendStatus::Unchecked)
            .count(),
        total_backends: backends(snapshot).count(),
        backends: backends(snapshot).map(backend).collect(),
    }
}

/// Each with whether HTTP is watched on the way to it.
fn backends(snapshot: &Snapshot) -> impl Iterator<Item = (&BackendStats, bool)> {
    let http = http_pools(snapshot);
    snapshot.pools.iter().flat_map(move |pool| {
        let http = http.contains(pool.name.as_str());
        pool.backends.iter().map(move |backend| (backend, http))
    })
}

/// `http://host:port` where HTTP is watched, otherwise `tcp://host:port`, as nothing is known of what is spoken; a unix
/// socket as `unix:/path`.
fn url(backend: &BackendStats, http: bool) -> String {
    match (backend.address.starts_with("unix:"), http) {
        (true, _) => backend.address.clone(),
        (false, true) => format!("http://{}", backend.address),
        (false, false) => format!("tcp://{}", backend.address),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::snapshot_model::{CheckResult, CheckStats, HttpStats, ListenerStats, PoolStats};

    fn snapshot() -> Snapshot {
        let check = CheckResult { time: 1_763_683_200.5, took_us: 300, passed: true, reason: None };
        let one = BackendStats {
            name: "a".to_owned(),
            address: "10.0.0.1:80".to_owned(),
            up: true,
            open: 2,
            connections: 12,
            failures: 1,
            connect_failures: 3,
            checks: Some(CheckStats { count: 5, failed: 0, last: Some(check) }),
            ..BackendStats::default()
        };
        let two =
            BackendStats { name: "b".to_owned(), address: "unix:/run/b.sock".to_owned(), ..BackendStats::default() };
        let web = BackendStats {
            address: "web.example:81".to_owned(),
            up: true,
            connections: 1,
            http: Some(HttpStats { requests: 40, ..HttpStats::default() }),
            ..BackendStats::default()
        };
        let pool = |name: &str, backends| PoolStats { name: name.to_owned(), backends, ..PoolStats::default() };
        let listener = |pool: &str, counts_requests| ListenerStats {
            pools: vec![pool.to_owned()],
            counts_requests,
            accepted: 15,
            ended: 12,
            retries: 3,
            ..ListenerStats::default()
        };
        Snapshot {
            uptime: 61.9,
            listeners: vec![listener("tcp", false), listener("web", true)],
            pools: vec![pool("tcp", vec![one, two]), pool("web", vec![web])],
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_status_in_its_shape() {
        let shape = json!({"backends": [
            {"url": "tcp://10.0.0.1:80", "healthy": true, "state": "healthy", "activeConnections": 2, "totalRequests": 12},
            {"url": "unix:/run/b.sock", "healthy": false, "state": "unhealthy", "activeConnections": 0, "totalRequests": 0},
            {"url": "http://web.example:81", "healthy": true, "state": "unchecked", "activeConnections": 0, "totalRequests": 40},
        ]});
        assert_eq!(serde_json::to_value(status(&snapshot())).unwrap(), shape);
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
        assert_eq!(serde_json::to_value(metrics(&snapshot())).unwrap(), shape);
    }
}
