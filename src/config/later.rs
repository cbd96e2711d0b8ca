//! The keys of the configuration language whose features are not built yet. They are only described,
//! for the schema; a file that has one is refused by name.

#![allow(dead_code, reason = "these types describe a schema; nothing is read into them yet")]

use schemars::JsonSchema;

use super::units::{Percent, Period};
use super::words::Int;

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
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
