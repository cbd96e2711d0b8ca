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
    /// The client reset the connection before a backend was connected.
    ClientLeft,
    /// This host had no descriptor, port or memory left for the connection to a backend.
    OutOfResources,
    /// A defect of tidegate ended it.
    InternalError,
}

impl Ending {
    /// Every ending, in the order of [`Ending::index`].
    pub const ALL: [Ending; 16] = [
        Ending::Closed(Side::Client),
        Ending::Closed(Side::Backend),
        Ending::Reset(Side::Client),
        Ending::Reset(Side::Backend),
        Ending::Lost(Side::Client),
        Ending::Lost(Side::Backend),
        Ending::IdleTimeout,
        Ending::HalfCloseTimeout,
        Ending::Lifetime,
        Ending::BackendDown,
        Ending::DrainDeadline,
        Ending::NoBackend,
        Ending::ConnectFailed,
        Ending::ClientLeft,
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
            Ending::IdleTimeout => 6,
            Ending::HalfCloseTimeout => 7,
            Ending::Lifetime => 8,
            Ending::BackendDown => 9,
            Ending::DrainDeadline => 10,
            Ending::NoBackend => 11,
            Ending::ConnectFailed => 12,
            Ending::ClientLeft => 13,
            Ending::OutOfResources => 14,
            Ending::InternalError => 15,
        }
    }

    /// Who caused it: `client`, `backend`, or `tidegate` itself by a limit or for want of a backend.
    pub fn side(self) -> &'static str {
        match self {
            Ending::Closed(side) | Ending::Reset(side) | Ending::Lost(side) => side.name(),
            Ending::ClientLeft => "client",
            Ending::BackendDown | Ending::ConnectFailed => "backend",
            Ending::IdleTimeout
            | Ending::HalfCloseTimeout
            | Ending::Lifetime
            | Ending::DrainDeadline
            | Ending::NoBackend
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
            Ending::IdleTimeout => "idle timeout",
            Ending::HalfCloseTimeout => "half-close timeout",
            Ending::Lifetime => "lifetime reached",
            Ending::BackendDown => "down",
            Ending::DrainDeadline => "drain deadline",
            Ending::NoBackend => "no backend",
            Ending::ConnectFailed => "connect failed",
            Ending::ClientLeft => "left",
            Ending::OutOfResources => "out of resources",
            Ending::InternalError => "internal error",
        }
    }

    /// Whether the client got no backend at all.
    pub fn is_refusal(self) -> bool {
        matches!(self, Ending::NoBackend | Ending::ConnectFailed | Ending::OutOfResources)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Closed(_) | Ending::Reset(_) | Ending::Lost(_) | Ending::BackendDown | Ending::ClientLeft => {
                write!(f, "{} {}", self.side(), self.reason())
            }
            Ending::NoBackend | Ending::ConnectFailed | Ending::OutOfResources => {
                write!(f, "refused: {}", self.reason())
            }
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
