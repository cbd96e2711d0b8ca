//! What the connections of one worker share, and their list.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use slab::Slab;

use super::accepting::Accepting;
use super::connection::{Abort, ConnectionState};
use super::crew::{CrewMember, WorkerSlot};
use super::database_session::{DatabaseSession, DatabaseSessions};
use super::dial::retry_queue::RetryQueues;
use super::listener::Listener;
use super::plane_state::PlaneState;
use super::samples::Samples;
use crate::log::access::AccessWriter;
use crate::net::addr::{Address, ClientAddr};
use crate::relay::RelayResources;
use crate::stats::http::HttpEvent;
use crate::stats::latency::{Sample, Stage};
use crate::stats::queries::{QueryEvent, QueryProtocol};
use crate::stats::registry::{BackendId, ListenerId};
use crate::stats::termination::Termination;
use crate::worker::{self, poll_fn};

thread_local! {
    static STATE: OnceCell<Rc<WorkerState>> = const { OnceCell::new() };
}

/// What the connections of one worker share.
pub(super) struct WorkerState {
    /// The place of what this worker counts.
    pub(super) worker: usize,
    member: Arc<CrewMember>,
    pub(super) plane: Arc<PlaneState>,
    pub(super) relay_resources: RefCell<RelayResources>,
    access: RefCell<Option<AccessWriter>>,
    samples: RefCell<Option<Samples>>,
    connections: RefCell<Slab<Rc<ConnectionState>>>,
    /// When accepting ended: the begin of the drain.
    stopped_accepting: Cell<Option<Instant>>,
    acceptors: RefCell<Vec<Rc<Accepting>>>,
    pub(super) retry_queues: RetryQueues,
    pub(super) database_sessions: DatabaseSessions,
}

impl WorkerState {
    /// Makes this thread's state. Called once on each worker.
    pub(super) fn install(member: Arc<CrewMember>, plane: Arc<PlaneState>) {
        let retry_queues = RetryQueues::new(Arc::clone(&plane.descriptor_shortage));
        let state = Rc::new(WorkerState {
            worker: member.index,
            member,
            relay_resources: RefCell::default(),
            access: RefCell::default(),
            samples: RefCell::default(),
            plane,
            connections: RefCell::default(),
            stopped_accepting: Cell::new(None),
            acceptors: RefCell::default(),
            retry_queues,
            database_sessions: DatabaseSessions::default(),
        });
        STATE.with(|cell| {
            // Empty on a new worker's thread.
            let _ = cell.set(state);
        });
    }

    /// Gives up what leads to other threads, which are woken by that. Called at the end of the worker's thread.
    pub(super) fn release() {
        STATE.with(|cell| {
            let Some(state) = cell.get() else { return };
            state.set_samples(None);
            state.set_access(None);
        });
    }

    /// Runs `f` with this thread's state.
    ///
    /// # Panics
    /// On a thread that is no worker of a plane.
    pub(super) fn with<T>(f: impl FnOnce(&WorkerState) -> T) -> T {
        STATE.with(|cell| {
            #[allow(clippy::expect_used, reason = "install is the first thing that runs on a plane's worker")]
            let state = cell.get().expect("called on a worker of a plane");
            f(state)
        })
    }

    pub(super) fn current() -> Rc<WorkerState> {
        STATE.with(|cell| {
            #[allow(clippy::expect_used, reason = "as above")]
            let state = cell.get().expect("called on a worker of a plane");
            Rc::clone(state)
        })
    }

    /// Whether this worker is that one.
    pub(super) fn is_on(&self, worker: &Arc<CrewMember>) -> bool {
        Arc::ptr_eq(&self.member, worker)
    }

    /// A connection's place on this worker; `None` if it ends.
    pub(super) fn own_slot(&self) -> Option<WorkerSlot> {
        self.member.enter()
    }

    /// This worker, for others.
    pub(super) fn member(&self) -> &Arc<CrewMember> {
        &self.member
    }

    pub(super) fn stop_accepting(&self) {
        self.stopped_accepting.set(Some(worker::now()));
        self.stop_where(|_| true);
        // Half-closed connections have less time from here on.
        for (_, connection) in &*self.connections.borrow() {
            connection.wake();
        }
    }

