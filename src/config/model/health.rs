//! `pools[].health`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::redacted::Redacted;

/// `pools[].health`.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The kind of check.
    pub check: HealthCheck,
    /// From the start of one probe to the start of the next, ± 10 %.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Passes in a row until up.
    pub rise: NonZeroU32,
    /// Failures in a row until down.
    pub fall: NonZeroU32,
    /// The port that is probed, if not the backend's own.
    pub port: Option<u16>,
    /// What a backend is before its first probe.
    pub initial: Initial,
}

/// The kind of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// A connect is enough.
    Tcp,
    /// A request and the status, and perhaps the body, of its answer.
    Http(HttpCheck),
    /// Bytes sent, bytes expected.
    Exchange {
        /// Sent once connected; may be empty.
        send: Redacted<Vec<u8>>,
        /// What the answer must begin with; never empty.
        expect: Redacted<Vec<u8>>,
    },
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
    /// Further headers, each name once. None of them frames the message or concerns the connection.
    pub headers: Redacted<Vec<Header>>,
    /// Statuses that pass.
    pub status: RangeInclusive<u16>,
    /// Bytes that the body must contain.
    pub body: Option<Redacted<Vec<u8>>>,
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
    /// Down until the first pass; one is enough.
    Probe,
    /// Up until `fall` failures.
    Up,
}
