//! What health checks learn of a database server: its role, and how far behind its primary it is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The role of a database server, as it states it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerRole {
    /// Accepts writes.
    Primary,
    /// Follows a primary; read-only.
    Replica,
    /// A usable member of a cluster in which several members may accept writes: Galera, group replication.
    Synced,
}

impl ServerRole {
    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            ServerRole::Primary => "primary",
            ServerRole::Replica => "replica",
            ServerRole::Synced => "synced",
        }
    }
}

/// How far a replica is behind its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationLag {
    /// Bytes of write-ahead log that it has not replayed, or of the replication stream that it has not received.
    Bytes(u64),
    /// By the clocks of both.
    Time(Duration),
}

impl fmt::Display for ReplicationLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicationLag::Bytes(bytes @ 0..1024) => write!(f, "{bytes} B"),
            ReplicationLag::Bytes(bytes) => {
                let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
                let (shift, unit) = units.into_iter().find(|(shift, _)| bytes >> shift > 0).unwrap_or((10, "KiB"));
                write!(f, "{:.1} {unit}", *bytes as f64 / f64::from(1_u32 << shift))
            }
            ReplicationLag::Time(time) => write!(f, "{} s", time.as_secs()),
        }
    }
}

/// What the last health check that got an answer has learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// `None` if it states none.
    pub role: Option<ServerRole>,
    /// Of a replica, where it is known.
    pub lag: Option<ReplicationLag>,
}

impl DatabaseState {
    /// `replica, 1.5 MiB behind`; `None` if nothing is known.
    pub fn words(&self) -> Option<String> {
        let role = self.role.map(|role| role.name().to_owned());
        let lag = self.lag.map(|lag| format!("{lag} behind"));
        let words: Vec<String> = role.into_iter().chain(lag).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_written_in_the_largest_unit_that_fits() {
        for (lag, written) in [
            (ReplicationLag::Bytes(0), "0 B"),
            (ReplicationLag::Bytes(1023), "1023 B"),
            (ReplicationLag::Bytes(1536), "1.5 KiB"),
            (ReplicationLag::Bytes(16 << 20), "16.0 MiB"),
            (ReplicationLag::Bytes(u64::MAX), "17179869184.0 GiB"),
            (ReplicationLag::Time(Duration::from_secs(90)), "90 s"),
        ] {
            assert_eq!(lag.to_string(), written);
        }
    }
}
