//! What connections share: some of it with all workers, some with those of their own worker only.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_utils::CachePadded;
use slab::Slab;
use tokio::sync::Semaphore;

use super::dial::{DescriptorShortage, RetryQueues};
use super::gate::Gate;
use super::samples::Samples;
use super::upstream::Upstream;
use crate::config::model::{self, Sniff};
use crate::limits::PreambleMemory;
use crate::log::access::AccessWriter;
use crate::log::throttle::{ReasonThrottle, Throttle};
use crate::net::addr::ClientAddr;
use crate::net::dial::Options;
use crate::pool::Pool;
use crate::relay::Tools;
use crate::stats::counters::ListenerCounters;
use crate::stats::http::HttpEvent;
use crate::stats::latency::{Sample, Stage};
use crate::stats::recent_events::RecentEvents;
use crate::stats::registry::{BackendId, ListenerId, PoolId, Registry};
use crate::stats::termination::Termination;
use crate::stats::traffic::Traffic;
use crate::tls::Acceptor;
use crate::worker::{self, Remote, Waiter};

/// What all workers share.
pub struct Shared {
    pools: Vec<Arc<Pool>>,
    /// TLS to backends.
    upstreams: HashMap<PoolId, Upstream>,
    listeners: Vec<Arc<ListenerState>>,
    /// Connections of each worker, from accept to end.
    loads: Box<[CachePadded<AtomicUsize>]>,
    /// Listening sockets that still accept.
    accepting: AtomicUsize,
    /// As many connections as there are descriptors for.
    size: usize,
    capacity: Arc<Semaphore>,
    remotes: OnceLock<Vec<Arc<Remote>>>,
    pub(super) preamble_memory: Arc<PreambleMemory>,
    pub(super) descriptor_shortage: Arc<DescriptorShortage>,
    pub(super) accept_trouble: ReasonThrottle,
}

/// A listener while it runs.
pub struct ListenerState {
    config: model::Listener,
    pool: Arc<Pool>,
    /// The pools of `routes`.
    routed: Vec<Arc<Pool>>,
    tls: Option<Arc<Acceptor>>,
    id: ListenerId,
    counters: ListenerCounters,
    traffic: Traffic,
    refused: RecentEvents<Refusal>,
    pub(super) limit: Option<Arc<Semaphore>>,
    /// TLS handshakes that may begin.
    pub(super) handshakes: Option<Arc<Semaphore>>,
    pub(super) gate: Gate,
    refused_clients: Throttle,
    pub(super) refusals: ReasonThrottle,
}

/// A client that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its address.
    pub client: ClientAddr,
    /// Why, for people.
    pub reason: String,
    /// How many more there were since the one before.
    pub more: u64,
}

/// Refusals that are remembered of one listener.
const REFUSALS: usize = 32;

