//! `/api/`: the same numbers once more, in the shape that dashboards and scripts of simple balancers ask for:
//! `{"success": true, "data": ...}`, or `{"success": false, "error": "..."}`. What counts as a request is in
//! [`requests`](super::requests); averages are of the time since the start, in milliseconds; rates are means of the last
//! 10 s; dates are RFC 3339. It only tells; nothing can be changed here.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::health::{health, last_checked};
use super::requests::{RequestTotals, http_pools};
use crate::admin::query::decode;
use crate::admin::snapshot_model::{
    BackendStats, BackendStatus, HttpStats, Latency, ListenerStats, PoolStats, Snapshot,
};
use crate::admin::unix_time::rfc3339;
use crate::config::model::Balance;
use crate::stats::latency::{Stage, Window};

/// Answers what is asked for by a path that begins with `/api/`.
pub(in crate::admin) fn answer(path: &str, snapshot: &Snapshot) -> (StatusCode, Value) {
    let data = match path {
        "/api/health" => health_of_all(snapshot),
        "/api/servers" => servers(snapshot).map(|server| server.describe()).collect(),
        "/api/algorithms" => algorithms(snapshot),
        "/api/metrics" => metrics(snapshot),
        "/api/metrics/servers" => servers(snapshot).map(|server| server.measure()).collect(),
        "/api/metrics/requests" => requests(snapshot),
        _ => {
            let id = path.strip_prefix("/api/servers/").and_then(|rest| rest.strip_suffix("/health"));
            let found = match id {
                Some(id) => find(snapshot, id),
                None => Err(format!("there is nothing at {path}")),
            };
            match found {
                Ok(server) => server.health(),
                Err(error) => return (StatusCode::NOT_FOUND, json!({ "success": false, "error": error })),
            }
        }
    };
    (StatusCode::OK, json!({ "success": true, "data": data }))
}

/// One server as `/api/servers` lists it.
pub(in crate::admin) fn server(snapshot: &Snapshot, pool: &str, name: &str) -> Option<Value> {
    let found = servers(snapshot).find(|it| it.pool.name == pool && it.backend.name == name);
    found.map(|server| server.describe())
}

/// A backend, and what it is part of.
#[derive(Clone, Copy)]
struct ApiServer<'a> {
    pool: &'a PoolStats,
    backend: &'a BackendStats,
    /// HTTP is watched on the way to it.
    http: bool,
}

fn servers(snapshot: &Snapshot) -> impl Iterator<Item = ApiServer<'_>> {
    let http = http_pools(snapshot);
    snapshot.pools.iter().flat_map(move |pool| {
        let http = http.contains(pool.name.as_str());
        pool.backends.iter().map(move |backend| ApiServer { pool, backend, http })
    })
}

/// By `pool/name`, or by the name alone where no other pool has one of that name.
fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Result<ApiServer<'a>, String> {
    let Some(id) = decode(id) else {
        return Err(format!("`{id}` is not percent-encoded UTF-8"));
    };
    if let Some(server) = servers(snapshot).find(|server| server.id() == id) {
        return Ok(server);
    }
    let named: Vec<ApiServer<'a>> = servers(snapshot).filter(|server| server.backend.name == id).collect();
    match named.as_slice() {
        [server] => Ok(*server),
        [] => Err(format!("there is no server `{id}`: /api/servers lists them, by pool/name")),
        several => {
            let ids: Vec<String> = several.iter().map(ApiServer::id).collect();
            Err(format!("several servers are called `{id}`: {}", ids.join(", ")))
        }
    }
}

