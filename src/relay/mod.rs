//! Moving bytes between two sockets, in both directions, until both have ended.
//!
//! [`Relay`] is a state machine: each turn does bounded work on sockets that are ready, and reports how the
//! connection ended. It knows sockets by the trait [`Stream`] only, so that scripted ones can drive it.
//! Invariants, whatever the sockets do:
//!
//! - What one side sent, the other receives: all, in order, once.
//! - FIN is passed on when everything before it was; the other direction goes on.
//! - RST is passed on when everything before it has arrived, and nothing else is ever turned into one.
//! - A direction that cannot write does not read: a slow reader holds back its writer.
//! - A connection with nothing in flight holds no buffer and no pipe.
//! - A [`Tap`] sees each byte once, in order, except those that it skips; it changes none of the above.

mod direction;
mod pacing;
mod pipe;
mod stream;
mod tap;
mod timing;

use std::io;
use std::time::{Duration, Instant};

use direction::{AtEnd, Direction, Fault, Progress};
use pacing::Pacer;
pub use pacing::Pacing;
pub use pipe::{MAX_PIPES, RelayResources};
pub use stream::Stream;
pub use tap::Tap;
use tap::Tapped;
use timing::Timing;

use crate::stats::termination::Side;

/// How a relayed connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides have finished, this one first. Closing the sockets passes on the other's FIN.
    Closed(Side),
    /// This side has reset the connection; closing the other's socket sends RST.
    Reset(Side),
    /// This side's peer no longer answers (keepalive or retransmissions ran out, no route). The other side is reset.
    Unreachable(Side),
    /// This side broke the rules of its layer. The other side is reset.
    TlsProtocolError(Side),
}

/// Outcome of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do until a socket is ready.
    Wait,
    /// More to do, after other connections.
    Again,
    /// The connection has ended.
    Ended(End),
}

/// When a turn takes place.
#[derive(Clone, Copy, Debug)]
pub struct TurnTimes {
    /// When the loop last took events.
    pub now: Instant,
    /// When it took the last event of these sockets, before other connections ran.
    pub arrived: Instant,
}

/// First wait between two checks whether the bytes before a RST are acknowledged. It doubles up to [`RECHECK_MAX`], so
/// that a thousand connections with stalled receivers cost a thousand ioctl(2) a second.
const RECHECK_MIN: Duration = Duration::from_millis(1);
const RECHECK_MAX: Duration = Duration::from_secs(1);

/// The state of a relayed pair of sockets.
#[derive(Debug)]
pub struct Relay {
    to_backend: Direction,
    to_client: Direction,
    /// Time of the last byte or FIN in either direction.
    last_moved: Instant,
    /// The side that finished first.
    finished: Option<Side>,
    /// Boxed: few connections fail, and all would pay for its size.
    failed: Option<Box<Failed>>,
    timing: Timing,
}

/// A side is gone; the other still has to receive what came before.
#[derive(Clone, Copy, Debug)]
struct Failed {
    side: Side,
    end: End,
    /// The other side has failed too.
    both: bool,
    recheck: Option<(Instant, Duration)>,
}

impl Relay {
    /// For two connected sockets. `ahead` was read from the client already, and goes first.
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

    /// Goes on with a connection on which these counts of bytes have moved each way. If the backend has spoken, its first byte is not timed.
    pub fn resume(mut self, to_backend: u64, to_client: u64) -> Relay {
        self.to_backend.resume(to_backend);
        self.to_client.resume(to_client);
        if to_client > 0 {
            self.timing.skip_first_byte();
        }
        self
    }

