//! `listeners[].access` and `geoip`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::net::country::Country;

/// `geoip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeoIpConfig {
    /// An MMDB file with the countries of addresses; reloaded when it changes.
    pub database: PathBuf,
}

/// `listeners[].access`. Lists may be long: they are shared, not copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// When not empty, all others are refused.
    pub allow: Arc<[ClientRule]>,
    /// Wins over `allow`.
    pub deny: Arc<[ClientRule]>,
}

/// Clients: `10.0.0.0/8`, or `country:DE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientRule {
    /// By their address.
    Network(IpNet),
    /// By the country of their address, in `geoip.database`.
    Country(Country),
}

impl fmt::Display for ClientRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientRule::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            ClientRule::Network(network) => network.fmt(f),
            ClientRule::Country(country) => write!(f, "country:{country}"),
        }
    }
}