impl Shared {
    /// For so many workers, and at most `capacity` connections at once over all listeners.
    pub fn new(
        pools: Vec<Arc<Pool>>,
        upstreams: HashMap<PoolId, Upstream>,
        listeners: Vec<Arc<ListenerState>>,
        workers: usize,
        capacity: usize,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            pools,
            upstreams,
            listeners,
            loads: (0..workers).map(|_| CachePadded::default()).collect(),
            accepting: AtomicUsize::new(0),
            size: capacity,
            capacity: Arc::new(Semaphore::new(capacity.min(Semaphore::MAX_PERMITS))),
            remotes: OnceLock::new(),
            preamble_memory: Arc::default(),
            descriptor_shortage: Arc::default(),
            accept_trouble: ReasonThrottle::new(),
        })
    }

    /// The pools, by their index.
    pub fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    /// TLS to the backends of a pool.
    pub(super) fn upstream(&self, pool: PoolId) -> Option<&Upstream> {
        self.upstreams.get(&pool)
    }

    /// The listeners, in the order of the configuration.
    pub fn listeners(&self) -> &[Arc<ListenerState>] {
        &self.listeners
    }

    /// Connections open now, over all listeners.
    pub fn open(&self) -> usize {
        self.listeners.iter().map(|listener| listener.counters.open()).sum()
    }

    pub(super) fn accepting(&self) -> usize {
        self.accepting.load(Ordering::Acquire)
    }

    /// Connections that may be open at once.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Workers.
    pub fn workers(&self) -> usize {
        self.loads.len()
    }

    pub(super) fn capacity(&self) -> &Arc<Semaphore> {
        &self.capacity
    }

    pub(super) fn set_remotes(&self, remotes: Vec<Arc<Remote>>) {
        // Set once, by the plane that made these workers.
        let _ = self.remotes.set(remotes);
    }

    pub(super) fn remote(&self, worker: usize) -> Option<&Arc<Remote>> {
        self.remotes.get().and_then(|remotes| remotes.get(worker))
    }

    pub(super) fn remotes(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.remotes.get().into_iter().flatten()
    }

    pub(super) fn on_each_worker(&self, call: impl FnOnce() + Send + Copy + 'static) {
        self.remotes().for_each(|remote| remote.run(call));
    }

    /// Counts a connection against a worker until the place is dropped. The worker on which it was accepted
    /// has it, unless that one has more than its share: then the one with the fewest.
    ///
    /// The kernel spreads connections over listening sockets by a hash, unevenly when they are few. Few and
    /// long ones (databases) come out even; among many, a difference below a sixteenth is not worth a
    /// wake-up of another thread.
    pub(super) fn place(self: &Arc<Self>, accepted_on: usize) -> Place {
        let load = |worker: usize| self.loads[worker].load(Ordering::Relaxed);
        let mine = load(accepted_on);
        let (fewest, least) =
            (0..self.loads.len()).map(|worker| (worker, load(worker))).min_by_key(|&(_, load)| load).unwrap_or((0, 0));
        let slack = (least / 16).max(1);
        let worker = if mine >= least + slack { fewest } else { accepted_on };
        self.loads[worker].fetch_add(1, Ordering::Relaxed);
        Place { shared: Arc::clone(self), worker }
    }

    pub(super) fn accepts(self: &Arc<Self>) -> AcceptGuard {
        self.accepting.fetch_add(1, Ordering::Relaxed);
        AcceptGuard(Arc::clone(self))
    }
}

/// A connection's place on a worker.
pub(super) struct Place {
    shared: Arc<Shared>,
    pub(super) worker: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listening socket that is open.
pub(super) struct AcceptGuard(Arc<Shared>);

impl Drop for AcceptGuard {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Release);
    }
}

impl ListenerState {
    /// For a listener whose connections go to some of `pools`.
    ///
    /// Bytes are counted by each of `workers` for itself.
    pub fn new(
        config: model::Listener,
        registry: &Registry,
        pools: &[Arc<Pool>],
        tls: Option<Arc<Acceptor>>,
        workers: usize,
    ) -> Arc<ListenerState> {
        let at_most = |max: Option<NonZeroU32>| max.map(|max| Arc::new(Semaphore::new(max.get() as usize)));
        let (limit, handshakes) = (at_most(config.max_connections), at_most(config.limits.handshakes));
        let pool = Arc::clone(&pools[config.pool.0]);
        let routed = config.routes.iter().map(|route| Arc::clone(&pools[route.pool.0])).collect();
        Arc::new(ListenerState {
            gate: Gate::new(&config),
            id: registry.listener(),
            config,
            pool,
            routed,
            tls,
            handshakes,
            refused_clients: Throttle::default(),
            counters: ListenerCounters::default(),
            traffic: Traffic::new(workers),
            refused: RecentEvents::new(REFUSALS),
            limit,
            refusals: ReasonThrottle::new(),
        })
    }

    /// What was configured.
    pub fn config(&self) -> &model::Listener {
        &self.config
    }

    /// Options of its connections' sockets.
    pub(super) fn options(&self) -> Options {
        Options { nodelay: self.config.socket.nodelay, keepalive: self.config.socket.keepalive }
    }

    /// Where its connections go that match a route, and those that match none.
    pub fn pool(&self, route: Option<usize>) -> &Arc<Pool> {
        route.and_then(|route| self.routed.get(route)).unwrap_or(&self.pool)
    }

    /// TLS, if it ends here.
    pub fn tls(&self) -> Option<(&model::ListenerTls, &Acceptor)> {
        self.config.tls.as_ref().zip(self.tls.as_deref())
    }

    /// Whether HTTP is watched as it goes by, and there is somebody to read what is seen.
    pub(super) fn watches(&self, context: &Context) -> bool {
        self.config.sniff == Sniff::Http && context.samples.borrow().is_some()
    }

