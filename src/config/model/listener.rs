//! `listeners`.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::pool::PoolIndex;
use super::proxy_protocol::ProxyProtocol;
use super::routing::{RouteConfig, Sniff};
use super::tls::ListenerTls;
use crate::net::addr::Address;

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Unique among the listeners.
    pub name: Arc<str>,
    /// At least one; no address twice in the whole configuration. Port 0 lets the kernel choose.
    pub bind: Vec<Address>,
    /// Where its connections go when no route matches.
    pub pool: PoolIndex,
    /// What is watched of its connections as they go by.
    pub sniff: Sniff,
    /// The first that matches wins.
    pub routes: Vec<RouteConfig>,
    /// TLS ends here.
    pub tls: Option<ListenerTls>,
    /// PROXY headers are taken.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Over one of these, a connection gets no backend.
    pub limits: LimitsConfig,
    /// Connections open at once; further ones wait in the kernel's queue.
    pub max_connections: Option<NonZeroU32>,
    /// Bounds on a connection's phases.
    pub timeouts: ListenerTimeouts,
    /// Options of its sockets.
    pub socket: ListenerSocket,
}

/// `listeners[].limits`; `None` (0 in the file) is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsConfig {
    /// Connections that one address has open at once.
    pub connections_per_ip: Option<NonZeroU32>,
    /// Connections that one address makes.
    pub connection_rate_per_ip: Option<Rate>,
    /// Connections that all make.
    pub connection_rate: Option<Rate>,
    /// TLS handshakes under way at once.
    pub handshakes: Option<NonZeroU32>,
}

/// So many in a period. [`Display`](fmt::Display) writes it as in the file: `20/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
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
    /// Until the first bytes are complete: PROXY header, STARTTLS, ClientHello; after TLS anew, the HTTP head.
    pub sniff: Option<Duration>,
    /// From the ClientHello to the end of the TLS handshake.
    pub handshake: Option<Duration>,
    /// No byte in either direction for this long.
    pub idle: Option<Duration>,
    /// One side has finished, the other has been silent for this long.
    pub half_close: Option<Duration>,
    /// Age at which a connection is closed, ± 10 %.
    pub lifetime: Option<Duration>,
}

/// `listeners[].socket`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSocket {
    /// Connections that wait to be accepted (listen(2)); the kernel caps it at net.core.somaxconn.
    pub backlog: i32,
    /// TCP_NODELAY on both sides.
    pub nodelay: bool,
    /// Idle time before the first keepalive probe, on both sides; `None` (0s) turns keepalive off.
    pub keepalive: Option<Duration>,
    /// TCP_FASTOPEN: pending requests with data in the SYN; 0 is off.
    pub fast_open: u32,
    /// TCP_DEFER_ACCEPT: a connection is accepted once it has sent a byte, or after this long. `None` (0s) is off.
    pub defer_accept: Option<Duration>,
    /// IPPROTO_MPTCP.
    pub mptcp: bool,
    /// Whether each worker has a listening socket of its own.
    pub reuse_port: ReusePort,
    /// IP_TRANSPARENT: bind to an address that is not this host's, and take what is routed here for it.
    pub transparent: bool,
}

/// `listeners[].socket.reuse_port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReusePort {
    /// A socket for each worker, and no other process may bind the port.
    Auto,
    /// A socket for each worker, and other processes of the same user may bind the port too.
    On,
    /// One socket that all workers accept from.
    Off,
}
