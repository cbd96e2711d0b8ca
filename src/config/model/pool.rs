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
use super::proxy_protocol::SendProxy;
use super::tls::PoolTls;

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
    /// At least one; names unique within the pool.
    pub backends: Vec<BackendConfig>,
    /// Health check; `None` is always up.
    pub health: Option<Health>,
    /// Connections of a backend that goes down.
    pub on_down: OnDown,
    /// Ramp of the weight after a backend comes up; zero is off.
    pub slow_start: Duration,
    /// Other backends to try when a connect fails.
    pub retries: u32,
    /// Time limit of one connect.
    pub connect_timeout: Duration,
    /// PROXY protocol to the backends.
    pub send_proxy: Option<SendProxy>,
    /// TLS to the backends.
    pub tls: Option<PoolTls>,
    /// Local addresses to connect from, in turn; empty lets the kernel choose.
    pub source: Vec<IpAddr>,
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
}

/// `pools[].backends[].address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A host name, resolved repeatedly, and a port.
    Name {
        /// As written, without the port.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A unix socket's path.
    Unix(PathBuf),
}

/// As in the file.
impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddress::Ip(address) => address.fmt(f),
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
