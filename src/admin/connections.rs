//! `/api/connections`: who is connected, and ending some of that.
//!
//! The query of a list is what must fit: `listener`, `pool`, `backend` (names), `client` (an address or a network), `older` (than a
//! duration, such as `5m`), `user` (that the client names to a database), `id`; and `limit`. To end connections takes one of them at least, or the id in the path.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::query::pairs;
use crate::config::parse_duration;
use crate::log::date::rfc3339_millis;
use crate::server::{ConnectionFilter, ConnectionId, ConnectionInfo, DataPlane};

/// Rows of an answer when `limit` is not given.
pub const DEFAULT_LIMIT: usize = 1_000;
/// The largest `limit`: an answer of 3 MB.
pub const MAX_LIMIT: usize = 10_000;

/// The answer of `GET /api/connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionsAnswer {
    /// The process that has answered.
    #[serde(default)]
    pub pid: u32,
    /// The oldest first.
    pub connections: Vec<ConnectionRow>,
    /// How many fit.
    pub matched: usize,
    /// Whether some of them are left out, because of `limit`.
    pub more: bool,
    /// Processes that an upgrade has replaced whose connections are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<UnreachedProcess>,
}

/// A replaced process whose connections an answer does not cover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreachedProcess {
    /// Its process id.
    pub pid: u32,
    /// Connections that it has left.
    pub connections: usize,
    /// Why it was not asked, or has not answered.
    pub reason: String,
}

impl fmt::Display for UnreachedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnreachedProcess { pid, connections, reason } = self;
        let plural = if *connections == 1 { "" } else { "s" };
        write!(f, "process {pid}, which an upgrade has replaced, has {connections} connection{plural} left: {reason}")
    }
}

/// An open connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// The process that has it: this one, or one that an upgrade has replaced.
    #[serde(default)]
    pub pid: u32,
    /// The listener's name.
    pub listener: String,
    /// The client's address and port, or `unix:`.
    pub client: String,
    /// The pool's name; `null` while the client's first bytes are still to say which.
    pub pool: Option<String>,
    /// The backend's name; `null` until one is connected.
    pub backend: Option<String>,
    /// When it was accepted, as RFC 3339 has it.
    pub since: String,
    /// Seconds since then.
    pub age_s: f64,
    /// Bytes from the client, delivered to the backend.
    pub bytes_in: u64,
    /// Bytes from the backend, delivered to the client.
    pub bytes_out: u64,
    /// Seconds since a byte or FIN was last delivered in either direction.
    pub idle_s: f64,
    /// The server name that the client asked for by TLS, where tidegate has read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The user that the client names to a database, where its queries are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The database that the client has chosen there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// The answer of `DELETE /api/connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsEnded {
    /// How many were ended.
    pub ended: usize,
    /// Processes that an upgrade has replaced whose connections go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<UnreachedProcess>,
}

/// Why no connection was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotEnded {
    /// The question is wrong.
    Invalid(String),
    /// There is none with this id, unless one of these processes has it.
    NotFound { id: ConnectionId, unreached: Vec<UnreachedProcess> },
}

impl NotEnded {
    /// As HTTP says it.
    pub fn status(&self) -> StatusCode {
        match self {
            NotEnded::Invalid(_) => StatusCode::BAD_REQUEST,
            NotEnded::NotFound { .. } => StatusCode::NOT_FOUND,
        }
    }
}

impl fmt::Display for NotEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotEnded::Invalid(why) => f.write_str(why),
            NotEnded::NotFound { id, unreached } => {
                write!(f, "no open connection has the id {id}")?;
                unreached.iter().try_for_each(|process| write!(f, "; {process}"))
            }
        }
    }
}

/// Lists the connections that fit a query.
///
/// # Errors
/// What is wrong with the query.
pub async fn list(query: &str, plane: &DataPlane) -> Result<ConnectionsAnswer, String> {
    let Query { filter, limit } = Query::parse(query)?;
    let list = plane.connections(filter, limit.unwrap_or(DEFAULT_LIMIT)).await;
    let now = (SystemTime::now(), Instant::now());
    let connections: Vec<ConnectionRow> = list.connections.iter().map(|it| row(it, now)).collect();
    let more = list.matched > connections.len();
    Ok(ConnectionsAnswer { pid: std::process::id(), connections, matched: list.matched, more, unreached: Vec::new() })
}

