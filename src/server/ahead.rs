//! Reading ahead: what a client says first, until it is known what it is.

use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::task::{Poll, ready};
use std::time::Instant;

use crate::relay::Stream;
use crate::sniff::Verdict;
use crate::worker::Timer;

/// Bytes read at a time.
const PORTION: usize = 4096;

/// What was read of a connection that is not being relayed yet. All of it goes on, but for what is taken off.
pub(super) struct Ahead<'s, S> {
    stream: &'s S,
    bytes: Vec<u8>,
    deadline: Option<Instant>,
    timer: Timer,
}

/// Why nothing can be said of the first bytes.
#[derive(Debug)]
pub(super) enum Cut {
    /// The client has finished before they were complete.
    Finished,
    /// They were not complete at the deadline.
    TooSlow,
    /// The connection is gone.
    Gone,
}

impl<'s, S: Stream> Ahead<'s, S> {
    pub(super) fn new(stream: &'s S, deadline: Option<Instant>) -> Ahead<'s, S> {
        Ahead::with(stream, Vec::new(), deadline)
    }

    /// Of which these were read already.
    pub(super) fn with(stream: &'s S, bytes: Vec<u8>, deadline: Option<Instant>) -> Ahead<'s, S> {
        Ahead { stream, bytes, deadline, timer: Timer::default() }
    }

    pub(super) fn stream(&self) -> &'s S {
        self.stream
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes off the first bytes: they were for tidegate itself.
    pub(super) fn take_off(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Reads until the recogniser knows. It bounds by itself how much that can be.
    pub(super) async fn until<T, E>(
        &mut self,
        recognise: impl Fn(&[u8]) -> Verdict<T, E>,
    ) -> Result<Result<T, E>, Cut> {
        let mut needed = NonZeroUsize::MIN;
        loop {
            if self.bytes.len() >= needed.get() {
                match recognise(&self.bytes) {
                    Verdict::Yes(found) => return Ok(Ok(found)),
                    Verdict::No(why) => return Ok(Err(why)),
                    Verdict::More(total) => needed = total,
                }
            }
            poll_fn(|_| self.poll_more()).await?;
        }
    }

    fn poll_more(&mut self) -> Poll<Result<(), Cut>> {
        let mut portion = [0; PORTION];
        match self.stream.poll_read(&mut portion) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Cut::Finished)),
            Poll::Ready(Ok(count)) => {
                self.bytes.extend_from_slice(&portion[..count]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Cut::Gone)),
            Poll::Pending => {
                let Some(deadline) = self.deadline else { return Poll::Pending };
                ready!(self.timer.poll_expired(deadline));
                Poll::Ready(Err(Cut::TooSlow))
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
