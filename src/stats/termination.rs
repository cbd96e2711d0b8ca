//! How a connection ended: a named reason, and the side that caused it.

use std::fmt;

/// One of the two sides of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Who caused the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client.
    Client,
    /// The backend.
    Backend,
    /// tidegate itself: by a rule or a limit, or for want of a backend.
    Tidegate,
}

impl Cause {
    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Client => "client",
            Cause::Backend => "backend",
            Cause::Tidegate => "tidegate",
        }
    }
}

impl From<Side> for Cause {
    fn from(side: Side) -> Cause {
        match side {
            Side::Client => Cause::Client,
            Side::Backend => Cause::Backend,
        }
    }
}

/// The end of a connection. [`Display`](fmt::Display) gives the words of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// Both sides have finished; this one did so first.
    Closed(Side),
    /// This side sent RST.
    Reset(Side),
    /// This side's host no longer answers.
    Unreachable(Side),
    /// What this side sent breaks the rules of TLS.
    TlsProtocolError(Side),
    /// Both sides have finished; this one did so first, and without the close_notify that TLS wants: what it sent may
    /// have been cut.
    Truncated(Side),
    /// This side broke the rules of a login that is rewritten (`starttls: mysql`).
    LoginProtocolError(Side),
    /// This side's packet of such a login had not come after `timeouts.handshake`.
    LoginTimeout(Side),
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
    /// A second request to end came while it was still open.
    DrainAborted,
    /// An operator ended it, by the API or `tidegate kill`.
    Killed,
    /// No backend of the pool could take it.
    NoBackend,
    /// As many connections waited in the pool's queue as may.
    QueueFull,
    /// It waited in the pool's queue for `queue.timeout`.
    QueueTimeout,
    /// Its backend had not answered a request after `http.request_timeout`.
    ResponseTimeout,
    /// No connect to a backend succeeded.
    ConnectFailed,
    /// The client left before a backend was connected.
    ClientLeft,
    /// The client's first bytes (PROXY header, STARTTLS, ClientHello) were not complete after `timeouts.sniff`.
    PreambleTimeout,
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
    /// Requests of the client's address come faster than `limits.request_rate_per_ip`.
    RequestRate,
    /// The listener's `access` lists do not let the client in.
    AccessDenied,
    /// The route that the client matches says `refuse: true`.
    RouteRefused,
    /// The client speaks no TLS, on a listener that wants it.
    NotTls,
    /// The client's ClientHello is damaged or too long, and a route or certificate depends on it.
    BadClientHello,
    /// The head of the client's first HTTP request is damaged or too long, and a route depends on it.
    BadRequest,
    /// A method of authentication needs TLS on both sides of tidegate, or on neither.
    AuthMethodRefused,
    /// The client asked for a server name that no certificate fits, and the listener says `unknown_sni: refuse`.
    UnknownName,
    /// The peer sent no PROXY header, or a wrong one.
    BadProxyHeader,
    /// A PROXY header came from a peer that is not in `trusted`.
    UntrustedProxyHeader,
    /// This host had no descriptor, port or memory left for the connection to a backend.
    OutOfResources,
    /// It made room for another session (`protocol: udp`).
    Evicted,
    /// A defect of tidegate ended it.
    InternalError,
}