/// One list of several processes', for the query of all of them.
///
/// # Errors
/// What is wrong with the query.
pub(super) fn merged(
    query: &str,
    own: ConnectionsAnswer,
    others: Vec<ConnectionsAnswer>,
) -> Result<ConnectionsAnswer, String> {
    let limit = Query::parse(query)?.limit.unwrap_or(DEFAULT_LIMIT);
    let mut whole = own;
    for other in others {
        whole.matched += other.matched;
        whole.connections.extend(other.connections);
    }
    whole.connections.sort_by(|one, other| other.age_s.total_cmp(&one.age_s));
    whole.connections.truncate(limit);
    whole.more = whole.matched > whole.connections.len();
    Ok(whole)
}

/// Ends the connection with this id, or those that fit a query.
///
/// # Errors
/// The query is wrong, empty, or beside an id; or there is no connection with this id.
pub async fn end(query: &str, id: Option<&str>, plane: &DataPlane) -> Result<ConnectionsEnded, NotEnded> {
    let filter = ending(query, id).map_err(NotEnded::Invalid)?;
    let id = filter.id;
    match (plane.end_connections(filter).await, id) {
        (0, Some(id)) => Err(NotEnded::NotFound { id, unreached: Vec::new() }),
        (ended, _) => Ok(ConnectionsEnded { ended, unreached: Vec::new() }),
    }
}

/// The one connection that is meant, if it is one.
pub(super) fn asked_id(query: &str, id: Option<&str>) -> Option<ConnectionId> {
    ending(query, id).ok()?.id
}

/// What is to be ended.
///
/// # Errors
/// The query is wrong, empty, or beside an id.
pub(super) fn ending(query: &str, id: Option<&str>) -> Result<ConnectionFilter, String> {
    let Query { filter, limit } = Query::parse(query)?;
    if limit.is_some() {
        return Err("limit: is for lists: all connections that fit are ended".to_owned());
    }
    match id {
        Some(_) if !filter.is_empty() => Err("an id names one connection: leave the query out".to_owned()),
        Some(id) => Ok(ConnectionFilter { id: Some(id.parse()?), ..ConnectionFilter::default() }),
        None if filter.is_empty() => Err(format!("which connections? Say one of {KEYS} at least")),
        None => Ok(filter),
    }
}

/// What a filter can say.
const KEYS: &str = "listener, pool, backend, client, older, user and id";

/// What a query says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    filter: ConnectionFilter,
    limit: Option<usize>,
}

impl Query {
    fn parse(query: &str) -> Result<Query, String> {
        let mut read = Query::default();
        let Query { filter, limit } = &mut read;
        for (key, value) in pairs(query).ok_or("the query is not percent-encoded UTF-8")? {
            match key.as_str() {
                "listener" => set(&mut filter.listener, &key, name(value)),
                "pool" => set(&mut filter.pool, &key, name(value)),
                "backend" => set(&mut filter.backend, &key, name(value)),
                "client" => set(&mut filter.client, &key, network(&value)),
                "older" => set(&mut filter.older, &key, parse_duration(&value)),
                "user" => set(&mut filter.user, &key, name(value)),
                "id" => set(&mut filter.id, &key, value.parse()),
                "limit" => set(limit, &key, rows(&value)),
                _ => Err(format!("`{}` is not known: {KEYS} are, and limit in a list", key.escape_debug())),
            }?;
        }
        Ok(read)
    }
}

fn set<T>(known: &mut Option<T>, key: &str, value: Result<T, String>) -> Result<(), String> {
    match known.replace(value.map_err(|why| format!("{key}: {why}"))?) {
        None => Ok(()),
        Some(_) => Err(format!("{key}: is given twice")),
    }
}

fn name(value: String) -> Result<String, String> {
    if value.is_empty() { Err("is empty: leave it out, or write a name".to_owned()) } else { Ok(value) }
}

fn network(value: &str) -> Result<IpNet, String> {
    // A client of IPv4 is one on a dual-stack socket too.
    let address = |_| value.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    value.parse().or_else(address).map_err(|_| {
        format!(
            "`{}` is no address: write one, such as 10.0.0.7, or a network, such as 10.0.0.0/8",
            value.escape_debug()
        )
    })
}

fn rows(value: &str) -> Result<usize, String> {
    let rows = value.parse().ok().filter(|rows| (1..=MAX_LIMIT).contains(rows));
    rows.ok_or_else(|| format!("`{}` is no number from 1 to {MAX_LIMIT}", value.escape_debug()))
}

