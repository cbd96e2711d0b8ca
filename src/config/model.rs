//! The configuration as meant: defaults and references are resolved, wrong values cannot be expressed.
//! Nothing downstream validates again. Keys, meanings and defaults are those of `config/full.yaml`.

mod first_bytes;
mod redacted;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use first_bytes::{
    Authorities, CertificateFiles, ClientAuth, ListenerTls, NameSource, Plaintext, PoolTls, ProxyProtocol, RouteConfig,
    SendProxy, Sniff, StartTls, TlsVersion, UnknownSni, Verify,
};
pub use redacted::{HIDDEN, Redacted};
use serde::{Deserialize, Serialize};

use crate::net::addr::Address;

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data-plane threads; `auto` is already resolved to the CPUs this process may use.
    pub workers: NonZeroUsize,
    /// The stats port; `None` is none.
    pub admin: Option<AdminConfig>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// At least one.
    pub listeners: Vec<ListenerConfig>,
    /// Every pool, also those that no listener uses.
    pub pools: Vec<PoolConfig>,
}

impl Config {
    /// Of a process that does nothing: what a start begins with.
    pub fn empty() -> Config {
        Config {
            workers: NonZeroUsize::MIN,
            admin: None,
            log: LogConfig { level: LogLevel::Info, format: LogFormat::Text, access: AccessLog::Off },
            shutdown: Shutdown { drain: Duration::ZERO },
            listeners: Vec::new(),
            pools: Vec::new(),
        }
    }

    /// The pool that a listener or route refers to.
    pub fn pool(&self, index: PoolIndex) -> Option<&PoolConfig> {
        self.pools.get(index.0)
    }
}

/// `admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; port 0 lets the kernel choose.
    pub bind: Address,
    /// Who reads has to show what is in there. Always given unless `bind` is loopback or a unix socket.
    pub token_file: Option<Redacted<PathBuf>>,
}

/// `log`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// The least severe level that is written. `RUST_LOG` wins over it.
    pub level: LogLevel,
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// Where the line of each finished connection goes.
    pub access: AccessLog,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogFormat {
    Text,
    Json,
}

/// `log.access`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// No access lines.
    Off,
    /// Among the other log lines.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// `shutdown`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shutdown {
    /// How long connections may go on after SIGTERM before they are cut.
    pub drain: Duration,
}

/// The place of a pool in [`Config::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Unique among the listeners.
    pub name: Arc<str>,
    /// At least one; no address twice in the whole configuration. Port 0 lets the kernel choose.
    pub bind: Vec<Address>,
    /// Where its connections go when no route matches.
    pub pool: PoolIndex,
    /// What is watched of its connections as they go by.
    pub sniff: Sniff,
    /// The first that matches wins.
    pub routes: Vec<RouteConfig>,
    /// TLS ends here.
    pub tls: Option<ListenerTls>,
    /// PROXY headers are taken.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Over one of these, a connection gets no backend.
    pub limits: LimitsConfig,
    /// Connections open at once; further ones wait in the kernel's queue.
    pub max_connections: Option<NonZeroU32>,
    /// Bounds on a connection's phases.
    pub timeouts: ListenerTimeouts,
    /// Options of its sockets.
    pub socket: ListenerSocket,
}

/// `listeners[].limits`; `None` (0 in the file) is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsConfig {
    /// Connections that one address has open at once.
    pub connections_per_ip: Option<NonZeroU32>,
    /// Connections that one address makes.
    pub connection_rate_per_ip: Option<Rate>,
    /// Connections that all make.
    pub connection_rate: Option<Rate>,
    /// TLS handshakes under way at once.
    pub handshakes: Option<NonZeroU32>,
}

/// So many in a period. [`Display`](fmt::Display) writes it as in the file: `20/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// `listeners[].timeouts`; `None` (0s in the file) is no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTimeouts {
    /// Until the first bytes are complete: PROXY header, STARTTLS, ClientHello; after TLS anew, the HTTP head.
    pub sniff: Option<Duration>,
    /// From the ClientHello to the end of the TLS handshake.
    pub handshake: Option<Duration>,
    /// No byte in either direction for this long.
    pub idle: Option<Duration>,
    /// One side has finished, the other has been silent for this long.
    pub half_close: Option<Duration>,
    /// Age at which a connection is closed, ± 10 %.
    pub lifetime: Option<Duration>,
}

/// `listeners[].socket`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSocket {
    /// Connections that wait to be accepted (listen(2)); the kernel caps it at net.core.somaxconn.
    pub backlog: i32,
    /// TCP_NODELAY on both sides.
    pub nodelay: bool,
    /// Idle time before the first keepalive probe, on both sides; `None` (0s) turns keepalive off.
    pub keepalive: Option<Duration>,
    /// TCP_FASTOPEN: pending requests with data in the SYN; 0 is off.
    pub fast_open: u32,
    /// TCP_DEFER_ACCEPT: a connection is accepted once it has sent a byte, or after this long. `None` (0s) is off.
    pub defer_accept: Option<Duration>,
    /// IPPROTO_MPTCP.
    pub mptcp: bool,
    /// Whether each worker has a listening socket of its own.
    pub reuse_port: ReusePort,
    /// IP_TRANSPARENT: bind to an address that is not this host's, and take what is routed here for it.
    pub transparent: bool,
}

/// `listeners[].socket.reuse_port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReusePort {
    /// A socket for each worker, and no other process may bind the port.
    Auto,
    /// A socket for each worker, and other processes of the same user may bind the port too.
    On,
    /// One socket that all workers accept from.
    Off,
}

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

/// `pools[].health`.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The kind of check.
    pub check: HealthCheck,
    /// From the start of one probe to the start of the next, ± 10 %.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Passes in a row until up.
    pub rise: NonZeroU32,
    /// Failures in a row until down.
    pub fall: NonZeroU32,
    /// The port that is probed, if not the backend's own.
    pub port: Option<u16>,
    /// What a backend is before its first probe.
    pub initial: Initial,
}

/// The kind of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// A connect is enough.
    Tcp,
    /// A request and the status, and perhaps the body, of its answer.
    Http(HttpCheck),
    /// Bytes sent, bytes expected.
    Exchange {
        /// Sent once connected; may be empty.
        send: Redacted<Vec<u8>>,
        /// What the answer must begin with; never empty.
        expect: Redacted<Vec<u8>>,
    },
}

/// `pools[].health.http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Begins with a slash; no white space or control characters.
    pub path: Redacted<String>,
    /// A token, upper case.
    pub method: String,
    /// The Host header; by default the host of the backend's address.
    pub host: Option<Redacted<String>>,
    /// Further headers, each name once. None of them frames the message or concerns the connection.
    pub headers: Redacted<Vec<Header>>,
    /// Statuses that pass.
    pub status: RangeInclusive<u16>,
    /// Bytes that the body must contain.
    pub body: Option<Redacted<Vec<u8>>>,
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// A token.
    pub name: String,
    /// No control characters but tabs, no white space at either end.
    pub value: Vec<u8>,
}

/// `pools[].health.initial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Down until the first pass; one is enough.
    Probe,
    /// Up until `fall` failures.
    Up,
}

/// `pools[].on_down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// Its connections go on.
    Keep,
    /// Its connections are closed.
    Cut,
}
