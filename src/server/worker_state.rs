//! What the connections of one worker share, and the handle by which each is aborted.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use slab::Slab;

use super::accepting::Accepting;
use super::dial::retry_queue::RetryQueues;
use super::listener::Listener;
use super::plane_state::PlaneState;
use super::samples::Samples;
use crate::log::access::AccessWriter;
use crate::net::addr::Address;
use crate::relay::RelayResources;
use crate::stats::http::HttpEvent;
use crate::stats::latency::{Sample, Stage};
use crate::stats::registry::{BackendId, ListenerId};
use crate::stats::termination::Termination;
use crate::worker::{self, Waiter, poll_fn};

thread_local! {
    static STATE: OnceCell<Rc<WorkerState>> = const { OnceCell::new() };
}

/// What the connections of one worker share.
pub(super) struct WorkerState {
    pub(super) worker: usize,
    pub(super) plane: Arc<PlaneState>,
    pub(super) relay_resources: RefCell<RelayResources>,
    access: RefCell<Option<AccessWriter>>,
    samples: RefCell<Option<Samples>>,
    sessions: RefCell<Slab<Rc<Control>>>,
    /// When accepting ended: the begin of the drain.
    stopped_accepting: Cell<Option<Instant>>,
    acceptors: RefCell<Vec<Rc<Accepting>>>,
    pub(super) retry_queues: RetryQueues,
}

impl WorkerState {
    /// Makes this thread's state. Called once on each worker.
    pub(super) fn install(
        worker: usize,
        plane: Arc<PlaneState>,
        access: Option<AccessWriter>,
        samples: Option<Samples>,
    ) {
        let relay_resources =
            if samples.is_some() { RelayResources::with_clock(Instant::now) } else { RelayResources::default() };
        let retry_queues = RetryQueues::new(Arc::clone(&plane.descriptor_shortage));
        let state = Rc::new(WorkerState {
            worker,
            relay_resources: RefCell::new(relay_resources),
            access: RefCell::new(access),
            samples: RefCell::new(samples),
            plane,
            sessions: RefCell::default(),
            stopped_accepting: Cell::new(None),
            acceptors: RefCell::default(),
            retry_queues,
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
            drop(state.samples.take());
            drop(state.access.take());
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

    pub(super) fn stop_accepting(&self) {
        self.stopped_accepting.set(Some(worker::now()));
        self.stop_where(|_| true);
        // Half-closed connections have less time from here on.
        for (_, control) in &*self.sessions.borrow() {
            control.task.get().into_iter().for_each(Waiter::wake);
        }
    }

    /// Stops accepting from one listening socket of a listener.
    pub(super) fn stop(&self, listener: ListenerId, address: &Address) {
        self.stop_where(|it| it.listener().id() == listener && it.address == *address);
    }

    fn stop_where(&self, concerned: impl Fn(&Accepting) -> bool) {
        let stopped = self.acceptors.borrow_mut().extract_if(.., |it| concerned(it)).collect::<Vec<_>>();
        stopped.iter().for_each(|accepting| accepting.stop());
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

    /// Hands over what was written down so far.
    pub(super) fn hand_over(&self) {
        if let Some(samples) = &mut *self.samples.borrow_mut() {
            samples.hand_over();
        }
    }

    pub(super) fn access(&self) -> std::cell::RefMut<'_, Option<AccessWriter>> {
        self.access.borrow_mut()
    }

    /// Makes a connection known to [`WorkerState::abort_all`] and [`WorkerState::abort_backend`] until it is dropped.
    pub(super) fn enter(self: &Rc<Self>) -> SessionHandle {
        let control = Rc::new(Control::default());
        let key = self.sessions.borrow_mut().insert(Rc::clone(&control));
        SessionHandle { state: Rc::clone(self), key: key as u32, control }
    }

    pub(super) fn abort_all(&self, abort: Abort) {
        self.abort_where(abort, |_| true);
    }

    pub(super) fn abort_backend(&self, backend: BackendId) {
        self.abort_where(Abort::BackendDown, |control| control.backend.get() == backend);
    }

    fn abort_where(&self, abort: Abort, concerned: impl Fn(&Control) -> bool) {
        for (_, control) in self.sessions.borrow().iter().filter(|(_, control)| concerned(control)) {
            control.abort.set(Some(abort));
            if let Some(task) = control.task.get() {
                task.wake();
            }
        }
    }
}

/// Why a connection is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    BackendDown,
    DrainDeadline,
}

impl From<Abort> for Termination {
    fn from(abort: Abort) -> Termination {
        match abort {
            Abort::BackendDown => Termination::BackendDown,
            Abort::DrainDeadline => Termination::DrainDeadline,
        }
    }
}

/// The handle by which a connection is ended from outside.
#[derive(Default)]
struct Control {
    abort: Cell<Option<Abort>>,
    backend: Cell<BackendId>,
    /// Woken to see to it.
    task: OnceCell<Waiter>,
}

/// A connection's entry in its worker's list.
pub(super) struct SessionHandle {
    state: Rc<WorkerState>,
    control: Rc<Control>,
    key: u32,
}

impl SessionHandle {
    pub(super) fn state(&self) -> &WorkerState {
        &self.state
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

    /// The connection is on this backend from now on.
    pub(super) fn is_on(&self, backend: BackendId) {
        self.control.backend.set(backend);
    }

    /// The connection's task has begun: it is the one that is woken.
    pub(super) fn begin(&self) {
        if let Some(task) = Waiter::current() {
            // Once in a connection's life.
            let _ = self.control.task.set(task);
        }
    }

    /// Why the connection is to end now, if it is.
    pub(super) fn aborted(&self) -> Option<Abort> {
        self.control.abort.get()
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.state.sessions.borrow_mut().try_remove(self.key as usize);
    }
}
