//! Reading ahead: what a client says first, until it is known what it is.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use super::connection::ConnectionState;
use super::worker_state::WorkerState;
use crate::limits::{MemoryClaim, MemoryExhausted};
use crate::relay::Stream;
use crate::sniff::Recognition;
use crate::worker::{self, Timer, poll_fn};

/// Bytes read at a time.
const PORTION: usize = 4096;

/// Bytes by which a buffer grows beyond what came, so that a preamble in single bytes does not move it each time.
const SLACK: usize = 512;

/// Bytes read of a client that has no backend yet. They count against the [preamble memory](crate::limits::PreambleMemory)
/// until they are relayed or dropped.
#[derive(Default)]
pub(super) struct PeekedBytes {
    bytes: Vec<u8>,
    claim: Option<MemoryClaim>,
}

impl PeekedBytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes alone, which no longer count.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// These, which were read already.
    pub(super) fn of(bytes: &[u8]) -> Result<PeekedBytes, MemoryExhausted> {
        let mut peeked = PeekedBytes::default();
        peeked.extend(bytes).map(|()| peeked)
    }

    fn extend(&mut self, more: &[u8]) -> Result<(), MemoryExhausted> {
        let length = self.bytes.len() + more.len();
        if length > self.bytes.capacity() {
            let slack = if self.bytes.is_empty() { 0 } else { SLACK };
            let claim = self.claim.get_or_insert_with(memory_claim);
            claim.resize(length + slack)?;
            self.bytes.reserve_exact(more.len() + slack);
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

/// The deadline of a timeout that begins now.
pub(super) fn after(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| worker::now().checked_add(timeout))
}

/// A claim on the preamble memory of the process.
pub(super) fn memory_claim() -> MemoryClaim {
    WorkerState::with(|state| Arc::clone(&state.plane.preamble_memory).claim())
}

/// What was read of a connection that is not being relayed yet. All of it goes on, but for what is taken off.
pub(super) struct Peek<'s, S> {
    stream: &'s S,
    connection: &'s ConnectionState,
    read: PeekedBytes,
    deadline: Option<Instant>,
    timer: Timer,
}

/// Why nothing can be said of the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeekError {
    /// The client has finished before they were complete.
    Finished,
    /// They were not complete at the deadline.
    TooSlow,
    /// The connection is gone.
    Gone,
    /// The preamble memory of the process is used up.
    NoMemory,
}

impl<'s, S: Stream> Peek<'s, S> {
    pub(super) fn new(connection: &'s ConnectionState, stream: &'s S, deadline: Option<Instant>) -> Peek<'s, S> {
        Peek::with(connection, stream, PeekedBytes::default(), deadline)
    }

    /// Of which these were read already.
    pub(super) fn with(
        connection: &'s ConnectionState,
        stream: &'s S,
        read: PeekedBytes,
        deadline: Option<Instant>,
    ) -> Peek<'s, S> {
        Peek { stream, connection, read, deadline, timer: Timer::default() }
    }

    pub(super) fn stream(&self) -> &'s S {
        self.stream
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.read.as_slice()
    }

    pub(super) fn into_peeked(self) -> PeekedBytes {
        self.read
    }

    /// Takes off the first bytes: they were for tidegate itself.
    pub(super) fn take_off(&mut self, count: usize) {
        let bytes = &mut self.read.bytes;
        bytes.drain(..count.min(bytes.len()));
        self.connection.set_sent(!bytes.is_empty());
    }

    /// Reads until the recogniser knows, and never beyond its limit.
    pub(super) async fn until<T, E>(
        &mut self,
        limit: usize,
        recognise: impl Fn(&[u8]) -> Recognition<T, E>,
    ) -> Result<Result<T, E>, PeekError> {
        let mut needed = NonZeroUsize::MIN;
        loop {
            if self.bytes().len() >= needed.get() {
                match recognise(self.bytes()) {
                    Recognition::Yes(found) => return Ok(Ok(found)),
                    Recognition::No(why) => return Ok(Err(why)),
                    Recognition::More(total) => needed = total,
                }
            }
            poll_fn(|_| self.poll_more(limit)).await?;
        }
    }

    fn poll_more(&mut self, limit: usize) -> Poll<Result<(), PeekError>> {
        let mut portion = [0; PORTION];
        // At least one: a read of nothing would look like FIN.
        let room = limit.saturating_sub(self.bytes().len()).clamp(1, PORTION);
        match self.stream.poll_read(&mut portion[..room]) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(PeekError::Finished)),
            Poll::Ready(Ok(count)) => {
                self.connection.set_sent(true);
                Poll::Ready(self.read.extend(&portion[..count]).map_err(|_| PeekError::NoMemory))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(PeekError::Gone)),
            Poll::Pending => {
                let Some(deadline) = self.deadline else { return Poll::Pending };
                ready!(self.timer.poll_expired(deadline));
                Poll::Ready(Err(PeekError::TooSlow))
            }
        }
    }
}

/// Writes all of it.
pub(super) async fn write_all(stream: &impl Stream, mut bytes: &[u8]) -> io::Result<()> {
    poll_fn(|_| {
        while !bytes.is_empty() {
            let count = ready!(stream.poll_write(bytes))?;
            bytes = &bytes[count..];
        }
        stream.poll_flush()
    })
    .await
}
