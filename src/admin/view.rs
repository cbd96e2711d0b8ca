//! What the stats port shows, as plain data: every page, metric and table is made of one [`View`], so that they
//! say the same. It is also what `/stats` prints as JSON and what `tidegate top` reads back.
//!
//! Names of fields are part of the interface: they are added, and never changed. Times are seconds since 1970,
//! durations seconds, unless a name ends in `_us` (microseconds) or `_ms`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::registry::{BackendId, ListenerId, PoolId};

/// Everything, at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct View {
    /// Of tidegate, such as `0.1.0`.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// When this was true.
    pub time: f64,
    /// When the process started.
    pub started: f64,
    /// How long ago that was.
    pub uptime: f64,
    /// No new connection is accepted any more.
    pub draining: bool,
    /// Whether every pool that a listener sends connections to has a backend that takes them, and nothing drains.
    pub ready: bool,
    /// Why it is not ready, for people; empty when it is.
    pub not_ready: Vec<String>,
    /// The data plane as a whole.
    pub plane: Plane,
    /// The process.
    pub process: Process,
    /// In the order of the configuration.
    pub listeners: Vec<Listener>,
    /// In the order of the configuration.
    pub pools: Vec<Pool>,
    /// Those in service.
    pub certificates: Vec<Certificate>,
    /// Of each listener and pool that has TLS.
    #[serde(default)]
    pub tls_files: Vec<TlsFiles>,
    /// What each log has lost.
    #[serde(default)]
    pub logs: Vec<Log>,
    /// The last times that a backend went up or down, the latest first.
    pub transitions: Vec<Transition>,
    /// The last clients that were refused, the latest first. Of many in the same second, one is kept.
    pub refusals: Vec<Refusal>,
}

/// The data plane as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plane {
    /// Threads that move bytes.
    pub workers: usize,
    /// Connections that may be open at once: as many as there are descriptors for.
    pub capacity: usize,
    /// Connections open now.
    pub open: usize,
    /// Measurements that were lost because nobody took them: 0 unless the process is starved of CPU time.
    pub lost_samples: u64,
}

/// What the kernel says of the process; 0 where it says nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// CPU time, user and system.
    pub cpu_seconds: f64,
    /// Memory that is resident.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Descriptors.
    pub open_fds: u64,
    /// How many it may have.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

/// What a log has lost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    /// `access` for an access log with a file of its own, `process` for everything else.
    pub name: String,
    /// Lines dropped because the writer did not keep up.
    pub dropped_lines: u64,
    /// Lines that could not be written.
    pub write_errors: u64,
    /// Why lines cannot be written now; `None` while they can.
    pub error: Option<String>,
    /// Since when they cannot.
    pub failing_since: Option<f64>,
}

/// One listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listener {
    /// Its id.
    #[serde(skip)]
    pub id: ListenerId,
    /// Its name.
    pub name: String,
    /// Where it listens, such as `127.0.0.1:8080`.
    pub addresses: Vec<String>,
    /// Whether TLS ends here.
    pub tls: bool,
    /// Whether HTTP is watched (`sniff: http`).
    pub sniffs_http: bool,
    /// Where connections go that match no route.
    pub pool: String,
    /// Every pool that connections may go to, that one first.
    pub pools: Vec<String>,
    /// Connections open at once; `None` is no limit.
    pub max_connections: Option<u32>,
    /// Connections of all clients in a second (`limits.connection_rate`); `None` is no limit.
    #[serde(default)]
    pub rate_limit: Option<f64>,
    /// Connections open now.
    pub open: u64,
    /// The most that were open at once.
    pub open_max: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that have ended, however.
    pub ended: u64,
    /// Of these, those that got no backend because they were refused.
    pub refused: u64,
    /// Bytes from clients that were handed to backends.
    pub bytes_in: u64,
    /// Bytes from backends that were handed to clients.
    pub bytes_out: u64,
    /// Connects that were tried again with another backend.
    pub retries: u64,
    /// Connections accepted a second.
    #[serde(default)]
    pub rate: Rate,
    /// Requests of HTTP a second, where it is watched; counted at their end.
    #[serde(default)]
    pub request_rate: Rate,
    /// TLS handshakes with clients; `None` where TLS does not end.
    #[serde(default)]
    pub handshakes: Option<Handshakes>,
    /// How connections ended: every way there is.
    pub endings: Vec<TerminationStats>,
    /// How long things took.
    pub latency: Latency,
    /// What was seen of HTTP.
    pub http: Option<Http>,
}

