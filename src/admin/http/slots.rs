//! Connections of the admin interface: how many of each kind, and for how long.
//!
//! Every connection is a stranger until its request is admitted. Strangers never keep others out: when they are too
//! many, the one that came first makes room. A client that sends its request at once is therefore served even while others
//! hold silent connections.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::net::addr::Address;

/// Between two looks whether all answers have been sent.
const ANSWERED_POLL: Duration = Duration::from_millis(1);

/// What a connection is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionKind {
    /// Its request is not there yet, or it gets what needs no token: a probe's answer, a file of the page, a refusal.
    Stranger,
    /// It gets an answer that has to be made.
    Answer,
    /// It gets events for as long as it stays.
    Stream,
    /// It changes something.
    Change,
    /// It removes a backend, and waits until that is gone.
    Wait,
}

const KINDS: usize = 5;

impl ConnectionKind {
    pub(super) const fn limit(self) -> usize {
        match self {
            ConnectionKind::Stranger => 64,
            ConnectionKind::Answer => 64,
            ConnectionKind::Stream => 64,
            ConnectionKind::Change => 16,
            ConnectionKind::Wait => 64,
        }
    }

    /// From when it becomes one until it must have ended. The end of a stream's write is bounded by
    /// [`WriteTimeout`](super::super::write_timeout::WriteTimeout).
    const fn time_limit(self) -> Option<Duration> {
        match self {
            ConnectionKind::Stranger => Some(Duration::from_secs(5)),
            ConnectionKind::Answer => Some(Duration::from_secs(60)),
            ConnectionKind::Stream => None,
            // The longest wait, and some time to send.
            ConnectionKind::Wait => Some(Duration::from_secs(660)),
            // An upgrade takes a minute at most.
            ConnectionKind::Change => Some(Duration::from_secs(120)),
        }
    }
}

/// Connections at once, all kinds together.
pub(in crate::admin) const MAX_CONNECTIONS: usize = ConnectionKind::Stranger.limit()
    + ConnectionKind::Answer.limit()
    + ConnectionKind::Stream.limit()
    + ConnectionKind::Change.limit()
    + ConnectionKind::Wait.limit();

/// All connections, by kind and in the order in which they came.
#[derive(Debug, Default)]
pub(in crate::admin) struct ConnectionSlots {
    members: RefCell<[BTreeMap<u64, SlotTask>; KINDS]>,
    next: Cell<u64>,
}

/// The task of a connection, and where it was accepted.
#[derive(Debug)]
struct SlotTask {
    task: AbortHandle,
    address: Address,
}

/// The slot of one connection. Dropped with it.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: Rc<ConnectionSlots>,
    number: u64,
    kind: Cell<ConnectionKind>,
    deadline: Cell<Option<Instant>>,
}

/// No slot of a kind is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotsFull;

impl ConnectionSlots {
    /// Starts a connection that was accepted at `address` as a stranger. `start` spawns its task.
    pub(super) fn enter(self: &Rc<Self>, address: &Address, start: impl FnOnce(ConnectionSlot) -> AbortHandle) {
        let number = self.next.replace(self.next.get() + 1);
        let kind = ConnectionKind::Stranger;
        let slot = ConnectionSlot {
            slots: Rc::clone(self),
            number,
            kind: Cell::new(kind),
            deadline: Cell::new(deadline(kind)),
        };
        // Also when the task ends at once: a task does not run before it is polled, which is later.
        let task = start(slot);
        let mut members = self.members.borrow_mut();
        let strangers = &mut members[kind as usize];
        if strangers.len() >= kind.limit()
            && let Some((_, first)) = strangers.pop_first()
        {
            first.task.abort();
        }
        strangers.insert(number, SlotTask { task, address: address.clone() });
    }

    /// Until every answer that was asked for has been sent.
    pub(in crate::admin) async fn answered(&self) {
        let is_due = || {
            let members = self.members.borrow();
            [ConnectionKind::Answer, ConnectionKind::Change].iter().any(|kind| !members[*kind as usize].is_empty())
        };
        while is_due() {
            sleep(ANSWERED_POLL).await;
        }
    }

    /// Ends all streams, because what admitted them holds no longer.
    pub(in crate::admin) fn end_streams(&self) {
        self.end_streams_where(|_| true);
    }

    /// Ends the streams of addresses for which this holds.
    pub(in crate::admin) fn end_streams_where(&self, ends: impl Fn(&Address) -> bool) {
        let members = &mut self.members.borrow_mut()[ConnectionKind::Stream as usize];
        members.extract_if(.., |_, stream| ends(&stream.address)).for_each(|(_, stream)| stream.task.abort());
    }
}

