//! Listeners.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::measured::{HttpStats, Latency};
use super::queries::QueryStats;
use crate::config::model::ListenerState;
use crate::stats::counters;
use crate::stats::registry::{ListenerId, RouteId};
use crate::stats::termination::Termination;
use crate::stats::udp::{DatagramCounters, DatagramDrop};

/// One listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListenerStats {
    /// Its id.
    #[serde(skip)]
    pub id: ListenerId,
    /// Its name.
    pub name: String,
    /// Where it listens, such as `127.0.0.1:8080`; nowhere while it is drained.
    pub addresses: Vec<String>,
    /// Its administrative state.
    #[serde(default)]
    pub state: ListenerState,
    /// Whether TLS ends here.
    pub tls: bool,
    /// Whether HTTP is watched (`sniff: http`), or balanced by requests (`protocol: http`).
    #[serde(rename = "sniffs_http")]
    pub counts_requests: bool,
    /// Where connections go that match no route.
    pub pool: String,
    /// Every pool that connections may go to, that one first.
    pub pools: Vec<String>,
    /// Connections open at once; `None` is no limit.
    pub max_connections: Option<u32>,
    /// Connections of all clients in a second (`limits.connection_rate`); `None` is no limit.
    #[serde(default)]
    pub rate_limit: Option<f64>,
    /// Connections open now.
    pub open: u64,
    /// The most that were open at once.
    pub open_max: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that have ended, however.
    pub ended: u64,
    /// Of these, those that got no backend.
    pub rejected: u64,
    /// Bytes from clients that were handed to backends.
    pub bytes_in: u64,
    /// Bytes from backends that were handed to clients.
    pub bytes_out: u64,
    /// Connects that were tried again with another backend.
    pub retries: u64,
    /// Connections accepted a second.
    #[serde(default)]
    pub rate: RateStats,
    /// Requests of HTTP or queries a second, where they are watched; counted at their end.
    #[serde(default)]
    pub request_rate: RateStats,
    /// TLS handshakes with clients; `None` where TLS does not end.
    #[serde(default)]
    pub handshakes: Option<HandshakeStats>,
    /// Ended connections by how they ended: one entry for each termination there is.
    #[serde(deserialize_with = "known_terminations")]
    pub terminations: Vec<TerminationStats>,
    /// How long things took.
    pub latency: Latency,
    /// What was seen of HTTP.
    pub http: Option<HttpStats>,
    /// With `protocol: http`, requests that are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_open: Option<u64>,
    /// With `protocol: http`, each route, and last what matches none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteStats>,
    /// Datagrams, with `protocol: udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams: Option<DatagramStats>,
    /// What was seen of queries, by protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<QueryStats>,
}

/// One route of a listener with `protocol: http`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RouteStats {
    /// Its id.
    #[serde(skip)]
    pub id: RouteId,
    /// `name`, or the conditions; `default` is what matches no route.
    pub name: String,
    /// Where it leads; nowhere if it refuses.
    pub pools: Vec<String>,
    /// Requests that are under way.
    pub requests_open: u64,
    /// Requests that were sent again, to the same or another backend.
    pub retries: u64,
    /// `http_first_byte` and `http_response`.
    pub latency: Latency,
    /// Its requests.
    pub http: Option<HttpStats>,
}

/// Datagrams of `protocol: udp`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatagramStats {
    /// From clients, handed to backends.
    #[serde(rename = "in")]
    pub datagrams_in: u64,
    /// From backends, handed to clients.
    #[serde(rename = "out")]
    pub datagrams_out: u64,
    /// Sessions that went on with another backend after an ICMP error.
    pub moved_sessions: u64,
    /// Dropped, by cause.
    pub dropped: BTreeMap<String, u64>,
}

/// How many a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateStats {
    /// In the last one.
    pub now: u64,
    /// The most in any.
    pub max: u64,
}

/// TLS handshakes that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HandshakeStats {
    /// Made from the beginning.
    pub full: u64,
    /// Gone on with a session that both sides knew.
    pub resumed: u64,
}

/// One way to end, and how often connections did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(into = "TerminationRow")]
pub struct TerminationStats {
    /// How they ended.
    pub termination: Termination,
    /// How many.
    pub count: u64,
}

/// [`TerminationStats`] as it is written.
#[derive(Serialize)]
struct TerminationRow {
    /// As in the access log, such as `client closed` or `rejected: no backend`.
    reason: String,
    /// Who caused it: `client`, `backend` or `tidegate`.
    side: &'static str,
    /// As in an access log of HAProxy's form.
    code: &'static str,
    /// Whether the client got no backend.
    rejected: bool,
    count: u64,
}

impl From<TerminationStats> for TerminationRow {
    fn from(TerminationStats { termination, count }: TerminationStats) -> TerminationRow {
        TerminationRow {
            reason: termination.to_string(),
            side: termination.cause().name(),
            code: termination.code(),
            rejected: termination.is_rejection(),
            count,
        }
    }
}

/// Skips terminations that only another version of tidegate knows.
fn known_terminations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TerminationStats>, D::Error> {
    #[derive(Deserialize)]
    struct RowOnWire {
        reason: String,
        count: u64,
    }
    let known = |RowOnWire { reason, count }: RowOnWire| {
        Some(TerminationStats { termination: Termination::named(&reason)?, count })
    };
    Ok(Vec::<RowOnWire>::deserialize(deserializer)?.into_iter().filter_map(known).collect())
}

impl HandshakeStats {
    /// What was counted.
    pub(in crate::admin) fn of(counted: &counters::Handshakes) -> HandshakeStats {
        HandshakeStats { full: counted.full(), resumed: counted.resumed() }
    }
}

impl DatagramStats {
    /// What was counted.
    pub(in crate::admin) fn of(of: &DatagramCounters) -> DatagramStats {
        DatagramStats {
            datagrams_in: of.datagrams_in(),
            datagrams_out: of.datagrams_out(),
            moved_sessions: of.moves(),
            dropped: DatagramDrop::ALL.into_iter().map(|why| (why.name().to_owned(), of.drops(why))).collect(),
        }
    }
}