    /// Whether a connection is looked at before it gets a backend: its address or its first bytes.
    pub(super) fn looks_first(&self) -> bool {
        self.gate.is_kept()
            || self.tls.is_some()
            || self.config.proxy_protocol.is_some()
            || !self.config.routes.is_empty()
    }

    /// Says in the log why a client is refused. `why` is what it does wrong.
    pub(super) fn refuse(&self, client: ClientAddr, why: &dyn fmt::Display) {
        if let Some(more) = self.refused_clients.admit(worker::now()) {
            let listener = &self.config.name;
            tracing::info!(%listener, %client, more, "client rejected: it {why}");
            self.remember(client, format!("it {why}"), more);
        }
    }

    /// Keeps a refusal for who asks later.
    pub(super) fn remember(&self, client: ClientAddr, reason: String, more: u64) {
        self.refused.add(Refusal { client, reason, more });
    }

    /// The last clients that were refused, the oldest first: of many in the same second, one.
    pub fn refused_clients(&self) -> Vec<(SystemTime, Refusal)> {
        self.refused.entries()
    }

    /// Every pool that its connections may go to: the one for what matches no route first.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.pool).chain(&self.routed)
    }

    /// Its id, for statistics.
    pub fn id(&self) -> ListenerId {
        self.id
    }

    /// Bytes, those of connections that are open among them.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What its connections have left behind so far.
    pub fn counters(&self) -> &ListenerCounters {
        &self.counters
    }
}

thread_local! {
    static CONTEXT: OnceCell<Rc<Context>> = const { OnceCell::new() };
}

/// What the connections of one worker share.
pub(super) struct Context {
    pub(super) worker: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) tools: RefCell<Tools>,
    access: RefCell<Option<AccessWriter>>,
    samples: RefCell<Option<Samples>>,
    sessions: RefCell<Slab<Rc<Control>>>,
    /// When accepting ended: the begin of the drain.
    stopped_accepting: Cell<Option<Instant>>,
    acceptors: RefCell<Vec<Waiter>>,
    pub(super) retry_queues: RetryQueues,
}

impl Context {
    /// Makes this thread's context. Called once on each worker.
    pub(super) fn install(worker: usize, shared: Arc<Shared>, access: Option<AccessWriter>, samples: Option<Samples>) {
        let tools = if samples.is_some() { Tools::with_clock(Instant::now) } else { Tools::default() };
        let retry_queues = RetryQueues::new(Arc::clone(&shared.descriptor_shortage));
        let context = Rc::new(Context {
            worker,
            tools: RefCell::new(tools),
            access: RefCell::new(access),
            samples: RefCell::new(samples),
            shared,
            sessions: RefCell::default(),
            stopped_accepting: Cell::new(None),
            acceptors: RefCell::default(),
            retry_queues,
        });
        CONTEXT.with(|cell| {
            // Empty on a new worker's thread.
            let _ = cell.set(context);
        });
    }

    /// Gives up what leads to other threads, which are woken by that. Called at the end of the worker's thread.
    pub(super) fn release() {
        CONTEXT.with(|cell| {
            let Some(context) = cell.get() else { return };
            drop(context.samples.take());
            drop(context.access.take());
        });
    }

    /// Runs `f` with this thread's context.
    ///
    /// # Panics
    /// On a thread that is no worker of a plane.
    pub(super) fn with<T>(f: impl FnOnce(&Context) -> T) -> T {
        CONTEXT.with(|cell| {
            #[allow(clippy::expect_used, reason = "install is the first thing that runs on a plane's worker")]
            let context = cell.get().expect("called on a worker of a plane");
            f(context)
        })
    }

    pub(super) fn current() -> Rc<Context> {
        CONTEXT.with(|cell| {
            #[allow(clippy::expect_used, reason = "as above")]
            let context = cell.get().expect("called on a worker of a plane");
            Rc::clone(context)
        })
    }

