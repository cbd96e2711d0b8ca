//! What the stats port shows, as typed data: each page, metric and table is written from one [`Snapshot`], so that all
//! agree. Serialized, it is `/stats`; `tidegate top` reads that back into the same types.
//!
//! Field names are part of the interface: some are added, none changes its meaning. Times are seconds since 1970,
//! durations seconds, unless a name ends in `_us` (microseconds).

mod config;
mod listener;
mod measured;
mod pool;
mod queries;
mod tls;

use serde::{Deserialize, Serialize};

pub use self::config::ConfigStats;
pub use self::listener::{DatagramStats, HandshakeStats, ListenerStats, RateStats, RouteStats, TerminationStats};
pub use self::measured::{HttpStats, Latency, LatencySummary, ResponseCount};
pub use self::pool::{
    BackendStats, BackendStatus, CheckKind, CheckResult, CheckStats, PoolStats, QueueStats, StatusChange,
};
pub use self::queries::{PassthroughCount, QueryErrorCount, QueryStats, StatementCount};
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
    /// Whether every listener accepts, every pool of theirs has a backend that takes connections, and nothing drains.
    pub ready: bool,
    /// The processes that upgrades have replaced, while they drain: the last one first.
    #[serde(default)]
    pub predecessors: Vec<DrainingPredecessor>,
    /// Why it is not ready; empty when it is.
    pub not_ready: Vec<String>,
    /// The configuration in effect.
    #[serde(default)]
    pub config: ConfigStats,
    /// The data plane as a whole.
    pub plane: PlaneStats,
    /// The admin interface itself.
    #[serde(default)]
    pub admin: AdminStats,
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
    /// The database of countries, if there is one.
    #[serde(default)]
    pub geoip: Option<GeoIpStats>,
    /// What each log has lost.
    #[serde(default)]
    pub logs: Vec<LogStats>,
    /// The last times that a backend went up or down, the latest first.
    pub transitions: Vec<StatusChange>,
    /// The last rejected clients, the latest first. Of many in the same second, one is kept.
    pub rejections: Vec<RejectedClient>,
}

/// A process that was replaced by an upgrade and drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingPredecessor {
    /// Its process id.
    pub pid: u32,
    /// Connections that it has left, as of the last second.
    pub connections: usize,
}

/// Connections of the admin interface that were not served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminStats {
    /// Closed because the client is not in `admin.allow`.
    pub rejected: u64,
    /// TLS handshakes that have failed.
    #[serde(default)]
    pub failed_handshakes: u64,
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
    /// Latency samples dropped because the stats thread fell behind: 0 unless the process is starved of CPU time.
    pub dropped_samples: u64,
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

/// The database of countries in service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeoIpStats {
    /// What it calls itself.
    pub kind: String,
    /// When it was made.
    pub built: f64,
    /// Ranges of addresses that have a country.
    pub ranges: usize,
    /// Memory that they take, in bytes.
    pub bytes: usize,
    /// Changes of the file that went into service.
    pub replaced: u64,
    /// Changes of the file that were rejected.
    pub rejected: u64,
    /// Why the present content of the file is not in service; `None` when it is.
    pub fault: Option<String>,
}

impl GeoIpStats {
    /// Why the content of the file is not in service, in a sentence.
    pub fn trouble(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        Some(format!("the changed geoip.database is rejected, the previous one stays in service: {fault}"))
    }
}

/// What a log has lost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogStats {
    /// `access` for an access log with a file or a syslog server of its own, `process` for everything else.
    pub name: String,
    /// Lines dropped because the writer did not keep up.
    pub dropped_lines: u64,
    /// Lines that could not be written.
    pub write_errors: u64,
    /// Lines that were longer than the largest syslog message, and lost their end.
    #[serde(default)]
    pub truncated_lines: u64,
    /// Why lines cannot be written now, or wait; `None` while they can.
    pub error: Option<String>,
    /// Since when they cannot.
    pub failing_since: Option<f64>,
}

/// A rejected client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RejectedClient {
    /// When.
    pub time: f64,
    /// By which listener.
    pub listener: String,
    /// Its address.
    pub client: String,
    /// Why.
    pub reason: String,
    /// How many more there were since the one before.
    pub more: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;
    use crate::config::model::Balance;
    use crate::stats::latency::{Stage, Window};
    use crate::stats::termination::Termination;

    #[test]
    fn snapshot_serialized_and_read_back_is_the_same() {
        let summary = LatencySummary { count: 3, p99_us: 7, ..LatencySummary::default() };
        let latency: Latency = [Stage::Turnaround, Stage::Connect]
            .into_iter()
            .flat_map(|stage| Window::ALL.map(|window| ((stage, window), summary)))
            .collect();
        let terminations = Termination::ALL.into_iter().zip(1..);
        let listener = ListenerStats {
            terminations: terminations.map(|(termination, count)| TerminationStats { termination, count }).collect(),
            latency: latency.clone(),
            ..ListenerStats::default()
        };
        let pool = PoolStats {
            balance: Balance::PowerOfTwo,
            health: Some(CheckKind::Exchange),
            latency,
            ..PoolStats::default()
        };
        let files = TlsFiles { owner: TlsOwner::Pool("a b".to_owned()), replaced: 1, rejected: 2, faults: Vec::new() };
        let snapshot =
            Snapshot { listeners: vec![listener], pools: vec![pool], tls_files: vec![files], ..Snapshot::default() };
        let json = to_value(&snapshot).unwrap();
        let read: Snapshot = from_value(json.clone()).unwrap();
        assert_eq!(to_value(&read).unwrap(), json);
        assert_eq!(read.listeners[0].terminations, snapshot.listeners[0].terminations);
        assert_eq!(read.tls_files[0].owner, snapshot.tls_files[0].owner);
        assert_eq!(json["pools"][0]["balance"], "power_of_two");
        assert_eq!(json["pools"][0]["latency"]["turnaround"]["5m"]["count"], 3);
        assert_eq!(
            json["listeners"][0]["terminations"][5],
            json!({ "reason": "backend unreachable", "side": "backend", "code": "SD", "rejected": false, "count": 6 })
        );
    }

    #[test]
    fn names_of_another_version_are_skipped() {
        let mut json = to_value(ListenerStats::default()).unwrap();
        json["terminations"] = json!([{ "reason": "abducted", "count": 1 }, { "reason": "idle timeout", "count": 2 }]);
        let summary = to_value(LatencySummary::default()).unwrap();
        json["latency"] = json!({ "lunch": { "all": summary }, "connect": { "1y": summary, "all": summary } });
        let read: ListenerStats = from_value(json).unwrap();
        assert_eq!(read.terminations, [TerminationStats { termination: Termination::IdleTimeout, count: 2 }]);
        assert_eq!(read.latency, Latency::from_iter([((Stage::Connect, Window::All), LatencySummary::default())]));
    }

    #[test]
    fn owner_of_tls_files_is_a_listener_or_a_pool() {
        assert_eq!(TlsOwner::try_from("pool a b".to_owned()), Ok(TlsOwner::Pool("a b".to_owned())));
        assert!(TlsOwner::try_from("backend a".to_owned()).is_err());
    }
}
