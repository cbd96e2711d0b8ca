//! The rows: what each is of, and what is computed of it.

use std::ops::Deref;

use crate::admin::snapshot_model::{
    BackendStats, BackendStatus, CheckKind, CheckResult, HttpStats, LatencySummary, ListenerStats, PoolStats,
    QueryStats, Snapshot,
};
use crate::config::model::Balance;
use crate::stats::http::StatusClass;
use crate::stats::latency::{Stage, Window};
use crate::stats::termination::Termination;

/// The row of a listener, HAProxy's FRONTEND.
pub(super) struct Frontend<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) listener: &'a ListenerStats,
    /// Its number among the proxies, from 1 on.
    pub(super) number: usize,
}

/// The row of a pool, HAProxy's BACKEND, over all its backends; or, as a part of [`Server`], over one of them.
pub(super) struct Group<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) pool: &'a PoolStats,
    pub(super) backends: &'a [BackendStats],
    /// The pool's number among the proxies.
    pub(super) number: usize,
    /// Counts of backends that have left: of a pool's own row.
    pub(super) departed: Option<&'a BackendStats>,
}

/// The row of a backend, a server of HAProxy's.
pub(super) struct Server<'a> {
    pub(super) group: Group<'a>,
    pub(super) backend: &'a BackendStats,
    /// Its place in the pool, from 1 on.
    pub(super) place: usize,
}

impl<'a> Deref for Server<'a> {
    type Target = Group<'a>;

    fn deref(&self) -> &Group<'a> {
        &self.group
    }
}

impl Frontend<'_> {
    /// Connections that ended in one of these ways.
    pub(super) fn ended(&self, terminations: &[Termination]) -> u64 {
        let ended = self.listener.terminations.iter().filter(|ended| terminations.contains(&ended.termination));
        ended.map(|ended| ended.count).sum()
    }

    pub(super) fn failed_handshakes(&self) -> u64 {
        // Where TLS is passed through, an invalid ClientHello is no failed handshake.
        let unread = self.listener.handshakes.map_or(0, |_| self.ended(&[Termination::BadClientHello]));
        unread + self.ended(&[Termination::HandshakeTimeout, Termination::HandshakeFailed])
    }

    /// Of HTTP or a database.
    pub(super) fn requests(&self) -> u64 {
        self.listener.http.as_ref().map_or(0, |http| http.requests) + queries(&self.listener.queries)
    }

    /// `None` where HTTP is not watched.
    pub(super) fn responses(&self, class: StatusClass) -> Option<u64> {
        self.listener.counts_requests.then(|| responses(self.listener.http.iter(), class))
    }
}

impl Group<'_> {
    pub(super) fn sum(&self, value: fn(&BackendStats) -> u64) -> u64 {
        self.departed.into_iter().chain(self.backends).map(value).sum()
    }

    /// Whether HTTP is watched on its way to this pool.
    pub(super) fn is_http(&self) -> bool {
        self.snapshot
            .listeners
            .iter()
            .any(|listener| listener.counts_requests && listener.pools.contains(&self.pool.name))
    }

    /// `None` where neither HTTP nor queries are watched.
    pub(super) fn requests(&self) -> Option<u64> {
        let queries: u64 = self.backends.iter().map(|backend| queries(&backend.queries)).sum();
        let is_watched = self.is_http() || queries > 0;
        is_watched.then(|| self.http().map(|http| http.requests).sum::<u64>() + queries)
    }

    /// `None` where HTTP is not watched.
    pub(super) fn responses(&self, class: StatusClass) -> Option<u64> {
        self.is_http().then(|| responses(self.http(), class))
    }

    fn http(&self) -> impl Iterator<Item = &HttpStats> {
        self.backends.iter().filter_map(|backend| backend.http.as_ref())
    }

    pub(super) fn seconds_since(&self, time: f64) -> u64 {
        (self.snapshot.time - time).max(0.0) as u64
    }

    /// -1 before the first.
    pub(super) fn seconds_since_last_connection(&self) -> String {
        match self.backends.iter().filter_map(|backend| backend.last_session).reduce(f64::max) {
            Some(last) => self.seconds_since(last).to_string(),
            None => "-1".to_owned(),
        }
    }

    /// Backends that are up, by whether they are a backup.
    pub(super) fn up(&self, backup: bool) -> impl Iterator<Item = &BackendStats> {
        self.backends.iter().filter(move |backend| backend.up && backend.backup == backup)
    }

    /// The weight in use: that of the backups only when no other backend has any.
    pub(super) fn weight(&self) -> u64 {
        let weight = |backup: bool| self.up(backup).map(|backend| u64::from(backend.weight)).sum::<u64>();
        match weight(false) {
            0 => weight(true),
            active => active,
        }
    }

    /// The sum of the limits, when every backend with a weight has one.
    pub(super) fn connection_limit(&self) -> Option<u64> {
        let weighted = self.backends.iter().filter(|backend| backend.weight > 0);
        weighted.map(|backend| backend.max_connections.map(u64::from)).sum::<Option<u64>>().filter(|&limit| limit > 0)
    }

    /// The stage that HAProxy's `rtime` is of.
    pub(super) fn first_byte(&self) -> Stage {
        if self.is_http() { Stage::HttpFirstByte } else { Stage::FirstByte }
    }

    pub(super) fn mean_ms(&self, stage: Stage) -> u64 {
        let (count, sum) = self.latency(stage, Window::Minute).fold((0, 0.0), |(count, sum), summary| {
            (count + summary.count, sum + summary.mean_us * summary.count as f64)
        });
        if count > 0 { milliseconds(sum / count as f64) } else { 0 }
    }

    pub(super) fn max_ms(&self, stage: Stage) -> u64 {
        milliseconds(self.latency(stage, Window::All).map(|all| all.max_us as f64).fold(0.0, f64::max))
    }

    fn latency(&self, stage: Stage, window: Window) -> impl Iterator<Item = &LatencySummary> {
        self.backends.iter().filter_map(move |backend| backend.latency.get(stage, window))
    }
}

