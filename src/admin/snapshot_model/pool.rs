//! Pools and their backends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::listener::{HandshakeStats, RateStats};
use super::measured::{HttpStats, Latency};
use super::queries::QueryStats;
use crate::config::model::{AdminState, Balance, ForcedHealth};
use crate::stats::database::{DatabaseState, ReplicationLag, ServerRole};
use crate::stats::registry::{BackendId, PoolId};

/// Whether a backend or a pool takes connections, and whether a health check says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendStatus {
    /// It passes its health checks.
    Up,
    /// It takes no connections.
    #[default]
    Down,
    /// It takes connections, and no health check says whether it can serve them.
    Unchecked,
    /// It was removed: it takes no new connections, and is gone when its last one has ended.
    Leaving,
    /// It is drained: it takes no new connections, and its health checks go on.
    Drain,
    /// It is in maintenance: it takes no new connections, and nothing checks it.
    Maintenance,
}

impl BackendStatus {
    /// That of what is `up`, as far as is known.
    pub fn of(up: bool, is_checked: bool) -> BackendStatus {
        match (up, is_checked) {
            (false, _) => BackendStatus::Down,
            (true, false) => BackendStatus::Unchecked,
            (true, true) => BackendStatus::Up,
        }
    }

    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            BackendStatus::Up => "up",
            BackendStatus::Down => "down",
            BackendStatus::Unchecked => "unchecked",
            BackendStatus::Leaving => "leaving",
            BackendStatus::Drain => "drain",
            BackendStatus::Maintenance => "maintenance",
        }
    }
}

/// One pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PoolStats {
    /// Counts of the backends that have left.
    #[serde(skip)]
    pub departed: BackendStats,
    /// Its id.
    #[serde(skip)]
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// Its balancing algorithm.
    pub balance: Balance,
    /// The kind of its health check; `None` for none.
    pub health: Option<CheckKind>,
    /// Checks that must pass one after the other for a backend to be up.
    #[serde(default)]
    pub rise: Option<u32>,
    /// Checks that must fail one after the other for it to be down.
    #[serde(default)]
    pub fall: Option<u32>,
    /// `down` when no backend takes connections; `unchecked` without health checks.
    #[serde(default)]
    pub status: BackendStatus,
    /// Backends that take connections now.
    pub up: usize,
    /// Whether a connection would get a backend now.
    pub usable: bool,
    /// Since when.
    #[serde(default)]
    pub since: f64,
    /// How often it became unusable.
    #[serde(default)]
    pub downs: u64,
    /// How long it was unusable, all in all.
    #[serde(default)]
    pub downtime: f64,
    /// Connections its backends have now.
    #[serde(default)]
    pub open: u64,
    /// The most they had at once.
    #[serde(default)]
    pub open_max: u64,
    /// Connections that were for it a second, with those that got no backend.
    #[serde(default)]
    pub rate: RateStats,
    /// Connections that got no backend of it.
    pub rejected: u64,
    /// Connections that wait for a backend.
    #[serde(default)]
    pub queue: QueueStats,
    /// Too few backends are up (`fail_open`): all are used as if they were.
    #[serde(default)]
    pub fails_open: bool,
    /// More than one backend states that it is the primary, where one is wanted.
    #[serde(default)]
    pub primary_conflict: bool,
    /// Clients that `persist` remembers; `None` where it is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_clients: Option<u64>,
    /// Connects that were tried again with another backend.
    pub retries: u64,
    /// How long things took, over all backends.
    #[serde(default)]
    pub latency: Latency,
    /// In the order of the configuration.
    pub backends: Vec<BackendStats>,
}

/// The queue of a pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct QueueStats {
    /// Connections that may wait at once (`queue.size`).
    pub size: u32,
    /// Connections that wait now.
    pub waiting: u32,
    /// The most that waited at once.
    pub waiting_max: u32,
    /// Connections that have waited so far.
    pub queued: u64,
    /// Connections that were rejected as the queue was full.
    pub overflowed: u64,
    /// Connections that were rejected after `queue.timeout`.
    pub timed_out: u64,
}

