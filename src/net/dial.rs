//! Sockets towards backends, up to the start of a connect that does not block.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, getpeername, getsockname, ipproto, sockopt,
};

use super::addr::Address;
use super::errno::{Call, CallError};
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
    /// Sets them all. On a listening socket they are set once: accepted sockets inherit them.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn apply(self, socket: impl AsFd) -> io::Result<()> {
        self.apply_first(&socket)?;
        self.apply_lasting(&socket)
    }

    /// Sets those that matter from the first byte on.
    fn apply_first(self, socket: impl AsFd) -> Result<(), Errno> {
        if self.nodelay {
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        // A byte of urgent data is a byte like any other to whoever must pass on all of them.
        match sockopt::set_socket_oobinline(&socket, true) {
            // MPTCP has no urgent data.
            Err(Errno::OPNOTSUPP) => Ok(()),
            set => set,
        }
    }

    /// Sets those that matter only to a connection that lasts: keepalive. Three system calls that a short one
    /// is spared.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn apply_lasting(self, socket: impl AsFd) -> io::Result<()> {
        if let Some(idle) = self.keepalive {
            sockopt::set_tcp_keepidle(&socket, idle)?;
            sockopt::set_tcp_keepintvl(&socket, idle)?;
            sockopt::set_socket_keepalive(&socket, true)?;
        }
        Ok(())
    }
}

/// Opens a socket and starts to connect it; it is writable once connected or failed. What
/// [`Options::apply_lasting`] sets is left to the caller.
///
/// # Errors
/// Those of socket(2), setsockopt(2), bind(2) and connect(2) that are known at once.
pub fn start(address: &Address, source: Option<IpAddr>, options: Options) -> Result<OwnedFd, CallError> {
    let of = |call| move |errno| CallError { call, errno };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, started) = match address {
        Address::Tcp(address) => {
            let socket = rustix::net::socket_with(family(address), SocketType::STREAM, flags, Some(ipproto::TCP))
                .map_err(of(Call::Socket))?;
            options.apply_first(&socket).map_err(of(Call::Option))?;
            if let Some(source) = source {
                sys::set_option(&socket, sys::IP_BIND_ADDRESS_NO_PORT, 1).map_err(of(Call::Option))?;
                rustix::net::bind(&socket, &SocketAddr::new(source, 0)).map_err(of(Call::Bind))?;
            }
            let started = rustix::net::connect(&socket, address);
            (socket, started)
        }
        Address::Unix(path) => {
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .map_err(of(Call::Socket))?;
            let path = SocketAddrUnix::new(path.as_path()).map_err(of(Call::Connect))?;
            let started = rustix::net::connect(&socket, &path);
            (socket, started)
        }
    };
    match started {
        // Interrupted, it goes on all the same (connect(2)).
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(errno) => Err(CallError { call: Call::Connect, errno }),
    }
}

/// Fails if a TCP connect has met itself; closing the socket then sends RST. Call it once the connect has succeeded.
///
/// The port of a dead server on this host can be the one that the kernel picks for the connecting socket. The SYN
/// comes back to its sender, which is a simultaneous open (RFC 9293, section 3.5): the socket is connected to itself, echoes what is written
/// to it, and keeps the port from the server.
///
/// # Errors
/// [`SelfConnect`], of kind `ConnectionRefused`, and those of getsockname(2).
pub fn refuse_self_connect(socket: impl AsFd) -> io::Result<()> {
    let address = |any: SocketAddrAny| SocketAddr::try_from(any).ok();
    let Some(local) = address(getsockname(&socket)?) else { return Ok(()) };
    // A peer that is gone already was another one.
    let Ok(Some(peer)) = getpeername(&socket).map(|any| any.and_then(address)) else { return Ok(()) };
    if (local.ip(), local.port()) != (peer.ip(), peer.port()) {
        return Ok(());
    }
    // FIN would leave the port in TIME_WAIT. The option fails for no open socket.
    let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, SelfConnect))
}

/// Nothing listens at the destination: the connect met itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfConnect;

impl fmt::Display for SelfConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection refused: nothing listens there, the connect met itself (TCP self-connect)")
    }
}

impl std::error::Error for SelfConnect {}

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
        assert!(sockopt::tcp_nodelay(&socket).unwrap() && sockopt::socket_oobinline(&socket).unwrap());
        options.apply_lasting(&socket).unwrap();
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(9));
        let socket = start(&address, None, PLAIN).unwrap();
        PLAIN.apply_lasting(&socket).unwrap();
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

    /// A connected socket of this host whose own address is its peer's.
    fn self_connected(ip: &str) -> OwnedFd {
        let any = SocketAddr::new(ip.parse().unwrap(), 0);
        let socket =
            rustix::net::socket_with(family(&any), SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))
                .unwrap();
        rustix::net::bind(&socket, &any).unwrap();
        let own = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
        rustix::net::connect(&socket, &own).unwrap();
        socket
    }

    #[test]
    fn self_connect_is_refused_and_leaves_the_port() {
        for ip in ["127.0.0.1", "::1"] {
            let socket = self_connected(ip);
            let own = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
            let error = refuse_self_connect(&socket).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(error.get_ref().and_then(|inner| inner.downcast_ref()), Some(&SelfConnect), "{error}");
            drop(socket);
            // Without SO_REUSEADDR: TIME_WAIT would refuse it.
            let again = rustix::net::socket_with(family(&own), SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            rustix::net::bind(&again, &own).unwrap();
        }
    }

    #[test]
    fn connections_to_others_are_no_self_connects() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let unix = start(&Address::Unix(Arc::new(folder.path().join("s"))), None, PLAIN).unwrap();
        refuse_self_connect(&unix).unwrap();
        drop(listener);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        refuse_self_connect(&client).unwrap();
        let (server, _) = listener.accept().unwrap();
        sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
        drop(server);
        refuse_self_connect(&client).unwrap();
    }

    #[test]
    fn a_full_unix_queue_is_said_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = Arc::new(folder.path().join("s"));
        let _listener = UnixListener::bind(&*path).unwrap();
        let address = Address::Unix(path);
        let queued: Vec<_> = std::iter::repeat_with(|| start(&address, None, PLAIN)).take(10_000).collect();
        let error = queued.into_iter().find_map(Result::err).expect("a queue has an end");
        assert_eq!(error, CallError { call: Call::Connect, errno: Errno::AGAIN });
    }
}
