//! Sockets towards backends, up to the start of a non-blocking connect.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::addr::Address;
use super::errno::{Call, CallError};
use super::{socket, sys};

/// Options of a connection's two TCP sockets. Unix sockets have none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// Idle time before the first keepalive probe, and between probes; `None` is no keepalive.
    pub keepalive: Option<Duration>,
}

impl Options {
    /// Sets all of them. Accepted sockets inherit those of the listening socket.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn apply(self, socket: impl AsFd) -> io::Result<()> {
        self.apply_first(&socket)?;
        self.apply_lasting(&socket)
    }

    /// Sets those that matter from the first byte on: all but keepalive.
    fn apply_first(self, socket: impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(&socket);
        if self.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        // What urgent data there is stays in the stream, in its place.
        match socket.set_out_of_band_inline(true) {
            // MPTCP has no urgent data.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(()),
            set => set,
        }
    }

    /// Sets keepalive: three system calls that a short connection does not need.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn apply_lasting(self, socket: impl AsFd) -> io::Result<()> {
        if let Some(idle) = self.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle);
            SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        }
        Ok(())
    }
}

/// Opens a socket and starts to connect it; it becomes writable once connected or failed. Leaves
/// [`Options::apply_lasting`] to the caller.
///
/// # Errors
/// Those of socket(2), setsockopt(2), bind(2) and connect(2) that are known at once.
pub fn start(address: &Address, source: Option<IpAddr>, options: Options) -> Result<OwnedFd, CallError> {
    let of = |call| move |error: io::Error| CallError { call, errno: errno_of(&error) };
    let (socket, address) = match address {
        Address::Tcp(address) => {
            let socket =
                socket::stream(Domain::for_address(*address), Some(Protocol::TCP)).map_err(of(Call::Socket))?;
            options.apply_first(&socket).map_err(of(Call::Option))?;
            if let Some(source) = source {
                sys::set_option(&socket, sys::IP_BIND_ADDRESS_NO_PORT, 1).map_err(of(Call::Option))?;
                socket.bind(&SocketAddr::new(source, 0).into()).map_err(of(Call::Bind))?;
            }
            (socket, SockAddr::from(*address))
        }
        Address::Unix(path) => {
            let socket = socket::stream(Domain::UNIX, None).map_err(of(Call::Socket))?;
            let address = socket::unix_address(path).map_err(|errno| CallError { call: Call::Connect, errno })?;
            (socket, address)
        }
    };
    match socket.connect(&address).map_err(|error| errno_of(&error)) {
        // An interrupted connect goes on (connect(2)).
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket.into()),
        Err(errno) => Err(CallError { call: Call::Connect, errno }),
    }
}

/// Opens a socket of datagrams that is connected to `address`, from `source` if that is given. Never one that is connected to itself,
/// which would take its own datagrams for answers: the port of a dead server on this host can be free for it.
///
/// # Errors
/// Those of socket(2), setsockopt(2), bind(2) and connect(2); ECONNREFUSED for one that met itself.
pub fn datagrams(address: SocketAddr, source: Option<IpAddr>) -> Result<OwnedFd, CallError> {
    let of = |call| move |error: io::Error| CallError { call, errno: errno_of(&error) };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
        .map_err(of(Call::Socket))?;
    if let Some(source) = source {
        sys::set_option(&socket, sys::IP_BIND_ADDRESS_NO_PORT, 1).map_err(of(Call::Option))?;
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(of(Call::Bind))?;
    }
    socket.connect(&address.into()).map_err(of(Call::Connect))?;
    let local = socket.local_addr().map_err(of(Call::Connect))?.as_socket();
    if local.is_some_and(|local| (local.ip(), local.port()) == (address.ip(), address.port())) {
        return Err(CallError { call: Call::Connect, errno: Errno::CONNREFUSED });
    }
    Ok(socket.into())
}

/// Fails after a TCP self-connect to `port`; closing the socket then sends RST. Call it once the connect has succeeded.
///
/// The kernel can pick the port of a dead server on this host for the connecting socket. The SYN returns to its sender, a
/// simultaneous open (RFC 9293, section 3.5). The socket then echoes all that is written, and the server cannot bind its port.
///
/// # Errors
/// [`SelfConnect`], of kind `ConnectionRefused`, and those of getsockname(2).
pub fn refuse_self_connect(socket: impl AsFd, port: u16) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    let Some(local) = socket.local_addr()?.as_socket() else { return Ok(()) };
    if local.port() != port {
        // As of nearly all connections: it saves the second system call.
        return Ok(());
    }
    // A peer that is gone already is not the socket itself.
    let Some(peer) = socket.peer_addr().ok().and_then(|address| address.as_socket()) else { return Ok(()) };
    if (local.ip(), local.port()) != (peer.ip(), peer.port()) {
        return Ok(());
    }
    // FIN would leave the port in TIME_WAIT. SO_LINGER cannot fail on an open socket.
    let _ = socket.set_linger(Some(Duration::ZERO));
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, SelfConnect))
}

/// A TCP self-connect: nothing listens at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfConnect;

impl fmt::Display for SelfConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection refused: nothing listens there, the connect met itself (TCP self-connect)")
    }
}

impl std::error::Error for SelfConnect {}

/// The kernel's number: each error of socket2's calls has one.
fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
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
        let set = SockRef::from(&socket);
        assert!(set.tcp_nodelay().unwrap() && set.out_of_band_inline().unwrap());
        options.apply_lasting(&socket).unwrap();
        assert!(set.keepalive().unwrap());
        assert_eq!(set.tcp_keepalive_time().unwrap(), Duration::from_secs(9));
        let socket = start(&address, None, PLAIN).unwrap();
        PLAIN.apply_lasting(&socket).unwrap();
        let set = SockRef::from(&socket);
        assert!(!set.tcp_nodelay().unwrap() && !set.keepalive().unwrap());
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
    fn self_connected(ip: &str) -> Socket {
        let any = SocketAddr::new(ip.parse().unwrap(), 0);
        let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).unwrap();
        socket.bind(&any.into()).unwrap();
        socket.connect(&socket.local_addr().unwrap()).unwrap();
        socket
    }

    #[test]
    fn self_connect_is_refused_and_leaves_the_port() {
        for ip in ["127.0.0.1", "::1"] {
            let socket = self_connected(ip);
            let own = socket.local_addr().unwrap();
            let port = own.as_socket().unwrap().port();
            let error = refuse_self_connect(&socket, port).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(error.get_ref().and_then(|inner| inner.downcast_ref()), Some(&SelfConnect), "{error}");
            drop(socket);
            // Without SO_REUSEADDR: TIME_WAIT would refuse it.
            Socket::new(own.domain(), Type::STREAM, None).unwrap().bind(&own).unwrap();
        }
    }

    #[test]
    fn connections_to_others_are_no_self_connects() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let unix = start(&Address::Unix(Arc::new(folder.path().join("s"))), None, PLAIN).unwrap();
        refuse_self_connect(&unix, 0).unwrap();
        drop(listener);
        // Also one whose port is the same at another address.
        for source in ["127.0.0.1:0", "127.0.0.2:0"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let mut source: SocketAddr = source.parse().unwrap();
            if source.ip() != to.ip() {
                source.set_port(to.port());
            }
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.bind(&source.into()).unwrap();
            client.connect(&to.into()).unwrap();
            refuse_self_connect(&client, to.port()).unwrap();
            let (server, _) = listener.accept().unwrap();
            SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
            drop(server);
            refuse_self_connect(&client, to.port()).unwrap();
        }
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