impl ConnectionSlot {
    /// Becomes a connection of another kind.
    ///
    /// # Errors
    /// There are as many of them as there may be; it stays what it is.
    pub(super) fn become_kind(&self, kind: ConnectionKind) -> Result<(), SlotsFull> {
        let mut members = self.slots.members.borrow_mut();
        if members[kind as usize].len() >= kind.limit() {
            return Err(SlotsFull);
        }
        // One that was aborted just now is not there any more.
        if let Some(task) = members[self.kind.get() as usize].remove(&self.number) {
            members[kind as usize].insert(self.number, task);
        }
        self.kind.set(kind);
        self.deadline.set(deadline(kind));
        Ok(())
    }

    /// Ends when the connection must.
    pub(super) async fn overdue(&self) {
        loop {
            match self.deadline.get() {
                None => return std::future::pending().await,
                Some(deadline) if deadline <= Instant::now() => return,
                // It may be a later one by then, but never an earlier one.
                Some(deadline) => sleep_until(deadline).await,
            }
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.members.borrow_mut()[self.kind.get() as usize].remove(&self.number);
    }
}

fn deadline(kind: ConnectionKind) -> Option<Instant> {
    kind.time_limit().map(|limit| Instant::now() + limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    /// Connections that become of this kind, if they can, and stay until they are ended; and the slots of those that are there.
    async fn enter(slots: &Rc<ConnectionSlots>, count: usize, kind: ConnectionKind) -> Rc<RefCell<Vec<u64>>> {
        let there = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..count {
            slots.enter(&at(1), |slot| {
                let there = Rc::clone(&there);
                let connection = async move {
                    if kind == ConnectionKind::Stranger || slot.become_kind(kind).is_ok() {
                        let number = slot.number;
                        there.borrow_mut().push(number);
                        let _leave = leave_at_end(Rc::clone(&there), number);
                        slot.overdue().await;
                    }
                };
                spawn_local(connection).abort_handle()
            });
            yield_now().await;
        }
        settle().await;
        there
    }

    fn at(port: u16) -> Address {
        Address::Tcp(([127, 0, 0, 1], port).into())
    }

    /// The paused clock moves on once every task waits.
    async fn settle() {
        sleep(Duration::from_millis(1)).await;
    }

    struct Leave(Rc<RefCell<Vec<u64>>>, u64);

    fn leave_at_end(there: Rc<RefCell<Vec<u64>>>, number: u64) -> Leave {
        Leave(there, number)
    }

    impl Drop for Leave {
        fn drop(&mut self) {
            self.0.borrow_mut().retain(|number| *number != self.1);
        }
    }

    fn counts(slots: &ConnectionSlots) -> [usize; KINDS] {
        slots.members.borrow().each_ref().map(BTreeMap::len)
    }

    #[tokio::test(start_paused = true)]
    async fn first_stranger_makes_room_for_the_next() {
        let test = async {
            let slots = Rc::default();
            let there = enter(&slots, ConnectionKind::Stranger.limit() + 3, ConnectionKind::Stranger).await;
            assert_eq!(there.borrow().first(), Some(&3));
            assert_eq!(there.borrow().len(), ConnectionKind::Stranger.limit());
            assert_eq!(counts(&slots), [ConnectionKind::Stranger.limit(), 0, 0, 0, 0]);
            sleep(Duration::from_secs(5)).await;
            settle().await;
            assert_eq!((there.borrow().len(), counts(&slots)), (0, [0, 0, 0, 0, 0]), "silent for too long");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_have_limits_of_their_own() {
        let test = async {
            let slots = Rc::default();
            let streams = enter(&slots, ConnectionKind::Stream.limit() + 2, ConnectionKind::Stream).await;
            let answers = enter(&slots, ConnectionKind::Answer.limit() + 2, ConnectionKind::Answer).await;
            let strangers = enter(&slots, 2 * ConnectionKind::Stranger.limit(), ConnectionKind::Stranger).await;
            assert_eq!(counts(&slots), [64, 64, 64, 0, 0]);
            assert_eq!(streams.borrow().first(), Some(&0), "who is admitted stays");
            sleep(Duration::from_secs(5)).await;
            settle().await;
            assert_eq!(counts(&slots), [0, ConnectionKind::Answer.limit(), ConnectionKind::Stream.limit(), 0, 0]);
            sleep(Duration::from_secs(55)).await;
            settle().await;
            assert_eq!(counts(&slots), [0, 0, ConnectionKind::Stream.limit(), 0, 0], "readers that are too slow");
            slots.end_streams_where(|address| *address == at(2));
            settle().await;
            assert_eq!(counts(&slots), [0, 0, ConnectionKind::Stream.limit(), 0, 0], "those of another address");
            slots.end_streams();
            settle().await;
            assert_eq!(counts(&slots), [0; KINDS]);
            assert!([streams, answers, strangers].iter().all(|there| there.borrow().is_empty()));
            enter(&slots, 1, ConnectionKind::Stream).await;
            assert_eq!(counts(&slots), [0, 0, 1, 0, 0]);
        };
        LocalSet::new().run_until(test).await;
    }
}
