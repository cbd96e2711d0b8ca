//! Sessions of `protocol: udp`, without sockets and without a clock: addresses, sizes and the moment come in, decisions go out.
//!
//! A session is a client's address and the local address that it sends to. It begins with a datagram of an unknown client and
//! ends when neither side has sent for `udp.idle`, with the last of `udp.responses`, or in favour of another one ([`FlowTable::evict`]).

#![forbid(unsafe_code)]

mod first_datagrams;
mod flows;
mod held;
mod list;
#[cfg(test)]
mod tests;

pub use self::first_datagrams::FirstDatagrams;
pub use self::flows::{FlowCounts, FlowId, FlowKey, FlowRules, FlowTable, Reply};
pub use self::held::HeldDatagrams;