    /// Moves a bounded number of bytes past `tap`, which does not see those that were read ahead.
    ///
    /// After [`Relay::wake_at`], another turn is due without an event; with `pacing`, also after [`Pacing::wake_at`].
    pub fn turn(
        &mut self,
        client: &impl Stream,
        backend: &impl Stream,
        resources: &mut RelayResources,
        tap: &mut impl Tap,
        TurnTimes { now, arrived }: TurnTimes,
        pacing: Option<&Pacing>,
    ) -> Turn {
        let before = (self.to_backend.moved(), self.to_client.moved());
        let pacer = pacing.map(|pacing| &pacing.to_backend);
        let mut more =
            self.advance(client, backend, resources, Tapped { tap, from: Side::Client, now: arrived }, now, pacer);
        let from_client = self.to_backend.moved() > before.0;
        let at = if from_client { resources.last_write() } else { None };
        let pacer = pacing.map(|pacing| &pacing.to_client);
        more |= self.advance(backend, client, resources, Tapped { tap, from: Side::Backend, now: arrived }, now, pacer);
        self.timing.moved(from_client, self.to_client.moved() > before.1, arrived, at);
        // With both done, a RST means nothing: a peer that closes without reading the last FIN sends one.
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

    /// Time of the last byte or FIN in either direction.
    pub fn last_moved(&self) -> Instant {
        self.last_moved
    }

    /// Whether one side has finished or is gone, while the other has not.
    pub fn is_half_closed(&self) -> bool {
        self.finished.is_some() || self.failed.is_some()
    }

    /// The side that sent FIN first; `None` once one has failed.
    pub fn finished_first(&self) -> Option<Side> {
        self.finished.filter(|_| self.failed.is_none())
    }

    /// When a turn is due without an event.
    pub fn wake_at(&self) -> Option<Instant> {
        self.failed.as_ref()?.recheck.map(|(at, _)| at)
    }

    /// Bytes written to the backend's socket.
    pub fn bytes_to_backend(&self) -> u64 {
        self.to_backend.moved()
    }

    /// Bytes written to the client's socket.
    pub fn bytes_to_client(&self) -> u64 {
        self.to_client.moved()
    }

    /// Time from the client's first byte to the backend's; from the start where the backend speaks first. Returned once.
    pub fn take_first_byte(&mut self) -> Option<Duration> {
        self.timing.take_first_byte()
    }

    /// Time from the last byte written to the backend to the first that came back, after a turn in which it came. `None`
    /// without a clock in [`RelayResources`].
    pub fn take_turnaround(&mut self) -> Option<Duration> {
        self.timing.take_turnaround()
    }

    /// Advances the direction from one side. True if there is more to do.
    fn advance(
        &mut self,
        from: &impl Stream,
        to: &impl Stream,
        resources: &mut RelayResources,
        tap: Tapped<'_, impl Tap>,
        now: Instant,
        pacer: Option<&Pacer>,
    ) -> bool {
        let side = tap.from;
        let (direction, opposite) = match side {
            Side::Client => (&mut self.to_backend, &self.to_client),
            Side::Backend => (&mut self.to_client, &self.to_backend),
        };
        // Also where nothing more is read: what was held back before is over.
        let allowance = pacer.map_or(usize::MAX, |pacer| pacer.allowance(now));
        if direction.is_done() {
            return false;
        }
        let at_end = match self.failed {
            Some(_) => AtEnd::Silent,
            None => AtEnd::PassOnFin { last: opposite.is_done() },
        };
        let before = direction.moved();
        let mut budget = allowance;
        let progress = direction.advance(from, to, resources, tap, at_end, &mut budget);
        if let Some(pacer) = pacer {
            pacer.spend(allowance - budget, budget == 0, now);
        }
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

    /// Detects the failure of a side that is not read from: it has finished, or its receiver is slow.
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

    /// Stops writing to `side`. What it sent before still goes to the other, unless that has failed too.
    fn fail(&mut self, side: Side, error: &io::Error, now: Instant) {
        let (from_it, to_it) = match side {
            Side::Client => (&mut self.to_backend, &mut self.to_client),
            Side::Backend => (&mut self.to_client, &mut self.to_backend),
        };
        to_it.abandon();
        let end = match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Reset(side),
            io::ErrorKind::InvalidData => End::TlsProtocolError(side),
            _ => End::Unreachable(side),
        };
        match &mut self.failed {
            None => {
                self.last_moved = now;
                self.failed = Some(Box::new(Failed { side, end, both: false, recheck: None }));
            }
            Some(failed) if failed.side == side => {
                // Noticed before its last bytes were read; the error itself comes after them.
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

/// Whether the other side was reset.
enum PassedOn {
    Yes,
    /// Bytes that came before are not written yet.
    NotYet,
    /// They are written and not acknowledged: check at this time, and again after the same wait.
    Recheck((Instant, Duration)),
}

/// Resets the side that has not failed, once it has acknowledged what the other sent: a RST discards what the kernel has
/// not delivered. Polls in growing steps, as no event reports the last acknowledgement.
fn pass_on(failed: Failed, direction: &Direction, to: &impl Stream, now: Instant) -> PassedOn {
    if failed.both || to.poll_reset().is_ready() {
        // No acknowledgement will come.
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
    // A layer that cannot write drops what it holds back.
    let _ = to.poll_flush();
    if to.unacknowledged() > 0 {
        return PassedOn::Recheck((now + wait, wait));
    }
    to.reset_on_close();
    PassedOn::Yes
}

#[cfg(test)]
mod tests;