    /// Stops accepting from listening sockets of a listener.
    pub(super) fn stop(&self, listener: ListenerId, addresses: &HashSet<Address>) {
        self.stop_where(|it| it.listener().id() == listener && addresses.contains(&it.address));
    }

    /// A task that accepts is stopped by others no more.
    pub(super) fn forget_accepting(&self, accepting: &Rc<Accepting>) {
        self.acceptors.borrow_mut().retain(|it| !Rc::ptr_eq(it, accepting));
    }

    /// Leaves one socket of an address to another worker.
    pub(super) fn hand_socket_over(&self, listener: ListenerId, address: &Address, number: usize) {
        let concerned =
            |it: &Accepting| it.listener().id() == listener && it.address == *address && it.number == number;
        self.remove_where(concerned).iter().for_each(|accepting| accepting.hand_over());
    }

    fn stop_where(&self, concerned: impl Fn(&Accepting) -> bool) {
        self.remove_where(concerned).iter().for_each(|accepting| accepting.stop());
    }

    fn remove_where(&self, concerned: impl Fn(&Accepting) -> bool) -> Vec<Rc<Accepting>> {
        self.acceptors.borrow_mut().extract_if(.., |it| concerned(it)).collect()
    }

    /// What is accepted from now on is of this listener, which takes the place of the one with the same id.
    pub(super) fn replace(&self, listener: &Arc<Listener>) {
        for accepting in &*self.acceptors.borrow() {
            if accepting.listener().id() == listener.id() {
                accepting.replace(listener);
            }
        }
    }

    /// Whether nothing more is to be accepted.
    pub(super) fn has_stopped_accepting(&self) -> bool {
        self.stopped_accepting.get().is_some()
    }

    /// Since when tidegate drains, if it does.
    pub(super) fn draining_since(&self) -> Option<Instant> {
        self.stopped_accepting.get()
    }

    /// Makes a task that accepts known to [`WorkerState::stop`] and [`WorkerState::replace`].
    pub(super) fn accepts(&self, accepting: &Rc<Accepting>) {
        self.acceptors.borrow_mut().push(Rc::clone(accepting));
    }

    /// Whether measurements are taken: the stats port reads them.
    pub(super) fn measures(&self) -> bool {
        self.samples.borrow().is_some()
    }

    /// Records a measurement, if the stats port reads them.
    pub(super) fn measure(&self, listener: &Listener, backend: BackendId, stage: Stage, took: Duration) {
        if let Some(samples) = &mut *self.samples.borrow_mut() {
            samples.add(Sample::new(listener.id(), backend, stage, took));
        }
    }

    /// Writes a backend's own measurement down, which says nothing of the listener.
    pub(super) fn measure_backend(&self, backend: BackendId, stage: Stage, took: Duration) {
        if let Some(samples) = &mut *self.samples.borrow_mut() {
            samples.add(Sample::new(ListenerId::NONE, backend, stage, took));
        }
    }

    /// Writes down what was seen of HTTP.
    pub(super) fn saw_http(&self, listener: &Listener, backend: BackendId, event: HttpEvent) {
        if let Some(samples) = &mut *self.samples.borrow_mut() {
            samples.add(Sample::http(listener.id(), backend, event));
        }
    }

    /// Writes down what was seen of a request.
    pub(super) fn measure_request(&self, sample: Sample) {
        if let Some(samples) = &mut *self.samples.borrow_mut() {
            samples.add(sample);
        }
    }

    /// Writes down what was seen of queries.
    pub(super) fn saw_query(
        &self,
        listener: &Listener,
        backend: BackendId,
        protocol: QueryProtocol,
        event: QueryEvent,
        took: Duration,
    ) {
        if let Some(samples) = &mut *self.samples.borrow_mut() {
            samples.add(Sample::query(listener.id(), backend, protocol, event, took));
        }
    }

    /// Hands over what was written down so far.
    pub(super) fn hand_over(&self) {
        if let Some(samples) = &mut *self.samples.borrow_mut() {
            samples.hand_over();
        }
    }

