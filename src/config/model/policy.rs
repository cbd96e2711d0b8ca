//! Rules of a pool beyond the choice of a backend: outlier ejection, the queue, persistence.

use std::num::NonZeroU32;
use std::time::Duration;

use super::http::PersistCookie;

/// `pools[].outlier`: passive health, by failures of clients' connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierConfig {
    /// Failures that eject a backend: in a row, or within `window`.
    pub failures: NonZeroU32,
    /// `None` counts failures in a row.
    pub window: Option<Duration>,
    /// Length of the first ejection; the n-th in close succession lasts n times as long.
    pub ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// Of the backends that could take connections, 0..=100 percent.
    pub max_ejected: u8,
    /// HTTP responses with status 5xx count as failures.
    pub http_5xx: bool,
}

/// `pools[].queue`: connections that wait for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Connections that may wait at once; 0 rejects them at once.
    pub size: u32,
    /// The longest wait.
    pub timeout: Duration,
}

/// `pools[].persist`: session persistence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persist {
    /// By the client's address.
    ClientIp(PersistConfig),
    /// By a cookie.
    Cookie(PersistCookie),
}

impl Persist {
    /// The rules, where it is by the client's address.
    pub fn by_client_ip(&self) -> Option<&PersistConfig> {
        match self {
            Persist::ClientIp(rules) => Some(rules),
            Persist::Cookie(_) => None,
        }
    }
}

/// `pools[].persist` with `by: client_ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistConfig {
    /// Time that a client is remembered after its last connection has ended.
    pub ttl: Duration,
    /// Clients that are remembered; beyond that, the one not seen for the longest time is forgotten.
    pub size: NonZeroU32,
}
