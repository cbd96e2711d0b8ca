//! What the page is sent: what seldom changes, and a row of numbers for each listener, pool and backend each second.
//!
//! Numbers are rows without names, and the names of the columns are sent once: 1,000 backends are some 100 KB.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::admin::snapshot_model::{
    BackendStats, BackendStatus, CheckKind, GeoIpStats, HttpStats, Latency, LatencySummary, ListenerStats, LogStats,
    PoolStats, QueryStats, RejectedClient, ServedCertificate, Snapshot, StatusChange, TlsFiles,
};
use crate::config::model::{Balance, ListenerState};
use crate::stats::http::StatusClass;
use crate::stats::latency::{Stage, Window};
use crate::stats::registry::{BackendId, ListenerId, PoolId};

/// A column: its name, and its value of one row. Whole numbers; times are seconds since 1970, latencies microseconds.
type PayloadColumn<T> = (&'static str, fn(&T) -> Option<u64>);

const LISTENER: [PayloadColumn<ListenerStats>; 15] = [
    ("open", |listener| Some(listener.open)),
    ("accepted", |listener| Some(listener.accepted)),
    ("rejected", |listener| Some(listener.rejected)),
    ("bytes_in", |listener| Some(listener.bytes_in)),
    ("bytes_out", |listener| Some(listener.bytes_out)),
    ("retries", |listener| Some(listener.retries)),
    ("turnaround_p50", |listener| percentile(&listener.latency, Stage::Turnaround, |summary| summary.p50_us)),
    ("turnaround_p99", |listener| percentile(&listener.latency, Stage::Turnaround, |summary| summary.p99_us)),
    ("connect_p50", |listener| percentile(&listener.latency, Stage::Connect, |summary| summary.p50_us)),
    ("connect_p99", |listener| percentile(&listener.latency, Stage::Connect, |summary| summary.p99_us)),
    ("first_byte_p50", |listener| percentile(&listener.latency, Stage::FirstByte, |summary| summary.p50_us)),
    ("first_byte_p99", |listener| percentile(&listener.latency, Stage::FirstByte, |summary| summary.p99_us)),
    ("requests", |listener| requests(listener.http.as_ref(), &listener.queries)),
    ("server_errors", |listener| server_errors(listener.http.as_ref(), &listener.queries)),
    ("queries", |listener| queries(&listener.queries)),
];

const POOL: [PayloadColumn<PoolStats>; 13] = [
    ("up", |pool| Some(pool.up as u64)),
    ("usable", |pool| Some(pool.usable.into())),
    ("fails_open", |pool| Some(pool.fails_open.into())),
    ("primary_conflict", |pool| Some(pool.primary_conflict.into())),
    ("waiting", |pool| Some(pool.queue.waiting.into())),
    ("rejected", |pool| Some(pool.rejected)),
    ("retries", |pool| Some(pool.retries)),
    ("turnaround_p50", |pool| percentile(&pool.latency, Stage::Turnaround, |summary| summary.p50_us)),
    ("turnaround_p99", |pool| percentile(&pool.latency, Stage::Turnaround, |summary| summary.p99_us)),
    ("connect_p50", |pool| percentile(&pool.latency, Stage::Connect, |summary| summary.p50_us)),
    ("connect_p99", |pool| percentile(&pool.latency, Stage::Connect, |summary| summary.p99_us)),
    ("first_byte_p50", |pool| percentile(&pool.latency, Stage::FirstByte, |summary| summary.p50_us)),
    ("first_byte_p99", |pool| percentile(&pool.latency, Stage::FirstByte, |summary| summary.p99_us)),
];

const BACKEND: [PayloadColumn<BackendStats>; 18] = [
    ("up", |backend| Some(backend.up.into())),
    ("since", |backend| Some(backend.since as u64)),
    ("open", |backend| Some(backend.open)),
    ("connections", |backend| Some(backend.connections)),
    ("connect_failures", |backend| Some(backend.connect_failures)),
    ("failures", |backend| Some(backend.failures)),
    ("bytes_in", |backend| Some(backend.bytes_in)),
    ("bytes_out", |backend| Some(backend.bytes_out)),
    ("downs", |backend| Some(backend.downs)),
    ("turnaround_p50", |backend| percentile(&backend.latency, Stage::Turnaround, |summary| summary.p50_us)),
    ("turnaround_p99", |backend| percentile(&backend.latency, Stage::Turnaround, |summary| summary.p99_us)),
    ("connect_p50", |backend| percentile(&backend.latency, Stage::Connect, |summary| summary.p50_us)),
    ("connect_p99", |backend| percentile(&backend.latency, Stage::Connect, |summary| summary.p99_us)),
    ("first_byte_p50", |backend| percentile(&backend.latency, Stage::FirstByte, |summary| summary.p50_us)),
    ("first_byte_p99", |backend| percentile(&backend.latency, Stage::FirstByte, |summary| summary.p99_us)),
    ("requests", |backend| requests(backend.http.as_ref(), &backend.queries)),
    ("server_errors", |backend| server_errors(backend.http.as_ref(), &backend.queries)),
    ("queries", |backend| queries(&backend.queries)),
];

/// Of the last 10 s; `None` when nothing was measured in them.
fn percentile(latency: &Latency, stage: Stage, of: fn(&LatencySummary) -> u64) -> Option<u64> {
    latency.get(stage, Window::TenSeconds).map(of)
}

/// Of HTTP, or queries; `None` where none was seen.
fn requests(http: Option<&HttpStats>, all: &[QueryStats]) -> Option<u64> {
    http.map(|http| http.requests).or_else(|| queries(all))
}

/// Responses of the class 5xx, or queries that failed; `None` where neither HTTP nor a query was seen.
fn server_errors(http: Option<&HttpStats>, all: &[QueryStats]) -> Option<u64> {
    let Some(http) = http else { return queries(all).map(|_| all.iter().map(|it| it.failed).sum()) };
    let of_class = http.responses.iter().filter(|responses| responses.class == StatusClass::ServerError);
    Some(of_class.map(|responses| responses.count).sum())
}

/// Queries of databases; `None` where none was seen.
fn queries(all: &[QueryStats]) -> Option<u64> {
    (!all.is_empty()).then(|| all.iter().map(|it| it.queries).sum())
}

fn rows<T, const N: usize>(columns: &[PayloadColumn<T>; N], rows: &[T]) -> Vec<[Option<u64>; N]> {
    rows.iter().map(|row| columns.each_ref().map(|(_, value)| value(row))).collect()
}

fn heads<T, const N: usize>(columns: &[PayloadColumn<T>; N]) -> [&'static str; N] {
    columns.each_ref().map(|(name, _)| *name)
}

/// What the configuration says, and what the rows of numbers mean.
#[derive(Serialize)]
pub(super) struct NamesPayload<'a> {
    version: &'a str,
    commit: &'a str,
    /// A page that sees another one than before forgets its history.
    started: f64,
    workers: usize,
    capacity: usize,
    stages: [&'static str; Stage::ALL.len()],
    columns: Columns,
    listeners: Vec<NamesOfListener<'a>>,
    pools: Vec<NamesOfPool<'a>>,
}

#[derive(Serialize)]
struct Columns {
    listener: [&'static str; LISTENER.len()],
    pool: [&'static str; POOL.len()],
    backend: [&'static str; BACKEND.len()],
}

#[derive(Serialize)]
struct NamesOfListener<'a> {
    id: ListenerId,
    name: &'a str,
    addresses: &'a [String],
    state: ListenerState,
    tls: bool,
    pools: &'a [String],
    max_connections: Option<u32>,
}

#[derive(Serialize)]
struct NamesOfPool<'a> {
    id: PoolId,
    name: &'a str,
    balance: Balance,
    health: Option<CheckKind>,
    backends: Vec<NamesOfBackend<'a>>,
}

/// Id, name, address, weight, whether it is a backup, and the entry in `pools[].backends` where that is not the name.
type NamesOfBackend<'a> = (BackendId, &'a str, &'a str, u32, bool, Option<&'a str>);

impl<'a> NamesPayload<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> NamesPayload<'a> {
        let listener = |listener: &'a ListenerStats| NamesOfListener {
            id: listener.id,
            name: &listener.name,
            addresses: &listener.addresses,
            state: listener.state,
            tls: listener.tls,
            pools: &listener.pools,
            max_connections: listener.max_connections,
        };
        let backend =
            |it: &'a BackendStats| (it.id, &*it.name, &*it.address, it.weight, it.backup, it.entry.as_deref());
        let pool = |pool: &'a PoolStats| NamesOfPool {
            id: pool.id,
            name: &pool.name,
            balance: pool.balance,
            health: pool.health,
            backends: pool.backends.iter().map(backend).collect(),
        };
        NamesPayload {
            version: &snapshot.version,
            commit: &snapshot.commit,
            started: snapshot.started,
            workers: snapshot.plane.workers,
            capacity: snapshot.plane.capacity,
            stages: Stage::ALL.map(Stage::name),
            columns: Columns { listener: heads(&LISTENER), pool: heads(&POOL), backend: heads(&BACKEND) },
            listeners: snapshot.listeners.iter().map(listener).collect(),
            pools: snapshot.pools.iter().map(pool).collect(),
        }
    }
}

