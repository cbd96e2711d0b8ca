//! A model of what surrounds a relay: two sockets of the kernel, a tap, and what both peers did.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{End, Pacing, Relay, RelayResources, Stream, Tap, Turn, TurnTimes};
use crate::stats::termination::Side;

/// The kernel's socket towards one peer, as far as it matters: what has arrived and was not read, how much
/// may be written, and what the peer was told.
#[derive(Default)]
pub(super) struct Scripted {
    pub(super) arrived: RefCell<VecDeque<u8>>,
    /// FIN has arrived behind those bytes.
    pub(super) fin: Cell<bool>,
    /// RST has arrived behind those bytes.
    pub(super) reset: Cell<bool>,
    /// The error of the RST was not handed out yet: the first call that meets it consumes it.
    pub(super) error: Cell<bool>,
    /// The size of the send buffer, which holds bytes until they are acknowledged.
    pub(super) send_buffer: Cell<usize>,
    /// The most that one call reads or writes.
    pub(super) at_most: Cell<usize>,
    pub(super) splices: Cell<bool>,
    /// It is a layer over the socket, which takes what the socket may not have room for.
    pub(super) layered: bool,
    pub(super) held: RefCell<Vec<u8>>,
    pub(super) written: RefCell<Vec<u8>>,
    pub(super) unacknowledged: Cell<usize>,
    pub(super) told_fin: Cell<bool>,
    pub(super) told_reset: Cell<bool>,
    /// The next event wakes the relay.
    pub(super) awaited: Cell<bool>,
    /// Something has happened.
    pub(super) tell: Cell<bool>,
}

impl Scripted {
    pub(super) fn happen(&self, what: impl FnOnce(&Scripted)) {
        what(self);
        self.tell.set(self.awaited.take() || self.tell.get());
    }

    pub(super) fn is_full(&self) -> bool {
        self.unacknowledged.get() >= self.send_buffer.get()
    }

    pub(super) fn wait<T>(&self) -> Poll<T> {
        self.awaited.set(true);
        Poll::Pending
    }

    pub(super) fn take(&self, limit: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut arrived = self.arrived.borrow_mut();
        let count = arrived.len().min(limit).min(self.at_most.get());
        if count > 0 {
            return Poll::Ready(Ok(arrived.drain(..count).collect()));
        }
        // A FIN that arrived is read as such, also where a RST followed it (SOCK_DONE comes before sk_err).
        if self.fin.get() {
            return Poll::Ready(Ok(Vec::new()));
        }
        if self.error.take() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.reset.get() {
            return Poll::Ready(Ok(Vec::new()));
        }
        self.wait()
    }

    pub(super) fn put(&self, limit: usize) -> Poll<io::Result<usize>> {
        assert!(!self.told_fin.get(), "written after FIN");
        if self.error.take() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.reset.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.send_buffer.get().saturating_sub(self.unacknowledged.get());
        match room.min(limit).min(self.at_most.get()) {
            0 => self.wait(),
            count => Poll::Ready(Ok(count)),
        }
    }

