//! `listeners[].udp`: keys of `protocol: udp`.

use std::num::NonZeroU32;
use std::time::Duration;

/// `listeners[].udp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpListener {
    /// A session ends when neither side has sent anything for so long.
    pub idle: Duration,
    /// Sessions at once.
    pub max_sessions: NonZeroU32,
    /// Replies to each datagram of a client, after which its session ends; `None` is no limit.
    pub responses: Option<NonZeroU32>,
    /// Bytes for each byte that a client has sent, until it has sent something after a reply; `None` is no limit.
    pub amplification: Option<NonZeroU32>,
}
