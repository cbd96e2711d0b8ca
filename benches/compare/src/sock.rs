//! Non-blocking sockets and epoll: what the load and the limit share.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

pub(crate) use rustix::event::epoll::{Event, EventFlags};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
const BACKLOG: i32 = 4096;

/// A listening socket.
pub(crate) fn listen(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Inherited by what it accepts: one system call less for each connection.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{address}: {error}")))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The next connection, if one waits.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    loop {
        match rustix::net::accept_with(listener, FLAGS) {
            Ok(socket) => return Ok(Some(socket)),
            Err(Errno::AGAIN) => return Ok(None),
            // The other side gave up while waiting: not an error of the listener.
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A socket of UDP at an address.
pub(crate) fn bind_udp(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, FLAGS, None)?;
    rustix::net::bind(&socket, &address)
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{address}: {error}")))?;
    Ok(socket)
}

/// A socket of UDP with one peer.
pub(crate) fn connect_udp(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, FLAGS, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// A connection that is being established, or already is.
pub(crate) fn connect(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// `None` when it would block.
pub(crate) fn ready<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// One epoll, edge-triggered, and room for its events.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Epoll {
    /// Makes one.
    pub(crate) fn new() -> io::Result<Epoll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let empty = Event { flags: EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Ok(Epoll { epoll, events: vec![empty; 512] })
    }

    /// Registers a socket, once and for all: it is removed by being closed.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags | EventFlags::ET)?;
        Ok(())
    }

    /// Waits, `None` for as long as it takes, and returns how many events there are.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout
            .map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) as _ });
        match epoll::wait(&self.epoll, &mut self.events[..], timeout.as_ref()) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Token and flags of one of the events of the last wait.
    pub(crate) fn event(&self, index: usize) -> (u64, EventFlags) {
        let event = self.events[index];
        (event.data.u64(), event.flags)
    }
}
