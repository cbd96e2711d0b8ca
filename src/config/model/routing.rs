//! `listeners[].routes` and `listeners[].sniff`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::pool::PoolIndex;
use crate::net::name::NamePattern;

/// One entry of `listeners[].routes`. All conditions must match; an empty one matches anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Server names (SNI), any of them.
    pub sni: Vec<NamePattern>,
    /// Application protocols, any of them.
    pub alpn: Vec<Arc<str>>,
    /// Hosts of the first request, any of them.
    pub host: Vec<NamePattern>,
    /// Prefixes of the first request's path, any of them.
    pub path_prefix: Vec<Arc<str>>,
    /// Pool of the connections that match.
    pub pool: PoolIndex,
}

impl RouteConfig {
    /// Whether it needs the ClientHello.
    pub fn needs_tls(&self) -> bool {
        !(self.sni.is_empty() && self.alpn.is_empty())
    }

    /// Whether it needs the first HTTP request.
    pub fn needs_request(&self) -> bool {
        !(self.host.is_empty() && self.path_prefix.is_empty())
    }
}

/// `listeners[].sniff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sniff {
    /// Bytes are not parsed.
    Off,
    /// HTTP/1.x is parsed in passing: statistics, and routes by host and path_prefix.
    Http,
}
