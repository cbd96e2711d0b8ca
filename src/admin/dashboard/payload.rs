//! What the page is sent: what seldom changes, and a row of numbers for each listener, pool and backend each second.
//!
//! Numbers are rows without names, and the names of the columns are sent once: 1,000 backends are some 100 KB.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::admin::view::{
    Backend, Certificate, Http, Latency, Listener, Log, Pool, Refusal, Summary, TlsFiles, Transition, View,
};
use crate::stats::http::StatusClass;
use crate::stats::latency::{Stage, Window};
use crate::stats::registry::{BackendId, ListenerId, PoolId};

/// A column: its name, and its value of one row. Whole numbers; times are seconds since 1970, latencies microseconds.
type Column<T> = (&'static str, fn(&T) -> Option<u64>);

const LISTENER: [Column<Listener>; 14] = [
    ("open", |listener| Some(listener.open)),
    ("accepted", |listener| Some(listener.accepted)),
    ("refused", |listener| Some(listener.refused)),
    ("bytes_in", |listener| Some(listener.bytes_in)),
    ("bytes_out", |listener| Some(listener.bytes_out)),
    ("retries", |listener| Some(listener.retries)),
    ("turnaround_p50", |listener| percentile(&listener.latency, Stage::Turnaround, |summary| summary.p50_us)),
    ("turnaround_p99", |listener| percentile(&listener.latency, Stage::Turnaround, |summary| summary.p99_us)),
    ("connect_p50", |listener| percentile(&listener.latency, Stage::Connect, |summary| summary.p50_us)),
    ("connect_p99", |listener| percentile(&listener.latency, Stage::Connect, |summary| summary.p99_us)),
    ("first_byte_p50", |listener| percentile(&listener.latency, Stage::FirstByte, |summary| summary.p50_us)),
    ("first_byte_p99", |listener| percentile(&listener.latency, Stage::FirstByte, |summary| summary.p99_us)),
    ("requests", |listener| requests(listener.http.as_ref())),
    ("server_errors", |listener| server_errors(listener.http.as_ref())),
];

const POOL: [Column<Pool>; 10] = [
    ("up", |pool| Some(pool.up as u64)),
    ("usable", |pool| Some(pool.usable.into())),
    ("refused", |pool| Some(pool.refused)),
    ("retries", |pool| Some(pool.retries)),
    ("turnaround_p50", |pool| percentile(&pool.latency, Stage::Turnaround, |summary| summary.p50_us)),
    ("turnaround_p99", |pool| percentile(&pool.latency, Stage::Turnaround, |summary| summary.p99_us)),
    ("connect_p50", |pool| percentile(&pool.latency, Stage::Connect, |summary| summary.p50_us)),
    ("connect_p99", |pool| percentile(&pool.latency, Stage::Connect, |summary| summary.p99_us)),
    ("first_byte_p50", |pool| percentile(&pool.latency, Stage::FirstByte, |summary| summary.p50_us)),
    ("first_byte_p99", |pool| percentile(&pool.latency, Stage::FirstByte, |summary| summary.p99_us)),
];

const BACKEND: [Column<Backend>; 17] = [
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
    ("requests", |backend| requests(backend.http.as_ref())),
    ("server_errors", |backend| server_errors(backend.http.as_ref())),
];

/// Of the last 10 s; `None` when nothing was measured in them.
fn percentile(latency: &Latency, stage: Stage, of: fn(&Summary) -> u64) -> Option<u64> {
    latency.get(stage.name())?.get(Window::TenSeconds.name()).map(of)
}

/// Of HTTP; `None` where none was seen.
fn requests(http: Option<&Http>) -> Option<u64> {
    http.map(|http| http.requests)
}

/// Responses of the class 5xx; `None` where no HTTP was seen.
fn server_errors(http: Option<&Http>) -> Option<u64> {
    let of_class = http?.responses.iter().filter(|responses| responses.class == StatusClass::ServerError.name());
    Some(of_class.map(|responses| responses.count).sum())
}

fn rows<T, const N: usize>(columns: &[Column<T>; N], rows: &[T]) -> Vec<[Option<u64>; N]> {
    rows.iter().map(|row| columns.each_ref().map(|(_, value)| value(row))).collect()
}

fn heads<T, const N: usize>(columns: &[Column<T>; N]) -> [&'static str; N] {
    columns.each_ref().map(|(name, _)| *name)
}

/// What the configuration says, and what the rows of numbers mean.
#[derive(Serialize)]
pub(super) struct Names<'a> {
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
    tls: bool,
    pools: &'a [String],
    max_connections: Option<u32>,
}