/// What happened last, and what is in service.
#[derive(Serialize)]
pub(super) struct EventsPayload<'a> {
    not_ready: &'a [String],
    /// Whether the configuration file is in effect, in a sentence if it is not.
    config: Option<String>,
    /// Whether the file of the database of countries is in service, in a sentence if it is not.
    geoip: Option<String>,
    transitions: &'a [StatusChange],
    rejections: &'a [RejectedClient],
    certificates: &'a [ServedCertificate],
    tls_files: &'a [TlsFiles],
    /// Those that cannot be written, or could not since the start.
    logs: Vec<&'a LogStats>,
}

impl<'a> EventsPayload<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> EventsPayload<'a> {
        EventsPayload {
            not_ready: &snapshot.not_ready,
            config: snapshot.config.trouble(),
            geoip: snapshot.geoip.as_ref().and_then(GeoIpStats::trouble),
            transitions: &snapshot.transitions,
            rejections: &snapshot.rejections,
            certificates: &snapshot.certificates,
            tls_files: &snapshot.tls_files,
            logs: snapshot.logs.iter().filter(|log| log.write_errors > 0 || log.error.is_some()).collect(),
        }
    }
}

/// What changes every second. The rows are in the order of [`NamesPayload`], backends of all pools one after the other.
#[derive(Serialize)]
pub(super) struct NumbersPayload<'a> {
    time: f64,
    uptime: f64,
    ready: bool,
    draining: bool,
    open: usize,
    cpu_seconds: f64,
    resident_bytes: u64,
    dropped_samples: u64,
    listeners: Vec<[Option<u64>; LISTENER.len()]>,
    pools: Vec<[Option<u64>; POOL.len()]>,
    backends: Vec<[Option<u64>; BACKEND.len()]>,
    /// Why a backend is down, by its row.
    reasons: BTreeMap<usize, &'a str>,
    /// Role and lag of a database, by the row of the backend.
    databases: BTreeMap<usize, String>,
    /// `drain`, `maintenance` and `leaving`, by the row of the backend.
    states: BTreeMap<usize, &'static str>,
    /// Health by decree, `up` or `down`, by the row of the backend.
    forced: BTreeMap<usize, &'static str>,
}

