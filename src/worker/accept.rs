//! A listening socket of this worker, and accept4(2).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, acceptfrom_with, sockopt};

use super::local::{if_local, local};
use super::reactor::{Interest, Ready, Slot};
use super::waiter::poll_fn;
use crate::net::addr::ClientAddr;
use crate::net::errno::{Call, CallError, Scope};

/// Connections in a row that may be lost between their arrival and accept(2) before that is taken for trouble of this host:
/// where a security policy refuses every call, there is no end to them.
const LOST_IN_A_ROW: usize = 64;

/// A listening socket of this worker.
///
/// Level-triggered: an acceptor takes one connection at a time, and saves the accept that returns EAGAIN.
pub struct AcceptSocket {
    fd: OwnedFd,
    slot: Rc<Slot>,
}

impl AcceptSocket {
    /// Takes over a non-blocking listening socket.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn new(fd: OwnedFd) -> io::Result<AcceptSocket> {
        let slot = local(|worker| worker.reactor.register(fd.as_fd(), Interest::Queue))?;
        Ok(AcceptSocket { fd, slot })
    }

    /// Waits until a connection can be accepted. It may be gone by then.
    pub async fn waiting(&self) {
        poll_fn(|_| {
            if self.slot.ready().intersects(Ready::READABLE) {
                self.slot.clear(Ready::READABLE);
                return Poll::Ready(());
            }
            self.slot.set_waiter();
            Poll::Pending
        })
        .await;
    }

    /// The next connection; `None` when none waits.
    ///
    /// # Errors
    /// Those that trying again at once would not help.
    pub fn accept(&self) -> Result<Option<(OwnedFd, ClientAddr)>, CallError> {
        let mut errno = Errno::INTR;
        for _ in 0..LOST_IN_A_ROW {
            errno = match acceptfrom_with(self, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, peer)) => match client_address(&fd, peer) {
                    Some(client) => return Ok(Some((fd, client))),
                    None => Errno::CONNABORTED,
                },
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => errno,
            };
            if !matches!(Scope::of(Call::Accept, errno), Scope::Retry | Scope::Connection) {
                break;
            }
        }
        Err(CallError { call: Call::Accept, errno })
    }

    /// Takes no events of waiting connections while `until` runs, which would make the loop spin.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub async fn paused<T>(&self, until: impl Future<Output = T>) -> io::Result<T> {
        let register = |interest| local(|worker| worker.reactor.reregister(self.fd.as_fd(), &self.slot, interest));
        register(Interest::None)?;
        let result = until.await;
        register(Interest::Queue)?;
        Ok(result)
    }
}

impl AsFd for AcceptSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for AcceptSocket {
    fn drop(&mut self) {
        // A close does not deregister where another worker has a duplicate, and events would go on for ever.
        if_local(|worker| worker.reactor.deregister(self.fd.as_fd(), &self.slot));
    }
}

/// The peer's IP address, or that it came by a unix socket. `None` where the kernel names no address of a TCP connection:
/// without one, the client would be trusted with PROXY headers and have no limits.
fn client_address(socket: &OwnedFd, peer: Option<SocketAddrAny>) -> Option<ClientAddr> {
    match peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
        Some(address) => Some(ClientAddr::Tcp(address)),
        None => (sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)).then_some(ClientAddr::Unix),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_client_without_an_address_is_one_of_a_unix_socket() {
        let unix = OwnedFd::from(UnixStream::pair().unwrap().0);
        assert_eq!(client_address(&unix, None), Some(ClientAddr::Unix));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = client.local_addr().unwrap();
        let accepted = OwnedFd::from(listener.accept().unwrap().0);
        assert_eq!(client_address(&accepted, Some(address.into())), Some(ClientAddr::Tcp(address)));
        assert_eq!(client_address(&accepted, None), None);
    }
}
