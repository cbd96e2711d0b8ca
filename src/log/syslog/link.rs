//! The socket towards a syslog server: datagrams or a stream, opened again when it is gone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::config::model::SyslogServer;

/// Unacknowledged bytes and keepalive probes break a TCP connection after this time: its server is gone, and lines wait
/// rather than vanish in a send buffer.
const TCP_DEAD_AFTER: Duration = Duration::from_secs(30);

/// Reads that discard what a server says, before each write. A server has nothing to say.
const DISCARDS: usize = 4;

/// How messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageFraming {
    /// A datagram each.
    Datagram,
    /// The length in decimal digits and a space before each (RFC 6587, 3.4.1).
    OctetCounting,
    /// A NUL after each, as the GNU C library's syslog(3) writes to a stream.
    NulTerminated,
}

/// An open socket, which may still be connecting.
#[derive(Debug)]
pub(super) struct SyslogLink {
    socket: OwnedFd,
    pub(super) framing: MessageFraming,
}

impl SyslogLink {
    /// Opens the socket and begins to connect. Never waits.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2) that are known at once.
    pub(super) fn open(server: &SyslogServer) -> io::Result<SyslogLink> {
        match server {
            SyslogServer::Unix(path) => SyslogLink::unix(path),
            SyslogServer::Udp(address) => {
                let socket = Socket::new(Domain::for_address(*address), datagram(), Some(Protocol::UDP))?;
                connect(&socket, &(*address).into())?;
                Ok(SyslogLink { socket: socket.into(), framing: MessageFraming::Datagram })
            }
            SyslogServer::Tcp(address) => SyslogLink::tcp(*address),
        }
    }

    fn tcp(address: SocketAddr) -> io::Result<SyslogLink> {
        let socket = Socket::new(Domain::for_address(address), stream(), Some(Protocol::TCP))?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_DEAD_AFTER).with_interval(TCP_DEAD_AFTER / 3))?;
        socket.set_tcp_user_timeout(Some(TCP_DEAD_AFTER))?;
        connect(&socket, &address.into())?;
        Ok(SyslogLink { socket: socket.into(), framing: MessageFraming::OctetCounting })
    }

    /// Whether it is a datagram or a stream socket is the server's choice.
    fn unix(path: &Path) -> io::Result<SyslogLink> {
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, datagram(), None)?;
        match socket.connect(&address) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) => {}
            connected => {
                return connected.map(|()| SyslogLink { socket: socket.into(), framing: MessageFraming::Datagram });
            }
        }
        let socket = Socket::new(Domain::UNIX, stream(), None)?;
        socket.connect(&address)?;
        Ok(SyslogLink { socket: socket.into(), framing: MessageFraming::NulTerminated })
    }

    /// Sends a part of a frame, or a whole datagram.
    ///
    /// # Errors
    /// EAGAIN: there is no room. All others of send(2), and EPIPE for a server that has closed.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<usize> {
        if self.framing != MessageFraming::Datagram && self.is_closed() {
            // What is sent now would be lost without an error.
            return Err(Errno::PIPE.into());
        }
        Ok(send(&self.socket, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    /// The outcome of a connect, once the socket is writable.
    ///
    /// # Errors
    /// Those of connect(2).
    pub(super) fn connected(&self) -> io::Result<()> {
        Ok(sockopt::socket_error(&self.socket)??)
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether the server has closed its side of the stream.
    fn is_closed(&self) -> bool {
        let mut discarded = [0_u8; 512];
        for _ in 0..DISCARDS {
            match recv(&self.socket, &mut discarded, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return true,
                Ok(_) => {}
                Err(error) => return ![Errno::AGAIN, Errno::INTR].contains(&error),
            }
        }
        false
    }
}

fn datagram() -> Type {
    Type::DGRAM.nonblocking().cloexec()
}

fn stream() -> Type {
    Type::STREAM.nonblocking().cloexec()
}

fn connect(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    match SockRef::from(socket).connect(address) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(()),
        connected => connected,
    }
}
