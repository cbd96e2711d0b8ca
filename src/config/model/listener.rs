//! `listeners`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::AccessConfig;
use super::bind::ListenAddress;
use super::http::HttpListener;
use super::pool::PoolIndex;
use super::proxy_protocol::ProxyProtocol;
use super::routing::RouteConfig;
use super::tls::{ListenerTls, StartTls};
use super::udp::UdpListener;
use crate::net::addr::Address;

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Unique among the listeners.
    pub name: Arc<str>,
    /// At least one; addresses are unique over all listeners.
    pub bind: Vec<ListenAddress>,
    /// Pool of the connections that match no route.
    pub pool: PoolIndex,
    /// `protocol: http`: each request is balanced by itself. `None` balances connections.
    pub http: Option<HttpListener>,
    /// `protocol: udp`: datagrams, by sessions.
    pub udp: Option<UdpListener>,
    /// Protocol that is parsed in passing.
    pub sniff: Sniff,
    /// What its clients speak, where nothing else says it.
    pub protocol_hint: Option<SpokenProtocol>,
    /// First match wins.
    pub routes: Vec<RouteConfig>,
    /// TLS termination.
    pub tls: Option<ListenerTls>,
    /// PROXY protocol from clients.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Which clients may connect.
    pub access: AccessConfig,
    /// Connections above one are rejected.
    pub limits: LimitsConfig,
    /// Concurrent connections; further ones wait in the kernel's accept queue.
    pub max_connections: Option<NonZeroU32>,
    /// Limits of the phases of a connection.
    pub timeouts: ListenerTimeouts,
    /// Socket options.
    pub socket: ListenerSocket,
    /// Administrative state.
    pub state: ListenerState,
}

impl StartTls {
    /// The protocol within which TLS is asked for.
    pub fn speaks(self) -> SpokenProtocol {
        match self {
            StartTls::Postgres => SpokenProtocol::Postgres,
            StartTls::Mysql => SpokenProtocol::Mysql,
        }
    }
}

impl ListenerConfig {
    /// Where its connections may go, by routes too. A pool may be there several times.
    pub fn pools(&self) -> impl Iterator<Item = PoolIndex> {
        std::iter::once(self.pool).chain(self.routes.iter().flat_map(|route| route.target.pools()))
    }

    /// Every address, those of ranges included.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.bind.iter().flat_map(ListenAddress::addresses)
    }

    /// Whether an address is one of a range of ports.
    pub fn is_of_range(&self, address: &Address) -> bool {
        self.bind.iter().any(|bind| bind.is_range() && bind.contains(address))
    }

    /// What its clients speak, inside TLS where that ends here; `None` if it is not known.
    pub fn speaks(&self) -> Option<SpokenProtocol> {
        let starttls = self.tls.as_ref().and_then(|tls| tls.starttls);
        let of_requests = self.http.as_ref().map(|_| SpokenProtocol::Http);
        starttls.map(StartTls::speaks).or(of_requests).or(self.sniff.speaks()).or(self.protocol_hint)
    }

    /// Whether the backend speaks before the client asks for TLS: nothing of the client but its address is known when the backend is
    /// chosen.
    pub fn server_speaks_first(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.starttls == Some(StartTls::Mysql))
    }

    /// Whether it binds an address.
    pub fn binds(&self, address: &Address) -> bool {
        self.bind.iter().any(|bind| bind.contains(address))
    }
}

/// `listeners[].protocol_hint`: a protocol with an error message of its own for a client that gets no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpokenProtocol {
    /// PostgreSQL: ErrorResponse.
    Postgres,
    /// MySQL and MariaDB: an ERR packet.
    Mysql,
    /// Redis and Valkey: a simple error.
    Redis,
    /// HTTP/1.x: a response.
    Http,
}

impl SpokenProtocol {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            SpokenProtocol::Postgres => "postgres",
            SpokenProtocol::Mysql => "mysql",
            SpokenProtocol::Redis => "redis",
            SpokenProtocol::Http => "http",
        }
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
    /// PostgreSQL: statistics of queries.
    Postgres,
    /// MySQL and MariaDB: statistics of queries.
    Mysql,
    /// Redis and Valkey: statistics of commands.
    Redis,
}