impl ApiServer<'_> {
    fn id(&self) -> String {
        format!("{}/{}", self.pool.name, self.backend.name)
    }

    fn describe(&self) -> Value {
        let ApiServer { pool, backend, .. } = self;
        let (host, port) = match backend.address.rsplit_once(':') {
            Some((host, port)) if !backend.address.starts_with("unix:") => (host, port.parse::<u16>().ok()),
            // A unix socket has no port.
            _ => (backend.address.as_str(), None),
        };
        json!({
            "id": self.id(),
            "name": backend.name,
            "pool": pool.name,
            "host": host.trim_start_matches('[').trim_end_matches(']'),
            "port": port,
            "weight": backend.weight,
            "backup": backend.backup,
            "maxConnections": backend.max_connections,
            "status": health(backend),
            "activeConnections": backend.open,
            "totalRequests": RequestTotals::of_backend(backend, self.http).total,
            "lastHealthCheck": last_checked(backend),
        })
    }

    fn health(&self) -> Value {
        let backend = self.backend;
        let checks = backend.checks.as_ref();
        let last = checks.and_then(|checks| checks.last.as_ref());
        json!({
            "id": self.id(),
            "status": health(backend),
            "reason": backend.reason,
            "since": rfc3339(backend.since),
            "lastHealthCheck": last_checked(backend),
            "lastCheckPassed": last.map(|check| check.passed),
            "lastCheckError": last.and_then(|check| check.reason.as_deref()),
            "lastCheckTime": last.map(|check| check.took_us as f64 / 1000.0),
            "checks": checks.map(|checks| checks.count),
            "failedChecks": checks.map(|checks| checks.failed),
            "timesDown": backend.downs,
            "downtime": backend.downtime,
        })
    }

    fn measure(&self) -> Value {
        let backend = self.backend;
        let requests = RequestTotals::of_backend(backend, self.http);
        json!({
            "id": self.id(),
            "status": health(backend),
            "activeConnections": backend.open,
            "totalRequests": requests.total,
            "successfulRequests": requests.succeeded,
            "failedRequests": requests.failed,
            "retries": requests.retries,
            "requestsPerSecond": requests.per_second(),
            "averageResponseTime": requests.average_ms(),
            "bytesIn": backend.bytes_in,
            "bytesOut": backend.bytes_out,
            "responseTime": percentiles(&backend.latency, self.http),
        })
    }
}

/// How many there are, how many take connections, and how many of these have no health checks.
fn counted(snapshot: &Snapshot) -> (usize, usize, usize) {
    let count = |is: fn(&BackendStats) -> bool| servers(snapshot).filter(|server| is(server.backend)).count();
    (count(|_| true), count(|it| it.up), count(|it| it.status() == BackendStatus::Unchecked))
}

fn health_of_all(snapshot: &Snapshot) -> Value {
    let (all, up, unchecked) = counted(snapshot);
    let status = match (snapshot.ready, up == all) {
        (false, _) => "unhealthy",
        (true, false) => "degraded",
        (true, true) => "healthy",
    };
    json!({
        "status": status,
        "ready": snapshot.ready,
        "reasons": snapshot.not_ready,
        "uptime": snapshot.uptime,
        "version": snapshot.version,
        "totalServers": all,
        "activeServers": up,
        "unhealthyServers": all - up,
        "uncheckedServers": unchecked,
    })
}

fn algorithms(snapshot: &Snapshot) -> Value {
    let algorithm = |balance: Balance| {
        let pools: Vec<&str> =
            snapshot.pools.iter().filter(|pool| pool.balance == balance).map(|pool| pool.name.as_str()).collect();
        json!({ "name": balance, "description": description(balance), "pools": pools })
    };
    Balance::ALL.into_iter().map(algorithm).collect()
}

/// How an algorithm chooses.
fn description(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "One backend after the other, smoothly by weight: 5:1:1 is a a b a c a a.",
        Balance::LeastConnections => "The backend with the fewest connections for its weight; equals in turn.",
        Balance::IpHash => {
            "By the client's address: a client stays on its backend, and few move when a backend comes or goes."
        }
        Balance::PowerOfTwo => "The less loaded of two backends that are drawn by weight.",
        Balance::LeastLatency => "The backend with the least average latency times its connections, for its weight.",
        Balance::Random => "Drawn by weight.",
    }
}