impl Termination {
    /// Every ending, in the order of [`Termination::index`].
    pub const ALL: [Termination; 47] = [
        Termination::Closed(Side::Client),
        Termination::Closed(Side::Backend),
        Termination::Reset(Side::Client),
        Termination::Reset(Side::Backend),
        Termination::Unreachable(Side::Client),
        Termination::Unreachable(Side::Backend),
        Termination::TlsProtocolError(Side::Client),
        Termination::TlsProtocolError(Side::Backend),
        Termination::Truncated(Side::Client),
        Termination::Truncated(Side::Backend),
        Termination::IdleTimeout,
        Termination::HalfCloseTimeout,
        Termination::Lifetime,
        Termination::BackendDown,
        Termination::DrainDeadline,
        Termination::Killed,
        Termination::NoBackend,
        Termination::ConnectFailed,
        Termination::ClientLeft,
        Termination::PreambleTimeout,
        Termination::HandshakeTimeout,
        Termination::HandshakeFailed,
        Termination::HandshakeLimit,
        Termination::AddressConnections,
        Termination::AddressRate,
        Termination::ListenerRate,
        Termination::NotTls,
        Termination::BadClientHello,
        Termination::BadRequest,
        Termination::UnknownName,
        Termination::BadProxyHeader,
        Termination::UntrustedProxyHeader,
        Termination::OutOfResources,
        Termination::InternalError,
        Termination::QueueFull,
        Termination::QueueTimeout,
        Termination::DrainAborted,
        Termination::AccessDenied,
        Termination::RouteRefused,
        Termination::LoginProtocolError(Side::Client),
        Termination::LoginProtocolError(Side::Backend),
        Termination::LoginTimeout(Side::Client),
        Termination::LoginTimeout(Side::Backend),
        Termination::AuthMethodRefused,
        Termination::ResponseTimeout,
        Termination::RequestRate,
        Termination::Evicted,
    ];

    /// Its place in [`Termination::ALL`].
    pub fn index(self) -> usize {
        match self {
            Termination::Closed(Side::Client) => 0,
            Termination::Closed(Side::Backend) => 1,
            Termination::Reset(Side::Client) => 2,
            Termination::Reset(Side::Backend) => 3,
            Termination::Unreachable(Side::Client) => 4,
            Termination::Unreachable(Side::Backend) => 5,
            Termination::TlsProtocolError(Side::Client) => 6,
            Termination::TlsProtocolError(Side::Backend) => 7,
            Termination::Truncated(Side::Client) => 8,
            Termination::Truncated(Side::Backend) => 9,
            Termination::IdleTimeout => 10,
            Termination::HalfCloseTimeout => 11,
            Termination::Lifetime => 12,
            Termination::BackendDown => 13,
            Termination::DrainDeadline => 14,
            Termination::Killed => 15,
            Termination::NoBackend => 16,
            Termination::ConnectFailed => 17,
            Termination::ClientLeft => 18,
            Termination::PreambleTimeout => 19,
            Termination::HandshakeTimeout => 20,
            Termination::HandshakeFailed => 21,
            Termination::HandshakeLimit => 22,
            Termination::AddressConnections => 23,
            Termination::AddressRate => 24,
            Termination::ListenerRate => 25,
            Termination::NotTls => 26,
            Termination::BadClientHello => 27,
            Termination::BadRequest => 28,
            Termination::UnknownName => 29,
            Termination::BadProxyHeader => 30,
            Termination::UntrustedProxyHeader => 31,
            Termination::OutOfResources => 32,
            Termination::InternalError => 33,
            Termination::QueueFull => 34,
            Termination::QueueTimeout => 35,
            Termination::DrainAborted => 36,
            Termination::AccessDenied => 37,
            Termination::RouteRefused => 38,
            Termination::LoginProtocolError(Side::Client) => 39,
            Termination::LoginProtocolError(Side::Backend) => 40,
            Termination::LoginTimeout(Side::Client) => 41,
            Termination::LoginTimeout(Side::Backend) => 42,
            Termination::AuthMethodRefused => 43,
            Termination::ResponseTimeout => 44,
            Termination::RequestRate => 45,
            Termination::Evicted => 46,
        }
    }

    /// The one that reads so ([`Display`](fmt::Display)).
    pub fn named(text: &str) -> Option<Termination> {
        Termination::ALL.into_iter().find(|termination| termination.to_string() == text)
    }

