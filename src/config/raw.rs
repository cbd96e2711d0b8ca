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
    /// Data-plane threads; auto is one per CPU that this process may use.
    #[schemars(extend("default" = "auto"))]
    pub(crate) workers: Field<Workers>,
    /// The stats port. Left out, there is none.
    pub(crate) admin: Field<RawAdmin>,
    /// What is logged, and how.
    pub(crate) log: Field<RawLog>,
    /// How the process ends.
    pub(crate) shutdown: Field<RawShutdown>,
    /// Where connections are accepted.
    #[schemars(required, length(min = 1))]
    pub(crate) listeners: Field<Vec<Located<RawListener>>>,
    /// Where they go.
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
    /// Loopback or unix needs no token to read; anything else needs token_file.
    #[schemars(extend("default" = "127.0.0.1:9900"))]
    pub(crate) bind: Field<BindAddress>,
    /// A file with the bearer token that has to be shown.
    pub(crate) token_file: Field<FilePath>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLog {
    /// The least severe level that is written; the environment's RUST_LOG wins over it.
    #[schemars(extend("default" = "info"))]
    pub(crate) level: Field<LogLevel>,
    /// text for people, json for machines.
    #[schemars(extend("default" = "text"))]
    pub(crate) format: Field<LogFormat>,
    /// off, stderr or a file's path: one line per finished connection.
    #[schemars(extend("default" = "off"))]
    pub(crate) access: Field<AccessTarget>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawShutdown {
    /// On SIGTERM: accept no more, wait this long for connections to end, then cut them.
    #[schemars(extend("default" = "30s"))]
    pub(crate) drain: Field<Period>,
}
