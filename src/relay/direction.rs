//! One direction of a relayed pair.

use std::io;
use std::task::Poll;

use super::pipe::{Pipe, RelayResources, TURN_BYTES};
use super::stream::Stream;
use super::tap::{Tap, Tapped};

/// Consecutive reads that filled the scratch buffer until a direction splices. A pipe costs four system calls to create
/// and two per 256 KiB to use, so it pays off for bulk.
const SPLICE_AFTER: u8 = 2;
/// A splice of less than this does not pay for its second system call ...
const SMALL_SPLICE: usize = 8 * 1024;
/// ... and after this many of them in a row the direction copies again.
const COPY_AFTER: u8 = 4;
/// Skippable bytes from which on a pipe pays off: as many as one read brings.
const MIN_SKIPPABLE: u64 = 64 * 1024;

/// What one side sends, on its way to the other.
#[derive(Debug, Default)]
pub(super) struct Direction {
    state: DirectionState,
    mode: Mode,
    /// Read, but not written yet. While there is any, nothing more is read. Boxed: most connections are idle.
    pending: Option<Box<Pending>>,
    /// Bytes handed to the receiving socket.
    moved: u64,
    /// Whether [`RelayResources::time_write`] takes the time of its writes.
    timed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DirectionState {
    #[default]
    Running,
    /// The sender has sent FIN, which is not passed on yet.
    Finishing,
    /// FIN was passed on, or the receiver is gone.
    Done,
}

/// How bytes are moved, and the evidence for changing that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Through the scratch buffer, which `full` consecutive reads have filled.
    Copy { full: u8 },
    /// Through a pipe; the last `small` splices were short.
    Splice { small: u8 },
    /// The kernel refused to splice these sockets.
    CopyOnly,
}

impl Default for Mode {
    fn default() -> Mode {
        Mode::Copy { full: 0 }
    }
}

/// What one side has sent and the other has no room for.
#[derive(Debug)]
enum Pending {
    Bytes { bytes: Box<[u8]>, written: usize },
    Piped { pipe: Pipe, left: usize },
}

/// How the sender's FIN is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// As a FIN. With `last`, both sides have finished, and the sockets are closed next.
    PassOnFin { last: bool },
    /// Not at all: the sender is gone, and the receiver gets a RST. A FIN before it would make a truncated stream complete.
    Silent,
}

/// Outcome of a turn.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing to do until a socket is ready.
    Waiting,
    /// A turn's bytes were moved, and there is more to do.
    Again,
    /// The sender's FIN was passed on.
    Finished,
    /// A socket failed.
    Failed(Fault),
}

/// The socket whose error ended a direction.
#[derive(Debug)]
pub(super) enum Fault {
    From(io::Error),
    To(io::Error),
}

impl Direction {
    /// Begins with bytes that were read ahead, and times its writes.
    pub(super) fn timed(ahead: Vec<u8>) -> Direction {
        let mut direction = Direction { timed: true, ..Direction::default() };
        if !ahead.is_empty() {
            direction.keep(ahead.into(), 0);
        }
        direction
    }

    /// Goes on from this many bytes.
    pub(super) fn resume(&mut self, moved: u64) {
        self.moved = moved;
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == DirectionState::Done
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.pending.is_none()
    }

    #[cfg(test)]
    pub(super) fn splices(&self) -> bool {
        matches!(self.mode, Mode::Splice { .. })
    }

    fn keep(&mut self, bytes: Box<[u8]>, written: usize) {
        self.pending = Some(Box::new(Pending::Bytes { bytes, written }));
    }

    fn keep_piped(&mut self, pipe: Pipe, left: usize) {
        self.pending = Some(Box::new(Pending::Piped { pipe, left }));
    }

    /// Drops what is pending: the receiver is gone.
    pub(super) fn abandon(&mut self) {
        self.state = DirectionState::Done;
        self.pending = None;
    }

