//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use socket2::SockRef;

use super::addr::Address;
use super::socket_file::{self, SocketFile};

mod bind_error;
mod change;
mod options;
mod tcp;

pub use bind_error::explain;
pub use change::{change, check};
pub use options::{ListenOptions, Sharing};
pub(super) use tcp::{saturating, set_for_datagrams, set_freebind};

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
            let (socket, file) = socket_file::listen(path, options.backlog, options.mode)?;
            Ok(Listening { socket, file: Some(file) })
        }
    }
}

fn listen_tcp(address: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = tcp::bind(address, options)?;
    if !options.datagrams {
        socket.listen(options.backlog)?;
    }
    if options.sharing == Sharing::Workers {
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

/// A further socket for the address of a [`Sharing::Workers`] or [`Sharing::Anyone`] one. It gets connections from
/// [`start`] on.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and bind(2).
pub fn join(address: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    tcp::bind(address, &ListenOptions { sharing: Sharing::Anyone, ..options.clone() }).map(Into::into)
}

/// Listens on a socket that has joined others.
///
/// # Errors
/// Those of listen(2).
pub fn start(socket: &OwnedFd, options: &ListenOptions) -> io::Result<()> {
    if options.datagrams { Ok(()) } else { SockRef::from(socket).listen(options.backlog) }
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

#[cfg(test)]
mod tests;
