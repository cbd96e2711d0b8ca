//! A datagram socket of this worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use super::local::{if_local, local};
use super::reactor::{Interest, Ready, Slot};

/// A datagram socket registered with the worker of this thread, and closed when dropped.
///
/// Its waiter is the future whose [`DatagramSocket::poll_readable`] was pending last.
pub struct DatagramSocket {
    fd: OwnedFd,
    slot: Rc<Slot>,
}

impl DatagramSocket {
    /// Takes over a non-blocking socket.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn new(fd: OwnedFd) -> io::Result<DatagramSocket> {
        let slot = local(|worker| worker.reactor.register(fd.as_fd(), Interest::Datagrams))?;
        Ok(DatagramSocket { fd, slot })
    }

    /// Ready when a datagram, or an error by ICMP, may be received.
    pub fn poll_readable(&self) -> Poll<()> {
        if self.slot.ready().intersects(Ready::READABLE) {
            return Poll::Ready(());
        }
        self.slot.set_waiter();
        Poll::Pending
    }

    /// A call has returned EAGAIN: nothing is there until the next event.
    pub fn clear_readable(&self) {
        self.slot.clear(Ready::READABLE);
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        // Another process or worker may have a duplicate, which keeps the registration.
        if_local(|worker| worker.reactor.deregister(self.fd.as_fd(), &self.slot));
    }
}
