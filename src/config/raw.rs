//! The configuration as typed: one field per key, references unresolved, only the form of each value checked.
//!
//! Descriptions, defaults and ranges are the source of `tidegate schema`. A test compares the defaults with those in
//! effect. Every key is an `Option`, required ones too: [`check`](super::check) reports a missing key with all other
//! errors.

mod health;
mod http;
mod listener;
mod policy;
mod pool;
mod tls;
mod udp;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use health::{
    RawExchange, RawHeaders, RawHealth, RawHttp, RawMysql, RawMysqlRole, RawPlaintext, RawPostgres, RawRedis, RawRole,
};
pub(crate) use http::{RawHttpListener, RawHttpPool, RawProtocol};
pub(crate) use listener::{RawListener, RawListenerTimeouts, RawMatch, RawRoute, RawShare, RawSocket};
pub(crate) use policy::{RawPersist, RawPersistBy};
pub(crate) use pool::{RawBalance, RawHash, RawPool, RawSendProxy};
pub(crate) use tls::{RawCertificate, RawClientAuth, RawClientAuthMode, RawListenerTls, RawStartTls};
pub(crate) use udp::RawUdp;

use super::located::{Field, Located, OneOrMany};
use super::model::{LogFormat, LogLevel};
use super::scalars::{AccessTarget, BindAddress, ClientPattern, FileMode, FilePath, FilePattern, Period};
use super::scalars_serde::Workers;

/// Configuration of tidegate, a Layer-4 load balancer.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "tidegate")]
pub(crate) struct RawConfig {
    /// Files that are part of the configuration, by name or pattern, relative to this one; sorted.
    #[allow(dead_code, reason = "read before all others, in include.rs; here for its form and for the schema")]
    pub(crate) include: Field<OneOrMany<FilePattern>>,
    /// Data-plane threads; auto is one per CPU available to the process.
    #[schemars(extend("default" = "auto"))]
    pub(crate) workers: Field<Workers>,
    /// Stats port: metrics, dashboard, API. Omit to disable it.
    pub(crate) admin: Field<RawAdmin>,
    /// Reload of this file.
    pub(crate) reload: Field<RawReload>,
    /// Countries of clients: for `country` in routes and access lists.
    pub(crate) geoip: Field<RawGeoIp>,
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
        "properties": { "bind": { "anyOf": [
            { "type": "string", "not": { "pattern": "\\$\\{|^(unix:|127\\.|\\[[0:]*:1\\]:|\\[[0:]*:ffff:(127\\.|7f))" } },
            { "type": "array", "contains": { "type": "string", "not": { "pattern": "\\$\\{|^(unix:|127\\.|\\[[0:]*:1\\]:|\\[[0:]*:ffff:(127\\.|7f))" } } },
        ] } },
    },
    "then" = { "required": ["token_file"], "properties": { "token_file": { "type": "string" } } },
))]
pub(crate) struct RawAdmin {
    /// One address or a list. Addresses other than loopback and unix require token_file.
    #[schemars(extend("default" = "127.0.0.1:9900"))]
    pub(crate) bind: Field<OneOrMany<BindAddress>>,
    /// Mode of unix sockets, octal digits in quotes: who may open one may also change things.
    #[schemars(extend("default" = "0600"))]
    pub(crate) socket_mode: Field<FileMode>,
    /// File with the bearer token, which changes over TCP require; reloaded when it changes.
    pub(crate) token_file: Field<FilePath>,
    /// TLS of the TCP addresses, as under a listener. Unix sockets stay plain.
    #[schemars(extend("x-given" = true))]
    pub(crate) tls: Field<RawListenerTls>,
    /// Networks, addresses and countries (country:DE) of TCP clients; when not empty, connections of all others are closed.
    #[schemars(extend("default" = []))]
    pub(crate) allow: Field<Vec<Located<ClientPattern>>>,
    /// File that keeps changes made at run time over a restart.
    pub(crate) state_file: Field<FilePath>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawGeoIp {
    /// MMDB file with the countries of addresses, such as GeoLite2-Country; reloaded when it changes.
    pub(crate) database: Field<FilePath>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawReload {
    /// Reload when the file changes. SIGHUP, `tidegate reload` and POST /api/reload do it in any case.
    #[schemars(extend("default" = "off"))]
    pub(crate) watch: Field<RawWatch>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawWatch {
    /// Only when asked.
    Off,
    /// Also when the file changes.
    On,
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
    /// Access log, one line per closed connection: off, stderr, a file's path, or a syslog server by unix socket, UDP or TCP.
    #[schemars(extend("default" = "off"))]
    pub(crate) access: Field<AccessTarget>,
    /// Whether connections that ended without a byte in either direction, such as probes, have an access line.
    #[schemars(extend("default" = true))]
    pub(crate) access_empty: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawShutdown {
    /// Not ready any more, but still accepting for this long: load balancers and probes in front notice it in time.
    #[schemars(extend("default" = "0s"))]
    pub(crate) delay: Field<Period>,
    /// Connection draining: stop accepting, wait this long for connections to end, then abort the rest.
    #[schemars(extend("default" = "30s"))]
    pub(crate) drain: Field<Period>,
}