#[derive(Serialize)]
struct NamesOfPool<'a> {
    id: PoolId,
    name: &'a str,
    balance: &'a str,
    health: Option<&'a str>,
    /// Id, name, address, weight, whether it is a backup.
    backends: Vec<(BackendId, &'a str, &'a str, u32, bool)>,
}

impl<'a> Names<'a> {
    pub(super) fn of(view: &'a View) -> Names<'a> {
        let listener = |listener: &'a Listener| NamesOfListener {
            id: listener.id,
            name: &listener.name,
            addresses: &listener.addresses,
            tls: listener.tls,
            pools: &listener.pools,
            max_connections: listener.max_connections,
        };
        let backend = |it: &'a Backend| (it.id, &*it.name, &*it.address, it.weight, it.backup);
        let pool = |pool: &'a Pool| NamesOfPool {
            id: pool.id,
            name: &pool.name,
            balance: &pool.balance,
            health: pool.health.as_deref(),
            backends: pool.backends.iter().map(backend).collect(),
        };
        Names {
            version: &view.version,
            commit: &view.commit,
            started: view.started,
            workers: view.plane.workers,
            capacity: view.plane.capacity,
            stages: Stage::ALL.map(Stage::name),
            columns: Columns { listener: heads(&LISTENER), pool: heads(&POOL), backend: heads(&BACKEND) },
            listeners: view.listeners.iter().map(listener).collect(),
            pools: view.pools.iter().map(pool).collect(),
        }
    }
}

/// What happened last, and what is in service.
#[derive(Serialize)]
pub(super) struct Journal<'a> {
    not_ready: &'a [String],
    transitions: &'a [Transition],
    refusals: &'a [Refusal],
    certificates: &'a [Certificate],
    tls_files: &'a [TlsFiles],
    /// Those that cannot be written, or could not since the start.
    logs: Vec<&'a Log>,
}

impl<'a> Journal<'a> {
    pub(super) fn of(view: &'a View) -> Journal<'a> {
        Journal {
            not_ready: &view.not_ready,
            transitions: &view.transitions,
            refusals: &view.refusals,
            certificates: &view.certificates,
            tls_files: &view.tls_files,
            logs: view.logs.iter().filter(|log| log.write_errors > 0).collect(),
        }
    }
}

/// What changes every second. The rows are in the order of [`Names`], backends of all pools one after the other.
#[derive(Serialize)]
pub(super) struct Numbers<'a> {
    time: f64,
    uptime: f64,
    ready: bool,
    draining: bool,
    open: usize,
    cpu_seconds: f64,
    resident_bytes: u64,
    lost_samples: u64,
    listeners: Vec<[Option<u64>; LISTENER.len()]>,
    pools: Vec<[Option<u64>; POOL.len()]>,
    backends: Vec<[Option<u64>; BACKEND.len()]>,
    /// Why a backend is down, by its row.
    reasons: BTreeMap<usize, &'a str>,
}

