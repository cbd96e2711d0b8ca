//! TLS over a worker's socket, as a side of a relayed pair.
//!
//! The buffers in which records are opened and sealed belong to the worker, not to the connection. A connection keeps bytes
//! of its own only while part of a record is in flight, or while its socket has no room.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Poll, ready};

use rustls::{CommonState, Error};

use super::backlog::Backlog;
use super::engine::{Driven, Engine, OpenedBytes, RecordLayer, Seal, reserve};
use super::explain::TlsError;
use super::negotiated::{Negotiated, is_resumed};
use crate::relay::Stream;
use crate::worker::{self, Priority, Socket, poll_fn};

/// Plaintext that is sealed, or opened, at a time: four full records (RFC 8446, 5.1).
const CHUNK: usize = 64 * 1024;
/// What four records are longer than their plaintext, at the least (RFC 8446, 5.2: header, tag, type).
const OVERHEAD: usize = 4 * 21;
/// The longest message of a handshake, over several records, that rustls takes is 64 KiB; with this much unfinished,
/// something is wrong.
const MAX_KEPT: usize = 128 * 1024;
/// Reads in a row without a byte of plaintext until other connections get their turn.
const MAX_READS: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { incoming: Vec::new(), outgoing: Vec::new() }) };
}

/// What all connections of a worker use in turn.
struct Scratch {
    /// Records to be opened, in place.
    incoming: Vec<u8>,
    /// Records that were sealed. Its length is its room.
    outgoing: Vec<u8>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The protocol was violated, or the peer has nothing acceptable to offer. It got an alert.
    Tls(TlsError),
    /// The connection failed.
    Io(io::Error),
    /// The peer has closed it.
    Left,
}

/// A TLS connection.
pub struct TlsStream<E> {
    socket: Socket,
    state: RefCell<StreamState<E>>,
}

struct StreamState<E> {
    records: RecordLayer<E>,
    /// The beginning of a record of which the rest has not come.
    received: Box<[u8]>,
    /// Opened, and not yet read.
    plain: Backlog,
    /// Sealed, and not yet sent.
    unsent: Backlog,
    /// The peer has finished, by close_notify or by a bare FIN.
    finished: bool,
    truncated: bool,
    close_notified: bool,
}

impl<E: Engine> TlsStream<E> {
    /// Begins a handshake on a socket from which `ahead` was read already.
    pub(super) fn new(socket: Socket, engine: E, ahead: Vec<u8>) -> TlsStream<E> {
        let state = StreamState {
            records: RecordLayer::new(engine),
            received: ahead.into(),
            plain: Backlog::default(),
            unsent: Backlog::default(),
            finished: false,
            truncated: false,
            close_notified: false,
        };
        TlsStream { socket, state: RefCell::new(state) }
    }

    /// Completes the handshake, at the priority of handshakes.
    ///
    /// # Errors
    /// Those of [`HandshakeError`].
    pub async fn handshake(&self) -> Result<(), HandshakeError> {
        worker::set_priority(Priority::Handshake);
        // What was read ahead is enough for the costly part, which others need not wait for.
        worker::yield_now().await;
        let outcome = poll_fn(|_| self.poll_handshake()).await;
        worker::set_priority(Priority::New);
        outcome
    }

    fn poll_handshake(&self) -> Poll<Result<(), HandshakeError>> {
        let mut state = self.state.borrow_mut();
        SCRATCH.with_borrow_mut(|Scratch { incoming, outgoing }| {
            // What was read ahead, or nothing: the client speaks first.
            let mut received = std::mem::take(&mut state.received);
            state.open(&mut received, outgoing, &mut []);
            loop {
                let flushed = state.poll_flush(&self.socket);
                if let (Some(error), Poll::Ready(_)) = (state.records.failure(), &flushed) {
                    return Poll::Ready(Err(HandshakeError::Tls(error.clone().into())));
                }
                ready!(flushed).map_err(HandshakeError::Io)?;
                if !state.records.common().is_handshaking() {
                    // Also when the peer has finished in the same breath: what it sent is there.
                    return Poll::Ready(Ok(()));
                }
                if state.finished {
                    return Poll::Ready(Err(HandshakeError::Left));
                }
                let kept = state.received.len();
                reserve(incoming, kept + CHUNK);
                let count = ready!(self.socket.poll_read(&mut incoming[kept..])).map_err(HandshakeError::Io)?;
                if count == 0 {
                    return Poll::Ready(Err(HandshakeError::Left));
                }
                incoming[..kept].copy_from_slice(&state.received);
                state.open(&mut incoming[..kept + count], outgoing, &mut []);
            }
        })
    }

    /// Bytes kept of a record or handshake message of which the rest has not come.
    pub fn unfinished(&self) -> usize {
        self.state.borrow().received.len()
    }

    /// The application protocol that was agreed on (ALPN).
    pub fn alpn_protocol(&self) -> Option<Vec<u8>> {
        self.with_common(|common| common.alpn_protocol().map(<[u8]>::to_vec))
    }

    /// What the handshake has agreed on.
    pub fn negotiated(&self) -> Negotiated {
        self.with_common(Negotiated::of)
    }

    /// Whether the handshake resumed a session.
    pub fn is_resumed(&self) -> bool {
        self.with_common(is_resumed)
    }

    pub(super) fn with_common<T>(&self, f: impl FnOnce(&CommonState) -> T) -> T {
        f(self.state.borrow().records.common())
    }
}

