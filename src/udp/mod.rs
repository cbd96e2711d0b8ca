//! Sessions of `protocol: udp`, without sockets and without a clock: addresses, sizes and the moment come in, decisions go out.
//!
//! A session is a client's address and the local address that it sends to. It begins with a datagram of an unknown client and
//! ends when neither side has sent for `udp.idle`, with the last of `udp.responses`, or in favour of another one ([`FlowTable::evict`]).

#![forbid(unsafe_code)]

mod backlog;
mod flows;
mod list;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use self::backlog::Backlog;
pub use self::flows::{FlowId, FlowKey, FlowRules, FlowTable, Reply};
