//! How a connection ended: a named reason, and the side that caused it.

use std::fmt;

/// One of the two sides of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Side {
    Client,
    Backend,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Backend => "backend",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The end of a connection. [`Display`](fmt::Display) gives the words of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides have finished; this one did so first.
    Closed(Side),
    /// This side sent RST.
    Reset(Side),
    /// This side's host no longer answers.
    Lost(Side),
    /// What this side sent breaks the rules of TLS.
    Garbled(Side),
    /// Both sides have finished; this one did so first, and without the close_notify that TLS wants: what it sent may
    /// have been cut.
    Truncated(Side),
    /// No byte in either direction for `timeouts.idle`.
    IdleTimeout,
    /// One side had finished, the other was silent for `timeouts.half_close`.
    HalfCloseTimeout,
    /// The connection reached `timeouts.lifetime`.
    Lifetime,
    /// Its backend went down, and the pool says `on_down: cut`.
    BackendDown,
    /// It was still open when `shutdown.drain` was over.
    DrainDeadline,
    /// No backend of the pool could take it.
    NoBackend,
    /// No connect to a backend succeeded.
    ConnectFailed,
    /// The client left before a backend was connected.
    ClientLeft,
    /// The client's first bytes (PROXY header, STARTTLS, ClientHello) were not complete after `timeouts.sniff`.
    SniffTimeout,
    /// The TLS handshake had not finished after `timeouts.handshake`.
    HandshakeTimeout,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// There were `limits.handshakes` others under way.
    HandshakeLimit,
    /// The client's address had `limits.connections_per_ip` open.
    AddressConnections,
    /// The client's address connects faster than `limits.connection_rate_per_ip`.
    AddressRate,
    /// All clients together connect faster than `limits.connection_rate`.
    ListenerRate,
    /// The client speaks no TLS, on a listener that wants it.
    NotTls,
    /// The client's ClientHello is damaged or too long, and a route or certificate depends on it.
    BadClientHello,
    /// The head of the client's first HTTP request is damaged or too long, and a route depends on it.
    BadRequest,
    /// The client asked for a server name that no certificate fits, and the listener says `unknown_sni: refuse`.
    UnknownName,
    /// The peer sent no PROXY header, or a wrong one.
    BadProxyHeader,
    /// A PROXY header came from a peer that is not in `trusted`.
    UntrustedProxyHeader,
    /// This host had no descriptor, port or memory left for the connection to a backend.
    OutOfResources,
    /// A defect of tidegate ended it.
    InternalError,
}

impl Ending {
    /// Every ending, in the order of [`Ending::index`].
    pub const ALL: [Ending; 33] = [
        Ending::Closed(Side::Client),
        Ending::Closed(Side::Backend),
        Ending::Reset(Side::Client),
        Ending::Reset(Side::Backend),
        Ending::Lost(Side::Client),
        Ending::Lost(Side::Backend),
        Ending::Garbled(Side::Client),
        Ending::Garbled(Side::Backend),
        Ending::Truncated(Side::Client),
        Ending::Truncated(Side::Backend),
        Ending::IdleTimeout,
        Ending::HalfCloseTimeout,
        Ending::Lifetime,
        Ending::BackendDown,
        Ending::DrainDeadline,
        Ending::NoBackend,
        Ending::ConnectFailed,
        Ending::ClientLeft,
        Ending::SniffTimeout,
        Ending::HandshakeTimeout,
        Ending::HandshakeFailed,
        Ending::HandshakeLimit,
        Ending::AddressConnections,
        Ending::AddressRate,
        Ending::ListenerRate,
        Ending::NotTls,
        Ending::BadClientHello,
        Ending::BadRequest,
        Ending::UnknownName,
        Ending::BadProxyHeader,
        Ending::UntrustedProxyHeader,
        Ending::OutOfResources,
        Ending::InternalError,
    ];

    /// Its place in [`Ending::ALL`].
    pub fn index(self) -> usize {
        match self {
            Ending::Closed(Side::Client) => 0,
            Ending::Closed(Side::Backend) => 1,
            Ending::Reset(Side::Client) => 2,
            Ending::Reset(Side::Backend) => 3,
            Ending::Lost(Side::Client) => 4,
            Ending::Lost(Side::Backend) => 5,
            Ending::Garbled(Side::Client) => 6,
            Ending::Garbled(Side::Backend) => 7,
            Ending::Truncated(Side::Client) => 8,
            Ending::Truncated(Side::Backend) => 9,
            Ending::IdleTimeout => 10,
            Ending::HalfCloseTimeout => 11,
            Ending::Lifetime => 12,
            Ending::BackendDown => 13,
            Ending::DrainDeadline => 14,
            Ending::NoBackend => 15,
            Ending::ConnectFailed => 16,
            Ending::ClientLeft => 17,
            Ending::SniffTimeout => 18,
            Ending::HandshakeTimeout => 19,
            Ending::HandshakeFailed => 20,
            Ending::HandshakeLimit => 21,
            Ending::AddressConnections => 22,
            Ending::AddressRate => 23,
            Ending::ListenerRate => 24,
            Ending::NotTls => 25,
            Ending::BadClientHello => 26,
            Ending::BadRequest => 27,
            Ending::UnknownName => 28,
            Ending::BadProxyHeader => 29,
            Ending::UntrustedProxyHeader => 30,
            Ending::OutOfResources => 31,
            Ending::InternalError => 32,
        }
    }

