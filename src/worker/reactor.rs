//! Readiness: one epoll, in which each connection's socket is registered once, edge-triggered.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use slab::Slab;

use super::waiter::Waiting;

/// Events taken from the kernel at once. Large, because a new connection's event is the last in the kernel's queue.
const BATCH: usize = 1024;
/// The eventfd through which other threads wake the loop.
const REMOTE: u64 = u64::MAX;

pub(super) struct Reactor {
    epoll: OwnedFd,
    slots: RefCell<Slab<Rc<Slot>>>,
    /// Tells a new socket from a closed one with the same key, whose events go on while a duplicate is open.
    generation: Cell<u16>,
    events: RefCell<Vec<epoll::Event>>,
}

/// A socket's state, shared between it and the loop.
pub(super) struct Slot {
    key: Cell<u32>,
    generation: u16,
    ready: Cell<Ready>,
    /// Woken at each event.
    waiting: Waiting,
}

/// A socket's readiness, as epoll reported it and no system call has refuted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready(u8);

impl Ready {
    pub(super) const READABLE: Ready = Ready(1);
    pub(super) const WRITABLE: Ready = Ready(2);
    /// The peer has finished or is gone: reads end in EOF or an error. Never cleared.
    pub(super) const READ_CLOSED: Ready = Ready(4);
    /// Both directions are shut, or the socket has an error. Never cleared.
    pub(super) const GONE: Ready = Ready(8);
    /// All was read and FIN comes next: saves the read that returns zero. Never cleared.
    pub(super) const ENDED: Ready = Ready(32);
    /// Urgent data: a read stops before it although more follows. Cleared with READABLE.
    pub(super) const URGENT: Ready = Ready(16);
    /// The socket has failed: reset, or timed out in the kernel. Unlike [`Ready::GONE`], never just FIN in both directions.
    pub(super) const FAILED: Ready = Ready(64);
    /// FIN was sent: from now on, GONE may mean the peer's FIN.
    pub(super) const SHUT: Ready = Ready(128);

    pub(super) const fn union(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }

    pub(super) const fn intersects(self, other: Ready) -> bool {
        self.0 & other.0 != 0
    }

    const fn without(self, other: Ready) -> Ready {
        Ready(self.0 & !other.0)
    }

    fn of(flags: EventFlags) -> Ready {
        let mut ready = Ready(0);
        let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if flags.contains(EventFlags::IN) {
            ready = ready.union(Ready::READABLE);
        }
        if flags.contains(EventFlags::OUT) {
            ready = ready.union(Ready::WRITABLE);
        }
        if flags.contains(EventFlags::PRI) {
            ready = ready.union(Ready::URGENT).union(Ready::READABLE);
        }
        if flags.contains(EventFlags::RDHUP) {
            ready = ready.union(Ready::READ_CLOSED).union(Ready::READABLE);
        }
        if hung_up {
            let all = Ready::READABLE.union(Ready::WRITABLE).union(Ready::READ_CLOSED);
            ready = ready.union(Ready::GONE).union(all);
        }
        if flags.contains(EventFlags::ERR) {
            ready = ready.union(Ready::FAILED);
        }
        ready
    }
}

/// The events that a registration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// A connection: every change, once.
    Edges,
    /// A datagram socket: what comes in, once. Room for more is not waited for, and each datagram that is sent makes some.
    Datagrams,
    /// A listening socket: for as long as a connection waits to be accepted.
    Queue,
    /// Nothing.
    None,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Edges => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET,
            Interest::Datagrams => EventFlags::IN | EventFlags::ET,
            Interest::Queue => EventFlags::IN,
            Interest::None => EventFlags::empty(),
        }
    }
}

impl Slot {
    fn data(&self) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.key.get()))
    }

    pub(super) fn ready(&self) -> Ready {
        self.ready.get()
    }

    pub(super) fn clear(&self, what: Ready) {
        self.ready.set(self.ready.get().without(what));
    }

    pub(super) fn set(&self, what: Ready) {
        self.ready.set(self.ready.get().union(what));
    }

    /// Has the future that is polled now woken at the socket's events, instead of the one that waited last.
    pub(super) fn set_waiter(&self) {
        self.waiting.register();
    }
}

/// An epoll that `remote`, an eventfd, can wake.
pub(super) fn open(remote: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    // Level-triggered: the loop reads it empty each time.
    epoll::add(&epoll, remote, EventData::new_u64(REMOTE), EventFlags::IN)?;
    Ok(epoll)
}

impl Reactor {
    pub(super) fn new(epoll: OwnedFd) -> Reactor {
        Reactor {
            epoll,
            slots: RefCell::default(),
            generation: Cell::new(0),
            events: RefCell::new(Vec::with_capacity(BATCH)),
        }
    }

    /// Registers a socket for the rest of its life.
    pub(super) fn register(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Rc<Slot>> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let ready = Cell::new(Ready(0));
        let slot = Rc::new(Slot { key: Cell::new(0), generation, ready, waiting: Waiting::default() });
        let key = self.slots.borrow_mut().insert(Rc::clone(&slot));
        slot.key.set(key as u32);
        if let Err(error) = epoll::add(&self.epoll, fd, slot.data(), interest.flags()) {
            self.slots.borrow_mut().remove(key);
            return Err(error.into());
        }
        Ok(slot)
    }

    /// Changes what a listening socket's events are.
    pub(super) fn reregister(&self, fd: BorrowedFd<'_>, slot: &Slot, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, slot.data(), interest.flags())?)
    }

    /// Takes a socket out of the epoll, as its close may not: a duplicate may be open.
    pub(super) fn deregister(&self, fd: BorrowedFd<'_>, slot: &Slot) {
        // Cannot fail for a registered, open socket.
        let _ = epoll::delete(&self.epoll, fd);
        self.forget(slot);
    }

    /// Forgets a socket that is about to be closed; the close takes it out of the epoll.
    pub(super) fn forget(&self, slot: &Slot) {
        self.slots.borrow_mut().remove(slot.key.get() as usize);
    }

    /// Waits for events, at most for `timeout`; `None` waits without limit.
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        let mut events = self.events.borrow_mut();
        events.clear();
        let timeout = timeout.map(rounded_up);
        // On EINTR the caller reads the clock and comes back. No other error is possible with a valid epoll and buffer.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
    }

    /// Marks the sockets of the events that were taken, and wakes their waiters. True if another thread has posted a
    /// message.
    pub(super) fn dispatch(&self) -> bool {
        let mut remote = false;
        for event in &*self.events.borrow() {
            // Copied out: the kernel's struct is packed.
            let (flags, data) = (event.flags, event.data.u64());
            if data == REMOTE {
                remote = true;
                continue;
            }
            // Cloned: a waker may run anything, and that may register or close a socket.
            let Some(slot) = self.slots.borrow().get(data as u32 as usize).cloned() else { continue };
            if u64::from(slot.generation) != data >> 32 {
                continue;
            }
            slot.set(Ready::of(flags));
            slot.waiting.wake();
        }
        remote
    }
}

/// Whole milliseconds, as epoll_wait(2) takes them; rounded down, the loop would spin.
fn rounded_up(timeout: Duration) -> Timespec {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    // At most a day for one wait.
    let millis = u64::try_from(millis).unwrap_or(u64::MAX).min(86_400_000);
    Timespec { tv_sec: (millis / 1000) as i64, tv_nsec: ((millis % 1000) * 1_000_000) as i64 }
}
