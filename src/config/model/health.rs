//! `pools[].health`.

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::redacted::Redacted;

/// `pools[].health`.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Kind and its settings.
    pub check: HealthCheck,
    /// Start to start, ± 10 % of jitter.
    pub interval: Duration,
    /// Time limit of one check, connect included.
    pub timeout: Duration,
    /// Consecutive successes until up.
    pub rise: NonZeroU32,
    /// Consecutive failures until down.
    pub fall: NonZeroU32,
    /// Port to check; `None` is the backend's own.
    pub port: Option<u16>,
    /// The exchange is one of datagrams.
    pub by_datagrams: bool,
    /// State before the first check.
    pub initial: Initial,
}

/// The kind of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// The connect succeeds.
    Tcp,
    /// One HTTP request and its response.
    Http(HttpCheck),
    /// Send bytes, expect bytes.
    Exchange {
        /// May be empty: the server speaks first.
        send: Redacted<Vec<u8>>,
        /// Prefix of the response; never empty.
        expect: Redacted<Vec<u8>>,
    },
    /// The TLS handshake succeeds.
    Tls {
        /// Name to verify and to send as SNI; `None` as for the pool's connections.
        server_name: Option<Arc<str>>,
    },
    /// A login to PostgreSQL.
    Postgres(PostgresCheck),
    /// A login to MySQL or MariaDB.
    Mysql(MysqlCheck),
    /// PING and ROLE of Redis or Valkey.
    Redis(RedisCheck),
}

impl HealthCheck {
    /// The account that a check of a database logs in with.
    pub fn account(&self) -> Option<&DatabaseAccount> {
        match self {
            HealthCheck::Tcp | HealthCheck::Http(_) | HealthCheck::Exchange { .. } | HealthCheck::Tls { .. } => None,
            HealthCheck::Postgres(PostgresCheck { account, .. })
            | HealthCheck::Mysql(MysqlCheck { account, .. })
            | HealthCheck::Redis(RedisCheck { account, .. }) => Some(account),
        }
    }

    /// The same check, whatever role is wanted and how far behind it may be.
    #[must_use]
    pub fn without_role(&self) -> HealthCheck {
        let mut check = self.clone();
        match &mut check {
            HealthCheck::Postgres(PostgresCheck { role, max_lag, .. }) => (*role, *max_lag) = (RequiredRole::Any, None),
            HealthCheck::Mysql(MysqlCheck { role, max_lag, .. }) => (*role, *max_lag) = (RequiredRole::Any, None),
            HealthCheck::Redis(RedisCheck { role, .. }) => *role = RequiredRole::Any,
            HealthCheck::Tcp | HealthCheck::Http(_) | HealthCheck::Exchange { .. } | HealthCheck::Tls { .. } => {}
        }
        check
    }

    /// The role that a check of a database wants.
    pub fn role(&self) -> Option<RequiredRole> {
        match self {
            HealthCheck::Tcp | HealthCheck::Http(_) | HealthCheck::Exchange { .. } | HealthCheck::Tls { .. } => None,
            HealthCheck::Postgres(PostgresCheck { role, .. })
            | HealthCheck::Mysql(MysqlCheck { role, .. })
            | HealthCheck::Redis(RedisCheck { role, .. }) => Some(*role),
        }
    }
}

/// An account of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseAccount {
    /// No control characters. `None`: the check stops where a password would be needed.
    pub user: Option<String>,
    /// File of the password, read again when it changes.
    pub password_file: Option<Redacted<PathBuf>>,
}

/// The role that a backend must have to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredRole {
    /// It answers.
    Any,
    /// It accepts writes.
    Primary,
    /// It follows a primary.
    Replica,
    /// As `Replica`; a primary only while no other backend can be used.
    PreferReplica,
    /// It is a usable member of a cluster of primaries.
    Synced,
}

impl RequiredRole {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            RequiredRole::Any => "any",
            RequiredRole::Primary => "primary",
            RequiredRole::Replica => "replica",
            RequiredRole::PreferReplica => "prefer_replica",
            RequiredRole::Synced => "synced",
        }
    }

    /// Whether replicas are wanted, which may be behind.
    pub fn is_of_replicas(self) -> bool {
        matches!(self, RequiredRole::Replica | RequiredRole::PreferReplica)
    }
}

/// `pools[].health.mysql`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlCheck {
    /// Without a user, `role` is `any`.
    pub account: DatabaseAccount,
    pub role: RequiredRole,
    /// Of a replica, by its own account; `None` is no limit.
    pub max_lag: Option<Duration>,
}

/// `pools[].health.redis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisCheck {
    /// Without a user, the password is that of the default user.
    pub account: DatabaseAccount,
    /// Never `synced`.
    pub role: RequiredRole,
    /// The password may be sent to other hosts without TLS.
    pub plaintext: bool,
}

/// `pools[].health.postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresCheck {
    /// Without a user, `role` is `any`.
    pub account: DatabaseAccount,
    /// No control characters.
    pub database: String,
    /// Never `synced`.
    pub role: RequiredRole,
    /// Of a replica, in bytes of write-ahead log; `None` is no limit.
    pub max_lag: Option<NonZeroU64>,
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
    /// Additional headers, each name once. None frames the message or is hop-by-hop.
    pub headers: Redacted<Vec<Header>>,
    /// Statuses that count as success.
    pub status: RangeInclusive<u16>,
    /// Substring of the body.
    pub body: Option<Redacted<Vec<u8>>>,
    /// Whether it goes over TLS; `None` as the pool's connections, where they begin with TLS.
    pub tls: Option<bool>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Down until the first success; one is enough.
    Probe,
    /// Up until `fall` failures.
    Up,
}