fn metrics(snapshot: &Snapshot) -> Value {
    let requests = RequestTotals::of_view(snapshot);
    let (all, up, unchecked) = counted(snapshot);
    let mut algorithms: Vec<&str> = snapshot.pools.iter().map(|pool| pool.balance.name()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    json!({
        "uptime": snapshot.uptime,
        // Of several pools, each once.
        "algorithm": algorithms.join(", "),
        "totalRequests": requests.total,
        "successfulRequests": requests.succeeded,
        "failedRequests": requests.failed,
        "retries": requests.retries,
        "requestsPerSecond": requests.per_second(),
        "averageResponseTime": requests.average_ms(),
        "activeConnections": snapshot.plane.open,
        "totalServers": all,
        "activeServers": up,
        "unhealthyServers": all - up,
        "uncheckedServers": unchecked,
        "bytesIn": snapshot.listeners.iter().map(|listener| listener.bytes_in).sum::<u64>(),
        "bytesOut": snapshot.listeners.iter().map(|listener| listener.bytes_out).sum::<u64>(),
    })
}

fn requests(snapshot: &Snapshot) -> Value {
    let of_listener = |listener: &ListenerStats| {
        let requests = RequestTotals::of_listener(listener);
        let ends: Value = listener
            .terminations
            .iter()
            .filter(|ending| ending.count > 0)
            .map(|ending| (ending.termination.to_string(), json!(ending.count)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let responses = |http: &HttpStats| http.responses.iter().map(|r| json!(r)).collect::<Value>();
        json!({
            "listener": listener.name,
            "unit": if listener.counts_requests { "request" } else { "connection" },
            "totalRequests": requests.total,
            "successfulRequests": requests.succeeded,
            "failedRequests": requests.failed,
            "refusedConnections": listener.rejected,
            "retries": requests.retries,
            "requestsPerSecond": requests.per_second(),
            "averageResponseTime": requests.average_ms(),
            "activeConnections": listener.open,
            "connectionEnds": ends,
            "responses": listener.http.as_ref().map(responses),
            "responseTime": percentiles(&listener.latency, listener.counts_requests),
        })
    };
    let all = RequestTotals::of_view(snapshot);
    json!({
        "totalRequests": all.total,
        "successfulRequests": all.succeeded,
        "failedRequests": all.failed,
        "retries": all.retries,
        "requestsPerSecond": all.per_second(),
        "averageResponseTime": all.average_ms(),
        "listeners": snapshot.listeners.iter().map(of_listener).collect::<Value>(),
    })
}

/// Since the start, in milliseconds; `null` before the first.
fn percentiles(latency: &Latency, http: bool) -> Value {
    let stage = if http { Stage::HttpResponse } else { Stage::Turnaround };
    let Some(all) = latency.get(stage, Window::All) else { return Value::Null };
    let ms = |micros: u64| micros as f64 / 1000.0;
    json!({
        "count": all.count, "mean": all.mean_us / 1000.0, "p50": ms(all.p50_us), "p90": ms(all.p90_us),
        "p95": ms(all.p95_us), "p99": ms(all.p99_us), "max": ms(all.max_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::snapshot_model::{
        CheckResult, CheckStats, LatencySummary, PlaneStats, ResponseCount, TerminationStats,
    };
    use crate::stats::http::{Method, StatusClass};
    use crate::stats::termination::{Side, Termination};

    fn ask(path: &str, snapshot: &Snapshot) -> (u16, Value) {
        let (status, value) = answer(path, snapshot);
        (status.as_u16(), value)
    }

    fn data(path: &str, snapshot: &Snapshot) -> Value {
        let (status, mut value) = ask(path, snapshot);
        assert_eq!((status, &value["success"]), (200, &json!(true)), "{value}");
        value["data"].take()
    }

    fn backend(name: &str, address: &str) -> BackendStats {
        BackendStats { name: name.to_owned(), address: address.to_owned(), weight: 1, ..BackendStats::default() }
    }

    fn pool(name: &str, balance: Balance, backends: Vec<BackendStats>) -> PoolStats {
        PoolStats { name: name.to_owned(), balance, backends, ..PoolStats::default() }
    }

    fn snapshot() -> Snapshot {
        let check = |reason: Option<&str>| CheckResult {
            time: 0.25,
            took_us: 1500,
            passed: reason.is_none(),
            reason: reason.map(str::to_owned),
        };
        let turnaround: Latency = [
            (
                (Stage::Turnaround, Window::All),
                LatencySummary { count: 4, mean_us: 2500.0, ..LatencySummary::default() },
            ),
            ((Stage::Session, Window::TenSeconds), LatencySummary { count: 30, ..LatencySummary::default() }),
        ]
        .into_iter()
        .collect();
        let a = BackendStats {
            up: true,
            open: 3,
            open_max: 4,
            connections: 20,
            connect_failures: 2,
            failures: 1,
            retries: 2,
            bytes_in: 100,
            bytes_out: 200,
            max_connections: Some(90),
            checks: Some(CheckStats { count: 7, failed: 0, last: Some(check(None)) }),
            latency: turnaround.clone(),
            ..backend("a", "10.0.0.1:5432")
        };
        let b = BackendStats {
            reason: Some("refused".to_owned()),
            since: 1.0,
            downs: 2,
            downtime: 12.5,
            checks: Some(CheckStats { count: 7, failed: 3, last: Some(check(Some("refused"))) }),
            ..backend("b", "[::1]:5432")
        };
        let listener = ListenerStats {
            name: "in".to_owned(),
            pools: vec!["one".to_owned()],
            accepted: 30,
            ended: 27,
            rejected: 5,
            retries: 2,
            open: 3,
            bytes_in: 100,
            bytes_out: 200,
            terminations: vec![
                TerminationStats { termination: Termination::Closed(Side::Client), count: 22 },
                TerminationStats { termination: Termination::NoBackend, count: 5 },
                TerminationStats { termination: Termination::IdleTimeout, count: 0 },
            ],
            latency: turnaround,
            ..ListenerStats::default()
        };
        Snapshot {
            version: "9.8.7".to_owned(),
            uptime: 60.5,
            ready: true,
            plane: PlaneStats { open: 3, ..PlaneStats::default() },
            listeners: vec![listener],
            pools: vec![
                pool("one", Balance::LeastConnections, vec![a, b]),
                pool("two", Balance::Random, vec![BackendStats { up: true, ..backend("a", "unix:/run/a b.sock") }]),
            ],
            ..Snapshot::default()
        }
    }

    #[test]
    fn servers_one_by_one() {
        let servers = data("/api/servers", &snapshot());
        assert_eq!(
            servers[0],
            json!({
                "id": "one/a", "name": "a", "pool": "one", "host": "10.0.0.1", "port": 5432, "weight": 1,
                "backup": false, "maxConnections": 90, "status": "healthy", "activeConnections": 3,
                "totalRequests": 20, "lastHealthCheck": "1970-01-01T00:00:00.250Z",
            })
        );
        assert_eq!((&servers[1]["host"], &servers[1]["port"]), (&json!("::1"), &json!(5432)));
        assert_eq!((&servers[1]["status"], &servers[2]["lastHealthCheck"]), (&json!("unhealthy"), &Value::Null));
        assert_eq!(servers[2]["status"], "unchecked");
        assert_eq!((&servers[2]["host"], &servers[2]["port"]), (&json!("unix:/run/a b.sock"), &Value::Null));
        assert_eq!(servers.as_array().unwrap().len(), 3);
    }

    #[test]
    fn one_server_by_its_id_or_its_name() {
        let health = data("/api/servers/one%2Fb/health", &snapshot());
        assert_eq!(
            health,
            json!({
                "id": "one/b", "status": "unhealthy", "reason": "refused", "since": "1970-01-01T00:00:01.000Z",
                "lastHealthCheck": "1970-01-01T00:00:00.250Z", "lastCheckPassed": false, "lastCheckError": "refused",
                "lastCheckTime": 1.5, "checks": 7, "failedChecks": 3, "timesDown": 2, "downtime": 12.5,
            })
        );
        for path in ["/api/servers/b/health", "/api/servers/one/b/health"] {
            assert_eq!(data(path, &snapshot()), health, "{path}");
        }
        let cases = [
            ("/api/servers/a/health", "several servers are called `a`: one/a, two/a"),
            ("/api/servers/c/health", "there is no server `c`: /api/servers lists them, by pool/name"),
            ("/api/servers/%zz/health", "`%zz` is not percent-encoded UTF-8"),
            ("/api/servers/b", "there is nothing at /api/servers/b"),
            ("/api/", "there is nothing at /api/"),
        ];
        for (path, error) in cases {
            assert_eq!(ask(path, &snapshot()), (404, json!({ "success": false, "error": error })), "{path}");
        }
    }

    #[test]
    fn totals() {
        assert_eq!(
            data("/api/metrics", &snapshot()),
            json!({
                "uptime": 60.5, "algorithm": "least_connections, random", "totalRequests": 30,
                "successfulRequests": 22, "failedRequests": 5, "retries": 2, "requestsPerSecond": 3.0,
                "averageResponseTime": 2.5, "activeConnections": 3, "totalServers": 3, "activeServers": 2,
                "unhealthyServers": 1, "uncheckedServers": 1, "bytesIn": 100, "bytesOut": 200,
            })
        );
        let server = data("/api/metrics/servers", &snapshot())[0].take();
        let of = |keys: [&str; 4]| keys.map(|key| server[key].as_f64().unwrap());
        assert_eq!(of(["totalRequests", "successfulRequests", "failedRequests", "retries"]), [20.0, 16.0, 3.0, 2.0]);
        assert_eq!(of(["requestsPerSecond", "averageResponseTime", "bytesIn", "bytesOut"]), [3.0, 2.5, 100.0, 200.0]);
    }

    #[test]
    fn requests_by_how_they_ended() {
        let mut snapshot = snapshot();
        let requests = data("/api/metrics/requests", &snapshot);
        assert_eq!(
            requests["listeners"][0]["connectionEnds"],
            json!({ "client closed": 22, "rejected: no backend": 5 })
        );
        assert_eq!(requests["listeners"][0]["unit"], "connection");
        assert_eq!((&requests["totalRequests"], &requests["failedRequests"]), (&json!(30), &json!(5)));

        snapshot.listeners[0].counts_requests = true;
        let responses = vec![ResponseCount { method: Method::Get, class: StatusClass::ServerError, count: 2 }];
        snapshot.listeners[0].http = Some(HttpStats { requests: 2, responses, ..HttpStats::default() });
        let requests = data("/api/metrics/requests", &snapshot);
        assert_eq!((&requests["totalRequests"], &requests["failedRequests"]), (&json!(2), &json!(2)));
        assert_eq!(requests["listeners"][0]["responses"], json!([{ "method": "GET", "class": "5xx", "count": 2 }]));
        assert_eq!(data("/api/metrics/servers", &snapshot)[0]["totalRequests"], 0, "HTTP of it was not seen yet");
    }

    #[test]
    fn health_in_one_word() {
        let mut snapshot = snapshot();
        assert_eq!(data("/api/health", &snapshot)["status"], "degraded");
        assert_eq!(data("/api/health", &snapshot)["uncheckedServers"], 1);
        snapshot.pools[0].backends[1].up = true;
        assert_eq!(data("/api/health", &snapshot)["status"], "healthy");
        snapshot.ready = false;
        snapshot.not_ready = vec!["draining".to_owned()];
        let health = data("/api/health", &snapshot);
        assert_eq!((&health["status"], &health["reasons"][0]), (&json!("unhealthy"), &json!("draining")));
    }

    #[test]
    fn every_algorithm_and_who_uses_it() {
        let algorithms = data("/api/algorithms", &snapshot());
        assert_eq!(algorithms.as_array().unwrap().len(), 6);
        let pools = |name: &str| {
            let found = algorithms.as_array().unwrap().iter().find(|algorithm| algorithm["name"] == name);
            found.unwrap()["pools"].clone()
        };
        assert_eq!((pools("random"), pools("ip_hash")), (json!(["two"]), json!([])));
    }
}