    pub(super) fn flush(&self) -> Poll<io::Result<()>> {
        let mut held = self.held.borrow_mut();
        while !held.is_empty() {
            let count = match ready!(self.put(held.len())) {
                Ok(count) => count,
                Err(error) => {
                    held.clear();
                    return Poll::Ready(Err(error));
                }
            };
            self.wrote(&held[..count]);
            held.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn wrote(&self, bytes: &[u8]) {
        self.unacknowledged.set(self.unacknowledged.get() + bytes.len());
        self.written.borrow_mut().extend_from_slice(bytes);
    }
}

impl Stream for Scripted {
    fn chunk(&self) -> usize {
        if self.layered { 64 << 10 } else { 32 << 10 }
    }

    fn can_splice(&self) -> bool {
        !self.layered
    }

    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.take(buffer.len()).map_ok(|bytes| {
            buffer[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        })
    }

    fn poll_flush(&self) -> Poll<io::Result<()>> {
        self.flush()
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.layered {
            ready!(self.flush())?;
            self.held.borrow_mut().extend_from_slice(bytes);
            return match self.flush() {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(bytes.len())),
            };
        }
        self.put(bytes.len()).map_ok(|count| {
            self.wrote(&bytes[..count]);
            count
        })
    }

    fn poll_splice_from(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        if !self.splices.get() {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        let holds = rustix::pipe::fcntl_getpipe_size(pipe).unwrap();
        self.take(limit.min(holds)).map_ok(|bytes| {
            // All of it: the pipe must have been empty.
            assert_eq!(if bytes.is_empty() { 0 } else { rustix::io::write(pipe, &bytes).unwrap() }, bytes.len());
            bytes.len()
        })
    }

    fn poll_splice_to(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>> {
        if !self.splices.get() {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        self.put(limit).map_ok(|count| {
            let mut bytes = vec![0; count];
            assert_eq!(rustix::io::read(pipe, &mut bytes).unwrap(), count);
            self.wrote(&bytes);
            count
        })
    }

    fn poll_reset(&self) -> Poll<()> {
        if self.reset.get() { Poll::Ready(()) } else { self.wait() }
    }

    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>> {
        ready!(self.flush())?;
        if self.reset.get() {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        // The close does it, but for what a layer has to say itself.
        assert!(!self.told_fin.replace(!last || self.layered), "FIN twice");
        Poll::Ready(Ok(()))
    }

    fn unacknowledged(&self) -> usize {
        self.unacknowledged.get() + self.held.borrow().len()
    }

    fn reset_on_close(&self) {
        assert!(self.reset.get() || self.unacknowledged() == 0, "a RST now would overtake bytes");
        self.told_reset.set(true);
    }
}

/// What happens at one of the sockets.
#[derive(Clone, Debug)]
pub(super) enum ModelEvent {
    Arrive(usize),
    Fin,
    Reset,
    /// The send buffer grows.
    Room(usize),
    AtMost(usize),
    Acknowledge(usize),
}

pub(super) const ALL: usize = usize::MAX;

pub(super) fn event() -> impl Strategy<Value = ModelEvent> {
    let size = prop_oneof![1..64usize, 1..5_000usize, 30_000..200_000usize];
    prop_oneof![
        6 => size.clone().prop_map(ModelEvent::Arrive),
        6 => size.clone().prop_map(ModelEvent::Room),
        2 => prop_oneof![1..8usize, 1..70_000usize].prop_map(ModelEvent::AtMost),
        4 => size.prop_map(ModelEvent::Acknowledge),
        1 => Just(ModelEvent::Acknowledge(ALL)),
        1 => Just(ModelEvent::Fin),
        1 => Just(ModelEvent::Reset),
    ]
}

/// Wants to see every so many bytes some, and knows which came.
#[derive(Default)]
pub(super) struct Watching {
    /// Bytes that it lets pass before it sees at least one again, in turn.
    pub(super) lets_pass: Vec<u64>,
    /// What of the current one is left, for each side.
    pub(super) left: [u64; 2],
    pub(super) turn: usize,
    /// Each byte that was seen; `None` for one that passed.
    pub(super) came: [Vec<Option<u8>>; 2],
    pub(super) finished: [bool; 2],
}

impl Tap for Watching {
    fn skippable(&self, from: Side) -> u64 {
        self.left[from as usize]
    }

    fn on_bytes(&mut self, from: Side, bytes: &[u8], _: Instant) {
        assert!(!bytes.is_empty() && !self.finished[from as usize]);
        self.came[from as usize].extend(bytes.iter().copied().map(Some));
        self.turn += 1;
        let next = self.lets_pass.get(self.turn % self.lets_pass.len().max(1)).copied();
        self.left[from as usize] = next.unwrap_or_default();
    }

    fn on_spliced(&mut self, from: Side, count: u64, _: Instant) {
        assert!(!self.finished[from as usize]);
        let left = &mut self.left[from as usize];
        *left = left.checked_sub(count).expect("no more than may pass");
        let came = &mut self.came[from as usize];
        came.resize(came.len() + count as usize, None);
    }

    fn on_fin(&mut self, from: Side, _: Instant) {
        assert!(!std::mem::replace(&mut self.finished[from as usize], true), "once");
    }
}

pub(super) struct ScriptedPair {
    pub(super) client: Scripted,
    pub(super) backend: Scripted,
    pub(super) sent: [Vec<u8>; 2],
    pub(super) relay: Relay,
    pub(super) tap: Option<Box<Watching>>,
    pub(super) resources: RelayResources,
    pub(super) now: Instant,
    pub(super) pacing: Option<Pacing>,
    /// The relay asked for another turn, or has not had one.
    pub(super) again: bool,
    pub(super) end: Option<End>,
    pub(super) generator: u32,
}

/// A turn that finds its events as they come.
pub(super) fn at(now: Instant) -> TurnTimes {
    TurnTimes { now, arrived: now }
}

impl ScriptedPair {
    pub(super) fn new(splices: [bool; 2]) -> ScriptedPair {
        ScriptedPair::of(splices, [false; 2], Vec::new())
    }

    pub(super) fn of(splices: [bool; 2], layered: [bool; 2], ahead: Vec<u8>) -> ScriptedPair {
        let now = Instant::now();
        let socket = |side: Side| Scripted {
            splices: Cell::new(splices[side as usize]),
            layered: layered[side as usize],
            at_most: Cell::new(usize::MAX),
            ..Scripted::default()
        };
        ScriptedPair {
            client: socket(Side::Client),
            backend: socket(Side::Backend),
            sent: [ahead.clone(), Vec::new()],
            relay: Relay::new(now, ahead),
            tap: None,
            resources: RelayResources::default(),
            now,
            pacing: None,
            again: true,
            end: None,
            generator: 1,
        }
    }

    pub(super) fn socket(&self, side: Side) -> &Scripted {
        match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        }
    }

    pub(super) fn sent(&self, side: Side) -> &[u8] {
        &self.sent[side as usize]
    }

    pub(super) fn happen(&mut self, side: Side, event: &ModelEvent) {
        let over = self.socket(side).fin.get() || self.socket(side).reset.get();
        match *event {
            ModelEvent::Arrive(count) if !over => {
                let mut bytes = Vec::with_capacity(count);
                for _ in 0..count {
                    self.generator = self.generator.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    bytes.push((self.generator >> 24) as u8);
                }
                self.sent[side as usize].extend_from_slice(&bytes);
                self.socket(side).happen(|socket| socket.arrived.borrow_mut().extend(bytes));
            }
            ModelEvent::Fin if !over => self.socket(side).happen(|socket| socket.fin.set(true)),
            ModelEvent::Reset if !self.socket(side).reset.get() => self.socket(side).happen(|socket| {
                socket.reset.set(true);
                // What it has not acknowledged stays unacknowledged for good.
                socket.error.set(true);
            }),
            ModelEvent::Room(count) => {
                self.socket(side)
                    .happen(|socket| socket.send_buffer.set(socket.send_buffer.get().saturating_add(count)));
            }
            ModelEvent::Acknowledge(count) if !self.socket(side).reset.get() => {
                let (socket, full) = (self.socket(side), self.socket(side).is_full());
                socket.unacknowledged.set(socket.unacknowledged.get().saturating_sub(count));
                // epoll tells of room where there was none, never of the last acknowledgement.
                if full && !socket.is_full() {
                    socket.happen(|_| ());
                }
            }
            // A change of sizes alone is no event of epoll.
            ModelEvent::AtMost(count) => self.socket(side).at_most.set(count),
            ModelEvent::Arrive(_) | ModelEvent::Fin | ModelEvent::Reset | ModelEvent::Acknowledge(_) => {}
        }
    }

    /// Polls as a worker would: only when woken, or when the relay asked to be at this time.
    pub(super) fn run(&mut self) {
        while self.end.is_none() {
            let paced_at = self.pacing.as_ref().and_then(Pacing::wake_at);
            let due = [self.relay.wake_at(), paced_at].into_iter().flatten().any(|at| at <= self.now);
            let told = self.client.tell.take() | self.backend.tell.take();
            if !std::mem::take(&mut self.again) && !told && !due {
                break;
            }
            let (times, pacing) = (at(self.now), self.pacing.as_ref());
            let turn = self.relay.turn(&self.client, &self.backend, &mut self.resources, &mut self.tap, times, pacing);
            self.again = turn == Turn::Again;
            if let Turn::Ended(end) = turn {
                self.end = Some(end);
                if let End::Closed(first) = end {
                    // The close sends it, where it was not sent before.
                    assert!(self.socket(first.other()).told_fin.get());
                    assert!(self.socket(first).told_fin.replace(true) || !self.socket(first).layered);
                }
            }
        }
    }

    /// From here on, nothing holds anything up any more.
    pub(super) fn open_the_gates(&mut self) {
        for side in [Side::Client, Side::Backend] {
            self.socket(side).at_most.set(usize::MAX);
            self.happen(side, &ModelEvent::Room(usize::MAX / 2));
        }
        // The wait for acknowledgements has grown meanwhile.
        for _ in 0..3 {
            self.run();
            while self.end.is_none()
                && let Some(at) = self.pacing.as_ref().and_then(Pacing::wake_at)
            {
                self.now = self.now.max(at);
                self.run();
            }
            self.happen(Side::Client, &ModelEvent::Acknowledge(ALL));
            self.happen(Side::Backend, &ModelEvent::Acknowledge(ALL));
            self.now += Duration::from_secs(2);
        }
    }
}