    /// Measures, or no longer, from now on. What was measured is handed over.
    pub(super) fn set_samples(&self, samples: Option<Samples>) {
        if self.measures() == samples.is_some() {
            return;
        }
        self.relay_resources.borrow_mut().set_clock(samples.is_some().then_some(Instant::now));
        self.hand_over();
        self.samples.replace(samples);
    }

    /// Lines go to this writer from now on.
    pub(super) fn set_access(&self, writer: Option<AccessWriter>) {
        self.access.replace(writer);
    }

    /// Notes whether a client whose socket is closed unread has sent anything, where its access line depends on that.
    pub(super) fn look_for_unread(&self, connection: &ConnectionState, client: impl AsFd) {
        if self.access.borrow().as_ref().is_some_and(|writer| !writer.takes_empty()) && connection.is_empty() {
            let unread = recv(client, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
            connection.set_sent(matches!(unread, Ok((_, 1..))));
        }
    }

    pub(super) fn access(&self) -> std::cell::RefMut<'_, Option<AccessWriter>> {
        self.access.borrow_mut()
    }

    /// Puts a connection on the list until its handle is dropped.
    pub(super) fn enter(
        self: &Rc<Self>,
        listener: Arc<Listener>,
        client: ClientAddr,
        accepted: Instant,
    ) -> SessionHandle {
        let id = self.plane.connection_ids.id(self.worker, self.member.next_number());
        let connection = Rc::new(ConnectionState::new(id, listener, client, accepted));
        let key = self.connections.borrow_mut().insert(Rc::clone(&connection));
        SessionHandle { state: Rc::clone(self), key: key as u32, connection }
    }

    pub(super) fn abort_all(&self, abort: Abort) {
        self.abort_where(abort, |_| true);
    }

    pub(super) fn abort_listener(&self, listener: ListenerId) {
        self.abort_where(Abort::DrainDeadline, |connection| connection.listener.id() == listener);
    }

    pub(super) fn abort_backend(&self, backend: BackendId) {
        self.abort_where(Abort::BackendDown, |connection| connection.backend() == backend);
    }

    fn abort_where(&self, abort: Abort, concerned: impl Fn(&ConnectionState) -> bool) {
        for (_, connection) in self.connections.borrow().iter().filter(|(_, connection)| concerned(connection)) {
            connection.abort(abort);
        }
    }

    /// Shows a portion of the list to `see`: the places from `from` on, `count` of them. Returns where the next portion
    /// begins, if there is one. A connection keeps its place for life: over all portions it is seen once, while others come and
    /// go between them.
    pub(super) fn visit(
        &self,
        from: usize,
        count: usize,
        mut see: impl FnMut(&ConnectionState, Option<&DatabaseSession>),
    ) -> Option<usize> {
        let connections = self.connections.borrow();
        let end = from.saturating_add(count).min(connections.capacity());
        for connection in (from..end).filter_map(|place| connections.get(place)) {
            see(connection, self.database_sessions.get(connection.id).as_deref());
        }
        (end < connections.capacity()).then_some(end)
    }
}

/// A connection's entry in its worker's list.
pub(super) struct SessionHandle {
    state: Rc<WorkerState>,
    connection: Rc<ConnectionState>,
    key: u32,
}

impl SessionHandle {
    pub(super) fn state(&self) -> &Rc<WorkerState> {
        &self.state
    }

    pub(super) fn connection(&self) -> &Rc<ConnectionState> {
        &self.connection
    }

    /// What `future` gives, unless the connection is aborted before.
    ///
    /// # Errors
    /// Why it is.
    pub(super) async fn unless_aborted<T>(&self, future: impl Future<Output = T>) -> Result<T, Termination> {
        let mut future = pin!(future);
        poll_fn(|cx| match self.aborted() {
            Some(abort) => Poll::Ready(Err(abort.into())),
            None => future.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    /// Why the connection is to end now, if it is.
    pub(super) fn aborted(&self) -> Option<Abort> {
        self.connection.aborted()
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.state.connections.borrow_mut().try_remove(self.key as usize);
    }
}
