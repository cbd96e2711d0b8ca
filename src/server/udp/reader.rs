//! A listening socket: which session each datagram is of, and which clients get one.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use rustix::io::Errno;

use super::super::accepting::Accepting;
use super::super::crew::CrewMember;
use super::super::listener::Listener;
use super::super::plane_state::AcceptGuard;
use super::super::session::Permits;
use super::super::worker_state::WorkerState;
use super::admit::{AdmittedClient, admit, rules};
use super::client_datagram::{ClientDatagram, sum, whole};
use super::handover::HandedSession;
use super::scratch;
use super::session::{SessionOwner, UdpSession};
use crate::net::addr::Address;
use crate::net::datagrams::{MAX_BATCH, ReceiveBatch};
use crate::net::listen::local_address;
use crate::net::sys::{UDP_GRO, set_option};
use crate::stats::registry::ListenerId;
use crate::stats::termination::Termination;
use crate::stats::udp::DatagramDrop;
use crate::udp::{FirstDatagrams, FlowCounts, FlowId, FlowKey, FlowTable, HeldDatagrams, Reply};
use crate::worker::{self, DatagramSocket, Timer, Waiter, poll_fn};

/// Batches that are read in a turn of the loop, before others have theirs.
const BATCHES: usize = 16;

/// Sessions that are opened in a turn of the loop: each costs some ten system calls.
const OPENED: usize = 32;

/// The same while more waits to be read than a turn reads: a flood, or its beginning.
const OPENED_BUSY: usize = 4;

/// First datagrams that wait for a session, and their bytes.
const WAITING: usize = 4096;
const WAITING_BYTES: usize = 2 << 20;

/// First datagrams that are kept until the backend answers, to be sent to another one if it refuses them, and the size of the largest.
const HELD: usize = 256;
const HELD_BYTES: usize = 2048;

thread_local! {
    /// Of this worker.
    static READERS: RefCell<Vec<Rc<DatagramReader>>> = const { RefCell::new(Vec::new()) };
}

/// Gives up those of this worker.
pub(super) fn release() {
    // Taken out first: what they drop may look here.
    for reader in READERS.with(RefCell::take) {
        reader.take_sessions().iter().for_each(|(_, session, _)| session.finish(Termination::InternalError));
    }
}

/// Those of this worker.
pub(super) fn all() -> Vec<Rc<DatagramReader>> {
    READERS.with(|readers| readers.borrow().clone())
}

/// The one of this worker that has this socket.
pub(super) fn find(listener: ListenerId, address: &Address, number: usize) -> Option<Rc<DatagramReader>> {
    READERS.with(|readers| readers.borrow().iter().rfind(|it| it.is_of(listener, address, number)).cloned())
}

/// A listening socket of this worker, with its sessions.
pub(super) struct DatagramReader {
    state: Rc<WorkerState>,
    accepting: Rc<Accepting>,
    socket: DatagramSocket,
    /// As bound.
    local: SocketAddr,
    table: RefCell<FlowTable<Rc<UdpSession>>>,
    backlog: RefCell<FirstDatagrams>,
    held: RefCell<HeldDatagrams>,
    /// Datagrams that the kernel had dropped when the last one came.
    dropped: Cell<u32>,
    receives_trains: Cell<bool>,
    guard: RefCell<Option<AcceptGuard>>,
    /// Sessions that another worker has gone on with since this one has the socket.
    elsewhere: RefCell<HashMap<FlowKey, Arc<CrewMember>>>,
    /// The worker that has the socket now.
    successor: RefCell<Option<Arc<CrewMember>>>,
    task: OnceCell<Waiter>,
}

