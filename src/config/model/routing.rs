//! `listeners[].routes` and `listeners[].sniff`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::pool::PoolIndex;
use crate::net::name::NamePattern;

/// One entry of `listeners[].routes`. Everything that is given must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Server names of which one must fit; empty: any, and none.
    pub sni: Vec<NamePattern>,
    /// Application protocols of which one must be the connection's; empty: any, and none.
    pub alpn: Vec<Arc<str>>,
    /// Hosts of which one must fit that of the first request; empty: any, and none.
    pub host: Vec<NamePattern>,
    /// With one of these the path of the first request must begin; empty: any, and none.
    pub path_prefix: Vec<Arc<str>>,
    /// Where what matches goes.
    pub pool: PoolIndex,
}

impl RouteConfig {
    /// Whether it takes only connections whose ClientHello is known.
    pub fn needs_tls(&self) -> bool {
        !(self.sni.is_empty() && self.alpn.is_empty())
    }

    /// Whether it takes only connections whose first request is known.
    pub fn needs_request(&self) -> bool {
        !(self.host.is_empty() && self.path_prefix.is_empty())
    }
}

/// `listeners[].sniff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sniff {
    /// Nothing is looked at.
    Off,
    /// HTTP/1.x is watched as it goes by.
    Http,
}
