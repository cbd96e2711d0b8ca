//! The configuration as meant: defaults and references are resolved, wrong values cannot be expressed.
//! Nothing downstream validates again. Keys, meanings and defaults are those of `config/full.yaml`.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
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
