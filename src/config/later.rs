//! The keys of the configuration language whose features are not built yet. They are only described,
//! for the schema; a file that has one is refused by name.

#![allow(dead_code, reason = "these types describe a schema; nothing is read into them yet")]

use schemars::JsonSchema;

use super::units::{Percent, Period};
use super::words::Int;

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Admin {
    /// Loopback or unix needs no token to read; anything else needs token_file.
    #[schemars(extend("default" = "127.0.0.1:9900"))]
    bind: Option<super::units::BindAddress>,
    /// A file with the bearer token that every change needs.
    token_file: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum Sniff {
    Off,
    Http,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Route {
    /// All given keys must match.
    r#match: Match,
    /// Where what matches goes.
    pool: String,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Match {
    /// Server names, with `*.` for one label.
    sni: Option<Vec<String>>,
    /// Application protocols.
    alpn: Option<Vec<String>>,
    /// Host headers; needs sniff: http.
    host: Option<Vec<String>>,
    /// Beginnings of the path; needs sniff: http.
    path_prefix: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// PEM file of the chain.
    cert: String,
    /// PEM file of the private key.
    key: String,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ListenerTls {
    /// The one whose names fit the SNI is used, the first one otherwise.
    certificates: Vec<Certificate>,
    /// default, or refuse with the alert unrecognized_name.
    #[schemars(extend("default" = "default"))]
    unknown_sni: Option<UnknownSni>,
    #[schemars(extend("default" = "1.2"))]
    min_version: Option<TlsVersion>,
    #[schemars(extend("default" = []))]
    alpn: Option<Vec<String>>,
    client_auth: Option<ClientAuth>,
    /// The protocol's own TLS request is answered first.
    #[schemars(extend("default" = "off"))]
    starttls: Option<StartTls>,
    /// With starttls: clients that do not ask for TLS.
    #[schemars(extend("default" = "refuse"))]
    plaintext: Option<Plaintext>,
    #[schemars(extend("default" = true))]
    session_tickets: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum UnknownSni {
    Default,
    Refuse,
}

#[derive(JsonSchema)]
enum TlsVersion {
    #[schemars(rename = "1.2")]
    V12,
    #[schemars(rename = "1.3")]
    V13,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum StartTls {
    Off,
    Postgres,
    Mysql,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Plaintext {
    Refuse,
    Allow,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ClientAuth {
    #[schemars(extend("default" = "off"))]
    mode: Option<ClientAuthMode>,
    /// PEM file.
    ca: Option<String>,
    /// PEM file.
    crl: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum ClientAuthMode {
    Off,
    Optional,
    Required,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ProxyProtocol {
    /// CIDRs; a header from any other peer closes the connection.
    trusted: Vec<String>,
    /// false: peers in trusted may also send none.
    #[schemars(extend("default" = true))]
    required: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Access {
    /// CIDRs; when not empty, all others are refused.
    #[schemars(extend("default" = []))]
    allow: Option<Vec<String>>,
    /// CIDRs; wins over allow.
    #[schemars(extend("default" = []))]
    deny: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Limits {
    #[schemars(extend("default" = 0))]
    connections_per_ip: Option<Int>,
    /// Such as 20/s; 0 is no limit.
    #[schemars(extend("default" = 0))]
    connection_rate_per_ip: Option<Rate>,
    /// Such as 1000/s, over the whole listener; 0 is no limit.
    #[schemars(extend("default" = 0))]
    connection_rate: Option<Rate>,
    /// TLS handshakes under way at once.
    #[schemars(extend("default" = 0))]
    handshakes: Option<Int>,
}

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum Rate {
    None(#[schemars(range(min = 0, max = 0))] Int),
    PerSecond(#[schemars(regex(pattern = "^[0-9]+/s$"))] String),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Udp {
    #[schemars(extend("default" = "1m"))]
    idle: Option<Period>,
    #[schemars(extend("default" = 65536))]
    max_sessions: Option<Int>,
    #[schemars(extend("default" = 0))]
    responses: Option<Int>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Outlier {
    /// Failed connects in a row.
    #[schemars(extend("default" = 5))]
    failures: Option<Int>,
    #[schemars(extend("default" = "30s"))]
    ejection: Option<Period>,
    #[schemars(extend("default" = "5m"))]
    max_ejection: Option<Period>,
    #[schemars(extend("default" = "50%"))]
    max_ejected: Option<Percent>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Queue {
    #[schemars(extend("default" = 0))]
    size: Option<Int>,
    #[schemars(extend("default" = "5s"))]
    timeout: Option<Period>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum SendProxy {
    Off,
    V1,
    V2,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct PoolTls {
    /// off is logged as a warning at every start.
    #[schemars(extend("default" = "full"))]
    verify: Option<Verify>,
    /// system, or a PEM file.
    #[schemars(extend("default" = "system"))]
    ca: Option<String>,
    /// By default the backend's host.
    server_name: Option<String>,
    #[schemars(extend("default" = []))]
    alpn: Option<Vec<String>>,
    client_certificate: Option<Certificate>,
    #[schemars(extend("default" = "off"))]
    starttls: Option<StartTls>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Verify {
    Full,
    Ca,
    Off,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct HealthTls {
    server_name: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Postgres {
    user: Option<String>,
    password_file: Option<String>,
    #[schemars(extend("default" = "postgres"))]
    database: Option<String>,
    #[schemars(extend("default" = "any"))]
    role: Option<Role>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Mysql {
    user: Option<String>,
    password_file: Option<String>,
    #[schemars(extend("default" = "any"))]
    role: Option<MysqlRole>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Redis {
    password_file: Option<String>,
    #[schemars(extend("default" = "any"))]
    role: Option<Role>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Role {
    Any,
    Primary,
    Replica,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum MysqlRole {
    Any,
    Primary,
    Replica,
    Synced,
}
