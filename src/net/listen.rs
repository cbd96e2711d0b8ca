//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef};

use super::addr::Address;
use super::socket;
use super::socket_file::{self, SocketFile};
use super::sys;

mod bind_error;
mod options;

pub use bind_error::explain;
pub use options::{ListenOptions, Sharing};

/// A listening socket, and the file of a unix one.
#[derive(Debug)]
pub struct Listening {
    /// Non-blocking.
    pub socket: OwnedFd,
    /// Drop it, which removes the file, before the socket.
    pub file: Option<SocketFile>,
}

/// Binds and listens. Replaces a stale socket file.
///
/// # Errors
/// Those of socket(2), setsockopt(2), bind(2) and listen(2).
pub fn listen(address: &Address, options: &ListenOptions) -> io::Result<Listening> {
    match address {
        Address::Tcp(address) => Ok(Listening { socket: listen_tcp(*address, options)?, file: None }),
        Address::Unix(path) => {
            let (socket, file) = socket_file::listen(path, options.backlog)?;
            Ok(Listening { socket, file: Some(file) })
        }
    }
}

fn listen_tcp(address: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
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
    options.connection.apply(&socket)?;
    if options.defer_accept > 0 {
        sys::set_option(&socket, sys::TCP_DEFER_ACCEPT, saturating(options.defer_accept))?;
    }
    socket.bind(&address.into())?;
    if options.fast_open > 0 {
        sys::set_option(&socket, sys::TCP_FASTOPEN, saturating(options.fast_open))?;
    }
    socket.listen(options.backlog)?;
    if options.sharing == Sharing::Workers {
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

/// A further socket for the address of a [`Sharing::Workers`] or [`Sharing::Anyone`] one.
///
/// # Errors
/// Those of [`listen`].
pub fn join(address: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    listen_tcp(address, &ListenOptions { sharing: Sharing::Anyone, ..options.clone() })
}

/// The address that a socket is bound to: with port 0 the kernel has chosen one.
///
/// # Errors
/// Those of getsockname(2), and an address family that no listener has.
pub fn local_address(socket: &OwnedFd) -> io::Result<Address> {
    let address = SockRef::from(socket).local_addr()?;
    match address.as_socket() {
        Some(address) => Ok(Address::Tcp(address)),
        None if address.is_unix() => Ok(Address::Unix(Arc::new(address.as_pathname().unwrap_or(Path::new("")).into()))),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn saturating(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
