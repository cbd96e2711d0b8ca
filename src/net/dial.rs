//! Sockets towards backends, up to the start of a connect that does not block.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt};

use super::addr::Address;
use super::sys;

/// Options of a connection's two TCP sockets. Unix sockets have none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// Idle time before the first keepalive probe, and between probes; `None` is no keepalive.
    pub keepalive: Option<Duration>,
}

impl Options {
    /// Sets them. On a listening socket they are set once: accepted sockets inherit them.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn apply(self, socket: &OwnedFd) -> io::Result<()> {
        if self.nodelay {
            sockopt::set_tcp_nodelay(socket, true)?;
        }
        if let Some(idle) = self.keepalive {
            sockopt::set_tcp_keepidle(socket, idle)?;
            sockopt::set_tcp_keepintvl(socket, idle)?;
            sockopt::set_socket_keepalive(socket, true)?;
        }
        // A byte of urgent data is a byte like any other to whoever must pass on all of them.
        sockopt::set_socket_oobinline(socket, true)?;
        Ok(())
    }
}

/// Opens a socket and starts to connect it; it is writable once connected or failed.
///
/// # Errors
/// Those of socket(2), bind(2) and connect(2) that are known at once.
pub fn start(address: &Address, source: Option<IpAddr>, options: Options) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, started) = match address {
        Address::Tcp(address) => {
            let socket = rustix::net::socket_with(family(address), SocketType::STREAM, flags, Some(ipproto::TCP))?;
            options.apply(&socket)?;
            if let Some(source) = source {
                sys::set_option(&socket, sys::IP_BIND_ADDRESS_NO_PORT, 1)?;
                rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
            }
            let started = rustix::net::connect(&socket, address);
            (socket, started)
        }
        Address::Unix(path) => {
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let started = rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path())?);
            (socket, started)
        }
    };
    match started {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}
