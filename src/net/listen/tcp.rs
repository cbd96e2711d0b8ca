//! TCP sockets before they listen.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket};

use super::super::{socket, sys};
use super::options::{ListenOptions, Sharing};

/// Bound, and not listening yet.
pub(super) fn bind(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = open(address, options)?;
    socket.bind(&address.into())?;
    if options.fast_open > 0 {
        sys::set_option(&socket, sys::TCP_FASTOPEN, saturating(options.fast_open))?;
    }
    Ok(socket)
}

/// A socket with all options that can be set before bind(2).
pub(super) fn open(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let protocol = if options.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = socket::stream(Domain::for_address(address), Some(protocol))?;
    socket.set_reuse_address(true)?;
    if options.sharing == Sharing::Anyone {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    match address {
        _ if !options.transparent => {}
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
    }
    if options.freebind {
        set_freebind(&socket, address, true)?;
    }
    options.connection.apply(&socket)?;
    if options.defer_accept > 0 {
        sys::set_option(&socket, sys::TCP_DEFER_ACCEPT, saturating(options.defer_accept))?;
    }
    Ok(socket)
}

/// Whether it may be bound to an address that the host does not have.
pub(in crate::net) fn set_freebind(socket: &Socket, address: SocketAddr, on: bool) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(on),
        SocketAddr::V6(_) => socket.set_freebind_v6(on),
    }
}

pub(in crate::net) fn saturating(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
