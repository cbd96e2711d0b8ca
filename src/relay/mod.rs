//! Moving bytes between two sockets, both ways, until both have ended.
//!
//! [`Relay`] is a state machine: it is polled with what the sockets are ready for, does bounded work, and
//! says how the connection ended once it has. It knows sockets by the trait [`Stream`] only, so scripted
//! ones can drive it. What must hold, whatever the sockets do:
//!
//! - What one side sent, the other receives: all, in order, once.
//! - FIN is passed on when everything before it was; the other direction goes on.
//! - RST is passed on when everything before it has arrived, and nothing else is ever turned into one.
//! - A direction that cannot write does not read: a slow reader holds back its writer.
//! - A connection with nothing in flight holds no buffer and no pipe.
//! - A [`Tap`] sees each byte once, in order, but for those that it lets pass; it changes none of the above.

mod direction;
mod pipe;
mod tap;
mod timing;

use std::io;
use std::os::fd::BorrowedFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use direction::{AtEnd, Direction, Fault, Progress};
pub use pipe::{MAX_PIPES, Tools};
pub use tap::Tap;
use tap::Tapped;
use timing::Timing;

use crate::stats::termination::Side;

/// One side of a relayed pair: a socket, or a layer over one. After a method that is pending, whoever drives the relay
/// is told by the socket once it is worth a retry.
pub trait Stream {
    /// Bytes that are best read, or written, at a time; at most 64 KiB.
    fn chunk(&self) -> usize;
    /// Whether bytes may pass by pipe, unseen.
    fn can_splice(&self) -> bool;
    /// Reads; `Ok(0)` is FIN.
    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Takes some to write. A layer may hold back what its socket has no room for; it takes no more until
    /// [`Stream::poll_flush`] is ready.
    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Ready once nothing that was taken is held back, or the connection is gone and with it what was.
    fn poll_flush(&self) -> Poll<io::Result<()>>;
    /// Moves up to `limit` bytes into `pipe`, which is empty.
    fn poll_splice_from(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>>;
    /// Moves up to `limit` bytes out of `pipe`.
    fn poll_splice_to(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>>;
    /// Ready once the peer has reset the connection.
    fn poll_reset(&self) -> Poll<()>;
    /// Sends FIN, after all that was taken. With `last`, the close that follows sends the socket's own.
    ///
    /// # Errors
    /// The connection is gone.
    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>>;
    /// As [`Stream::poll_shutdown`], for what must not look complete: without the end that a layer has of its own.
    ///
    /// # Errors
    /// The connection is gone.
    fn poll_truncate(&self, last: bool) -> Poll<io::Result<()>> {
        self.poll_shutdown(last)
    }
    /// Whether a layer ended without its own end, so that somebody on the way may have cut it.
    fn is_truncated(&self) -> bool {
        false
    }
    /// Bytes taken that have not arrived at the peer.
    fn unacknowledged(&self) -> usize;
    /// Makes the close a RST.
    fn reset_on_close(&self);
}

/// How a relayed connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides have finished; this one did so first. The other's FIN is passed on by closing the sockets.
    Closed(Side),
    /// This side has reset the connection; the other's socket will send a RST when it is closed.
    Reset(Side),
    /// This side's peer no longer answers (keepalive or retransmissions ran out, no route); like a reset
    /// for the other.
    Lost(Side),
    /// What this side sent breaks the rules of the layer it speaks; like a reset for the other.
    TlsProtocolError(Side),
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is nothing to do until a socket is ready again.
    Wait,
    /// There is more to do; others come first.
    Again,
    /// The connection has ended.
    Ended(End),
}

/// First wait before it is checked again whether the bytes before a RST have arrived. It doubles up to [`RECHECK_MAX`],
/// so that a thousand connections behind receivers that stand still cost a thousand ioctl(2) a second.
const RECHECK_MIN: Duration = Duration::from_millis(1);
const RECHECK_MAX: Duration = Duration::from_secs(1);

/// A pair of sockets between which bytes move.
#[derive(Debug)]
pub struct Relay {
    to_backend: Direction,
    to_client: Direction,
    /// When a byte or FIN last moved, in either direction.
    last_moved: Instant,
    /// Who finished first.
    finished: Option<Side>,
    /// Boxed: few connections come to it, and many pay for its place.
    failed: Option<Box<Failed>>,
    timing: Timing,
}

/// A side is gone; the other one still has to receive what came before.
#[derive(Clone, Copy, Debug)]
struct Failed {
    side: Side,
    end: End,
    /// The other side has failed too.
    both: bool,
    recheck: Option<(Instant, Duration)>,
}

impl Relay {
    /// For two sockets that are connected, from now on. `ahead` was read from the client already.
    pub fn new(now: Instant, ahead: Vec<u8>) -> Relay {
        Relay {
            to_backend: Direction::timed(ahead),
            to_client: Direction::default(),
            last_moved: now,
            finished: None,
            failed: None,
            timing: Timing::new(now),
        }
    }