    /// Who caused it.
    pub fn cause(self) -> Cause {
        match self {
            Termination::Closed(side)
            | Termination::Reset(side)
            | Termination::Unreachable(side)
            | Termination::TlsProtocolError(side)
            | Termination::LoginProtocolError(side)
            | Termination::LoginTimeout(side)
            | Termination::Truncated(side) => side.into(),
            Termination::ClientLeft
            | Termination::PreambleTimeout
            | Termination::HandshakeTimeout
            | Termination::HandshakeFailed
            | Termination::NotTls
            | Termination::BadClientHello
            | Termination::BadRequest
            | Termination::UnknownName
            | Termination::BadProxyHeader
            | Termination::UntrustedProxyHeader => Cause::Client,
            Termination::BackendDown | Termination::ConnectFailed | Termination::ResponseTimeout => Cause::Backend,
            Termination::IdleTimeout
            | Termination::HalfCloseTimeout
            | Termination::Lifetime
            | Termination::DrainDeadline
            | Termination::DrainAborted
            | Termination::Killed
            | Termination::NoBackend
            | Termination::QueueFull
            | Termination::QueueTimeout
            | Termination::HandshakeLimit
            | Termination::AddressConnections
            | Termination::AddressRate
            | Termination::ListenerRate
            | Termination::RequestRate
            | Termination::AccessDenied
            | Termination::RouteRefused
            | Termination::AuthMethodRefused
            | Termination::OutOfResources
            | Termination::Evicted
            | Termination::InternalError => Cause::Tidegate,
        }
    }