/// How many a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// In the last one.
    pub now: u64,
    /// The most in any.
    pub max: u64,
}

/// TLS handshakes that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handshakes {
    /// Made from the beginning.
    pub full: u64,
    /// Gone on with a session that both sides knew.
    pub resumed: u64,
}

/// One way to end, and how often connections did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TerminationStats {
    /// As in the access log, such as `client closed` or `refused: no backend`.
    pub end: String,
    /// Who caused it: `client`, `backend` or `tidegate`.
    pub side: String,
    /// What happened, without the side.
    pub reason: String,
    /// As in an access log of HAProxy's form.
    pub code: String,
    /// Whether the client was refused.
    pub refusal: bool,
    /// How often.
    pub count: u64,
}

/// Whether a backend or a pool takes connections, and whether a health check says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It passes its health checks.
    Up,
    /// It takes no connections.
    #[default]
    Down,
    /// It takes connections, and no health check says whether it can serve them.
    Unchecked,
    /// It was removed: it takes no new connections, and is gone when its last one has ended.
    Leaving,
}

impl Status {
    /// That of what is `up`, as far as is known.
    pub fn of(up: bool, is_checked: bool) -> Status {
        match (up, is_checked) {
            (false, _) => Status::Down,
            (true, false) => Status::Unchecked,
            (true, true) => Status::Up,
        }
    }

    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            Status::Up => "up",
            Status::Down => "down",
            Status::Unchecked => "unchecked",
            Status::Leaving => "leaving",
        }
    }
}

/// One pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Its id.
    #[serde(skip)]
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// The algorithm, as in the configuration.
    pub balance: String,
    /// The kind of its health check, `tcp`, `http` or `exchange`; `None` for none.
    pub health: Option<String>,
    /// Checks that must pass one after the other for a backend to be up.
    #[serde(default)]
    pub rise: Option<u32>,
    /// Checks that must fail one after the other for it to be down.
    #[serde(default)]
    pub fall: Option<u32>,
    /// `down` when no backend takes connections; `unchecked` without health checks.
    #[serde(default)]
    pub status: Status,
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
    pub rate: Rate,
    /// Connections that got no backend of it.
    pub refused: u64,
    /// Connects that were tried again with another backend.
    pub retries: u64,
    /// How long things took, over all backends.
    #[serde(default)]
    pub latency: Latency,
    /// In the order of the configuration.
    pub backends: Vec<Backend>,
}

/// One backend of a pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Backend {
    /// Its id.
    #[serde(skip)]
    pub id: BackendId,
    /// Its name, unique in its pool.
    pub name: String,
    /// As configured.
    pub address: String,
    /// As configured; with 0 it gets no new connections.
    pub weight: u32,
    /// Used only when no other can be.
    pub backup: bool,
    /// Connections it may have at once; `None` is no limit.
    pub max_connections: Option<u32>,
    /// Whether it takes connections.
    pub up: bool,
    /// The same, and whether a health check says so.
    #[serde(default)]
    pub status: Status,
    /// Why not, for people.
    pub reason: Option<String>,
    /// Since when.
    pub since: f64,
    /// How often it went down.
    pub downs: u64,
    /// How long it was down, all in all.
    pub downtime: f64,
    /// Its health checks; `None` when it has none.
    pub checks: Option<Checks>,
    /// Connections it has now.
    pub open: u64,
    /// The most it had at once.
    pub open_max: u64,
    /// Connections it was given: those that were established.
    pub connections: u64,
    /// The same a second.
    #[serde(default)]
    pub rate: Rate,
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
    pub handshakes: Option<Handshakes>,
    /// Bytes that clients sent and it was handed.
    pub bytes_in: u64,
    /// Bytes that it sent and clients were handed.
    pub bytes_out: u64,
    /// Moving average of its connect and first-byte times, which `least_latency` goes by; 0 is unknown.
    pub average_us: u32,
    /// How long things took.
    pub latency: Latency,
    /// What was seen of HTTP.
    pub http: Option<Http>,
}

