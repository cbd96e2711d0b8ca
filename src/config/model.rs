//! The configuration as meant: defaults and references resolved, invalid values unrepresentable. Nothing downstream
//! validates again. `config/full.yaml` documents keys and defaults.

mod access;
mod bind;
mod health;
mod http;
mod listener;
mod policy;
mod pool;
mod proxy_protocol;
mod redacted;
mod routing;
mod tls;
mod udp;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub use access::{AccessConfig, ClientRule, GeoIpConfig};
pub use bind::ListenAddress;
pub use health::{
    DatabaseAccount, Header, Health, HealthCheck, HttpCheck, Initial, MysqlCheck, PostgresCheck, RedisCheck,
    RequiredRole,
};
pub use http::{Forwarded, HeaderMatch, HttpListener, HttpPool, HttpRetry, HttpVersion, PersistCookie, SameSite};
pub use listener::{
    LimitsConfig, ListenerConfig, ListenerSocket, ListenerState, ListenerTimeouts, Rate, ReusePort, Sniff,
    SpokenProtocol,
};
pub use policy::{OutlierConfig, Persist, PersistConfig, QueueConfig};
pub use pool::{
    AdminState, BackendAddress, BackendConfig, Balance, ForcedHealth, HashPrefix, OnConflict, OnDown, PoolConfig,
    PoolIndex,
};
pub use proxy_protocol::{ProxyProtocol, SendProxy};
pub use redacted::{HIDDEN, Redacted};
pub use routing::{NO_ROUTE, RouteConfig, RouteTarget, SplitShare};
pub use tls::{
    Authorities, CertificateFiles, ClientAuth, ListenerTls, NameSource, Plaintext, PoolTls, StartTls, TlsVersion,
    UnknownSni, VerifiedClients, Verify,
};
pub use udp::UdpListener;

use crate::net::addr::Address;

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data-plane threads; `auto` is resolved.
    pub workers: NonZeroUsize,
    /// The stats port.
    pub admin: Option<AdminConfig>,
    /// Reload of the file.
    pub reload: ReloadConfig,
    /// Countries of clients.
    pub geoip: Option<GeoIpConfig>,
    /// Log and access log.
    pub log: LogConfig,
    /// Graceful shutdown.
    pub shutdown: Shutdown,
    /// At least one.
    pub listeners: Vec<ListenerConfig>,
    /// Every pool, unused ones included.
    pub pools: Vec<PoolConfig>,
}

impl Config {
    /// A process that does nothing. A start applies the difference from this.
    pub fn empty() -> Config {
        Config {
            workers: NonZeroUsize::MIN,
            admin: None,
            reload: ReloadConfig { watch: false },
            geoip: None,
            log: LogConfig {
                level: LogLevel::Info,
                format: LogFormat::Text,
                access: AccessLog::Off,
                access_empty: true,
            },
            shutdown: Shutdown { delay: Duration::ZERO, drain: Duration::ZERO },
            listeners: Vec::new(),
            pools: Vec::new(),
        }
    }

    /// The pool that a listener or route refers to.
    pub fn pool(&self, index: PoolIndex) -> Option<&PoolConfig> {
        self.pools.get(index.0)
    }

    /// A listener with the names of its pools, its own first and then those of its routes, instead of their places.
    pub fn by_names(&self, listener: &ListenerConfig) -> (ListenerConfig, Vec<Arc<str>>) {
        let (mut listener, mut names) = (listener.clone(), Vec::new());
        let routes = listener.routes.iter_mut().flat_map(|route| route.target.pools_mut());
        for pool in std::iter::once(&mut listener.pool).chain(routes) {
            names.extend(self.pool(*pool).map(|pool| Arc::clone(&pool.name)));
            *pool = PoolIndex(0);
        }
        (listener, names)
    }
}

/// `admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// At least one, each once. Port 0 lets the kernel choose.
    pub bind: Vec<Address>,
    /// Permission bits of unix sockets, at most 0o777.
    pub socket_mode: u32,
    /// File of the bearer token. Always set unless every address is loopback or a unix socket.
    pub token_file: Option<Redacted<PathBuf>>,
    /// TLS of the TCP addresses, without STARTTLS.
    pub tls: Option<ListenerTls>,
    /// Clients of the TCP addresses; empty admits all.
    pub allow: Arc<[ClientRule]>,
    /// Keeps changes made at run time over a restart.
    pub state_file: Option<PathBuf>,
}

impl AdminConfig {
    /// Whether the socket of a `[::]` address leaves IPv4 to another address of the same port.
    pub fn is_v6_only(&self, address: &Address) -> bool {
        let Address::Tcp(address) = address else { return false };
        let v4 = Address::Tcp(SocketAddr::from(([0, 0, 0, 0], address.port())));
        address.is_ipv6() && address.ip().is_unspecified() && self.bind.contains(&v4)
    }
}

/// `reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadConfig {
    /// Reload when the file changes.
    pub watch: bool,
}

/// `log`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Minimum level. `RUST_LOG` overrides it.
    pub level: LogLevel,
    /// Text or JSON.
    pub format: LogFormat,
    /// Destination of the access log.
    pub access: AccessLog,
    /// Whether connections that ended without a byte have an access line.
    pub access_empty: bool,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `log.access`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// No access log.
    Off,
    /// Interleaved with the log.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
    /// Sent as syslog messages.
    Syslog(SyslogServer),
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLog::Off => f.write_str("off"),
            AccessLog::Stderr => f.write_str("stderr"),
            AccessLog::File(path) => path.display().fmt(f),
            AccessLog::Syslog(server) => server.fmt(f),
        }
    }
}

/// A receiver of syslog messages, in the configuration's spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogServer {
    /// A datagram or stream socket: `syslog:/dev/log`.
    Unix(PathBuf),
    /// `syslog:127.0.0.1:514`.
    Udp(SocketAddr),
    /// `syslog+tcp:127.0.0.1:601`.
    Tcp(SocketAddr),
}

impl fmt::Display for SyslogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogServer::Unix(path) => write!(f, "syslog:{}", path.display()),
            SyslogServer::Udp(address) => write!(f, "syslog:{address}"),
            SyslogServer::Tcp(address) => write!(f, "syslog+tcp:{address}"),
        }
    }
}

/// `shutdown`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Time between SIGTERM and the end of accepting, in which `/readyz` says 503.
    pub delay: Duration,
    /// Time for connections to end after SIGTERM before they are aborted.
    pub drain: Duration,
}