    /// Moves what can be moved, within a bound, past `tap`, which does not see what was read ahead.
    ///
    /// `now` is the time at which the loop last took events, `arrived` that of the last event of these sockets: between
    /// the two, others ran. After [`Relay::wake_at`] it wants another turn, whatever the sockets do.
    pub fn turn(
        &mut self,
        client: &impl Stream,
        backend: &impl Stream,
        tools: &mut Tools,
        tap: &mut impl Tap,
        now: Instant,
        arrived: Instant,
    ) -> Turn {
        let before = (self.to_backend.moved(), self.to_client.moved());
        let mut more = self.advance(client, backend, tools, Tapped { tap, from: Side::Client, now: arrived }, now);
        let from_client = self.to_backend.moved() > before.0;
        let at = if from_client { tools.last_write() } else { None };
        more |= self.advance(backend, client, tools, Tapped { tap, from: Side::Backend, now: arrived }, now);
        self.timing.moved(from_client, self.to_client.moved() > before.1, arrived, at);
        // With both done, nothing is owed any more: a peer that closes without reading the last FIN resets by that.
        if !(self.to_backend.is_done() && self.to_client.is_done()) {
            self.notice_failure(Side::Client, client, now);
            self.notice_failure(Side::Backend, backend, now);
        }
        if let Some(failed) = self.failed.as_deref().copied() {
            let turn = match failed.side {
                Side::Client => pass_on(failed, &self.to_backend, backend, now),
                Side::Backend => pass_on(failed, &self.to_client, client, now),
            };
            return match turn {
                PassedOn::Yes => Turn::Ended(failed.end),
                PassedOn::NotYet if more => Turn::Again,
                PassedOn::NotYet => Turn::Wait,
                PassedOn::Recheck(recheck) => {
                    self.failed = Some(Box::new(Failed { recheck: Some(recheck), ..failed }));
                    Turn::Wait
                }
            };
        }
        match self.finished {
            Some(first) if self.to_backend.is_done() && self.to_client.is_done() => Turn::Ended(End::Closed(first)),
            _ if more => Turn::Again,
            _ => Turn::Wait,
        }
    }

    /// When a byte or FIN last moved.
    pub fn last_moved(&self) -> Instant {
        self.last_moved
    }

    /// Whether one side has finished or is gone, while the other has not.
    pub fn is_half_closed(&self) -> bool {
        self.finished.is_some() || self.failed.is_some()
    }

    /// The side that has sent FIN first, unless one has failed.
    pub fn finished_first(&self) -> Option<Side> {
        self.finished.filter(|_| self.failed.is_none())
    }

    /// When the relay itself wants to be polled again.
    pub fn wake_at(&self) -> Option<Instant> {
        self.failed.as_ref()?.recheck.map(|(at, _)| at)
    }

    /// Bytes that have been handed to the backend's socket.
    pub fn bytes_to_backend(&self) -> u64 {
        self.to_backend.moved()
    }

    /// Bytes that have been handed to the client's socket.
    pub fn bytes_to_client(&self) -> u64 {
        self.to_client.moved()
    }

    /// Once, when the backend's first byte has come: how long that took from the client's first byte, or,
    /// when the backend speaks first, from the start.
    pub fn take_first_byte(&mut self) -> Option<Duration> {
        self.timing.take_first_byte()
    }

    /// After each turn in which the direction turned, if the tools have a clock: how long it took from the last byte
    /// handed to the backend to the first that came back.
    pub fn take_turnaround(&mut self) -> Option<Duration> {
        self.timing.take_turnaround()
    }

