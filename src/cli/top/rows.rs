//! The lines of the table: each pool, followed by its backends, sorted and filtered. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;

use clap::ValueEnum;
use serde::Serialize;
use tidegate::admin::snapshot_model::{BackendStats, BackendStatus, ListenerStats, PoolStats, Snapshot};
use tidegate::stats::latency::{Stage, Window};

/// Seconds of the window that rates are of before there are two looks.
const SPAN: f64 = 10.0;

/// What lines are sorted by. Backends stay with their pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// The order of the configuration
    Config,
    /// Names
    Name,
    /// Those that are down first
    State,
    /// Connections open
    Open,
    /// Connections a second
    Rate,
    /// Bytes to the backend
    In,
    /// Bytes from the backend
    Out,
    /// Failures
    Failures,
    /// The median
    P50,
    /// The 99th percentile
    P99,
    /// The maximum
    Max,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) stage: Stage,
    pub(super) window: Window,
    /// Only lines with this in their names or addresses, whatever its case.
    pub(super) filter: String,
}

/// How a line stands; what is worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RowState {
    /// It takes no connections.
    Down,
    /// Of a pool: some of its backends are down.
    Part,
    /// It has as many connections as it may.
    Full,
    /// It was removed, and still has connections.
    Leaving,
    /// It is drained.
    Drain,
    /// It is in maintenance.
    Maintenance,
    /// Its weight is 0: it gets no new connections.
    Off,
    /// It takes connections, and no health check says whether it can serve them.
    Unchecked,
    Up,
}

impl RowState {
    /// In a word, as colours alone are not accessible.
    pub(super) fn word(self) -> &'static str {
        match self {
            RowState::Down => "DOWN",
            RowState::Part => "part",
            RowState::Full => "full",
            RowState::Leaving => "leaving",
            RowState::Drain => "drain",
            RowState::Maintenance => "maint",
            RowState::Off => "off",
            RowState::Unchecked => "unchecked",
            RowState::Up => "up",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) pool: String,
    /// `None` in a pool's own line.
    pub(super) backend: Option<String>,
    pub(super) state: RowState,
    /// Role and lag of a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<String>,
    /// Backends that are up, and all; of a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backends: Option<(usize, usize)>,
    pub(super) open: u64,
    /// Connections a second.
    pub(super) per_second: f64,
    /// Since the start.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Bytes a second; `None` before there were two looks.
    #[serde(skip)]
    pub(super) rate_in: Option<f64>,
    #[serde(skip)]
    pub(super) rate_out: Option<f64>,
    /// Connects that failed, and connections that ended by its fault.
    pub(super) failures: u64,
    /// Of a pool, those of all its traffic; `None` where nothing was measured.
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    pub(super) max_us: Option<u64>,
    /// Where to find the rest.
    #[serde(skip)]
    pub(super) place: (usize, Option<usize>),
}

/// All lines that are to be shown. `previous` is the look before. A filter hides backends, and pools without any that is
/// shown; a pool's line is always that of the whole pool.
pub(super) fn rows(snapshot: &Snapshot, previous: Option<&Snapshot>, choice: &Selection) -> Vec<Row> {
    let before = Before::new(snapshot, previous);
    let filter = choice.filter.to_lowercase();
    let mut pools: Vec<(Row, Vec<Row>)> = snapshot
        .pools
        .iter()
        .enumerate()
        .filter_map(|(place, pool)| {
            let is_shown = |backend: &BackendStats| {
                let name = format!("{}/{} {}", pool.name, backend.name, backend.address);
                filter.is_empty() || name.to_lowercase().contains(&filter)
            };
            let backends = pool.backends.iter().enumerate();
            let mut rows: Vec<Row> = backends
                .map(|(n, backend)| of_backend(snapshot, pool, backend, (place, Some(n)), &before, choice))
                .collect();
            let whole = of_pool(pool, place, &rows, choice);
            let mut shown = pool.backends.iter().map(is_shown);
            rows.retain(|_| shown.next().unwrap_or_default());
            rows.sort_by(|one, two| order(choice, one, two));
            (!rows.is_empty()).then_some((whole, rows))
        })
        .collect();
    pools.sort_by(|(one, _), (two, _)| order(choice, one, two));
    pools.into_iter().flat_map(|(pool, backends)| std::iter::once(pool).chain(backends)).collect()
}

/// The look before, if it was at the same process.
struct Before<'a> {
    backends: HashMap<(&'a str, &'a str), &'a BackendStats>,
    seconds: f64,
}

