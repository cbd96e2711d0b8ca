//! `pools[].health`, as typed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::located::{Field, Located};
use crate::config::model::Initial;
use crate::config::scalars::{ByteCount, FilePath, Period, ServerName, StatusRange};
use crate::config::scalars_serde::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("if" = { "type": "object" }, "then" = { "oneOf": [
    { "required": ["tcp"], "properties": { "tcp": { "type": "object" } } },
    { "required": ["http"], "properties": { "http": { "type": "object" } } },
    { "required": ["exchange"], "properties": { "exchange": { "type": "object" } } },
    { "required": ["tls"], "properties": { "tls": { "type": "object" } } },
    { "required": ["postgres"], "properties": { "postgres": { "type": "object" } } },
    { "required": ["mysql"], "properties": { "mysql": { "type": "object" } } },
    { "required": ["redis"], "properties": { "redis": { "type": "object" } } },
] }))]
pub(crate) struct RawHealth {
    /// The connect succeeds.
    pub(crate) tcp: Field<RawTcp>,
    /// One request; the response's status must match, and its body if given.
    pub(crate) http: Field<RawHttp>,
    /// Send bytes, expect bytes.
    pub(crate) exchange: Field<RawExchange>,
    /// The TLS handshake succeeds, by the rules of the pool's `tls`; without them, with any certificate.
    pub(crate) tls: Field<RawTlsCheck>,
    /// Log in to PostgreSQL, over the pool's TLS; the role must match, and a replica's lag.
    pub(crate) postgres: Field<RawPostgres>,
    /// Log in to MySQL or MariaDB, over the pool's TLS; the role must match, and a replica's lag.
    pub(crate) mysql: Field<RawMysql>,
    /// PING and ROLE of Redis or Valkey, over the pool's TLS.
    pub(crate) redis: Field<RawRedis>,
    /// Start to start, ± 10 % of jitter.
    #[schemars(extend("default" = "2s"))]
    pub(crate) interval: Field<Period>,
    /// Time limit of one check, connect included.
    #[schemars(extend("default" = "1s"))]
    pub(crate) timeout: Field<Period>,
    /// Consecutive successes until up.
    #[schemars(extend("default" = 2), range(min = 1, max = 1000))]
    pub(crate) rise: Field<Int>,
    /// Consecutive failures until down.
    #[schemars(extend("default" = 3), range(min = 1, max = 1000))]
    pub(crate) fall: Field<Int>,
    /// Port to check; 0 is the backend's own.
    #[schemars(extend("default" = 0), range(min = 0, max = 65535))]
    pub(crate) port: Field<Int>,
    /// State before the first check.
    #[schemars(extend("default" = "probe"))]
    pub(crate) initial: Field<Initial>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTcp {}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHttp {
    /// Path of the request.
    #[schemars(extend("default" = "/health"), regex(pattern = "^/"))]
    pub(crate) path: Field<String>,
    /// Method of the request.
    #[schemars(extend("default" = "GET"))]
    pub(crate) method: Field<String>,
    /// Host header. Default: host of the backend's address, with the port unless it is 80.
    pub(crate) host: Field<String>,
    /// Additional request headers.
    #[schemars(extend("default" = {}))]
    pub(crate) headers: Field<RawHeaders>,
    /// Statuses that count as success.
    #[schemars(extend("default" = "200-399"))]
    pub(crate) status: Field<StatusRange>,
    /// Substring of the response body, as bytes. In double quotes `\xff` is one byte.
    pub(crate) body: Field<String>,
    /// Use TLS. Default: as the pool's `tls`, unless that has starttls or the check a `port`.
    pub(crate) tls: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTlsCheck {
    /// Name to verify and to send as SNI. Default: as for the pool's connections.
    pub(crate) server_name: Field<ServerName>,
}

/// Values of a mapping with arbitrary keys; the keys are in the tree.
pub(crate) struct RawHeaders(pub(crate) Vec<Located<String>>);

impl<'de> Deserialize<'de> for RawHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;

        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = RawHeaders;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names to values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeaders, A::Error> {
                let mut values = Vec::new();
                while let Some((IgnoredAny, value)) = map.next_entry()? {
                    values.push(value);
                }
                Ok(RawHeaders(values))
            }
        }

        deserializer.deserialize_map(HeadersVisitor)
    }
}

impl JsonSchema for RawHeaders {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[0-9A-Za-z!#$%&'*+.^_`|~-]+$" },
            "additionalProperties": { "type": "string" },
            "examples": [{ "Authorization": "Bearer abc" }],
        })
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawExchange {
    /// Bytes to send; empty if the server speaks first. In double quotes `\r`, `\n` and `\xff` are one byte each.
    #[schemars(extend("default" = ""))]
    pub(crate) send: Field<String>,
    /// Prefix of the response. In double quotes `\xff` is one byte.
    #[schemars(required, length(min = 1))]
    pub(crate) expect: Field<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPostgres {
    /// User to log in as. Default: none; the check passes when the server asks for a password.
    pub(crate) user: Field<String>,
    /// File of the user's password; read again when it changes. Default: none.
    pub(crate) password_file: Field<FilePath>,
    /// Database to connect to.
    #[schemars(extend("default" = "postgres"))]
    pub(crate) database: Field<String>,
    /// Role that the server must have.
    #[schemars(extend("default" = "any"))]
    pub(crate) role: Field<RawRole>,
    /// Of a replica: bytes of write-ahead log that it may be behind the pool's primary; 0 is no limit.
    #[schemars(extend("default" = 0))]
    pub(crate) max_lag: Field<ByteCount>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMysql {
    /// User to log in as. Default: none; the check passes when the server refuses the login.
    pub(crate) user: Field<String>,
    /// File of the user's password; read again when it changes. Default: none.
    pub(crate) password_file: Field<FilePath>,
    /// Role that the server must have.
    #[schemars(extend("default" = "any"))]
    pub(crate) role: Field<RawMysqlRole>,
    /// Of a replica: how far it may be behind its source, by its own account; 0s is no limit.
    #[schemars(extend("default" = "0s"))]
    pub(crate) max_lag: Field<Period>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawMysqlRole {
    /// It answers.
    Any,
    /// It accepts writes: no variable says read-only.
    Primary,
    /// It replicates from a source.
    Replica,
    /// As replica; a server that accepts writes only while no other backend can be used.
    PreferReplica,
    /// It is a usable member of a Galera cluster or a replication group.
    Synced,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRedis {
    /// User of an ACL. Default: the default user.
    pub(crate) user: Field<String>,
    /// File of the password; read again when it changes. Default: none.
    pub(crate) password_file: Field<FilePath>,
    /// Role that the server must have.
    #[schemars(extend("default" = "any"))]
    pub(crate) role: Field<RawRole>,
    /// Without TLS, a password to other hosts.
    #[schemars(extend("default" = "refuse"))]
    pub(crate) plaintext: Field<RawPlaintext>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawPlaintext {
    /// An error of the configuration.
    Refuse,
    /// Send it: everybody between can read it.
    Allow,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawRole {
    /// It answers.
    Any,
    /// It accepts writes.
    Primary,
    /// It follows a primary.
    Replica,
    /// As replica; a primary only while no other backend can be used.
    PreferReplica,
}