impl Server<'_> {
    pub(super) fn status(&self) -> &'static str {
        match self.backend {
            BackendStats { status: BackendStatus::Leaving, .. } => "DRAIN",
            BackendStats { status: BackendStatus::Maintenance, .. } => "MAINT",
            BackendStats { status: BackendStatus::Drain, .. } => "DRAIN",
            BackendStats { up: false, .. } => "DOWN",
            BackendStats { weight: 0, .. } => "DRAIN",
            BackendStats { checks: None, .. } => "no check",
            _ => "UP",
        }
    }

    pub(super) fn last_check(&self) -> Option<&CheckResult> {
        self.backend.checks.as_ref()?.last.as_ref()
    }

    /// HAProxy's word for how a check ended: the layer, and the result.
    pub(super) fn check_status(&self) -> Option<&'static str> {
        let check = self.last_check()?;
        let by_layer = |layer_4, layer_7| if self.is_layer_4() { layer_4 } else { layer_7 };
        Some(match check.reason.as_deref().unwrap_or_default() {
            _ if check.passed => by_layer("L4OK", "L7OK"),
            reason if reason.starts_with("timed out") => by_layer("L4TOUT", "L7TOUT"),
            "connection refused" | "reset" | "unreachable" | "no such socket" | "permission denied"
            | "backlog full" => "L4CON",
            reason if reason.starts_with("status ") => by_layer("L4CON", "L7STS"),
            _ => by_layer("L4CON", "L7RSP"),
        })
    }

    /// The status with which an HTTP check failed.
    pub(super) fn check_code(&self) -> Option<u16> {
        self.last_check()?.reason.as_deref()?.strip_prefix("status ")?.parse().ok()
    }

    pub(super) fn check_layer(&self) -> Option<&'static str> {
        self.last_check().map(|_| if self.is_layer_4() { "Layer4" } else { "Layer7" })
    }

    pub(super) fn check_result(&self) -> Option<&'static str> {
        self.last_check().map(|check| if check.passed { "passed" } else { "failed" })
    }

    /// How far it is from going down: from 0, which is down, to `rise + fall - 1`. In between, how many checks in a row
    /// have passed or failed is unknown.
    pub(super) fn check_health(&self) -> Option<u32> {
        match (self.backend.up, self.last_check()?.passed) {
            (true, true) => Some(self.pool.rise?.saturating_add(self.pool.fall?).saturating_sub(1)),
            (false, false) => Some(0),
            _ => None,
        }
    }

    fn is_layer_4(&self) -> bool {
        self.pool.health == Some(CheckKind::Tcp)
    }
}

pub(super) fn mode(is_http: bool) -> &'static str {
    if is_http { "http" } else { "tcp" }
}

/// HAProxy's name of an algorithm; tidegate's own where HAProxy has none.
pub(super) fn algorithm(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConnections => "leastconn",
        Balance::IpHash => "source",
        // HAProxy's random is the better of two, too.
        Balance::PowerOfTwo => "random",
        Balance::LeastLatency | Balance::Random => balance.name(),
    }
}

fn queries(all: &[QueryStats]) -> u64 {
    all.iter().map(|it| it.queries).sum()
}

fn responses<'a>(http: impl Iterator<Item = &'a HttpStats>, class: StatusClass) -> u64 {
    let responses = http.flat_map(|http| &http.responses).filter(|responses| responses.class == class);
    responses.map(|responses| responses.count).sum()
}

fn milliseconds(micros: f64) -> u64 {
    (micros / 1000.0).round() as u64
}