    pub(super) fn stop_accepting(&self) {
        self.stopped_accepting.set(Some(worker::now()));
        self.acceptors.take().iter().for_each(Waiter::wake);
        // Half-closed connections have less time from here on.
        for (_, control) in &*self.sessions.borrow() {
            control.task.get().into_iter().for_each(Waiter::wake);
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

    /// Has a task that accepts woken when it is to stop.
    pub(super) fn tell_of_stop(&self, acceptor: Waiter) {
        self.acceptors.borrow_mut().push(acceptor);
    }

    /// Writes a measurement down, if there is somebody to read it.
    pub(super) fn measure(&self, listener: &ListenerState, backend: BackendId, stage: Stage, took: Duration) {
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
    pub(super) fn saw_http(&self, listener: &ListenerState, backend: BackendId, event: HttpEvent) {
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

    /// Makes a connection known to [`Context::cut_all`] and [`Context::cut_backend`] until it is dropped.
    pub(super) fn enter(self: &Rc<Self>) -> Entered {
        let control = Rc::new(Control::default());
        let key = self.sessions.borrow_mut().insert(Rc::clone(&control));
        Entered { context: Rc::clone(self), key: key as u32, control }
    }

    pub(super) fn cut_all(&self, cut: Cut) {
        self.cut_where(cut, |_| true);
    }

    pub(super) fn cut_backend(&self, backend: BackendId) {
        self.cut_where(Cut::BackendDown, |control| control.backend.get() == backend);
    }

    fn cut_where(&self, cut: Cut, concerned: impl Fn(&Control) -> bool) {
        for (_, control) in self.sessions.borrow().iter().filter(|(_, control)| concerned(control)) {
            control.cut.set(Some(cut));
            if let Some(task) = control.task.get() {
                task.wake();
            }
        }
    }
}

/// Why a connection is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    BackendDown,
    DrainDeadline,
}

impl From<Cut> for Termination {
    fn from(cut: Cut) -> Termination {
        match cut {
            Cut::BackendDown => Termination::BackendDown,
            Cut::DrainDeadline => Termination::DrainDeadline,
        }
    }
}

/// The handle by which a connection is ended from outside.
#[derive(Default)]
struct Control {
    cut: Cell<Option<Cut>>,
    backend: Cell<BackendId>,
    /// Woken to see to it.
    task: OnceCell<Waiter>,
}

/// A connection's entry in its worker's list.
pub(super) struct Entered {
    context: Rc<Context>,
    control: Rc<Control>,
    key: u32,
}

impl Entered {
    pub(super) fn context(&self) -> &Context {
        &self.context
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
    pub(super) fn cut(&self) -> Option<Cut> {
        self.control.cut.get()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.context.sessions.borrow_mut().try_remove(self.key as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(places: &[Place], workers: usize) -> Vec<usize> {
        (0..workers).map(|worker| places.iter().filter(|place| place.worker == worker).count()).collect()
    }

    #[test]
    fn few_long_connections_come_out_even_however_the_kernel_spreads_them() {
        for workers in [1, 2, 3, 8] {
            for accepted_on in [|_| 0, |n: usize| n * 7 / 3, |n: usize| n / 5] {
                let shared = Shared::new(Vec::new(), HashMap::new(), Vec::new(), workers, 100);
                let places: Vec<Place> = (0..20).map(|n| shared.place(accepted_on(n) % workers)).collect();
                let counts = counts(&places, workers);
                let (most, fewest) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
                assert!(most - fewest <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn an_even_spread_moves_nobody() {
        let shared = Shared::new(Vec::new(), HashMap::new(), Vec::new(), 2, 100);
        let places: Vec<Place> = (0..100).map(|n| shared.place(n % 2)).collect();
        assert!(places.iter().enumerate().all(|(n, place)| place.worker == n % 2));
    }

    #[test]
    fn among_many_a_small_difference_is_not_worth_a_move() {
        let shared = Shared::new(Vec::new(), HashMap::new(), Vec::new(), 2, 100);
        let mut places: Vec<Place> = (0..1000).map(|n| shared.place(n % 2)).collect();
        places.extend((0..20).map(|_| shared.place(0)));
        assert_eq!(counts(&places, 2), [520, 500]);
    }

    #[test]
    fn a_place_is_given_back() {
        let shared = Shared::new(Vec::new(), HashMap::new(), Vec::new(), 2, 100);
        drop((0..50).map(|_| shared.place(0)).collect::<Vec<_>>());
        assert!(shared.loads.iter().all(|load| load.load(Ordering::Relaxed) == 0));
    }
}
