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

/// The place of a pool in [`Config::pools`](super::Config::pools).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// One entry of `pools`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// Unique among the pools.
    pub name: Arc<str>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// Which bits of a client's address `ip_hash` uses.
    pub hash: HashPrefix,
    /// At least one; names unique within the pool.
    pub backends: Vec<BackendConfig>,
    /// How backends are checked; `None`: they are always up.
    pub health: Option<Health>,
    /// What becomes of a backend's connections when it goes down.
    pub on_down: OnDown,
    /// A backend's weight grows to full over this time once it is up again; zero is off.
    pub slow_start: Duration,
    /// Further backends tried when a connect fails.
    pub retries: u32,
    /// How long one connect may take.
    pub connect_timeout: Duration,
    /// The PROXY header that backends get.
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
    /// Consistent placement by the client's address.
    IpHash,
    /// The less loaded of two random backends.
    PowerOfTwo,
    /// The least moving average of connect and first-byte time.
    LeastLatency,
    /// By weight, at random.
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
    /// Leading bits of an IPv4 address that count, 0..=32.
    pub ipv4: u8,
    /// Leading bits of an IPv6 address that count, 0..=128.
    pub ipv6: u8,
}

/// One entry of `pools[].backends`.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// The identity that hashing and statistics keep; by default its address as written.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: BackendAddress,
    /// Its share, 0..=1000; with 0 it gets no new connections.
    pub weight: u32,
    /// Connections open at once to it, over all workers.
    pub max_connections: Option<NonZeroU32>,
    /// Used only when no other backend can be.
    pub backup: bool,
}

/// `pools[].backends[].address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name that DNS resolves, again and again, and a port.
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
    /// Its connections go on.
    Keep,
    /// Its connections are closed.
    Cut,
}