    /// What happened, without the side.
    pub fn reason(self) -> &'static str {
        match self {
            Termination::Closed(_) => "closed",
            Termination::Reset(_) => "reset",
            Termination::Unreachable(_) => "unreachable",
            Termination::TlsProtocolError(_) => "TLS protocol error",
            Termination::LoginProtocolError(_) => "login protocol error",
            Termination::LoginTimeout(_) => "login timeout",
            Termination::Truncated(_) => "closed without close_notify",
            Termination::IdleTimeout => "idle timeout",
            Termination::HalfCloseTimeout => "half-close timeout",
            Termination::Lifetime => "lifetime reached",
            Termination::BackendDown => "down",
            Termination::DrainDeadline => "drain deadline exceeded",
            Termination::DrainAborted => "drain aborted",
            Termination::Killed => "killed by an administrator",
            Termination::NoBackend => "no backend",
            Termination::QueueFull => "queue full",
            Termination::QueueTimeout => "queue timeout",
            Termination::ResponseTimeout => "response timeout",
            Termination::ConnectFailed => "connect failed",
            Termination::ClientLeft => "left",
            Termination::PreambleTimeout => "preamble timeout",
            Termination::HandshakeTimeout => "TLS handshake timeout",
            Termination::HandshakeFailed => "TLS handshake failed",
            Termination::HandshakeLimit => "too many TLS handshakes",
            Termination::AddressConnections => "per-IP connection limit exceeded",
            Termination::AddressRate => "per-IP connection rate exceeded",
            Termination::ListenerRate => "connection rate exceeded",
            Termination::RequestRate => "per-IP request rate exceeded",
            Termination::AccessDenied => "access denied",
            Termination::RouteRefused => "refused by a route",
            Termination::AuthMethodRefused => "authentication method",
            Termination::NotTls => "no TLS",
            Termination::BadClientHello => "bad ClientHello",
            Termination::BadRequest => "bad HTTP request",
            Termination::UnknownName => "unknown server name",
            Termination::BadProxyHeader => "bad PROXY header",
            Termination::UntrustedProxyHeader => "untrusted PROXY header",
            Termination::OutOfResources => "out of resources",
            Termination::Evicted => "evicted",
            Termination::InternalError => "internal error",
        }
    }

    /// The two letters that HAProxy's logs have for it (its configuration manual, 8.5), as near as they come: who
    /// ended the session (`C`lient, `S`erver, a `s`erver's timeout, `P`roxy, `R`esources, `I`nternal, `D`own, `K`illed, a `c`lient's timeout), and when
    /// (`R`equest, `Q`ueue, `C`onnect, `D`ata). `--` is a session that ended as it should.
    pub fn code(self) -> &'static str {
        match self {
            Termination::Closed(_) => "--",
            Termination::Reset(Side::Client)
            | Termination::Unreachable(Side::Client)
            | Termination::TlsProtocolError(Side::Client)
            | Termination::LoginProtocolError(Side::Client)
            | Termination::Truncated(Side::Client) => "CD",
            Termination::Reset(Side::Backend)
            | Termination::Unreachable(Side::Backend)
            | Termination::TlsProtocolError(Side::Backend)
            | Termination::LoginProtocolError(Side::Backend)
            | Termination::Truncated(Side::Backend) => "SD",
            Termination::IdleTimeout | Termination::HalfCloseTimeout => "cD",
            Termination::LoginTimeout(Side::Client) => "cD",
            Termination::LoginTimeout(Side::Backend) => "sD",
            Termination::ResponseTimeout => "sH",
            Termination::Lifetime
            | Termination::DrainDeadline
            | Termination::DrainAborted
            | Termination::Killed
            | Termination::Evicted => "KD",
            Termination::BackendDown => "DD",
            Termination::NoBackend | Termination::QueueFull | Termination::ConnectFailed => "SC",
            Termination::QueueTimeout => "sQ",
            Termination::ClientLeft => "CC",
            Termination::PreambleTimeout | Termination::HandshakeTimeout => "cR",
            Termination::HandshakeFailed
            | Termination::HandshakeLimit
            | Termination::AddressConnections
            | Termination::AddressRate
            | Termination::ListenerRate
            | Termination::RequestRate
            | Termination::AccessDenied
            | Termination::RouteRefused
            | Termination::AuthMethodRefused
            | Termination::NotTls
            | Termination::BadClientHello
            | Termination::BadRequest
            | Termination::UnknownName
            | Termination::BadProxyHeader
            | Termination::UntrustedProxyHeader => "PR",
            Termination::OutOfResources => "RC",
            Termination::InternalError => "ID",
        }
    }

    /// The side by whose fault a session was cut short: it reset it, was lost, or broke the rules of TLS.
    pub fn fault(self) -> Option<Side> {
        match self {
            Termination::Reset(side)
            | Termination::Unreachable(side)
            | Termination::TlsProtocolError(side)
            | Termination::LoginProtocolError(side)
            | Termination::LoginTimeout(side)
            | Termination::Truncated(side) => Some(side),
            _ => None,
        }
    }

    /// Whether the end of the process has cut it.
    pub fn is_of_drain(self) -> bool {
        matches!(self, Termination::DrainDeadline | Termination::DrainAborted)
    }

    /// Whether the client got no backend at all.
    pub fn is_rejection(self) -> bool {
        matches!(
            self,
            Termination::NoBackend
                | Termination::QueueFull
                | Termination::QueueTimeout
                | Termination::ConnectFailed
                | Termination::OutOfResources
                | Termination::HandshakeLimit
                | Termination::AddressConnections
                | Termination::AddressRate
                | Termination::ListenerRate
                | Termination::RequestRate
                | Termination::AccessDenied
                | Termination::RouteRefused
                | Termination::AuthMethodRefused
                | Termination::NotTls
                | Termination::BadClientHello
                | Termination::BadRequest
                | Termination::UnknownName
                | Termination::BadProxyHeader
                | Termination::UntrustedProxyHeader
        )
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Termination::Closed(_)
            | Termination::Reset(_)
            | Termination::Unreachable(_)
            | Termination::TlsProtocolError(_)
            | Termination::LoginProtocolError(_)
            | Termination::LoginTimeout(_)
            | Termination::Truncated(_)
            | Termination::BackendDown
            | Termination::ClientLeft => {
                write!(f, "{} {}", self.cause().name(), self.reason())
            }
            _ if self.is_rejection() => write!(f, "rejected: {}", self.reason()),
            _ => f.write_str(self.reason()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_place_among_all() {
        for (index, ending) in Termination::ALL.into_iter().enumerate() {
            assert_eq!(ending.index(), index, "{ending}");
        }
    }

    #[test]
    fn text_is_read_back_as_the_same_termination() {
        for termination in Termination::ALL {
            assert_eq!(Termination::named(&termination.to_string()), Some(termination), "no two read the same");
        }
    }
}
