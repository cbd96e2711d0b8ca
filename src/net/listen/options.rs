//! Options of listening sockets.

use crate::net::dial::Options;

/// Settings of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Length of the kernel's accept queue, in connections.
    pub backlog: i32,
    /// Options that accepted sockets inherit.
    pub connection: Options,
    /// TCP_FASTOPEN; 0 is off.
    pub fast_open: u32,
    /// TCP_DEFER_ACCEPT in seconds; 0 is off.
    pub defer_accept: u32,
    /// IPPROTO_MPTCP instead of IPPROTO_TCP.
    pub mptcp: bool,
    /// IP_TRANSPARENT.
    pub transparent: bool,
    /// IP_FREEBIND.
    pub freebind: bool,
    /// UDP instead of TCP.
    pub datagrams: bool,
    /// Who else may bind the address.
    pub sharing: Sharing,
    /// For `[::]`: leave IPv4 to another socket.
    pub v6_only: bool,
    /// Permission bits of the file of a unix socket; `None` leaves them to the umask.
    pub mode: Option<u32>,
}

/// Who else may bind the address of a TCP listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// No other socket.
    Exclusive,
    /// Further sockets of this process (SO_REUSEPORT), if no other process has the address.
    ///
    /// Set before bind(2), SO_REUSEPORT would silently share the port with another process of this user. Set before
    /// listen(2), it would share it with one that starts at the same moment: SO_REUSEADDR lets both bind while neither
    /// listens. Set after both, the first socket still fails on a port in use, and the next ones may join.
    Workers,
    /// Any socket of this user that sets SO_REUSEPORT too.
    Anyone,
}