/// One backend of a pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackendStats {
    /// Its id.
    #[serde(skip)]
    pub id: BackendId,
    /// Its name, unique in its pool.
    pub name: String,
    /// Name of its entry in `pools[].backends`, which changes as a whole, where that is a host name with several addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// As configured.
    pub address: String,
    /// As configured; with 0 it gets no new connections.
    pub weight: u32,
    /// Its administrative state.
    #[serde(default)]
    pub admin_state: AdminState,
    /// Its health by decree.
    #[serde(default)]
    pub forced: Option<ForcedHealth>,
    /// Used only when no other can be.
    pub backup: bool,
    /// Connections it may have at once; `None` is no limit.
    pub max_connections: Option<u32>,
    /// Whether it takes connections.
    pub up: bool,
    /// The same, and whether a health check says so.
    #[serde(default)]
    pub status: BackendStatus,
    /// Why not.
    pub reason: Option<String>,
    /// It is down for nothing but an ejection.
    #[serde(default)]
    pub ejected: bool,
    /// How often it was ejected.
    #[serde(default)]
    pub ejections: u64,
    /// Since when.
    pub since: f64,
    /// How often it went down.
    pub downs: u64,
    /// How long it was down, all in all.
    pub downtime: f64,
    /// Its health checks; `None` when it has none.
    pub checks: Option<CheckStats>,
    /// Role that a database states in its health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ServerRole>,
    /// Bytes that a replica is behind the primary of its pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// Seconds that a replica is behind its primary, by its own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Connections it has now.
    pub open: u64,
    /// The most it had at once.
    pub open_max: u64,
    /// Connections it was given: those that were established.
    pub connections: u64,
    /// The same a second.
    #[serde(default)]
    pub rate: RateStats,
    /// When it was given the last one, to within a second; `None` before the first.
    #[serde(default)]
    pub last_session: Option<f64>,
    /// Connects that failed.
    pub connect_failures: u64,
    /// Of these, those after which another backend was tried.
    pub retries: u64,
    /// Connections that ended by its fault: it reset them, was lost, or broke the rules of TLS.
    pub failures: u64,
    /// Connections that ended by the client's fault: it reset them, was lost, or broke the rules of TLS.
    #[serde(default)]
    pub client_aborts: u64,
    /// TLS handshakes with it; `None` where its pool speaks no TLS.
    #[serde(default)]
    pub handshakes: Option<HandshakeStats>,
    /// Bytes that clients sent and it was handed.
    pub bytes_in: u64,
    /// Bytes that it sent and clients were handed.
    pub bytes_out: u64,
    /// Moving average of its connect and first-byte times, which `least_latency` goes by; 0 is unknown.
    pub average_us: u32,
    /// How long things took.
    pub latency: Latency,
    /// What was seen of HTTP.
    pub http: Option<HttpStats>,
    /// Behind `protocol: http`, requests that are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_open: Option<u64>,
    /// What was seen of queries, by protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<QueryStats>,
}

/// Health checks of one backend.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckStats {
    /// How many there were.
    pub count: u64,
    /// How many failed.
    pub failed: u64,
    /// The last one; `None` before the first.
    pub last: Option<CheckResult>,
}

/// The kind of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    Tcp,
    Http,
    Exchange,
    Tls,
    Postgres,
    Mysql,
    Redis,
}

impl CheckKind {
    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            CheckKind::Tcp => "tcp",
            CheckKind::Http => "http",
            CheckKind::Exchange => "exchange",
            CheckKind::Tls => "tls",
            CheckKind::Postgres => "postgres",
            CheckKind::Mysql => "mysql",
            CheckKind::Redis => "redis",
        }
    }
}

/// One health check.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckResult {
    /// When it ended.
    pub time: f64,
    /// How long it took.
    pub took_us: u64,
    /// Whether the backend passed.
    pub passed: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// A backend that went up or down.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatusChange {
    /// When.
    pub time: f64,
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Which way.
    pub up: bool,
    /// The same, and whether a health check says so.
    #[serde(default)]
    pub status: BackendStatus,
    /// Why it is down.
    pub reason: Option<String>,
}

impl PoolStats {
    /// The number of backends but for those that leave.
    pub fn present(&self) -> usize {
        self.backends.iter().filter(|backend| backend.status() != BackendStatus::Leaving).count()
    }

    /// [`PoolStats::status`], also of a view that an older tidegate made.
    pub fn status(&self) -> BackendStatus {
        BackendStatus::of(self.usable, self.health.is_some())
    }
}

impl BackendStats {
    /// Name of its entry in `pools[].backends`.
    pub fn entry(&self) -> &str {
        self.entry.as_deref().unwrap_or(&self.name)
    }

    /// Role and lag of a database in words, where its health check has learnt them.
    pub fn database(&self) -> Option<String> {
        let bytes = self.lag_bytes.map(ReplicationLag::Bytes);
        let time = || self.lag_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let lag = bytes.or_else(|| time().map(ReplicationLag::Time));
        DatabaseState { role: self.role, lag }.words()
    }

    /// Whether it is up and takes new connections, as far as its weight and its limit allow.
    pub fn is_in_service(&self) -> bool {
        matches!(self.status(), BackendStatus::Up | BackendStatus::Unchecked)
    }

    /// [`BackendStats::status`], also of a view that an older tidegate made.
    pub fn status(&self) -> BackendStatus {
        match (self.status, self.admin_state) {
            (BackendStatus::Leaving, _) => BackendStatus::Leaving,
            (_, AdminState::Drain) => BackendStatus::Drain,
            (_, AdminState::Maintenance) => BackendStatus::Maintenance,
            (_, AdminState::Ready) => BackendStatus::of(self.up, self.checks.is_some()),
        }
    }
}
