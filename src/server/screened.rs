//! A client that said nothing while a PROXY header could have come, and got its backend.
//!
//! Its first bytes may not be a header even now: waiting for `timeouts.sniff` would be a way around
//! `proxy_protocol.trusted`.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Poll, ready};

use crate::relay::Stream;
use crate::sniff::Recognition;
use crate::sniff::proxy_protocol::{SIGNATURE_LIMIT, recognise_signature};
use crate::stats::termination::Termination;
use crate::worker::Socket;

/// Why an untrusted peer's header is refused, in time or late.
pub(super) const UNTRUSTED_HEADER: &str = "sends a PROXY header, and is not in proxy_protocol.trusted";

/// A plain connection of which no byte was read yet.
pub(super) struct Screened {
    socket: Socket,
    may_send_header: bool,
    state: RefCell<ScreenState>,
}

enum ScreenState {
    /// As many bytes as a header could begin with.
    Undecided(Vec<u8>),
    /// Bytes that begin no header, from the second field on still to be read.
    Decided(Vec<u8>, usize),
    /// None is left of these.
    Clear,
    Header,
}

impl Screened {
    /// `may_send_header`: the peer is trusted, and its header merely comes too late.
    pub(super) fn new(socket: Socket, may_send_header: bool) -> Screened {
        Screened { socket, may_send_header, state: RefCell::new(ScreenState::Undecided(Vec::new())) }
    }

    /// How the connection ends by a header, and what the client did, once one has come.
    pub(super) fn late_header(&self) -> Option<(Termination, &'static dyn fmt::Display)> {
        match &*self.state.borrow() {
            ScreenState::Header if self.may_send_header => {
                Some((Termination::BadProxyHeader, &"sends its PROXY header after timeouts.sniff"))
            }
            ScreenState::Header => Some((Termination::UntrustedProxyHeader, &UNTRUSTED_HEADER)),
            _ => None,
        }
    }

    /// Reads until it is known whether there is a header.
    fn poll_decided(&self, state: &mut ScreenState) -> Poll<io::Result<()>> {
        while let ScreenState::Undecided(bytes) = state {
            let mut portion = [0; SIGNATURE_LIMIT];
            let count = ready!(self.socket.poll_read(&mut portion[bytes.len()..]))?;
            bytes.extend_from_slice(&portion[bytes.len()..bytes.len() + count]);
            match recognise_signature(bytes) {
                Recognition::More(_) if count > 0 => {}
                Recognition::Yes(_) => *state = ScreenState::Header,
                Recognition::No(_) | Recognition::More(_) => *state = ScreenState::Decided(std::mem::take(bytes), 0),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Screened {
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Stream for Screened {
    fn chunk(&self) -> usize {
        self.socket.chunk()
    }

    /// From the client once its first bytes are through; see [`Stream::poll_splice_from`].
    fn can_splice(&self) -> bool {
        self.socket.can_splice()
    }

    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.state.borrow_mut();
        ready!(self.poll_decided(state))?;
        match state {
            ScreenState::Header => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            ScreenState::Decided(bytes, read) if *read < bytes.len() => {
                let left = &bytes[*read..];
                let count = left.len().min(buffer.len());
                buffer[..count].copy_from_slice(&left[..count]);
                *read += count;
                Poll::Ready(Ok(count))
            }
            _ => {
                *state = ScreenState::Clear;
                self.socket.poll_read(buffer)
            }
        }
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_write(bytes)
    }

    fn poll_flush(&self) -> Poll<io::Result<()>> {
        self.socket.poll_flush()
    }

    fn poll_splice_from(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        match &*self.state.borrow() {
            ScreenState::Clear => self.socket.poll_splice_from(pipe, limit),
            // They have to be looked at.
            _ => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    fn poll_splice_to(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        self.socket.poll_splice_to(pipe, limit)
    }

    fn poll_reset(&self) -> Poll<()> {
        self.socket.poll_reset()
    }

    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(last)
    }

    fn unacknowledged(&self) -> usize {
        self.socket.unacknowledged()
    }

    fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }
}

impl AsFd for Screened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
