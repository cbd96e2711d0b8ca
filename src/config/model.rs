//! The configuration as meant: defaults and references resolved, invalid values unrepresentable. Nothing downstream
//! validates again. `config/full.yaml` documents keys and defaults.

mod health;
mod listener;
mod pool;
mod proxy_protocol;
mod redacted;
mod routing;
mod tls;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub use health::{Header, Health, HealthCheck, HttpCheck, Initial};
pub use listener::{LimitsConfig, ListenerConfig, ListenerSocket, ListenerTimeouts, Rate, ReusePort};
pub use pool::{BackendAddress, BackendConfig, Balance, HashPrefix, OnDown, PoolConfig, PoolIndex};
pub use proxy_protocol::{ProxyProtocol, SendProxy};
pub use redacted::{HIDDEN, Redacted};
pub use routing::{RouteConfig, Sniff};
pub use tls::{
    Authorities, CertificateFiles, ClientAuth, ListenerTls, NameSource, Plaintext, PoolTls, StartTls, TlsVersion,
    UnknownSni, Verify,
};

use crate::net::addr::Address;

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data-plane threads; `auto` is resolved.
    pub workers: NonZeroUsize,
    /// The stats port.
    pub admin: Option<AdminConfig>,
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

    /// A listener with the names of its pools, its own first and then those of its routes, instead of their places.
    pub fn by_names(&self, listener: &ListenerConfig) -> (ListenerConfig, Vec<Arc<str>>) {
        let (mut listener, mut names) = (listener.clone(), Vec::new());
        let routes = listener.routes.iter_mut().map(|route| &mut route.pool);
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
    /// Port 0 lets the kernel choose.
    pub bind: Address,
    /// File of the bearer token. Always set unless `bind` is loopback or a unix socket.
    pub token_file: Option<Redacted<PathBuf>>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
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
}

/// `shutdown`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shutdown {
    /// Time for connections to end after SIGTERM before they are aborted.
    pub drain: Duration,
}
