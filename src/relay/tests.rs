//! The relay between two scripted sockets, against a model of what each side must have seen in the end.

mod timing;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{End, Relay, Stream, Tap, Tools, Turn};
use crate::stats::ending::Side;

/// The kernel's socket towards one peer, as far as it matters: what has arrived and was not read, how much
/// may be written, and what the peer was told.
#[derive(Default)]
struct Scripted {
    arrived: RefCell<VecDeque<u8>>,
    /// FIN has arrived behind those bytes.
    fin: Cell<bool>,
    /// RST has arrived behind those bytes.
    reset: Cell<bool>,
    /// The error of the RST was not handed out yet: the first call that meets it consumes it.
    error: Cell<bool>,
    /// The size of the send buffer, which holds bytes until they are acknowledged.
    send_buffer: Cell<usize>,
    /// The most that one call reads or writes.
    at_most: Cell<usize>,
    splices: Cell<bool>,
    /// It is a layer over the socket, which takes what the socket may not have room for.
    layered: bool,
    held: RefCell<Vec<u8>>,
    written: RefCell<Vec<u8>>,
    unacknowledged: Cell<usize>,
    told_fin: Cell<bool>,
    told_reset: Cell<bool>,
    /// Something that happens is told.
    awaited: Cell<bool>,
    /// Something has happened.
    tell: Cell<bool>,
}

impl Scripted {
    fn happen(&self, what: impl FnOnce(&Scripted)) {
        what(self);
        self.tell.set(self.awaited.take() || self.tell.get());
    }

    fn is_full(&self) -> bool {
        self.unacknowledged.get() >= self.send_buffer.get()
    }

    fn wait<T>(&self) -> Poll<T> {
        self.awaited.set(true);
        Poll::Pending
    }

    fn take(&self, limit: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut arrived = self.arrived.borrow_mut();
        let count = arrived.len().min(limit).min(self.at_most.get());
        if count > 0 {
            return Poll::Ready(Ok(arrived.drain(..count).collect()));
        }
        if self.error.take() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.fin.get() || self.reset.get() {
            return Poll::Ready(Ok(Vec::new()));
        }
        self.wait()
    }

