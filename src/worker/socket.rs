//! A non-blocking socket of this worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use super::local::{if_local, local};
use super::reactor::{Interest, Ready, Slot};
use super::waiter::poll_fn;
use crate::net::errno::{Call, Scope};
use crate::net::sys;
use crate::relay::Stream;

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A socket registered with the worker of this thread, and closed when dropped.
///
/// It has one waiter for both directions: the future whose poll was pending last. That one is woken at each of its
/// events until another is.
pub struct Socket {
    fd: OwnedFd,
    slot: Rc<Slot>,
    transport: Transport,
}

/// The meaning of a socket's short reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A read that returns less than was asked for has emptied the socket.
    Tcp,
    /// It may have stopped at a boundary (unix: passed descriptors; MPTCP).
    Other,
}

impl Socket {
    /// Takes over a non-blocking socket.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): no memory, or too many watches of this user.
    pub fn new(fd: OwnedFd, transport: Transport) -> io::Result<Socket> {
        let slot = local(|worker| worker.reactor.register(fd.as_fd(), Interest::Edges))?;
        Ok(Socket { fd, slot, transport })
    }

    /// Waits until a connect that was started ends.
    ///
    /// # Errors
    /// Those of connect(2).
    pub async fn connected(&self) -> io::Result<()> {
        poll_fn(|_| self.poll(Ready::WRITABLE.union(Ready::GONE))).await;
        if !self.slot.ready().intersects(Ready::GONE) {
            return Ok(());
        }
        // Only the first call returns the error of a failed connect. A peer that has accepted, written and reset by now is
        // no failure: its bytes are there, and the reset comes after them.
        match recv(&self.fd, &mut [0], RecvFlags::PEEK) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN) => Ok(sockopt::socket_error(&self.fd)??),
            Err(error) => Err(error.into()),
        }
    }

    /// Ready once the peer has sent FIN, also where bytes before it are still to be read, or is gone.
    pub fn poll_finished(&self) -> Poll<()> {
        self.poll(Ready::READ_CLOSED.union(Ready::FAILED).union(Ready::GONE))
    }

    fn poll(&self, wanted: Ready) -> Poll<()> {
        if self.slot.ready().intersects(wanted) {
            return Poll::Ready(());
        }
        self.slot.set_waiter();
        Poll::Pending
    }

    /// A short read has emptied the socket, which saves a read that returns EAGAIN. It has not where something follows the
    /// data whose edge has passed already: urgent data, an error, or a FIN, which then comes next.
    fn after_read(&self, count: usize, asked: usize) {
        if count == asked || self.transport != Transport::Tcp {
            return;
        }
        let ready = self.slot.ready();
        if !ready.intersects(Ready::READ_CLOSED.union(Ready::URGENT)) {
            self.slot.clear(Ready::READABLE);
        } else if !ready.intersects(Ready::URGENT.union(Ready::GONE)) {
            self.slot.set(Ready::ENDED);
        }
    }

    fn refused<T>(&self, error: Errno, exhausted: Ready) -> Poll<io::Result<T>> {
        match error {
            Errno::AGAIN => {
                self.slot.clear(exhausted);
                self.slot.set_waiter();
                Poll::Pending
            }
            error => {
                // The call has taken the error: epoll may never report it.
                if matches!(Scope::of(Call::Transfer, error), Scope::Connection | Scope::Destination) {
                    self.slot.set(Ready::FAILED);
                }
                Poll::Ready(Err(error.into()))
            }
        }
    }
}

impl Stream for Socket {
    /// Fits the caches nearest to the core, with both sides' bytes.
    fn chunk(&self) -> usize {
        32 * 1024
    }

    fn can_splice(&self) -> bool {
        true
    }

    /// Reads available bytes. `Ok(0)` is the peer's FIN (or an empty `buffer`).
    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll(Ready::READABLE));
        if self.slot.ready().intersects(Ready::ENDED) {
            return Poll::Ready(Ok(0));
        }
        match retry_on_intr(|| recv(&self.fd, &mut *buffer, RecvFlags::empty())) {
            Ok((count, _)) => {
                self.after_read(count, buffer.len());
                Poll::Ready(Ok(count))
            }
            Err(error) => self.refused(error, Ready::READABLE.union(Ready::URGENT)),
        }
    }

    /// Writes as much as the socket takes.
    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll(Ready::WRITABLE));
        match retry_on_intr(|| send(&self.fd, bytes, SendFlags::NOSIGNAL)) {
            Ok(count) => {
                if count < bytes.len() {
                    self.slot.clear(Ready::WRITABLE);
                }
                Poll::Ready(Ok(count))
            }
            Err(error) => self.refused(error, Ready::WRITABLE),
        }
    }

    /// A socket holds back nothing.
    fn poll_flush(&self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
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

    /// A failed system call reports the error once, and epoll only until then. A unix socket's peer that has shut both
    /// directions has not reset: its last bytes may still arrive.
    fn poll_reset(&self) -> Poll<()> {
        let gone = match self.transport {
            Transport::Tcp if !self.slot.ready().intersects(Ready::SHUT) => Ready::FAILED.union(Ready::GONE),
            Transport::Tcp | Transport::Other => Ready::FAILED,
        };
        self.poll(gone)
    }

    /// Sends FIN: the peer reads EOF after the bytes written so far.
    ///
    /// # Errors
    /// ENOTCONN: the peer is gone already.
    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>> {
        if last {
            return Poll::Ready(Ok(()));
        }
        self.slot.set(Ready::SHUT);
        Poll::Ready(Ok(rustix::net::shutdown(&self.fd, Shutdown::Write)?))
    }

    /// Bytes written that the peer's kernel has not acknowledged; zero if unknown.
    fn unacknowledged(&self) -> usize {
        sys::unacknowledged(&self.fd).unwrap_or(0)
    }

    /// Makes the close send RST instead of FIN, at once and without unsent bytes. No effect on unix sockets.
    fn reset_on_close(&self) {
        // Cannot fail for an open socket.
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
        if_local(|worker| worker.reactor.forget(&self.slot));
    }
}