/// Health checks of one backend.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checks {
    /// How many there were.
    pub count: u64,
    /// How many failed.
    pub failed: u64,
    /// The last one; `None` before the first.
    pub last: Option<Check>,
}

/// One health check.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Check {
    /// When it ended.
    pub time: f64,
    /// How long it took.
    pub took_us: u64,
    /// Whether the backend passed.
    pub passed: bool,
    /// Why not, for people.
    pub reason: Option<String>,
}

/// By stage (`connect`, `turnaround`, ...), and then by window (`all`, `10s`, `1m`, `5m`). Stages and windows in which
/// nothing was measured are left out.
pub type Latency = BTreeMap<String, BTreeMap<String, Summary>>;

/// A histogram in a few numbers: microseconds, to within 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Values.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// And so on.
    pub p75_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 95 %.
    pub p95_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    #[serde(rename = "p99.9_us")]
    pub p999_us: u64,
    /// 99.99 %.
    #[serde(rename = "p99.99_us")]
    pub p9999_us: u64,
    /// The longest, exactly.
    pub max_us: u64,
}

/// What was seen of HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Http {
    /// Requests, answered or not.
    pub requests: u64,
    /// Those whose connection ended before their response did.
    pub unanswered: u64,
    /// Connections that turned into something that is not watched: upgrades, tunnels, what is no HTTP.
    pub opaque: u64,
    /// Those that were answered.
    pub responses: Vec<Responses>,
}

/// Requests of one method that got a response of one class.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Responses {
    /// `GET`, ..., or `other`.
    pub method: String,
    /// `1xx` to `5xx`.
    pub class: String,
    /// How many.
    pub count: u64,
}

/// A certificate in service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Certificate {
    /// The listener that shows it, or the pool whose backends are shown it.
    pub owner: String,
    /// Its file.
    pub path: String,
    /// What it is for.
    pub names: Vec<String>,
    /// The kind of its key.
    pub key: String,
    /// From when it is valid.
    pub not_before: f64,
    /// Until when.
    pub not_after: f64,
}

/// Certificates, keys, authorities and revocation lists of a listener or a pool, which are read anew when they change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TlsFiles {
    /// As in [`Certificate`].
    pub owner: String,
    /// Changes that went into service.
    pub replaced: u64,
    /// Changes that were refused.
    pub refused: u64,
    /// Why what they hold now is not in service, for people; empty when it is.
    pub faults: Vec<String>,
}

/// A backend that went up or down.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Transition {
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
    pub status: Status,
    /// Why it is down, for people.
    pub reason: Option<String>,
}

/// A client that was refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// When.
    pub time: f64,
    /// By which listener.
    pub listener: String,
    /// Its address.
    pub client: String,
    /// Why, for people.
    pub reason: String,
    /// How many more there were since the one before.
    pub more: u64,
}

impl Pool {
    /// [`Pool::status`], also of a view that an older tidegate made.
    pub fn status(&self) -> Status {
        Status::of(self.usable, self.health.is_some())
    }
}

impl Backend {
    /// [`Backend::status`], also of a view that an older tidegate made.
    pub fn status(&self) -> Status {
        match self.status {
            Status::Leaving => Status::Leaving,
            _ => Status::of(self.up, self.checks.is_some()),
        }
    }
}
