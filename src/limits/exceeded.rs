//! Which limit a connection exceeds.

use std::time::Duration;

/// A limit that a connection was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `connections_per_ip`.
    ConnectionsOfAddress,
    /// `connection_rate_per_ip`.
    RateOfAddress,
    /// `connection_rate`.
    Rate,
}

/// Why a connection may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// What is exceeded.
    pub limit: Limit,
    /// When another try is worth it.
    pub wait: Duration,
}