    fn put(&self, limit: usize) -> Poll<io::Result<usize>> {
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

    fn flush(&self) -> Poll<io::Result<()>> {
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

    fn wrote(&self, bytes: &[u8]) {
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
enum Event {
    Arrive(usize),
    Fin,
    Reset,
    /// The send buffer grows.
    Room(usize),
    AtMost(usize),
    Acknowledge(usize),
}

const ALL: usize = usize::MAX;

fn event() -> impl Strategy<Value = Event> {
    let size = prop_oneof![1..64usize, 1..5_000usize, 30_000..200_000usize];
    prop_oneof![
        6 => size.clone().prop_map(Event::Arrive),
        6 => size.clone().prop_map(Event::Room),
        2 => prop_oneof![1..8usize, 1..70_000usize].prop_map(Event::AtMost),
        4 => size.prop_map(Event::Acknowledge),
        1 => Just(Event::Acknowledge(ALL)),
        1 => Just(Event::Fin),
        1 => Just(Event::Reset),
    ]
}

/// Wants to see every so many bytes some, and knows which came.
#[derive(Default)]
struct Watching {
    /// Bytes that it lets pass before it sees at least one again, in turn.
    lets_pass: Vec<u64>,
    /// What of the current one is left, for each side.
    left: [u64; 2],
    turn: usize,
    /// Each byte that was seen; `None` for one that passed.
    came: [Vec<Option<u8>>; 2],
    finished: [bool; 2],
}

impl Tap for Watching {
    fn unseen(&self, from: Side) -> u64 {
        self.left[from as usize]
    }

    fn saw(&mut self, from: Side, bytes: &[u8], _: Instant) {
        assert!(!bytes.is_empty() && !self.finished[from as usize]);
        self.came[from as usize].extend(bytes.iter().copied().map(Some));
        self.turn += 1;
        let next = self.lets_pass.get(self.turn % self.lets_pass.len().max(1)).copied();
        self.left[from as usize] = next.unwrap_or_default();
    }

    fn passed(&mut self, from: Side, count: u64, _: Instant) {
        assert!(!self.finished[from as usize]);
        let left = &mut self.left[from as usize];
        *left = left.checked_sub(count).expect("no more than may pass");
        let came = &mut self.came[from as usize];
        came.resize(came.len() + count as usize, None);
    }

    fn finished(&mut self, from: Side, _: Instant) {
        assert!(!std::mem::replace(&mut self.finished[from as usize], true), "once");
    }
}

struct Pair {
    client: Scripted,
    backend: Scripted,
    sent: [Vec<u8>; 2],
    relay: Relay,
    tap: Option<Box<Watching>>,
    tools: Tools,
    now: Instant,
    /// The relay asked for another turn, or has not had one.
    again: bool,
    end: Option<End>,
    generator: u32,
}

impl Pair {
    fn new(splices: [bool; 2]) -> Pair {
        Pair::of(splices, [false; 2], Vec::new())
    }

    fn of(splices: [bool; 2], layered: [bool; 2], ahead: Vec<u8>) -> Pair {
        let now = Instant::now();
        let socket = |side: Side| Scripted {
            splices: Cell::new(splices[side as usize]),
            layered: layered[side as usize],
            at_most: Cell::new(usize::MAX),
            ..Scripted::default()
        };
        Pair {
            client: socket(Side::Client),
            backend: socket(Side::Backend),
            sent: [ahead.clone(), Vec::new()],
            relay: Relay::new(now, ahead),
            tap: None,
            tools: Tools::default(),
            now,
            again: true,
            end: None,
            generator: 1,
        }
    }

    fn socket(&self, side: Side) -> &Scripted {
        match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        }
    }

    fn sent(&self, side: Side) -> &[u8] {
        &self.sent[side as usize]
    }

    fn happen(&mut self, side: Side, event: &Event) {
        let over = self.socket(side).fin.get() || self.socket(side).reset.get();
        match *event {
            Event::Arrive(count) if !over => {
                let mut bytes = Vec::with_capacity(count);
                for _ in 0..count {
                    self.generator = self.generator.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    bytes.push((self.generator >> 24) as u8);
                }
                self.sent[side as usize].extend_from_slice(&bytes);
                self.socket(side).happen(|socket| socket.arrived.borrow_mut().extend(bytes));
            }
            Event::Fin if !over => self.socket(side).happen(|socket| socket.fin.set(true)),
            Event::Reset if !self.socket(side).reset.get() => self.socket(side).happen(|socket| {
                socket.reset.set(true);
                // What it has not acknowledged stays unacknowledged for good.
                socket.error.set(true);
            }),
            Event::Room(count) => {
                self.socket(side)
                    .happen(|socket| socket.send_buffer.set(socket.send_buffer.get().saturating_add(count)));
            }
            Event::Acknowledge(count) if !self.socket(side).reset.get() => {
                let (socket, full) = (self.socket(side), self.socket(side).is_full());
                socket.unacknowledged.set(socket.unacknowledged.get().saturating_sub(count));
                // epoll tells of room where there was none, never of the last acknowledgement.
                if full && !socket.is_full() {
                    socket.happen(|_| ());
                }
            }
            // A change of sizes alone is no event of epoll.
            Event::AtMost(count) => self.socket(side).at_most.set(count),
            Event::Arrive(_) | Event::Fin | Event::Reset | Event::Acknowledge(_) => {}
        }
    }

    /// Polls as a worker would: only when woken, or when the relay asked to be at this time.
    fn run(&mut self) {
        while self.end.is_none() {
            let due = self.relay.wake_at().is_some_and(|at| at <= self.now);
            let told = self.client.tell.take() | self.backend.tell.take();
            if !std::mem::take(&mut self.again) && !told && !due {
                break;
            }
            let turn = self.relay.turn(&self.client, &self.backend, &mut self.tools, &mut self.tap, self.now, self.now);
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
    fn open_the_gates(&mut self) {
        for side in [Side::Client, Side::Backend] {
            self.socket(side).at_most.set(usize::MAX);
            self.happen(side, &Event::Room(usize::MAX / 2));
        }
        // The wait for acknowledgements has grown meanwhile.
        for _ in 0..3 {
            self.run();
            self.happen(Side::Client, &Event::Acknowledge(ALL));
            self.happen(Side::Backend, &Event::Acknowledge(ALL));
            self.now += Duration::from_secs(2);
        }
    }
}

/// What must hold of what the tap has seen: all that was read, in order, in place.
fn check_seen(pair: &Pair, ahead: usize) -> Result<(), TestCaseError> {
    let Some(tap) = &pair.tap else { return Ok(()) };
    for side in [Side::Client, Side::Backend] {
        let read = pair.sent(side).len() - pair.socket(side).arrived.borrow().len();
        let skipped = if side == Side::Client { ahead } else { 0 };
        let came = &tap.came[side as usize];
        prop_assert_eq!(came.len(), read - skipped, "bytes from the {}", side);
        let differs = came.iter().zip(&pair.sent(side)[skipped..]).any(|(seen, sent)| seen.is_some_and(|b| b != *sent));
        prop_assert!(!differs, "bytes from the {} were not seen as they are", side);
    }
    Ok(())
}

/// What must hold of what `side` has received, `other` being its counterpart.
fn check_received(pair: &Pair, side: Side) -> Result<(), TestCaseError> {
    let (socket, other) = (pair.socket(side), pair.socket(side.other()));
    let (received, sent) = (socket.written.borrow(), pair.sent(side.other()));
    prop_assert!(sent.starts_with(&received), "bytes to the {side} differ from those sent");
    if socket.reset.get() {
        return Ok(()); // It is gone: how much it got before is its own affair.
    }
    prop_assert_eq!(received.len(), sent.len(), "all bytes reach the {}", side);
    // A FIN that arrived just before the RST may have been passed on or not; a RST alone is never one.
    let fin = if other.reset.get() { socket.told_fin.get() && other.fin.get() } else { other.fin.get() };
    prop_assert_eq!(socket.told_fin.get(), fin, "FIN to the {}", side);
    prop_assert_eq!(socket.told_reset.get(), other.reset.get(), "RST to the {}, and nothing else is one", side);
    Ok(())
}

/// The end of a socket is noticed in the turn in which it is reported, whatever state the relay is in.
fn check_noticed(pair: &Pair) -> Result<(), TestCaseError> {
    let resets = [pair.client.reset.get(), pair.backend.reset.get()];
    if pair.end.is_some() || resets == [false, false] {
        return Ok(());
    }
    prop_assert!(pair.relay.is_half_closed(), "a reset was not noticed: {resets:?}");
    prop_assert!(resets != [true, true], "both sides are gone, and the relay lives");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever arrives, in whatever pieces and order: both sides see what they must, and the relay ends.
    #[test]
    fn each_side_sees_what_the_other_did(
        splices in any::<[bool; 2]>(),
        layered in any::<[bool; 2]>(),
        ahead in prop::collection::vec(any::<u8>(), 0..3_000),
        lets_pass in prop::option::of(prop::collection::vec(prop_oneof![Just(0), 1..200_000u64, Just(u64::MAX)], 1..5)),
        script in prop::collection::vec((any::<bool>(), event()), 0..60),
    ) {
        let mut pair = Pair::of(splices, layered, ahead.clone());
        pair.tap = lets_pass.map(|lets_pass| Box::new(Watching { lets_pass, ..Watching::default() }));
        for (client, event) in &script {
            pair.happen(if *client { Side::Client } else { Side::Backend }, event);
            pair.run();
            check_noticed(&pair)?;
            pair.now += Duration::from_micros(700);
        }
        pair.open_the_gates();
        if pair.end.is_none() {
            // Nothing in flight: no buffer and no pipe is held.
            prop_assert!(pair.relay.holds_nothing());
            for side in [Side::Client, Side::Backend] {
                prop_assert!(!pair.socket(side).reset.get(), "the {} has reset, and that was not passed on", side);
                check_received(&pair, side)?;
            }
            pair.happen(Side::Client, &Event::Fin);
            pair.happen(Side::Backend, &Event::Fin);
            pair.open_the_gates();
        }
        let resets = [pair.client.reset.get(), pair.backend.reset.get()];
        match pair.end {
            None => prop_assert!(false, "it does not end"),
            Some(End::Closed(first)) => prop_assert!(pair.socket(first).fin.get()),
            Some(End::Reset(side)) => prop_assert!(pair.socket(side).reset.get()),
            Some(End::Lost(_) | End::Garbled(_)) => prop_assert!(false, "nobody was lost"),
        }
        if !matches!(pair.end, Some(End::Closed(_))) || resets == [false, false] {
            check_received(&pair, Side::Client)?;
            check_received(&pair, Side::Backend)?;
        }
        check_seen(&pair, ahead.len())?;
        for (socket, moved) in [(&pair.client, pair.relay.bytes_to_client()), (&pair.backend, pair.relay.bytes_to_backend())] {
            let written = socket.written.borrow().len() as u64;
            // What a layer holds for somebody who is gone was taken all the same.
            prop_assert!(moved == written || moved > written && socket.layered && socket.reset.get());
        }
        drop(pair.relay);
        prop_assert_eq!(pair.tools.lent(), 0, "every pipe came back");
    }
}

/// A pair between which `count` bytes from the client have moved.
fn after_sending(count: usize) -> Pair {
    let mut pair = Pair::new([true, true]);
    pair.happen(Side::Backend, &Event::Room(usize::MAX / 2));
    pair.happen(Side::Client, &Event::Arrive(count));
    pair.run();
    pair
}

#[test]
fn much_goes_by_splice_and_little_goes_back_to_copying() {
    let mut pair = after_sending(1 << 20);
    assert_eq!(pair.backend.written.borrow().len(), 1 << 20);
    assert!(pair.relay.to_backend.splices(), "1 MiB at once is worth a pipe");
    for _ in 0..8 {
        pair.happen(Side::Client, &Event::Arrive(100));
        pair.run();
    }
    assert!(!pair.relay.to_backend.splices(), "100 bytes at a time are not");
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
}

#[test]
fn what_a_tap_lets_pass_goes_by_splice_and_not_a_byte_more() {
    let mut pair = Pair::new([true, true]);
    // One to see first; then much, then again one, then little.
    let lets_pass = vec![1000, 100_000 + (1 << 20), 1000];
    pair.tap = Some(Box::new(Watching { lets_pass, ..Watching::default() }));
    pair.happen(Side::Backend, &Event::Room(usize::MAX / 2));
    for _ in 0..4 {
        pair.happen(Side::Client, &Event::Arrive(32 << 10));
        pair.run();
    }
    pair.tap.as_mut().unwrap().left[0] = 100_000 + (1 << 20);
    pair.happen(Side::Client, &Event::Arrive(2 << 20));
    pair.run();
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
    let came = &pair.tap.as_ref().unwrap().came[0];
    assert_eq!(came.len(), pair.sent(Side::Client).len());
    let first = came.iter().position(Option::is_none).expect("something passed");
    let passed = came[first..].iter().take_while(|byte| byte.is_none()).count();
    // What is left of it when it is little is copied.
    assert!(((36_000 + (1 << 20))..=100_000 + (1 << 20)).contains(&passed), "{passed}");
    assert!(pair.relay.to_backend.splices());
}

#[test]
fn one_stream_does_not_keep_the_worker() {
    let mut pair = Pair::new([true, true]);
    pair.happen(Side::Backend, &Event::Room(usize::MAX / 2));
    pair.happen(Side::Client, &Event::Arrive(8 << 20));
    let turn = pair.relay.turn(&pair.client, &pair.backend, &mut pair.tools, &mut pair.tap, pair.now, pair.now);
    assert_eq!(turn, Turn::Again, "it asks for the next turn");
    assert!(pair.backend.written.borrow().len() <= 512 << 10, "one turn is bounded");
}

#[test]
fn a_receiver_that_stands_still_holds_back_its_sender() {
    let mut pair = Pair::new([true, true]);
    pair.happen(Side::Client, &Event::Arrive(8 << 20));
    pair.run();
    let kept = pair.sent(Side::Client).len() - pair.client.arrived.borrow().len();
    assert!(kept <= 64 << 10, "{kept} bytes were read that nobody takes");
}

#[test]
fn reset_waits_for_the_bytes_before_it() {
    let mut pair = after_sending(1000);
    pair.happen(Side::Client, &Event::Reset);
    for _ in 0..5 {
        pair.run();
        assert_eq!(pair.end, None, "1,000 bytes are under way");
        assert!(pair.relay.wake_at().is_some());
        pair.now += Duration::from_secs(1);
    }
    pair.happen(Side::Backend, &Event::Acknowledge(ALL));
    pair.run();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert!(pair.backend.told_reset.get() && !pair.backend.told_fin.get());
}

#[test]
fn a_reset_met_in_writing_is_no_fin_for_the_other_side() {
    let mut pair = Pair::new([false, false]);
    // The backend's room is used up, so that the client's bytes are not read when the RST arrives.
    pair.happen(Side::Client, &Event::Arrive(40_000));
    pair.run();
    pair.happen(Side::Client, &Event::Reset);
    pair.happen(Side::Client, &Event::Room(usize::MAX / 2));
    pair.happen(Side::Backend, &Event::Arrive(10));
    pair.run();
    assert_eq!(pair.end, None);
    pair.open_the_gates();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
    assert!(pair.backend.told_reset.get() && !pair.backend.told_fin.get());
}

#[test]
fn a_client_that_has_finished_and_then_resets_is_noticed() {
    let mut pair = after_sending(10);
    pair.happen(Side::Client, &Event::Fin);
    pair.run();
    assert!(pair.backend.told_fin.get());
    pair.happen(Side::Backend, &Event::Acknowledge(ALL));
    pair.happen(Side::Client, &Event::Reset);
    pair.run();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert!(pair.backend.told_reset.get());
}

#[test]
fn a_reset_of_a_sender_that_waits_for_its_receiver_is_noticed() {
    // The backend takes nothing: what the client sent is stuck in the relay, and behind it comes its reset.
    let mut pair = Pair::new([true, true]);
    pair.happen(Side::Client, &Event::Arrive(1 << 20));
    pair.run();
    assert!(!pair.relay.is_half_closed());
    pair.happen(Side::Client, &Event::Reset);
    pair.run();
    assert!(pair.relay.is_half_closed(), "half_close counts from here");
    // What was sent before the reset is delivered all the same, if the backend goes on.
    pair.open_the_gates();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
}

#[test]
fn both_sides_reset_ends_the_relay_at_once() {
    for fin_before in [false, true] {
        for first in [Side::Client, Side::Backend] {
            let mut pair = after_sending(60_000);
            if fin_before {
                pair.happen(Side::Client, &Event::Fin);
                pair.run();
            }
            pair.happen(first, &Event::Reset);
            pair.run();
            pair.happen(first.other(), &Event::Reset);
            pair.run();
            assert_eq!(pair.end, Some(End::Reset(first)), "{first} first, after a FIN: {fin_before}");
        }
    }
}

#[test]
fn waiting_for_acknowledgements_that_do_not_come_gets_cheap() {
    let mut pair = after_sending(1_000);
    pair.happen(Side::Client, &Event::Reset);
    let mut looks = 0;
    let end = pair.now + Duration::from_secs(60);
    while pair.now < end {
        pair.run();
        looks += 1;
        pair.now = pair.relay.wake_at().expect("it looks again");
    }
    assert!(looks <= 10 + 60, "{looks} looks in a minute");
}

#[test]
fn first_byte_is_timed_from_the_clients_first_byte() {
    let mut pair = Pair::new([true, true]);
    pair.run();
    pair.now += Duration::from_secs(5);
    pair.happen(Side::Backend, &Event::Room(1000));
    pair.happen(Side::Client, &Event::Room(1000));
    pair.happen(Side::Client, &Event::Arrive(10));
    pair.run();
    pair.now += Duration::from_millis(30);
    pair.happen(Side::Client, &Event::Arrive(10));
    pair.run();
    assert_eq!(pair.relay.take_first_byte(), None);
    pair.now += Duration::from_millis(12);
    pair.happen(Side::Backend, &Event::Arrive(10));
    pair.run();
    assert_eq!(pair.relay.take_first_byte(), Some(Duration::from_millis(42)));
    pair.happen(Side::Backend, &Event::Arrive(10));
    pair.run();
    assert_eq!(pair.relay.take_first_byte(), None, "once");
}

#[test]
fn without_pipes_it_copies() {
    let mut pair = Pair::new([true, true]);
    let all: Vec<_> = std::iter::from_fn(|| pair.tools.lend()).collect();
    assert_eq!(all.len(), super::MAX_PIPES);
    pair.happen(Side::Backend, &Event::Room(usize::MAX / 2));
    pair.happen(Side::Client, &Event::Arrive(1 << 20));
    pair.run();
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
}
