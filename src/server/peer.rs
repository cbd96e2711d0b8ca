//! One side of a connection: its socket, or TLS over it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use super::screened::Screened;
use crate::relay::Stream;
use crate::stats::termination::Termination;
use crate::tls::{ClientEngine, Engine, ServerEngine, TlsStream};
use crate::worker::Socket;

/// The client's side.
pub(super) type Client = Peer<ServerEngine>;
/// The backend's side.
pub(super) type Backend = Peer<ClientEngine>;

/// A side of a connection.
pub(super) enum Peer<E> {
    Plain(Socket),
    /// A plain client whose first bytes may still be a PROXY header. Boxed, as it is rare.
    Screened(Box<Screened>),
    /// Boxed: a plain connection does not pay for its place.
    Tls(Box<TlsStream<E>>),
}

impl<E: Engine> Peer<E> {
    /// Whether TLS went on with a session that both sides knew.
    pub(super) fn is_resumed(&self) -> bool {
        match self {
            Peer::Plain(_) | Peer::Screened(_) => false,
            Peer::Tls(tls) => tls.is_resumed(),
        }
    }

    /// How the connection ends by a PROXY header that came too late, and what the client did.
    pub(super) fn late_header(&self) -> Option<(Termination, &'static dyn fmt::Display)> {
        match self {
            Peer::Screened(screened) => screened.late_header(),
            Peer::Plain(_) | Peer::Tls(_) => None,
        }
    }
}

impl<E: Engine> Stream for Peer<E> {
    fn chunk(&self) -> usize {
        match self {
            Peer::Plain(socket) => socket.chunk(),
            Peer::Screened(screened) => screened.chunk(),
            Peer::Tls(tls) => tls.chunk(),
        }
    }

    fn can_splice(&self) -> bool {
        matches!(self, Peer::Plain(_) | Peer::Screened(_))
    }

    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Peer::Plain(socket) => socket.poll_read(buffer),
            Peer::Screened(screened) => screened.poll_read(buffer),
            Peer::Tls(tls) => tls.poll_read(buffer),
        }
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Peer::Plain(socket) => socket.poll_write(bytes),
            Peer::Screened(screened) => screened.poll_write(bytes),
            Peer::Tls(tls) => tls.poll_write(bytes),
        }
    }

    fn poll_flush(&self) -> Poll<io::Result<()>> {
        match self {
            Peer::Plain(socket) => socket.poll_flush(),
            Peer::Screened(screened) => screened.poll_flush(),
            Peer::Tls(tls) => tls.poll_flush(),
        }
    }

    fn poll_splice_from(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        match self {
            Peer::Plain(socket) => socket.poll_splice_from(pipe, limit),
            Peer::Screened(screened) => screened.poll_splice_from(pipe, limit),
            Peer::Tls(tls) => tls.poll_splice_from(pipe, limit),
        }
    }

    fn poll_splice_to(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        match self {
            Peer::Plain(socket) => socket.poll_splice_to(pipe, limit),
            Peer::Screened(screened) => screened.poll_splice_to(pipe, limit),
            Peer::Tls(tls) => tls.poll_splice_to(pipe, limit),
        }
    }

    fn poll_reset(&self) -> Poll<()> {
        match self {
            Peer::Plain(socket) => socket.poll_reset(),
            Peer::Screened(screened) => screened.poll_reset(),
            Peer::Tls(tls) => tls.poll_reset(),
        }
    }

    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>> {
        match self {
            Peer::Plain(socket) => socket.poll_shutdown(last),
            Peer::Screened(screened) => screened.poll_shutdown(last),
            Peer::Tls(tls) => tls.poll_shutdown(last),
        }
    }

    fn poll_truncate(&self, last: bool) -> Poll<io::Result<()>> {
        match self {
            Peer::Plain(socket) => socket.poll_truncate(last),
            Peer::Screened(screened) => screened.poll_truncate(last),
            Peer::Tls(tls) => tls.poll_truncate(last),
        }
    }

    fn is_truncated(&self) -> bool {
        match self {
            Peer::Plain(_) | Peer::Screened(_) => false,
            Peer::Tls(tls) => tls.is_truncated(),
        }
    }

    fn unacknowledged(&self) -> usize {
        match self {
            Peer::Plain(socket) => socket.unacknowledged(),
            Peer::Screened(screened) => screened.unacknowledged(),
            Peer::Tls(tls) => tls.unacknowledged(),
        }
    }

    fn reset_on_close(&self) {
        match self {
            Peer::Plain(socket) => socket.reset_on_close(),
            Peer::Screened(screened) => screened.reset_on_close(),
            Peer::Tls(tls) => tls.reset_on_close(),
        }
    }
}

impl<E> AsFd for Peer<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Peer::Plain(socket) => socket.as_fd(),
            Peer::Screened(screened) => screened.as_fd(),
            Peer::Tls(tls) => tls.as_fd(),
        }
    }
}
