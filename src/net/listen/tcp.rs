//! TCP sockets before they listen.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::{socket, sys};
use super::options::{ListenOptions, Sharing};

/// Bound, and not listening yet.
pub(super) fn bind(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = open(address, options)?;
    socket.bind(&address.into())?;
    if options.fast_open > 0 && !options.datagrams {
        sys::set_option(&socket, sys::TCP_FASTOPEN, saturating(options.fast_open))?;
    }
    Ok(socket)
}

/// A socket with all options that can be set before bind(2).
pub(super) fn open(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    if options.datagrams {
        return datagrams(address, options);
    }
    let protocol = if options.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = socket::stream(Domain::for_address(address), Some(protocol))?;
    socket.set_reuse_address(true)?;
    set_for_bind(&socket, address, options)?;
    options.connection.apply(&socket)?;
    if options.defer_accept > 0 {
        sys::set_option(&socket, sys::TCP_DEFER_ACCEPT, saturating(options.defer_accept))?;
    }
    Ok(socket)
}

/// Sets what decides which addresses it may be bound to.
fn set_for_bind(socket: &Socket, address: SocketAddr, options: &ListenOptions) -> io::Result<()> {
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
        set_freebind(socket, address, true)?;
    }
    Ok(())
}

/// Receive buffer of a socket of datagrams, in bytes: 50 ms of 100,000 datagrams a second, as the kernel counts small ones. Beyond
/// net.core.rmem_max where tidegate may (CAP_NET_ADMIN).
const RECEIVE_BYTES: i32 = 4 << 20;

/// A socket of datagrams, before bind(2). SO_REUSEADDR would let another process have the port too.
fn datagrams(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    set_for_bind(&socket, address, options)?;
    set_for_datagrams(&socket, address)?;
    Ok(socket)
}

/// Has each datagram come with its local address, and with how many were dropped before it.
pub(in crate::net) fn set_for_datagrams(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let local = if address.is_ipv6() { sys::IPV6_RECVPKTINFO } else { sys::IP_PKTINFO };
    sys::set_option(socket, local, 1)?;
    sys::set_option(socket, sys::SO_RXQ_OVFL, 1)?;
    // Without the privilege, net.core.rmem_max holds.
    if sys::set_option(socket, sys::SO_RCVBUFFORCE, RECEIVE_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BYTES as usize);
    }
    Ok(())
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
