//! `pools`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::Health;
use super::http::{HttpPool, PersistCookie};
use super::policy::{OutlierConfig, Persist, PersistConfig, QueueConfig};
use super::proxy_protocol::SendProxy;
use super::tls::PoolTls;
use crate::net::addr::{CLIENT_PORT, backend_text};

/// Index of a pool in [`Config::pools`](super::Config::pools).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// One entry of `pools`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// Unique among the pools.
    pub name: Arc<str>,
    /// Load balancing algorithm.
    pub balance: Balance,
    /// Prefix lengths for `ip_hash`.
    pub hash: HashPrefix,
    /// Names are unique within the pool. There may be none.
    pub backends: Vec<BackendConfig>,
    /// Health check; `None` is always up.
    pub health: Option<Health>,
    /// Outlier ejection; `None` is off.
    pub outlier: Option<OutlierConfig>,
    /// Percentage of backends that must be up; below it, all are used as if they were. 0 is off.
    pub fail_open: u8,
    /// Connections of a backend that goes down.
    pub on_down: OnDown,
    /// More than one backend is the primary.
    pub on_conflict: OnConflict,
    /// Ramp of the weight after a backend comes up; zero is off.
    pub slow_start: Duration,
    /// Other backends to try when a connect fails.
    pub retries: u32,
    /// Session persistence; `None` is off.
    pub persist: Option<Persist>,
    /// Requests to the backends, with `protocol: http`.
    pub http: HttpPool,
    /// Connections that wait for a backend.
    pub queue: QueueConfig,
    /// Time limit of one connect.
    pub connect_timeout: Duration,
    /// PROXY protocol to the backends.
    pub send_proxy: Option<SendProxy>,
    /// TLS to the backends.
    pub tls: Option<PoolTls>,
    /// Local addresses to connect from, in turn; empty lets the kernel choose.
    pub source: Vec<IpAddr>,
}

impl PoolConfig {
    /// Session persistence by the client's address.
    pub fn persistence(&self) -> Option<&PersistConfig> {
        self.persist.as_ref().and_then(Persist::by_client_ip)
    }

    /// Session persistence by a cookie.
    pub fn persistence_cookie(&self) -> Option<&PersistCookie> {
        match &self.persist {
            Some(Persist::Cookie(cookie)) => Some(cookie),
            Some(Persist::ClientIp(_)) | None => None,
        }
    }
}

/// `pools[].balance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// Fewest connections per weight.
    LeastConnections,
    /// Sticky sessions: weighted consistent hashing of the client address.
    IpHash,
    /// The less loaded of two random backends.
    PowerOfTwo,
    /// Lowest moving average (EWMA) of connect and first-byte time.
    LeastLatency,
    /// Weighted random.
    Random,
}

impl Balance {
    /// Every algorithm.
    pub const ALL: [Balance; 6] = [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::IpHash,
        Balance::PowerOfTwo,
        Balance::LeastLatency,
        Balance::Random,
    ];

    /// By the name that it has in the file, or that plain HTTP balancers have for it: `round-robin`, `weighted`.
    pub fn from_word(word: &str) -> Option<Balance> {
        match word.to_lowercase().replace('-', "_").as_str() {
            "weighted" | "weighted_round_robin" => Some(Balance::RoundRobin),
            word => Balance::ALL.into_iter().find(|balance| balance.name() == word),
        }
    }

    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::LeastConnections => "least_connections",
            Balance::IpHash => "ip_hash",
            Balance::PowerOfTwo => "power_of_two",
            Balance::LeastLatency => "least_latency",
            Balance::Random => "random",
        }
    }
}

/// `pools[].hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashPrefix {
    /// 0..=32.
    pub ipv4: u8,
    /// 0..=128.
    pub ipv6: u8,
}

/// One entry of `pools[].backends`.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// Identity for hashing and statistics; by default the address as written.
    pub name: Arc<str>,
    /// A host name with several addresses is as many backends.
    pub address: BackendAddress,
    /// Share of the connections, 0..=1000; 0 is no new connections.
    pub weight: u32,
    /// Concurrent connections over all workers.
    pub max_connections: Option<NonZeroU32>,
    /// Failover: used only while no other backend is available.
    pub backup: bool,
    /// Administrative state.
    pub state: AdminState,
    /// Overrides health checks. Only set at run time.
    pub forced: Option<ForcedHealth>,
}

/// `pools[].backends[].state`: administrative state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// In service.
    #[default]
    Ready,
    /// No new connections; health checks go on.
    Drain,
    /// No new connections, no health checks.
    Maintenance,
}

impl AdminState {
    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            AdminState::Ready => "ready",
            AdminState::Drain => "drain",
            AdminState::Maintenance => "maintenance",
        }
    }
}

/// Health by decree, whatever the checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForcedHealth {
    Up,
    Down,
}

impl ForcedHealth {
    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            ForcedHealth::Up => "up",
            ForcedHealth::Down => "down",
        }
    }
}

/// `pools[].backends[].address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// An IP address and a port, which may be [`CLIENT_PORT`].
    Ip(SocketAddr),
    /// A host name, resolved repeatedly, and a port.
    Name {
        /// As written, without the port.
        host: String,
        /// TCP port, which may be [`CLIENT_PORT`].
        port: u16,
    },
    /// A unix socket's path.
    Unix(PathBuf),
}

impl BackendAddress {
    /// Whether its port is that which the client connected to.
    pub fn has_client_port(&self) -> bool {
        match self {
            BackendAddress::Ip(address) => address.port() == CLIENT_PORT,
            BackendAddress::Name { port, .. } => *port == CLIENT_PORT,
            BackendAddress::Unix(_) => false,
        }
    }
}

/// As in the file.
impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddress::Ip(address) => f.write_str(&backend_text(address)),
            BackendAddress::Name { host, port: CLIENT_PORT } => write!(f, "{host}:*"),
            BackendAddress::Name { host, port } => write!(f, "{host}:{port}"),
            BackendAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `pools[].on_down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDown {
    /// They continue.
    Keep,
    /// They are aborted.
    Cut,
}

/// `pools[].on_conflict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// None of them gets new connections.
    Refuse,
    /// The one that was promoted last gets them: PostgreSQL by its timeline, MySQL and Redis as the checks have seen it.
    Newest,
}