fn row(connection: &ConnectionInfo, now: (SystemTime, Instant)) -> ConnectionRow {
    let name = |name: &Option<Arc<str>>| name.as_ref().map(|name| (**name).to_owned());
    let age = now.1.saturating_duration_since(connection.accepted);
    let accepted = now.0.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    ConnectionRow {
        id: connection.id.to_string(),
        pid: std::process::id(),
        listener: (*connection.listener).to_owned(),
        client: connection.client.to_string(),
        pool: name(&connection.pool),
        backend: name(&connection.backend),
        since: rfc3339_millis(accepted).to_string(),
        age_s: seconds(age),
        bytes_in: connection.bytes_in,
        bytes_out: connection.bytes_out,
        idle_s: seconds(now.1.saturating_duration_since(connection.last_moved)),
        sni: name(&connection.server_name),
        user: name(&connection.user),
        database: name(&connection.database),
    }
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_read() {
        let id = "8000000000000abc";
        let read = Query::parse(&format!(
            "listener=in&pool=p&backend=db%4010.0.0.1%3A1&client=10.1.0.0%2F16&older=5m&user=al%20ice&id={id}&limit=7"
        ));
        let filter = ConnectionFilter {
            id: Some(id.parse().unwrap()),
            listener: Some("in".to_owned()),
            pool: Some("p".to_owned()),
            backend: Some("db@10.0.0.1:1".to_owned()),
            backend_id: None,
            client: Some("10.1.0.0/16".parse().unwrap()),
            older: Some(Duration::from_secs(300)),
            user: Some("al ice".to_owned()),
        };
        assert_eq!(read, Ok(Query { filter, limit: Some(7) }));
        assert_eq!(Query::parse(""), Ok(Query::default()));
        for (client, network) in
            [("10.0.0.7", "10.0.0.7/32"), ("::ffff:10.0.0.7", "10.0.0.7/32"), ("fe80::1", "fe80::1/128")]
        {
            let read = Query::parse(&format!("client={client}")).unwrap();
            assert_eq!(read.filter.client, Some(network.parse().unwrap()), "{client}");
        }
    }

    #[test]
    fn error_names_the_key_and_the_value() {
        let cases = [
            (
                "cliet=::1",
                "`cliet` is not known: listener, pool, backend, client, older, user and id are, and limit in a list",
            ),
            (
                "client=nobody",
                "client: `nobody` is no address: write one, such as 10.0.0.7, or a network, such as 10.0.0.0/8",
            ),
            (
                "client=10.0.0.0/33",
                "client: `10.0.0.0/33` is no address: write one, such as 10.0.0.7, or a network, such as 10.0.0.0/8",
            ),
            ("older=5", "older: `5` has no unit: write 5s for seconds; units are ms, s, m and h"),
            ("older=", "older: `` is not a duration: write a number and ms, s, m or h, such as 5s"),
            ("id=7", "id: `7` is no connection's id: it has 16 hexadecimal digits"),
            ("limit=0", "limit: `0` is no number from 1 to 10000"),
            ("limit=10001", "limit: `10001` is no number from 1 to 10000"),
            ("pool=", "pool: is empty: leave it out, or write a name"),
            ("pool=a&pool=b", "pool: is given twice"),
            ("pool=%", "the query is not percent-encoded UTF-8"),
        ];
        for (query, error) in cases {
            assert_eq!(Query::parse(query).unwrap_err(), error, "{query}");
        }
    }

    #[test]
    fn ending_takes_an_id_or_a_filter() {
        let id = "8000000000000abc";
        assert_eq!(ending("", Some(id)).unwrap().id, Some(id.parse().unwrap()));
        assert_eq!(ending("pool=p", None).unwrap().pool.as_deref(), Some("p"));
        let cases = [
            ("", None, "which connections? Say one of listener, pool, backend, client, older, user and id at least"),
            ("pool=p", Some(id), "an id names one connection: leave the query out"),
            ("pool=p&limit=3", None, "limit: is for lists: all connections that fit are ended"),
            ("", Some("x"), "`x` is no connection's id: it has 16 hexadecimal digits"),
        ];
        for (query, id, error) in cases {
            assert_eq!(ending(query, id).unwrap_err(), error, "{query} {id:?}");
        }
    }
}