    /// Moves what one side sends to the other. True if there is more to do.
    fn advance(
        &mut self,
        from: &impl Stream,
        to: &impl Stream,
        tools: &mut Tools,
        tap: Tapped<'_, impl Tap>,
        now: Instant,
    ) -> bool {
        let side = tap.from;
        let (direction, opposite) = match side {
            Side::Client => (&mut self.to_backend, &self.to_client),
            Side::Backend => (&mut self.to_client, &self.to_backend),
        };
        if direction.is_done() {
            return false;
        }
        let at_end = match self.failed {
            Some(_) => AtEnd::SayNothing,
            None => AtEnd::PassOnFin { last: opposite.is_done() },
        };
        let before = direction.moved();
        let progress = direction.advance(from, to, tools, tap, at_end);
        if direction.moved() > before {
            self.last_moved = now;
        }
        match progress {
            Progress::Waiting => {}
            Progress::Again => return true,
            Progress::Finished => {
                self.last_moved = now;
                self.finished.get_or_insert(side);
            }
            Progress::Failed(Fault::From(error)) => self.fail(side, &error, now),
            Progress::Failed(Fault::To(error)) => self.fail(side.other(), &error, now),
        }
        false
    }

    /// A side that is not read from, as it has finished or its receiver is slow, may fail all the same.
    fn notice_failure(&mut self, side: Side, socket: &impl Stream, now: Instant) {
        let is_known = self.failed.as_ref().is_some_and(|failed| failed.side == side || failed.both);
        if !is_known && socket.poll_reset().is_ready() {
            self.fail(side, &io::ErrorKind::ConnectionReset.into(), now);
        }
    }

    #[cfg(test)]
    fn holds_nothing(&self) -> bool {
        self.to_backend.holds_nothing() && self.to_client.holds_nothing()
    }

    /// `side` is gone: nothing more goes there. What it sent before still goes to the other, unless that was all, or the
    /// other is gone too.
    fn fail(&mut self, side: Side, error: &io::Error, now: Instant) {
        let (from_it, to_it) = match side {
            Side::Client => (&mut self.to_backend, &mut self.to_client),
            Side::Backend => (&mut self.to_client, &mut self.to_backend),
        };
        to_it.abandon();
        let end = match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Reset(side),
            io::ErrorKind::InvalidData => End::TlsProtocolError(side),
            _ => End::Lost(side),
        };
        match &mut self.failed {
            None => {
                self.last_moved = now;
                self.failed = Some(Box::new(Failed { side, end, both: false, recheck: None }));
            }
            Some(failed) if failed.side == side => {
                // It was noticed before its last bytes were read; behind them comes the error itself.
                failed.end = end;
                from_it.abandon();
            }
            Some(failed) => {
                failed.both = true;
                from_it.abandon();
            }
        }
    }
}

/// Whether the other side has learnt of a failure.
enum PassedOn {
    Yes,
    /// Bytes that came before it are still on their way.
    NotYet,
    /// They are in the kernel's hands: look then, and the next time after as long a wait.
    Recheck((Instant, Duration)),
}

/// Resets the side that has not failed, once it has received what the other sent. The RST throws away what the kernel has
/// not delivered, so it waits for that, in growing steps: no event tells of the last acknowledgement.
fn pass_on(failed: Failed, direction: &Direction, to: &impl Stream, now: Instant) -> PassedOn {
    if failed.both || to.poll_reset().is_ready() {
        // Acknowledgements will not come any more, nor would they matter.
        return PassedOn::Yes;
    }
    if !direction.is_done() {
        return PassedOn::NotYet;
    }
    let wait = match failed.recheck {
        Some((at, wait)) if now < at => return PassedOn::Recheck((at, wait)),
        Some((_, wait)) => (wait * 2).min(RECHECK_MAX),
        None => RECHECK_MIN,
    };
    // A layer that cannot write any more does not hold any more.
    let _ = to.poll_flush();
    if to.unacknowledged() > 0 {
        return PassedOn::Recheck((now + wait, wait));
    }
    to.reset_on_close();
    PassedOn::Yes
}

#[cfg(test)]
mod tests;