    /// Moves bytes until a socket is not ready, the sender has finished, a turn's bytes are moved, or `budget` bytes are read; it
    /// is what is left of it then.
    pub(super) fn advance(
        &mut self,
        from: &impl Stream,
        to: &impl Stream,
        resources: &mut RelayResources,
        mut tap: Tapped<'_, impl Tap>,
        at_end: AtEnd,
        budget: &mut usize,
    ) -> Progress {
        let mut left = match self.mode {
            Mode::Splice { .. } => resources.turn(),
            Mode::Copy { .. } | Mode::CopyOnly => TURN_BYTES,
        };
        loop {
            if self.state == DirectionState::Finishing {
                return self.finish(from, to, at_end);
            }
            let moved = match self.step(from, to, resources, &mut tap, budget) {
                Poll::Pending => return Progress::Waiting,
                Poll::Ready(Ok(0)) => {
                    tap.on_fin();
                    self.state = DirectionState::Finishing;
                    continue;
                }
                Poll::Ready(Ok(moved)) => moved,
                Poll::Ready(Err(fault)) => {
                    self.abandon();
                    return Progress::Failed(fault);
                }
            };
            left = left.saturating_sub(moved);
            if left == 0 {
                return Progress::Again;
            }
        }
    }

    /// Writes what is pending, or reads and writes once. Returns bytes moved; `Ok(0)` is the sender's FIN.
    fn step(
        &mut self,
        from: &impl Stream,
        to: &impl Stream,
        resources: &mut RelayResources,
        tap: &mut Tapped<'_, impl Tap>,
        budget: &mut usize,
    ) -> Poll<Result<usize, Fault>> {
        match to.poll_flush() {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::To(error))),
            Poll::Ready(Ok(())) => {}
        }
        match self.pending.take().map(|pending| *pending) {
            Some(Pending::Bytes { bytes, written }) => return self.write_kept(to, resources, bytes, written),
            Some(Pending::Piped { pipe, left }) => return self.write_piped(to, resources, pipe, left),
            None => {}
        }
        if *budget == 0 {
            return Poll::Pending;
        }
        if let Mode::Splice { small } = self.mode
            && tap.skippable() >= MIN_SKIPPABLE
        {
            match resources.acquire() {
                Some(pipe) => return self.splice(from, to, resources, tap, budget, (pipe, small)),
                // Copying needs no descriptors.
                None => self.mode = Mode::default(),
            }
        }
        self.copy(from, to, resources, tap, budget)
    }

    fn copy(
        &mut self,
        from: &impl Stream,
        to: &impl Stream,
        resources: &mut RelayResources,
        tap: &mut Tapped<'_, impl Tap>,
        budget: &mut usize,
    ) -> Poll<Result<usize, Fault>> {
        let scratch = resources.scratch(from.chunk().max(to.chunk()));
        let (whole, limit) = (scratch.len(), scratch.len().min(*budget));
        let count = match from.poll_read(&mut scratch[..limit]) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::From(error))),
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
            Poll::Ready(Ok(count)) => count,
        };
        if let Mode::Copy { full } = self.mode {
            self.mode = match full + 1 {
                _ if count < whole => Mode::Copy { full: 0 },
                SPLICE_AFTER if from.can_splice() && to.can_splice() => Mode::Splice { small: 0 },
                SPLICE_AFTER => Mode::CopyOnly,
                full => Mode::Copy { full },
            };
        }
        *budget -= count;
        tap.on_bytes(&scratch[..count]);
        if self.timed {
            resources.time_write();
        }
        let bytes = &resources.scratch(count)[..];
        let written = match to.poll_write(bytes) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::To(error))),
            Poll::Ready(Ok(written)) => written,
            Poll::Pending => 0,
        };
        self.moved += written as u64;
        if written < count {
            self.keep(bytes[written..].into(), 0);
        }
        Poll::Ready(Ok(count))
    }

    fn write_kept(
        &mut self,
        to: &impl Stream,
        resources: &mut RelayResources,
        bytes: Box<[u8]>,
        written: usize,
    ) -> Poll<Result<usize, Fault>> {
        if self.timed {
            resources.time_write();
        }
        let count = match to.poll_write(&bytes[written..]) {
            Poll::Pending => {
                self.keep(bytes, written);
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::To(error))),
            Poll::Ready(Ok(count)) => count,
        };
        self.moved += count as u64;
        if written + count < bytes.len() {
            self.keep(bytes, written + count);
        }
        // At least one: zero would mean FIN.
        Poll::Ready(Ok(count.max(1)))
    }

    fn splice(
        &mut self,
        from: &impl Stream,
        to: &impl Stream,
        resources: &mut RelayResources,
        tap: &mut Tapped<'_, impl Tap>,
        budget: &mut usize,
        (pipe, small): (Pipe, u8),
    ) -> Poll<Result<usize, Fault>> {
        let turn = resources.turn();
        let limit = usize::try_from(tap.skippable()).map_or(turn, |skippable| skippable.min(turn)).min(*budget);
        let count = match from.poll_splice_from(pipe.write_end(), limit) {
            Poll::Ready(Ok(count)) => count,
            other => {
                resources.release(pipe);
                return match other {
                    Poll::Ready(Err(error)) if is_unsupported(&error) => {
                        self.mode = Mode::CopyOnly;
                        self.copy(from, to, resources, tap, budget)
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(Fault::From(error))),
                    _ => Poll::Pending,
                };
            }
        };
        if count == 0 {
            resources.release(pipe);
            return Poll::Ready(Ok(0));
        }
        *budget -= count;
        tap.on_spliced(count);
        self.mode = match small + 1 {
            _ if count >= SMALL_SPLICE => Mode::Splice { small: 0 },
            COPY_AFTER => Mode::default(),
            small => Mode::Splice { small },
        };
        match self.write_piped(to, resources, pipe, count) {
            Poll::Ready(Err(fault)) => Poll::Ready(Err(fault)),
            // The rest in the pipe is pending, and the next step finds the receiver not ready.
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn write_piped(
        &mut self,
        to: &impl Stream,
        resources: &mut RelayResources,
        pipe: Pipe,
        left: usize,
    ) -> Poll<Result<usize, Fault>> {
        if self.timed {
            resources.time_write();
        }
        let count = match to.poll_splice_to(pipe.read_end(), left) {
            Poll::Pending => {
                self.keep_piped(pipe, left);
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) if is_unsupported(&error) => {
                self.mode = Mode::CopyOnly;
                return match pipe.drain(left) {
                    Ok(bytes) => {
                        self.keep(bytes, 0);
                        resources.release(pipe);
                        Poll::Ready(Ok(1))
                    }
                    Err(error) => Poll::Ready(Err(Fault::To(error))),
                };
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::To(error))),
            Poll::Ready(Ok(count)) => count,
        };
        self.moved += count as u64;
        if count < left {
            self.keep_piped(pipe, left - count);
        } else {
            resources.release(pipe);
        }
        Poll::Ready(Ok(count.max(1)))
    }

    fn finish(&mut self, from: &impl Stream, to: &impl Stream, at_end: AtEnd) -> Progress {
        let sent = match at_end {
            AtEnd::PassOnFin { last } if from.is_truncated() => to.poll_truncate(last),
            AtEnd::PassOnFin { last } => to.poll_shutdown(last),
            AtEnd::Silent => Poll::Ready(Ok(())),
        };
        let Poll::Ready(sent) = sent else { return Progress::Waiting };
        self.state = DirectionState::Done;
        match sent {
            Ok(()) => Progress::Finished,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Progress::Failed(Fault::To(io::ErrorKind::ConnectionReset.into()))
            }
            Err(error) => Progress::Failed(Fault::To(error)),
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}
