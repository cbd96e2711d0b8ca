//! One side of a connection: its socket, or TLS over it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use rustix::net::AddressFamily;

use super::screened::Screened;
use crate::relay::Stream;
use crate::stats::termination::Termination;
use crate::tls::{ClientEngine, Engine, ServerEngine, TlsStream};
use crate::worker::Socket;

/// The client's side.
pub(super) type ClientConn = Conn<ServerEngine>;
/// The backend's side.
pub(super) type BackendConn = Conn<ClientEngine>;

/// A side of a connection.
pub(super) enum Conn<E> {
    Plain(Socket),
    /// A plain client whose first bytes may still be a PROXY header. Boxed, as it is rare.
    Screened(Box<Screened>),
    /// Boxed: a plain connection does not pay for its place.
    Tls(Box<TlsStream<E>>),
}

impl<E: Engine> Conn<E> {
    /// Whether TLS went on with a session that both sides knew.
    pub(super) fn is_resumed(&self) -> bool {
        match self {
            Conn::Plain(_) | Conn::Screened(_) => false,
            Conn::Tls(tls) => tls.is_resumed(),
        }
    }

    /// Ready once the peer has sent FIN, also where bytes before it are still to be read, or is gone.
    pub(super) fn poll_finished(&self) -> Poll<()> {
        match self {
            Conn::Plain(socket) => socket.poll_finished(),
            Conn::Screened(screened) => screened.socket().poll_finished(),
            Conn::Tls(tls) => tls.socket().poll_finished(),
        }
    }

    /// Whether it is a unix socket, with nothing over it.
    pub(super) fn is_unix(&self) -> bool {
        match self {
            Conn::Plain(socket) => rustix::net::sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX),
            Conn::Screened(_) | Conn::Tls(_) => false,
        }
    }

    /// How the connection ends by a PROXY header that came too late, and what the client did.
    pub(super) fn late_header(&self) -> Option<(Termination, &'static dyn fmt::Display)> {
        match self {
            Conn::Screened(screened) => screened.late_header(),
            Conn::Plain(_) | Conn::Tls(_) => None,
        }
    }
}

impl<E: Engine> Stream for Conn<E> {
    fn chunk(&self) -> usize {
        match self {
            Conn::Plain(socket) => socket.chunk(),
            Conn::Screened(screened) => screened.chunk(),
            Conn::Tls(tls) => tls.chunk(),
        }
    }

    fn can_splice(&self) -> bool {
        matches!(self, Conn::Plain(_) | Conn::Screened(_))
    }

    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Conn::Plain(socket) => socket.poll_read(buffer),
            Conn::Screened(screened) => screened.poll_read(buffer),
            Conn::Tls(tls) => tls.poll_read(buffer),
        }
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Conn::Plain(socket) => socket.poll_write(bytes),
            Conn::Screened(screened) => screened.poll_write(bytes),
            Conn::Tls(tls) => tls.poll_write(bytes),
        }
    }

    fn poll_flush(&self) -> Poll<io::Result<()>> {
        match self {
            Conn::Plain(socket) => socket.poll_flush(),
            Conn::Screened(screened) => screened.poll_flush(),
            Conn::Tls(tls) => tls.poll_flush(),
        }
    }

    fn poll_splice_from(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        match self {
            Conn::Plain(socket) => socket.poll_splice_from(pipe, limit),
            Conn::Screened(screened) => screened.poll_splice_from(pipe, limit),
            Conn::Tls(tls) => tls.poll_splice_from(pipe, limit),
        }
    }

    fn poll_splice_to(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        match self {
            Conn::Plain(socket) => socket.poll_splice_to(pipe, limit),
            Conn::Screened(screened) => screened.poll_splice_to(pipe, limit),
            Conn::Tls(tls) => tls.poll_splice_to(pipe, limit),
        }
    }

    fn poll_reset(&self) -> Poll<()> {
        match self {
            Conn::Plain(socket) => socket.poll_reset(),
            Conn::Screened(screened) => screened.poll_reset(),
            Conn::Tls(tls) => tls.poll_reset(),
        }
    }

    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>> {
        match self {
            Conn::Plain(socket) => socket.poll_shutdown(last),
            Conn::Screened(screened) => screened.poll_shutdown(last),
            Conn::Tls(tls) => tls.poll_shutdown(last),
        }
    }

    fn poll_truncate(&self, last: bool) -> Poll<io::Result<()>> {
        match self {
            Conn::Plain(socket) => socket.poll_truncate(last),
            Conn::Screened(screened) => screened.poll_truncate(last),
            Conn::Tls(tls) => tls.poll_truncate(last),
        }
    }

    fn is_truncated(&self) -> bool {
        match self {
            Conn::Plain(_) | Conn::Screened(_) => false,
            Conn::Tls(tls) => tls.is_truncated(),
        }
    }

    fn unacknowledged(&self) -> usize {
        match self {
            Conn::Plain(socket) => socket.unacknowledged(),
            Conn::Screened(screened) => screened.unacknowledged(),
            Conn::Tls(tls) => tls.unacknowledged(),
        }
    }

    fn reset_on_close(&self) {
        match self {
            Conn::Plain(socket) => socket.reset_on_close(),
            Conn::Screened(screened) => screened.reset_on_close(),
            Conn::Tls(tls) => tls.reset_on_close(),
        }
    }
}

impl<E> AsFd for Conn<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Conn::Plain(socket) => socket.as_fd(),
            Conn::Screened(screened) => screened.as_fd(),
            Conn::Tls(tls) => tls.as_fd(),
        }
    }
}