impl Sniff {
    /// As in the file.
    pub fn name(self) -> &'static str {
        self.speaks().map_or("off", SpokenProtocol::name)
    }

    /// The protocol that is parsed.
    pub fn speaks(self) -> Option<SpokenProtocol> {
        match self {
            Sniff::Off => None,
            Sniff::Http => Some(SpokenProtocol::Http),
            Sniff::Postgres => Some(SpokenProtocol::Postgres),
            Sniff::Mysql => Some(SpokenProtocol::Mysql),
            Sniff::Redis => Some(SpokenProtocol::Redis),
        }
    }
}

/// `listeners[].state`: administrative state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenerState {
    /// Accepts.
    #[default]
    Ready,
    /// Accepts nothing: new connections wait in the kernel's accept queue.
    Paused,
    /// Its listening sockets are closed; its connections go on.
    Drain,
}

impl ListenerState {
    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            ListenerState::Ready => "ready",
            ListenerState::Paused => "paused",
            ListenerState::Drain => "drain",
        }
    }
}

/// `listeners[].limits`; `None` (0 in the file) is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsConfig {
    /// Concurrent connections per IPv4 address or IPv6 /64.
    pub connections_per_ip: Option<NonZeroU32>,
    /// New connections per IPv4 address or IPv6 /64.
    pub connection_rate_per_ip: Option<Rate>,
    /// New connections of the whole listener.
    pub connection_rate: Option<Rate>,
    /// Concurrent TLS handshakes.
    pub handshakes: Option<NonZeroU32>,
    /// Bytes in a second, of one connection in each direction.
    pub bandwidth: Option<NonZeroU64>,
    /// Requests per IPv4 address or IPv6 /64, with `protocol: http`; over it, 429.
    pub request_rate_per_ip: Option<Rate>,
}

/// Events per period. [`Display`](fmt::Display) writes it as in the file: `20/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events.
    pub count: NonZeroU32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// `listeners[].timeouts`; `None` (0s in the file) is no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTimeouts {
    /// PROXY header, STARTTLS request and ClientHello; starts over after the TLS handshake for the HTTP head.
    pub sniff: Option<Duration>,
    /// From the ClientHello to the end of the TLS handshake.
    pub handshake: Option<Duration>,
    /// No data in either direction for this long.
    pub idle: Option<Duration>,
    /// One side has sent its FIN, and the other sends no data for this long.
    pub half_close: Option<Duration>,
    /// Age at which a connection is closed, ± 10 %.
    pub lifetime: Option<Duration>,
}

/// `listeners[].socket`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSocket {
    /// Accept queue, listen(2); the kernel caps it at net.core.somaxconn.
    pub backlog: i32,
    /// TCP_NODELAY, to clients and to backends.
    pub nodelay: bool,
    /// Idle time before the first keepalive probe, on both sides; `None` (0s) turns keepalive off.
    pub keepalive: Option<Duration>,
    /// TCP_FASTOPEN: queue length of pending requests with data in the SYN; 0 is off.
    pub fast_open: u32,
    /// TCP_DEFER_ACCEPT: accept on the first data, or after this time. `None` (0s) is off.
    pub defer_accept: Option<Duration>,
    /// IPPROTO_MPTCP.
    pub mptcp: bool,
    /// Whether each worker has a listening socket of its own.
    pub reuse_port: ReusePort,
    /// IP_TRANSPARENT: bind to a non-local address, and accept connections that are routed here for it.
    pub transparent: bool,
    /// IP_FREEBIND: bind to an address that the host does not have yet.
    pub freebind: bool,
    /// Permission bits of unix sockets, at most 0o777.
    pub mode: u32,
}

/// `listeners[].socket.reuse_port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReusePort {
    /// One socket per worker; exclusive to this process.
    Auto,
    /// One socket per worker; processes of the same user may bind the port too.
    On,
    /// One socket for all workers.
    Off,
}
