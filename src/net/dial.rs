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
        match sockopt::set_socket_oobinline(socket, true) {
            // MPTCP has no urgent data.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            set => Ok(set?),
        }
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use super::*;

    const PLAIN: Options = Options { nodelay: false, keepalive: None };

    #[test]
    fn options_are_set_on_the_side_of_the_backend_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let options = Options { nodelay: true, keepalive: Some(Duration::from_secs(9)) };
        let socket = start(&address, None, options).unwrap();
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(9));
        let socket = start(&address, None, PLAIN).unwrap();
        assert!(!sockopt::tcp_nodelay(&socket).unwrap() && !sockopt::socket_keepalive(&socket).unwrap());
    }

    #[test]
    fn it_connects_from_the_source_and_leaves_the_port_to_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let source: IpAddr = "127.0.0.77".parse().unwrap();
        let socket = start(&address, Some(source), PLAIN).unwrap();
        assert_eq!(sys::option(&socket, sys::IP_BIND_ADDRESS_NO_PORT), 1);
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source);
    }

    #[test]
    fn a_full_unix_queue_is_said_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = Arc::new(folder.path().join("s"));
        let _listener = UnixListener::bind(&*path).unwrap();
        let address = Address::Unix(path);
        let queued: Vec<_> = std::iter::repeat_with(|| start(&address, None, PLAIN)).take(10_000).collect();
        let error = queued.into_iter().find_map(Result::err).expect("a queue has an end");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