impl<'a> Numbers<'a> {
    pub(super) fn of(view: &'a View) -> Numbers<'a> {
        let all = || view.pools.iter().flat_map(|pool| &pool.backends);
        Numbers {
            time: view.time,
            uptime: view.uptime,
            ready: view.ready,
            draining: view.draining,
            open: view.plane.open,
            cpu_seconds: view.process.cpu_seconds,
            resident_bytes: view.process.resident_bytes,
            lost_samples: view.plane.lost_samples,
            listeners: rows(&LISTENER, &view.listeners),
            pools: rows(&POOL, &view.pools),
            backends: view.pools.iter().flat_map(|pool| rows(&BACKEND, &pool.backends)).collect(),
            reasons: all().enumerate().filter_map(|(row, backend)| Some((row, backend.reason.as_deref()?))).collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json, to_value};

    use super::*;
    use crate::admin::view::Responses;

    /// Two pools with a backend each, the second one down.
    pub(in super::super) fn view() -> View {
        let summary = Summary { count: 3, p50_us: 512, p99_us: 4711, ..Summary::default() };
        let latency =
            |window: &str| Latency::from([("turnaround".to_owned(), BTreeMap::from([(window.to_owned(), summary)]))]);
        let fast = Backend {
            name: "fast".into(),
            up: true,
            open: 7,
            bytes_out: u64::MAX,
            latency: latency("10s"),
            http: Some(http()),
            ..Backend::default()
        };
        let gone = Backend {
            name: "<script>".into(),
            reason: Some("refused".into()),
            since: 1_700_000_000.4,
            latency: latency("1m"),
            ..Backend::default()
        };
        let pool = |name: &str, backend: &Backend| Pool {
            name: name.into(),
            up: usize::from(backend.up),
            backends: vec![backend.clone()],
            ..Pool::default()
        };
        let web = Listener { name: "web".into(), http: Some(http()), ..Listener::default() };
        View { listeners: vec![web], pools: vec![pool("one", &fast), pool("two", &gone)], ..View::default() }
    }

    /// Nine requests, of which three had a 5xx.
    fn http() -> Http {
        let responses = [("GET", "2xx", 5), ("GET", "5xx", 1), ("other", "5xx", 2)]
            .map(|(method, class, count)| Responses { method: method.to_owned(), class: class.to_owned(), count });
        Http { requests: 9, unanswered: 1, opaque: 0, responses: responses.into() }
    }

    /// The values of a row by the names of its columns.
    fn named(names: &Value, rows: &Value, row: usize) -> BTreeMap<String, Value> {
        let heads = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        heads.zip(rows[row].as_array().unwrap().iter().cloned()).collect()
    }

    #[test]
    fn a_row_says_what_its_columns_are_named() {
        let view = view();
        let names = to_value(Names::of(&view)).unwrap();
        let numbers = to_value(Numbers::of(&view)).unwrap();
        assert_eq!(names["pools"][1]["backends"][0], json!([BackendId::NONE, "<script>", "", 0, false]));
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
        assert_eq!(named(&names["columns"]["pool"], &numbers["pools"], 1)["up"], json!(0));
    }

    #[test]
    fn a_thousand_busy_backends_are_a_fifth_of_a_megabyte() {
        let mut view = view();
        let summary = Summary { p50_us: 123_456, p99_us: 1_234_567, ..Summary::default() };
        let windows = BTreeMap::from([("10s".to_owned(), summary)]);
        let busy = Backend {
            up: true,
            since: 1.7e9,
            open: 1000,
            connections: 1 << 40,
            connect_failures: 1000,
            failures: 1000,
            bytes_in: 1 << 50,
            bytes_out: 1 << 50,
            downs: 10,
            http: Some(Http { requests: 1 << 40, ..http() }),
            latency: Stage::ALL.map(|stage| (stage.name().to_owned(), windows.clone())).into(),
            ..Backend::default()
        };
        view.pools[0].backends = vec![busy; 1000];
        let text = serde_json::to_string(&Numbers::of(&view)).unwrap();
        assert!((100_000..200_000).contains(&text.len()), "{} bytes", text.len());
    }
}
