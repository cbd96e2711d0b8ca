//! The configuration as typed: one field a key, nothing resolved, nothing checked but the form of each
//! value. The descriptions, defaults and ranges here are what `tidegate schema` prints; a test holds
//! the defaults to those in effect.
//!
//! Every key is an `Option`, also a required one, so that its absence is reported with everything
//! else by [`check`](super::check) and does not end the reading.

mod health;
mod listener;
mod pool;
mod tls;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use health::{Exchange, Headers, Health, Http, Initial};
pub(crate) use listener::{Listener, ListenerTimeouts, Match, Sniff, Socket};
pub(crate) use pool::{Balance, Hash, OnDown, Pool, SendProxy};
pub(crate) use tls::{
    Certificate, ClientAuth, ClientAuthMode, ListenerTls, Plaintext, PoolTls, StartTls, UnknownSni, Verify,
};

use super::de::Located;
use super::units::{AccessTarget, BindAddress, FilePath, Period};
use super::words::Workers;

/// A key that may be left out, and why it may be a hole is said at [`Located`].
type Key<T> = Option<Located<T>>;

/// Configuration of tidegate, a Layer-4 load balancer.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "tidegate")]
pub(crate) struct Config {
    /// Data-plane threads; auto is one per CPU that this process may use.
    #[schemars(extend("default" = "auto"))]
    pub(crate) workers: Key<Workers>,
    /// The stats port. Left out, there is none.
    pub(crate) admin: Key<Admin>,
    /// What is logged, and how.
    pub(crate) log: Key<Log>,
    /// How the process ends.
    pub(crate) shutdown: Key<Shutdown>,
    /// Where connections are accepted.
    #[schemars(required, length(min = 1))]
    pub(crate) listeners: Key<Vec<Located<Listener>>>,
    /// Where they go.
    #[schemars(required, length(min = 1))]
    pub(crate) pools: Key<Vec<Located<Pool>>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = {
        "required": ["bind"],
        "properties": { "bind": { "type": "string", "not": { "pattern": "^(unix:|127\\.|\\[[0:]*:1\\]:|\\[[0:]*:ffff:(127\\.|7f))" } } },
    },
    "then" = { "required": ["token_file"], "properties": { "token_file": { "type": "string" } } },
))]
pub(crate) struct Admin {
    /// Loopback or unix needs no token to read; anything else needs token_file.
    #[schemars(extend("default" = "127.0.0.1:9900"))]
    pub(crate) bind: Key<BindAddress>,
    /// A file with the bearer token that has to be shown.
    pub(crate) token_file: Key<FilePath>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// The least severe level that is written; the environment's RUST_LOG wins over it.
    #[schemars(extend("default" = "info"))]
    pub(crate) level: Key<Level>,
    /// text for people, json for machines.
    #[schemars(extend("default" = "text"))]
    pub(crate) format: Key<Format>,
    /// off, stderr or a file's path: one line per finished connection.
    #[schemars(extend("default" = "off"))]
    pub(crate) access: Key<AccessTarget>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shutdown {
    /// On SIGTERM: accept no more, wait this long for connections to end, then cut them.
    #[schemars(extend("default" = "30s"))]
    pub(crate) drain: Key<Period>,
}