impl<E: Engine> StreamState<E> {
    /// Processes records, then seals `seal`. Opened bytes that `buffer` has no room for wait in `plain`.
    fn drive(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Vec<u8>,
        buffer: &mut [u8],
        seal: Option<Seal<'_>>,
    ) -> Driven {
        let opened = OpenedBytes { buffer, overflow: &mut self.plain };
        let driven = self.records.drive(incoming, outgoing, opened, seal);
        self.finished |= self.records.is_closed();
        driven
    }

    /// Opens records. Returns how much of what they hold is in `buffer`; the rest of one that is not complete is kept.
    fn open(&mut self, incoming: &mut [u8], outgoing: &mut Vec<u8>, buffer: &mut [u8]) -> usize {
        let Driven { used, filled, sealed, .. } = self.drive(incoming, outgoing, buffer, None);
        self.keep(&incoming[used..]);
        self.unsent.push(&outgoing[..sealed]);
        filled
    }

    /// Seals `what`. Returns how much there is to send: what the engine itself had to say, and that.
    fn seal(&mut self, outgoing: &mut Vec<u8>, what: Seal<'_>) -> io::Result<usize> {
        if self.records.failure().is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut received = std::mem::take(&mut self.received);
        let Driven { used, sealed, done, .. } = self.drive(&mut received, outgoing, &mut [], Some(what));
        match used {
            0 => self.received = received,
            _ => self.keep(&received[used..]),
        }
        done.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into())).map(|()| sealed)
    }

    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() || self.finished || self.records.failure().is_some() {
            self.received = Box::default();
        } else if rest.len() > MAX_KEPT {
            self.records.fail(Error::General("a message longer than any that is allowed".to_owned()));
        } else {
            self.received = rest.into();
        }
    }

    /// Hands over what was opened before.
    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let left = self.plain.bytes();
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.plain.advance(count);
        count
    }

    fn poll_flush(&mut self, socket: &Socket) -> Poll<io::Result<()>> {
        while !self.unsent.bytes().is_empty() {
            match ready!(socket.poll_write(self.unsent.bytes())) {
                Ok(count) => self.unsent.advance(count),
                Err(error) => {
                    self.unsent.clear();
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<E> TlsStream<E> {
    /// The socket below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl<E: Engine> Stream for TlsStream<E> {
    /// Several full records at a time: a system call for each would cost more than its encryption.
    fn chunk(&self) -> usize {
        CHUNK
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        for _ in 0..MAX_READS {
            let count = state.take_plain(buffer);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if let Some(error) = state.records.failure() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TlsError::from(error.clone()))));
            }
            if state.finished {
                return Poll::Ready(Ok(0));
            }
            let filled = SCRATCH.with_borrow_mut(|Scratch { incoming, outgoing }| {
                let kept = state.received.len();
                let limit = (buffer.len() + OVERHEAD).max(kept + CHUNK / 4);
                reserve(incoming, limit);
                let count = ready!(self.socket.poll_read(&mut incoming[kept..limit]))?;
                if count == 0 {
                    // What is kept of a record stays: the engine remembers it, and is asked again for sealing.
                    (state.finished, state.truncated) = (true, true);
                    return Poll::Ready(Ok(0));
                }
                incoming[..kept].copy_from_slice(&state.received);
                let filled = state.open(&mut incoming[..kept + count], outgoing, buffer);
                // An answer of the engine's own, or an alert. What the socket has no room for goes with the next flush.
                let _ = state.poll_flush(&self.socket);
                Poll::Ready(io::Result::Ok(filled))
            });
            let filled = ready!(filled)?;
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
        worker::reschedule();
        Poll::Pending
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        ready!(state.poll_flush(&self.socket))?;
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        SCRATCH.with_borrow_mut(|Scratch { outgoing, .. }| {
            reserve(outgoing, CHUNK + 4 * OVERHEAD);
            let sealed = state.seal(outgoing, Seal::Bytes(bytes))?;
            let sent = match self.socket.poll_write(&outgoing[..sealed]) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => 0,
            };
            state.unsent.push(&outgoing[sent..sealed]);
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn poll_flush(&self) -> Poll<io::Result<()>> {
        self.state.borrow_mut().poll_flush(&self.socket)
    }

    fn poll_splice_from(&self, _: BorrowedFd<'_>, _: usize) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_splice_to(&self, _: BorrowedFd<'_>, _: usize) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_reset(&self) -> Poll<()> {
        self.socket.poll_reset()
    }

    /// A close_notify (RFC 8446, 6.1), and the socket's FIN.
    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        if !state.close_notified {
            ready!(state.poll_flush(&self.socket))?;
            state.close_notified = true;
            SCRATCH.with_borrow_mut(|Scratch { outgoing, .. }| {
                let sealed = state.seal(outgoing, Seal::CloseNotify)?;
                state.unsent.push(&outgoing[..sealed]);
                io::Result::Ok(())
            })?;
        }
        ready!(state.poll_flush(&self.socket))?;
        match ready!(self.socket.poll_shutdown(last)) {
            // A peer that has closed as well, without reading the close_notify, has reset the connection by that. What
            // it sent before is still there to be read; if that ends as it should, nothing was lost.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }

    /// The socket's FIN alone.
    fn poll_truncate(&self, last: bool) -> Poll<io::Result<()>> {
        ready!(self.state.borrow_mut().poll_flush(&self.socket))?;
        self.socket.poll_shutdown(last)
    }

    /// Whether the peer has closed without a close_notify: what it sent may have been truncated by an attacker.
    fn is_truncated(&self) -> bool {
        self.state.borrow().truncated
    }

    fn unacknowledged(&self) -> usize {
        let state = self.state.borrow();
        self.socket.unacknowledged() + state.unsent.bytes().len()
    }

    fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }
}

impl<E> AsFd for TlsStream<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
