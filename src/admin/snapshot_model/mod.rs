//! What the stats port shows, as typed data: each page, metric and table is written from one [`Snapshot`], so that all
//! agree. Serialized, it is `/stats`; `tidegate top` reads that back into the same types.
//!
//! Field names are part of the interface: some are added, none changes its meaning. Times are seconds since 1970,
//! durations seconds, unless a name ends in `_us` (microseconds).

mod listener;
mod measured;
mod pool;
mod tls;

use serde::{Deserialize, Serialize};

pub use self::listener::{HandshakeStats, ListenerStats, RateStats, TerminationStats};
pub use self::measured::{HttpStats, Latency, LatencySummary, ResponseCount};
pub use self::pool::{BackendStats, CheckKind, CheckResult, CheckStats, PoolStats, Status, StatusChange};
pub use self::tls::{ServedCertificate, TlsFiles, TlsOwner};

/// Everything, at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
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
    pub plane: PlaneStats,
    /// The process.
    pub process: Process,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStats>,
    /// In the order of the configuration.
    pub pools: Vec<PoolStats>,
    /// Those in service.
    pub certificates: Vec<ServedCertificate>,
    /// Of each listener and pool that has TLS.
    #[serde(default)]
    pub tls_files: Vec<TlsFiles>,
    /// What each log has lost.
    #[serde(default)]
    pub logs: Vec<LogStats>,
    /// The last times that a backend went up or down, the latest first.
    pub transitions: Vec<StatusChange>,
    /// The last clients that were refused, the latest first. Of many in the same second, one is kept.
    pub refusals: Vec<RejectedClient>,
}

/// The data plane as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlaneStats {
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
pub struct LogStats {
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

/// A client that was refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RejectedClient {
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