impl DatagramReader {
    pub(super) fn new(
        listener: Arc<Listener>,
        address: Address,
        number: usize,
        socket: OwnedFd,
        before: Vec<(FlowKey, Arc<CrewMember>)>,
    ) -> io::Result<Rc<DatagramReader>> {
        let state = WorkerState::current();
        let local = match local_address(&socket)? {
            Address::Tcp(address) => address,
            Address::Unix(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        };
        let rules = rules(&listener);
        let accepting = Rc::new(Accepting::new(listener, address, number));
        if state.has_stopped_accepting() {
            accepting.stop();
        }
        state.accepts(&accepting);
        Ok(Rc::new(DatagramReader {
            guard: RefCell::new(Some(state.plane.accepts())),
            state,
            accepting,
            socket: DatagramSocket::new(socket)?,
            local,
            table: RefCell::new(FlowTable::new(rules)),
            backlog: RefCell::new(FirstDatagrams::new(WAITING, WAITING_BYTES)),
            held: RefCell::new(HeldDatagrams::new(HELD, HELD_BYTES)),
            dropped: Cell::default(),
            receives_trains: Cell::default(),
            elsewhere: RefCell::new(before.into_iter().collect()),
            successor: RefCell::default(),
            task: OnceCell::new(),
        }))
    }

    fn is_of(&self, listener: ListenerId, address: &Address, number: usize) -> bool {
        self.accepting.listener().id() == listener
            && self.accepting.address == *address
            && self.accepting.number == number
    }

    /// Reads until it is stopped and the last session has ended.
    pub(super) async fn run(self: Rc<Self>) {
        READERS.with(|readers| readers.borrow_mut().push(Rc::clone(&self)));
        self.serve().await;
        READERS.with(|readers| readers.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self)));
    }

    async fn serve(self: &Rc<Self>) {
        self.accepting.begin();
        if let Some(task) = Waiter::current() {
            // Once in the task's life.
            let _ = self.task.set(task);
        }
        let mut timer = Timer::default();
        poll_fn(|_| {
            if self.accepting.is_stopped() {
                self.guard.take();
                if self.table.borrow().is_empty() {
                    return Poll::Ready(());
                }
            }
            let now = worker::now();
            self.table.borrow_mut().set_rules(rules(&self.accepting.listener()));
            self.expire(now);
            if self.successor.borrow().is_none() && !self.is_held() {
                let is_empty = self.read(now);
                self.open_waiting(if is_empty { OPENED } else { OPENED_BUSY }, now);
            }
            let next = self.table.borrow().next_expiry();
            if let Some(at) = next
                && timer.poll_expired(at).is_ready()
            {
                worker::reschedule();
            }
            Poll::Pending
        })
        .await;
    }

    fn expire(&self, now: Instant) {
        loop {
            let expired = self.table.borrow_mut().expire(now);
            let Some((key, session)) = expired else { break };
            self.forget(key);
            session.finish(Termination::IdleTimeout);
        }
    }

    /// Whether nothing is left to be read.
    fn read(self: &Rc<Self>, now: Instant) -> bool {
        for _ in 0..BATCHES {
            if self.socket.poll_readable().is_pending() {
                return true;
            }
            let received = scratch::with(|batch| {
                let count = batch.receive(&self.socket, MAX_BATCH)?;
                let mut place = 0;
                while place < count {
                    place += self.take(batch, place, count, now);
                }
                Ok(count)
            });
            match received {
                Ok(count) if count < MAX_BATCH => self.socket.clear_readable(),
                Ok(_) | Err(Errno::INTR) => {}
                // Errors are told once; datagrams may be behind one.
                Err(Errno::AGAIN) => self.socket.clear_readable(),
                Err(_) => {}
            }
        }
        worker::reschedule();
        false
    }

    /// Takes the datagrams from `first` on that are of the same client. Returns how many.
    fn take(self: &Rc<Self>, batch: &ReceiveBatch, first: usize, count: usize, now: Instant) -> usize {
        let mut key = None;
        let mut datagrams: Vec<ClientDatagram<'_>> = Vec::new();
        for place in first..count {
            let Some(it) = batch.get(place) else { break };
            if let Some(dropped) = it.dropped {
                let more = dropped.wrapping_sub(self.dropped.replace(dropped));
                if more > 0 {
                    self.drop_datagrams(DatagramDrop::SocketBuffer, more.into());
                }
            }
            let Some(peer) = it.peer else { break };
            let local = SocketAddr::new(it.local.unwrap_or(self.local.ip()), self.local.port());
            let own = FlowKey { client: peer, local };
            if *key.get_or_insert(own) != own {
                break;
            }
            datagrams.push(ClientDatagram { bytes: it.bytes, segment: it.segment });
        }
        let (Some(key), taken) = (key, datagrams.len().max(1)) else { return 1 };
        if taken == MAX_BATCH && !self.receives_trains.replace(true) {
            // One client sends faster than this is read. Without the option, all is as before.
            let _ = set_option(&self.socket, UDP_GRO, 1);
        }
        self.arrived(key, &datagrams, now);
        taken
    }

    fn arrived(self: &Rc<Self>, key: FlowKey, datagrams: &[ClientDatagram<'_>], now: Instant) {
        let (count, bytes) = sum(datagrams);
        let known = self.table.borrow_mut().arrived(&key, count, bytes, now);
        if let Some(id) = known {
            let session = self.table.borrow().get(id).map(Rc::clone);
            if let Some(session) = session {
                session.forward(datagrams, now);
            }
            return;
        }
        let elsewhere = self.elsewhere.borrow().get(&key).map(Arc::clone);
        if let Some(worker) = elsewhere {
            if self.state.is_on(&worker) {
                if let Some(reader) = self.find_owner(&key) {
                    return reader.arrived(key, datagrams, now);
                }
            } else if !worker.is_closed() {
                return self.pass_on(&worker, key, datagrams);
            }
            self.elsewhere.borrow_mut().remove(&key);
        }
        if self.accepting.is_stopped() || self.accepting.is_paused() {
            return self.drop_datagrams(DatagramDrop::NotAccepting, count);
        }
        let mut backlog = self.backlog.borrow_mut();
        for datagram in datagrams.iter().flat_map(ClientDatagram::apart) {
            if !backlog.push(key, datagram) {
                self.drop_datagrams(DatagramDrop::NewSessions, 1);
            }
        }
    }

    /// The one of this worker that has a session of this socket, from before it was handed over.
    fn find_owner(&self, key: &FlowKey) -> Option<Rc<DatagramReader>> {
        let (listener, number) = (self.accepting.listener().id(), self.accepting.number);
        READERS.with(|readers| {
            let readers = readers.borrow();
            let has_it = |it: &&Rc<DatagramReader>| {
                it.is_of(listener, &self.accepting.address, number) && it.table.borrow().contains(key)
            };
            readers.iter().find(has_it).cloned()
        })
    }

    /// Gives datagrams to the worker that has their session. They come back if it has ended.
    fn pass_on(&self, worker: &Arc<CrewMember>, key: FlowKey, datagrams: &[ClientDatagram<'_>]) {
        let datagrams: Vec<Box<[u8]>> = datagrams.iter().flat_map(ClientDatagram::apart).map(Box::from).collect();
        let (listener, address) = (self.accepting.listener().id(), self.accepting.address.clone());
        let (number, own) = (self.accepting.number, Arc::clone(self.state.member()));
        worker.remote.run(move || {
            if let Some(reader) = find(listener, &address, number).and_then(|reader| reader.find_owner(&key)) {
                return reader.arrived(key, &whole(&datagrams), worker::now());
            }
            own.remote.run(move || {
                let Some(reader) = find(listener, &address, number) else { return };
                reader.elsewhere.borrow_mut().remove(&key);
                reader.arrived(key, &whole(&datagrams), worker::now());
            });
        });
    }

    /// Opens sessions for clients that wait for one.
    fn open_waiting(self: &Rc<Self>, budget: usize, now: Instant) {
        for _ in 0..budget {
            let waiting = self.backlog.borrow_mut().pop();
            let Some((key, datagrams)) = waiting else { return };
            let datagrams = whole(&datagrams);
            let known = self.table.borrow_mut().arrived(&key, 0, 0, now).is_some();
            if known {
                self.arrived(key, &datagrams, now);
            } else if let Err(why) = self.open(key, &datagrams, now) {
                self.drop_datagrams(why, datagrams.len() as u64);
            }
        }
        if !self.backlog.borrow().is_empty() {
            worker::reschedule();
        }
    }

    fn open(self: &Rc<Self>, key: FlowKey, datagrams: &[ClientDatagram<'_>], now: Instant) -> Result<(), DatagramDrop> {
        let listener = self.accepting.listener();
        let preamble = admit(&listener, key.client)?;
        let permits = self.room(&listener).ok_or(DatagramDrop::MaxSessions)?;
        let slot = self.state.own_slot().ok_or(DatagramDrop::NotAccepting)?;
        let session = UdpSession::open(self, key, AdmittedClient { preamble, permits, slot }, now)?;
        let (count, bytes) = sum(datagrams);
        let id = self.table.borrow_mut().open(key, Rc::clone(&session), count, bytes, now);
        let Some(id) = id else {
            session.finish(Termination::Evicted);
            return Err(DatagramDrop::MaxSessions);
        };
        session.begin(id);
        session.forward(datagrams, now);
        Ok(())
    }

    /// Room for one more session, for which another one may have to end.
    fn room(&self, listener: &Listener) -> Option<Permits> {
        // Another worker may take what an eviction has freed.
        for _ in 0..4 {
            if !self.table.borrow().is_full()
                && let Some(in_listener) = listener.connections().try_acquire()
                && let Some(in_process) = self.state.plane.capacity().try_acquire()
            {
                return Some(Permits::new(in_process, in_listener));
            }
            let (key, session) = self.table.borrow_mut().evict()?;
            self.forget(key);
            session.finish(Termination::Evicted);
        }
        None
    }

    /// A session is no longer in the table.
    fn forget(&self, key: FlowKey) {
        let is_last = self.accepting.is_stopped() && self.table.borrow().is_empty();
        if is_last {
            self.task.get().into_iter().for_each(Waiter::wake);
        }
        let Some(successor) = &*self.successor.borrow() else { return };
        let (listener, address) = (self.accepting.listener().id(), self.accepting.address.clone());
        let number = self.accepting.number;
        successor.remote.run(move || {
            if let Some(reader) = find(listener, &address, number) {
                reader.elsewhere.borrow_mut().remove(&key);
            }
        });
    }

    fn take_sessions(&self) -> FlowTable<Rc<UdpSession>> {
        self.table.replace(FlowTable::new(rules(&self.listener())))
    }

    /// Looks at its socket and its sessions.
    pub(super) fn wake(&self) {
        self.task.get().into_iter().for_each(Waiter::wake);
        self.table.borrow().iter().for_each(|(_, session, _)| session.wake());
    }

    /// Its sessions, for another process.
    pub(super) fn export(&self) -> Vec<(HandedSession, OwnedFd)> {
        let (listener, now) = (self.accepting.listener(), worker::now());
        let since = |at: Instant| now.saturating_duration_since(at);
        let table = self.table.borrow();
        let sessions = table.iter().filter_map(|(key, session, counts)| {
            let (pool, backend, began, socket) = session.handed()?;
            let handed = HandedSession {
                listener: listener.config().name.to_string(),
                bound: self.local,
                number: self.accepting.number,
                client: key.client,
                local: key.local,
                pool,
                backend,
                datagrams: (counts.datagrams_in, counts.datagrams_out),
                bytes: (counts.bytes_in, counts.bytes_out),
                is_answering: counts.is_answering,
                age: since(began),
            };
            Some((handed, socket))
        });
        sessions.collect()
    }

    /// Whether it has the listening socket of a session of another process.
    pub(super) fn is_bound_for(&self, session: &HandedSession) -> bool {
        *self.accepting.listener().config().name == *session.listener
            && self.local == session.bound
            && self.accepting.number == session.number
    }

    /// Goes on with a session of another process. One whose backend is not there any more ends: the client's next datagram begins another.
    pub(super) fn adopt(self: &Rc<Self>, handed: &HandedSession, socket: OwnedFd) {
        let (listener, now) = (self.accepting.listener(), worker::now());
        let Some(pool) = listener.pools().find(|pool| **pool.name() == *handed.pool) else { return };
        let backend = pool.backends().iter().find(|backend| **backend.name() == *handed.backend).map(|it| it.id());
        let Some(lease) = backend.and_then(|id| pool.lease_kept(id)) else { return };
        let key = FlowKey { client: handed.client, local: handed.local };
        let Ok(preamble) = admit(&listener, handed.client) else { return };
        let (Some(permits), Some(slot)) = (self.room(&listener), self.state.own_slot()) else { return };
        let Ok(socket) = DatagramSocket::new(socket) else { return };
        let began = now.checked_sub(handed.age).unwrap_or(now);
        let session = UdpSession::new(self, key, AdmittedClient { preamble, permits, slot }, began);
        session.resume(lease, socket, handed);
        let id = self.table.borrow_mut().open(key, Rc::clone(&session), 1, 0, now);
        let Some(id) = id else { return session.finish(Termination::Evicted) };
        let ((datagrams_in, datagrams_out), (bytes_in, bytes_out)) = (handed.datagrams, handed.bytes);
        let (is_answering, last) = (handed.is_answering, now);
        let counts = FlowCounts { datagrams_in, datagrams_out, bytes_in, bytes_out, is_answering, last };
        self.table.borrow_mut().restore(id, counts);
        session.begin(id);
        self.wake();
    }

    /// Another process has its sessions.
    pub(super) fn forget_sessions(&self) {
        self.take_sessions().iter().for_each(|(_, session, _)| session.give_up());
        self.task.get().into_iter().for_each(Waiter::wake);
    }

    /// Reads no more: another worker does. Returns the sessions that go on here.
    pub(super) fn hand_over(&self, to: &Arc<CrewMember>) -> Vec<(FlowKey, Arc<CrewMember>)> {
        self.successor.replace(Some(Arc::clone(to)));
        self.state.forget_accepting(&self.accepting);
        self.accepting.stop();
        let mut sessions: Vec<_> = self.elsewhere.take().into_iter().collect();
        sessions.extend(self.table.borrow().iter().map(|(key, ..)| (*key, Arc::clone(self.state.member()))));
        sessions
    }
}

impl SessionOwner for DatagramReader {
    fn is_held(&self) -> bool {
        self.state.plane.datagrams_held.load(Ordering::Acquire)
    }

    fn state(&self) -> &Rc<WorkerState> {
        &self.state
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn replied(&self, id: FlowId, datagrams: u64, bytes: u64, now: Instant) -> Reply {
        self.table.borrow_mut().replied(id, datagrams, bytes, now)
    }

    fn ended(&self, id: FlowId) {
        let removed = self.table.borrow_mut().remove(id);
        if let Some((key, _)) = removed {
            self.forget(key);
        }
    }

    fn hold(&self, id: FlowId, datagram: &[u8]) {
        self.held.borrow_mut().hold(id, datagram);
    }

    fn take_held(&self, id: FlowId) -> Vec<Box<[u8]>> {
        self.held.borrow_mut().take(id)
    }

    fn listener(&self) -> Arc<Listener> {
        self.accepting.listener()
    }

    fn source(&self, key: &FlowKey) -> Option<IpAddr> {
        self.local.ip().is_unspecified().then_some(key.local.ip())
    }

    fn drop_datagrams(&self, why: DatagramDrop, count: u64) {
        self.accepting.listener().datagrams().dropped(why, count);
    }
}
