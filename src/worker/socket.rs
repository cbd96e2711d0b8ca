//! A non-blocking socket of this worker.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{Shutdown, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use super::local;
use super::reactor::{Ready, Slot};
use crate::net::sys;
use crate::relay::Stream;

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A socket registered with the worker of this thread, and closed when dropped. It belongs to one task,
/// the first that waits for it: that one is woken at each of its events.
pub struct Socket {
    fd: OwnedFd,
    slot: Rc<Slot>,
    transport: Transport,
}

/// What a socket's short reads mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A read that returns less than was asked for has emptied the socket.
    Tcp,
    /// It may as well have stopped at a boundary (unix: where descriptors were passed along; MPTCP).
    Other,
}

impl Socket {
    /// Takes over a non-blocking socket.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): no memory, or too many watches of this user.
    pub fn new(fd: OwnedFd, transport: Transport) -> io::Result<Socket> {
        let slot = local(|worker| worker.reactor.register(fd.as_fd()))?;
        Ok(Socket { fd, slot, transport })
    }

    /// Waits for the end of a connect that was started.
    ///
    /// # Errors
    /// What the connect failed with.
    pub async fn connected(&self) -> io::Result<()> {
        poll_fn(|_| self.poll(Ready::WRITABLE.union(Ready::GONE))).await;
        // A connect that fails is reported together with its error.
        if self.slot.ready().intersects(Ready::GONE) { Ok(sockopt::socket_error(&self.fd)??) } else { Ok(()) }
    }

    /// Waits until the socket is readable; on a listening one, until it has a connection.
    pub async fn readable(&self) {
        poll_fn(|_| self.poll(Ready::READABLE)).await;
    }

    /// Says that a system call beyond this face found nothing to read or accept.
    pub fn not_readable(&self) {
        self.slot.clear(Ready::READABLE);
    }

    fn poll(&self, wanted: Ready) -> Poll<()> {
        if self.slot.ready().intersects(wanted) {
            return Poll::Ready(());
        }
        self.slot.adopt();
        Poll::Pending
    }

    /// A short read has emptied the socket, which saves the read that would say so, unless a FIN that was
    /// reported with the data, or urgent data, waits behind it: their edge has passed already.
    fn after_read(&self, count: usize, asked: usize) {
        let more_behind = self.slot.ready().intersects(Ready::READ_CLOSED.union(Ready::URGENT));
        if count < asked && self.transport == Transport::Tcp && !more_behind {
            self.slot.clear(Ready::READABLE);
        }
    }

    fn refused<T>(&self, error: Errno, exhausted: Ready) -> Poll<io::Result<T>> {
        match error {
            Errno::AGAIN => {
                self.slot.clear(exhausted);
                self.slot.adopt();
                Poll::Pending
            }
            error => Poll::Ready(Err(error.into())),
        }
    }
}

impl Stream for Socket {
    /// Reads what is there. `Ok(0)` is the peer's FIN (or an empty `buffer`).
    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll(Ready::READABLE));
        match retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer)) {
            Ok(count) => {
                self.after_read(count, buffer.len());
                Poll::Ready(Ok(count))
            }
            Err(error) => self.refused(error, Ready::READABLE.union(Ready::URGENT)),
        }
    }

    /// Writes as much as the socket takes, and without SIGPIPE: the Rust runtime ignores that.
    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll(Ready::WRITABLE));
        match retry_on_intr(|| rustix::io::write(&self.fd, bytes)) {
            Ok(count) => {
                if count < bytes.len() {
                    self.slot.clear(Ready::WRITABLE);
                }
                Poll::Ready(Ok(count))
            }
            Err(error) => self.refused(error, Ready::WRITABLE),
        }
    }

    /// Moves up to `limit` bytes from the socket into a pipe that must be **empty**: EAGAIN does not say
    /// whether the socket has nothing or the pipe is full, and only the first may clear readiness.
    fn poll_splice_from(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        ready!(self.poll(Ready::READABLE));
        if self.slot.ready().intersects(Ready::URGENT) {
            // splice(2) stops before an urgent byte for good; only a read goes past it.
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        }
        match retry_on_intr(|| splice(&self.fd, None, pipe, None, limit, SPLICE)) {
            // A short splice says nothing: a pipe is full by its slots, long before its bytes.
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) => self.refused(error, Ready::READABLE),
        }
    }

    /// Moves up to `limit` bytes, at most what is in it, from a pipe into the socket.
    fn poll_splice_to(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        ready!(self.poll(Ready::WRITABLE));
        match retry_on_intr(|| splice(pipe, None, &self.fd, None, limit, SPLICE)) {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) => self.refused(error, Ready::WRITABLE),
        }
    }

    /// Over unix sockets there is no reset: a peer that has closed both ways may still be owed its last bytes'
    /// delivery, and a write tells of its absence.
    fn poll_reset(&self) -> Poll<()> {
        match self.transport {
            Transport::Tcp => self.poll(Ready::GONE),
            Transport::Other => Poll::Pending,
        }
    }

    /// Sends FIN: the peer reads EOF after the bytes written so far.
    ///
    /// # Errors
    /// ENOTCONN: the peer is gone already.
    fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.fd, Shutdown::Write)?)
    }

    /// Bytes written that the peer's kernel has not acknowledged; zero if that cannot be told.
    fn unacknowledged(&self) -> usize {
        sys::unacknowledged(&self.fd).unwrap_or(0)
    }

    /// Makes the close send RST instead of FIN, at once and without what is still unsent. Unix sockets have
    /// no such thing.
    fn reset_on_close(&self) {
        // It fails for no open socket.
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        local(|worker| worker.reactor.forget(&self.slot));
    }
}