    /// Who caused it: `client`, `backend`, or `tidegate` itself by a limit or for want of a backend.
    pub fn side(self) -> &'static str {
        match self {
            Ending::Closed(side)
            | Ending::Reset(side)
            | Ending::Lost(side)
            | Ending::Garbled(side)
            | Ending::Truncated(side) => side.name(),
            Ending::ClientLeft
            | Ending::SniffTimeout
            | Ending::HandshakeTimeout
            | Ending::HandshakeFailed
            | Ending::NotTls
            | Ending::BadClientHello
            | Ending::BadRequest
            | Ending::UnknownName
            | Ending::BadProxyHeader
            | Ending::UntrustedProxyHeader => "client",
            Ending::BackendDown | Ending::ConnectFailed => "backend",
            Ending::IdleTimeout
            | Ending::HalfCloseTimeout
            | Ending::Lifetime
            | Ending::DrainDeadline
            | Ending::NoBackend
            | Ending::HandshakeLimit
            | Ending::AddressConnections
            | Ending::AddressRate
            | Ending::ListenerRate
            | Ending::OutOfResources
            | Ending::InternalError => "tidegate",
        }
    }

    /// What happened, without the side.
    pub fn reason(self) -> &'static str {
        match self {
            Ending::Closed(_) => "closed",
            Ending::Reset(_) => "reset",
            Ending::Lost(_) => "lost",
            Ending::Garbled(_) => "sent bad TLS",
            Ending::Truncated(_) => "closed without close_notify",
            Ending::IdleTimeout => "idle timeout",
            Ending::HalfCloseTimeout => "half-close timeout",
            Ending::Lifetime => "lifetime reached",
            Ending::BackendDown => "down",
            Ending::DrainDeadline => "drain deadline",
            Ending::NoBackend => "no backend",
            Ending::ConnectFailed => "connect failed",
            Ending::ClientLeft => "left",
            Ending::SniffTimeout => "first bytes timeout",
            Ending::HandshakeTimeout => "TLS handshake timeout",
            Ending::HandshakeFailed => "TLS handshake failed",
            Ending::HandshakeLimit => "too many TLS handshakes",
            Ending::AddressConnections => "too many connections from its address",
            Ending::AddressRate => "too fast from its address",
            Ending::ListenerRate => "too fast",
            Ending::NotTls => "no TLS",
            Ending::BadClientHello => "bad ClientHello",
            Ending::BadRequest => "bad HTTP request",
            Ending::UnknownName => "unknown server name",
            Ending::BadProxyHeader => "bad PROXY header",
            Ending::UntrustedProxyHeader => "untrusted PROXY header",
            Ending::OutOfResources => "out of resources",
            Ending::InternalError => "internal error",
        }
    }

    /// The two letters that HAProxy's logs have for it (its configuration manual, 8.5), as near as they come: who
    /// ended the session (`C`lient, `S`erver, `P`roxy, `R`esources, `I`nternal, `D`own, `K`illed, a `c`lient's timeout), and when
    /// (`R`equest, `C`onnect, `D`ata). `--` is a session that ended as it should.
    pub fn code(self) -> &'static str {
        match self {
            Ending::Closed(_) => "--",
            Ending::Reset(Side::Client)
            | Ending::Lost(Side::Client)
            | Ending::Garbled(Side::Client)
            | Ending::Truncated(Side::Client) => "CD",
            Ending::Reset(Side::Backend)
            | Ending::Lost(Side::Backend)
            | Ending::Garbled(Side::Backend)
            | Ending::Truncated(Side::Backend) => "SD",
            Ending::IdleTimeout | Ending::HalfCloseTimeout => "cD",
            Ending::Lifetime | Ending::DrainDeadline => "KD",
            Ending::BackendDown => "DD",
            Ending::NoBackend | Ending::ConnectFailed => "SC",
            Ending::ClientLeft => "CC",
            Ending::SniffTimeout | Ending::HandshakeTimeout => "cR",
            Ending::HandshakeFailed
            | Ending::HandshakeLimit
            | Ending::AddressConnections
            | Ending::AddressRate
            | Ending::ListenerRate
            | Ending::NotTls
            | Ending::BadClientHello
            | Ending::BadRequest
            | Ending::UnknownName
            | Ending::BadProxyHeader
            | Ending::UntrustedProxyHeader => "PR",
            Ending::OutOfResources => "RC",
            Ending::InternalError => "ID",
        }
    }

    /// The side by whose fault a session was cut short: it reset it, was lost, or broke the rules of TLS.
    pub fn fault(self) -> Option<Side> {
        match self {
            Ending::Reset(side) | Ending::Lost(side) | Ending::Garbled(side) | Ending::Truncated(side) => Some(side),
            _ => None,
        }
    }

    /// Whether the client got no backend at all.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Ending::NoBackend
                | Ending::ConnectFailed
                | Ending::OutOfResources
                | Ending::HandshakeLimit
                | Ending::AddressConnections
                | Ending::AddressRate
                | Ending::ListenerRate
                | Ending::NotTls
                | Ending::BadClientHello
                | Ending::BadRequest
                | Ending::UnknownName
                | Ending::BadProxyHeader
                | Ending::UntrustedProxyHeader
        )
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Closed(_)
            | Ending::Reset(_)
            | Ending::Lost(_)
            | Ending::Garbled(_)
            | Ending::Truncated(_)
            | Ending::BackendDown
            | Ending::ClientLeft => {
                write!(f, "{} {}", self.side(), self.reason())
            }
            _ if self.is_refusal() => write!(f, "refused: {}", self.reason()),
            _ => f.write_str(self.reason()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_place_among_all() {
        for (index, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending.index(), index, "{ending}");
        }
    }

    #[test]
    fn no_two_endings_read_the_same() {
        let mut words: Vec<String> = Ending::ALL.iter().map(ToString::to_string).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), Ending::ALL.len());
    }
}
