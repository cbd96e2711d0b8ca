//! Takes what workers measure, keeps the windows of time moving, and makes views.

use std::cell::{Cell, Ref, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::rates::Rates;
use super::snapshot::{add_latencies, snapshot};
use super::snapshot_model::Snapshot;
use super::sources::Sources;
use crate::pool::Pool;
use crate::server::Measurements;
use crate::stats::latency::{Latencies, Sample};

/// The shortest window is made of seconds.
const SECOND: Duration = Duration::from_secs(1);
/// How long a worker may take to hand over what it has, before a snapshot is made without it.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(500);

/// Everything that is known, on the thread of the stats port.
pub(super) struct Collector {
    sources: Sources,
    latencies: RefCell<Latencies>,
    /// The generation of the data plane, when the histograms were last made to fit them.
    measured: Cell<Option<(u64, u64)>>,
    rates: RefCell<Rates>,
    measurements: RefCell<Measurements>,
    /// The last snapshot, and when its making began.
    last: Mutex<Option<(Instant, Rc<Snapshot>)>>,
}

impl Collector {
    pub(super) fn new(sources: Sources, measurements: Measurements) -> Collector {
        let rates = Rates::new(Instant::now());
        Collector {
            sources,
            latencies: RefCell::default(),
            measured: Cell::default(),
            rates: RefCell::new(rates),
            measurements: RefCell::new(measurements),
            last: Mutex::default(),
        }
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The histograms, as of the last snapshot or second. Not to be held while waiting.
    pub(super) fn latencies(&self) -> Ref<'_, Latencies> {
        self.latencies.borrow()
    }

    /// What is true now. Callers that wait while one is being made share the next one.
    pub(super) async fn snapshot(&self) -> Rc<Snapshot> {
        self.view_since(Instant::now()).await
    }

    /// A snapshot whose making began at this time or later.
    pub(super) async fn view_since(&self, oldest: Instant) -> Rc<Snapshot> {
        let mut last = self.last.lock().await;
        if let Some((began, snapshot)) = &*last
            && *began >= oldest
        {
            return Rc::clone(snapshot);
        }
        let began = Instant::now();
        let mut snapshot = self.state().await;
        add_latencies(&mut snapshot, &self.latencies());
        let snapshot = Rc::new(snapshot);
        *last = Some((began, Rc::clone(&snapshot)));
        snapshot
    }

    /// The same without latencies, for those who need none or take them from the histograms.
    pub(super) async fn state(&self) -> Snapshot {
        let lost = self.take().await;
        snapshot(&self.sources, &self.latencies(), &self.rates.borrow(), lost)
    }

    /// Takes portions as they fill, and everything once a second. Ends with the workers.
    pub(super) async fn run(&self) {
        let started = Instant::now();
        let mut seconds = interval(SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            // Not held while it waits: a snapshot takes what there is too.
            let portion = poll_fn(|cx| self.measurements.borrow_mut().poll_next(cx));
            tokio::select! {
                portion = portion => match portion {
                    Some(portion) => self.absorb(&portion),
                    None => return,
                },
                _ = seconds.tick() => {
                    self.take().await;
                    self.latencies.borrow_mut().advance(started.elapsed().as_secs());
                    self.rates.borrow_mut().tick();
                }
            }
        }
    }

    /// Takes everything that was measured and counted until now. Returns how many measurements were lost so far.
    async fn take(&self) -> u64 {
        self.fit();
        // A worker that does not answer is busy in a way that its own connections will say.
        let _ = timeout(HAND_OVER_TIMEOUT, self.sources.plane.hand_over()).await;
        let mut measurements = self.measurements.borrow_mut();
        while let Some(portion) = measurements.waiting() {
            self.absorb(&portion);
        }
        self.rates.borrow_mut().observe(&self.sources.plane, &self.latencies(), Instant::now());
        measurements.lost()
    }

    fn absorb(&self, portion: &[Sample]) {
        // Before, so that a backend that came is known by then.
        self.fit();
        self.latencies.borrow_mut().absorb(portion);
    }

    /// Makes histograms for what has come, and drops those of what has left.
    fn fit(&self) {
        let generation = self.sources.plane.generation();
        if self.measured.replace(Some(generation)) != Some(generation) {
            let (pools, listeners) = (self.sources.plane.pools(), self.sources.plane.listeners());
            let routes = listeners.iter().flat_map(|listener| listener.route_counters());
            self.latencies.borrow_mut().measure_routes(routes.map(|route| route.id()));
            let listeners = listeners.iter().map(|listener| listener.id());
            let backends = |pool: &Pool| pool.backends().iter().map(|backend| backend.id()).collect();
            self.latencies.borrow_mut().measure(listeners, pools.iter().map(|pool| (pool.id(), backends(pool))));
        }
    }
}