impl<'a> NumbersPayload<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> NumbersPayload<'a> {
        let all = || snapshot.pools.iter().flat_map(|pool| &pool.backends);
        NumbersPayload {
            time: snapshot.time,
            uptime: snapshot.uptime,
            ready: snapshot.ready,
            draining: snapshot.draining,
            open: snapshot.plane.open,
            cpu_seconds: snapshot.process.cpu_seconds,
            resident_bytes: snapshot.process.resident_bytes,
            dropped_samples: snapshot.plane.dropped_samples,
            listeners: rows(&LISTENER, &snapshot.listeners),
            pools: rows(&POOL, &snapshot.pools),
            backends: snapshot.pools.iter().flat_map(|pool| rows(&BACKEND, &pool.backends)).collect(),
            reasons: all().enumerate().filter_map(|(row, backend)| Some((row, backend.reason.as_deref()?))).collect(),
            databases: all().enumerate().filter_map(|(row, backend)| Some((row, backend.database()?))).collect(),
            states: all().enumerate().filter_map(|(row, backend)| Some((row, out_of_service(backend)?))).collect(),
            forced: all().enumerate().filter_map(|(row, backend)| Some((row, backend.forced?.name()))).collect(),
        }
    }
}

/// The state of a backend that somebody has taken out of service.
fn out_of_service(backend: &BackendStats) -> Option<&'static str> {
    match backend.status() {
        status @ (BackendStatus::Drain | BackendStatus::Maintenance | BackendStatus::Leaving) => Some(status.name()),
        BackendStatus::Up | BackendStatus::Down | BackendStatus::Unchecked => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json, to_value};

    use super::*;
    use crate::admin::snapshot_model::ResponseCount;
    use crate::config::model::{AdminState, ForcedHealth};
    use crate::stats::database::ServerRole;
    use crate::stats::http::Method;

    /// Two pools with a backend each, the second one down.
    pub(crate) fn snapshot() -> Snapshot {
        let summary = LatencySummary { count: 3, p50_us: 512, p99_us: 4711, ..LatencySummary::default() };
        let latency = |window| Latency::from_iter([((Stage::Turnaround, window), summary)]);
        let fast = BackendStats {
            name: "fast".into(),
            up: true,
            open: 7,
            bytes_out: u64::MAX,
            latency: latency(Window::TenSeconds),
            http: Some(http()),
            ..BackendStats::default()
        };
        let gone = BackendStats {
            name: "<script>".into(),
            entry: Some("script".into()),
            admin_state: AdminState::Drain,
            forced: Some(ForcedHealth::Down),
            reason: Some("refused".into()),
            role: Some(ServerRole::Replica),
            lag_bytes: Some(1536),
            since: 1_700_000_000.4,
            latency: latency(Window::Minute),
            ..BackendStats::default()
        };
        let pool = |name: &str, backend: &BackendStats| PoolStats {
            name: name.into(),
            up: usize::from(backend.up),
            backends: vec![backend.clone()],
            ..PoolStats::default()
        };
        let web = ListenerStats { name: "web".into(), http: Some(http()), ..ListenerStats::default() };
        Snapshot { listeners: vec![web], pools: vec![pool("one", &fast), pool("two", &gone)], ..Snapshot::default() }
    }

    /// Nine requests, of which three had a 5xx.
    fn http() -> HttpStats {
        let responses = [
            (Method::Get, StatusClass::Successful, 5),
            (Method::Get, StatusClass::ServerError, 1),
            (Method::Other, StatusClass::ServerError, 2),
        ]
        .map(|(method, class, count)| ResponseCount { method, class, count });
        HttpStats { requests: 9, no_response: 1, passthrough: 0, responses: responses.into() }
    }

    /// The values of a row by the names of its columns.
    fn named(names: &Value, rows: &Value, row: usize) -> BTreeMap<String, Value> {
        let heads = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        heads.zip(rows[row].as_array().unwrap().iter().cloned()).collect()
    }

    #[test]
    fn a_row_says_what_its_columns_are_named() {
        let snapshot = snapshot();
        let names = to_value(NamesPayload::of(&snapshot)).unwrap();
        let numbers = to_value(NumbersPayload::of(&snapshot)).unwrap();
        assert_eq!(names["pools"][1]["backends"][0], json!([BackendId::NONE, "<script>", "", 0, false, "script"]));
        let fast = named(&names["columns"]["backend"], &numbers["backends"], 0);
        assert_eq!((&fast["up"], &fast["open"], &fast["bytes_out"]), (&json!(1), &json!(7), &json!(u64::MAX)));
        assert_eq!((&fast["turnaround_p50"], &fast["turnaround_p99"]), (&json!(512), &json!(4711)));
        assert_eq!(fast["connect_p50"], Value::Null);
        let gone = named(&names["columns"]["backend"], &numbers["backends"], 1);
        assert_eq!((&gone["up"], &gone["since"]), (&json!(0), &json!(1_700_000_000)));
        assert_eq!(gone["turnaround_p50"], Value::Null, "not within the last 10 s");
        assert_eq!((&fast["requests"], &fast["server_errors"]), (&json!(9), &json!(3)));
        assert_eq!((&gone["requests"], &gone["server_errors"]), (&Value::Null, &Value::Null));
        let web = named(&names["columns"]["listener"], &numbers["listeners"], 0);
        assert_eq!((&web["requests"], &web["server_errors"]), (&json!(9), &json!(3)));
        assert_eq!(numbers["reasons"], json!({ "1": "refused" }));
        assert_eq!(numbers["databases"], json!({ "1": "replica, 1.5 KiB behind" }));
        assert_eq!(numbers["states"], json!({ "1": "drain" }));
        assert_eq!(numbers["forced"], json!({ "1": "down" }));
        assert_eq!(named(&names["columns"]["pool"], &numbers["pools"], 1)["up"], json!(0));
    }

    #[test]
    fn a_thousand_busy_backends_are_a_fifth_of_a_megabyte() {
        let mut snapshot = snapshot();
        let summary = LatencySummary { p50_us: 123_456, p99_us: 1_234_567, ..LatencySummary::default() };
        let busy = BackendStats {
            up: true,
            since: 1.7e9,
            open: 1000,
            connections: 1 << 40,
            connect_failures: 1000,
            failures: 1000,
            bytes_in: 1 << 50,
            bytes_out: 1 << 50,
            downs: 10,
            http: Some(HttpStats { requests: 1 << 40, ..http() }),
            latency: Stage::ALL.map(|stage| ((stage, Window::TenSeconds), summary)).into_iter().collect(),
            ..BackendStats::default()
        };
        snapshot.pools[0].backends = vec![busy; 1000];
        let text = serde_json::to_string(&NumbersPayload::of(&snapshot)).unwrap();
        assert!((100_000..200_000).contains(&text.len()), "{} bytes", text.len());
    }
}