impl<'a> Before<'a> {
    fn new(snapshot: &Snapshot, previous: Option<&'a Snapshot>) -> Option<Before<'a>> {
        let previous = previous.filter(|it| it.started == snapshot.started && it.time < snapshot.time)?;
        let named = |pool: &'a PoolStats| pool.backends.iter().map(|it| ((pool.name.as_str(), it.name.as_str()), it));
        let backends = previous.pools.iter().flat_map(named).collect();
        Some(Before { backends, seconds: snapshot.time - previous.time })
    }
}

fn of_backend(
    snapshot: &Snapshot,
    pool: &PoolStats,
    backend: &BackendStats,
    place: (usize, Option<usize>),
    before: &Option<Before<'_>>,
    choice: &Selection,
) -> Row {
    let then = before.as_ref().and_then(|it| Some((it.seconds, *it.backends.get(&(&*pool.name, &*backend.name))?)));
    let rate = |number: fn(&BackendStats) -> u64| {
        then.map(|(seconds, then)| number(backend).saturating_sub(number(then)) as f64 / seconds)
    };
    let recent = || {
        let connects = backend.latency.get(Stage::Connect, Window::TenSeconds).map_or(0, |it| it.count);
        connects as f64 / snapshot.uptime.clamp(1.0, SPAN)
    };
    let measured = backend.latency.get(choice.stage, choice.window);
    Row {
        pool: pool.name.clone(),
        backend: Some(backend.name.clone()),
        state: match () {
            () if backend.status() == BackendStatus::Leaving => RowState::Leaving,
            () if backend.status() == BackendStatus::Maintenance => RowState::Maintenance,
            () if backend.status() == BackendStatus::Drain => RowState::Drain,
            () if !backend.up => RowState::Down,
            () if backend.weight == 0 => RowState::Off,
            () if backend.max_connections.is_some_and(|most| backend.open >= u64::from(most)) => RowState::Full,
            () if backend.status() == BackendStatus::Unchecked => RowState::Unchecked,
            () => RowState::Up,
        },
        database: backend.database(),
        backends: None,
        open: backend.open,
        per_second: rate(|it| it.connections).unwrap_or_else(recent),
        bytes_in: backend.bytes_in,
        bytes_out: backend.bytes_out,
        rate_in: rate(|it| it.bytes_in),
        rate_out: rate(|it| it.bytes_out),
        failures: backend.connect_failures + backend.failures,
        p50_us: measured.map(|it| it.p50_us),
        p99_us: measured.map(|it| it.p99_us),
        max_us: measured.map(|it| it.max_us),
        place,
    }
}

/// `rows` are those of all its backends.
fn of_pool(pool: &PoolStats, place: usize, rows: &[Row], choice: &Selection) -> Row {
    let measured = pool.latency.get(choice.stage, choice.window);
    let sum = |number: fn(&Row) -> u64| rows.iter().map(number).sum();
    let rate = |number: fn(&Row) -> Option<f64>| {
        rows.iter().filter_map(number).fold(None, |sum: Option<f64>, one| Some(sum.unwrap_or_default() + one))
    };
    Row {
        pool: pool.name.clone(),
        backend: None,
        state: match () {
            () if !pool.usable => RowState::Down,
            () if pool.up < pool.present() => RowState::Part,
            () if pool.status() == BackendStatus::Unchecked => RowState::Unchecked,
            () => RowState::Up,
        },
        database: None,
        backends: Some((pool.up, pool.present())),
        open: sum(|row| row.open),
        per_second: rows.iter().map(|row| row.per_second).sum(),
        bytes_in: sum(|row| row.bytes_in),
        bytes_out: sum(|row| row.bytes_out),
        rate_in: rate(|row| row.rate_in),
        rate_out: rate(|row| row.rate_out),
        failures: sum(|row| row.failures),
        p50_us: measured.map(|it| it.p50_us),
        p99_us: measured.map(|it| it.p99_us),
        max_us: measured.map(|it| it.max_us),
        place: (place, None),
    }
}

/// Names from a to z, numbers from the largest on; equals as configured.
fn order(choice: &Selection, one: &Row, two: &Row) -> Ordering {
    // Before there are rates, what came since the start.
    let bytes = |rate: Option<f64>, total: u64| rate.unwrap_or(total as f64);
    let order = match choice.sort {
        Sort::Config => one.place.cmp(&two.place),
        Sort::Name => (&one.pool, &one.backend).cmp(&(&two.pool, &two.backend)),
        Sort::State => one.state.cmp(&two.state),
        Sort::Open => two.open.cmp(&one.open),
        Sort::Rate => two.per_second.total_cmp(&one.per_second),
        Sort::In => bytes(two.rate_in, two.bytes_in).total_cmp(&bytes(one.rate_in, one.bytes_in)),
        Sort::Out => bytes(two.rate_out, two.bytes_out).total_cmp(&bytes(one.rate_out, one.bytes_out)),
        Sort::Failures => two.failures.cmp(&one.failures),
        Sort::P50 => two.p50_us.cmp(&one.p50_us),
        Sort::P99 => two.p99_us.cmp(&one.p99_us),
        Sort::Max => two.max_us.cmp(&one.max_us),
    };
    if choice.reversed { order.reverse() } else { order }
}

/// What all listeners do in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Throughput {
    /// Connections accepted.
    pub(super) accepted: f64,
    /// Bytes to backends and from them; `None` before there were two looks.
    pub(super) bytes: Option<(f64, f64)>,
}

/// Of every listener, whatever is filtered. Before there were two looks, the connections of the last second.
pub(super) fn traffic(snapshot: &Snapshot, previous: Option<&Snapshot>) -> Throughput {
    let Some(previous) = previous.filter(|it| it.started == snapshot.started && it.time < snapshot.time) else {
        let accepted = snapshot.listeners.iter().map(|listener| listener.rate.now).sum::<u64>();
        return Throughput { accepted: accepted as f64, bytes: None };
    };
    let then: HashMap<&str, &ListenerStats> = previous.listeners.iter().map(|it| (it.name.as_str(), it)).collect();
    let rate = |number: fn(&ListenerStats) -> u64| {
        let more = snapshot.listeners.iter().map(|listener| {
            number(listener).saturating_sub(then.get(listener.name.as_str()).map_or(0, |then| number(then)))
        });
        more.sum::<u64>() as f64 / (snapshot.time - previous.time)
    };
    Throughput { accepted: rate(|it| it.accepted), bytes: Some((rate(|it| it.bytes_in), rate(|it| it.bytes_out))) }
}
