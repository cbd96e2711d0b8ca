//! The configuration as typed: one field per key, references unresolved, only the form of each value checked.
//!
//! Descriptions, defaults and ranges are the source of `tidegate schema`. A test compares the defaults with those in
//! effect. Every key is an `Option`, required ones too: [`check`](super::check) reports a missing key with all other
//! errors.

mod health;
mod listener;
mod pool;
mod tls;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use health::{RawExchange, RawHeaders, RawHealth, RawHttp};
pub(crate) use listener::{RawListener, RawListenerTimeouts, RawMatch, RawSocket};
pub(crate) use pool::{RawBalance, RawHash, RawPool, RawSendProxy};
pub(crate) use tls::{RawCertificate, RawClientAuth, RawClientAuthMode, RawListenerTls, RawStartTls};

use super::located::{Field, Located};
use super::model::{LogFormat, LogLevel};
use super::scalars::{AccessTarget, BindAddress, FilePath, Period};
use super::scalars_serde::Workers;

/// Configuration of tidegate, a Layer-4 load balancer.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "tidegate")]
pub(crate) struct RawConfig {
    /// Data-plane threads; auto is one per CPU available to the process.
    #[schemars(extend("default" = "auto"))]
    pub(crate) workers: Field<Workers>,
    /// Stats port: metrics, dashboard, API. Omit to disable it.
    pub(crate) admin: Field<RawAdmin>,
    /// Log and access log.
    pub(crate) log: Field<RawLog>,
    /// Graceful shutdown on SIGTERM and SIGINT.
    pub(crate) shutdown: Field<RawShutdown>,
    /// Addresses that accept connections.
    #[schemars(required, length(min = 1))]
    pub(crate) listeners: Field<Vec<Located<RawListener>>>,
    /// Groups of backends that listeners forward to.
    #[schemars(required, length(min = 1))]
    pub(crate) pools: Field<Vec<Located<RawPool>>>,
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
pub(crate) struct RawAdmin {
    /// Addresses other than loopback and unix require token_file.
    #[schemars(extend("default" = "127.0.0.1:9900"))]
    pub(crate) bind: Field<BindAddress>,
    /// File with the bearer token; reloaded when it changes.
    pub(crate) token_file: Field<FilePath>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLog {
    /// Minimum level; the environment variable RUST_LOG overrides it.
    #[schemars(extend("default" = "info"))]
    pub(crate) level: Field<LogLevel>,
    /// text or json.
    #[schemars(extend("default" = "text"))]
    pub(crate) format: Field<LogFormat>,
    /// Access log, one line per closed connection: off, stderr or a file's path.
    #[schemars(extend("default" = "off"))]
    pub(crate) access: Field<AccessTarget>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawShutdown {
    /// Connection draining: stop accepting, wait this long for connections to end, then abort the rest.
    #[schemars(extend("default" = "30s"))]
    pub(crate) drain: Field<Period>,
}
