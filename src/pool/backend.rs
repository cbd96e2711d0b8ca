//! One backend: what was configured, and what is true of it now.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use crate::balance;
use crate::config::model::{self, BackendAddress};
use crate::log::throttle::ReasonThrottle;
use crate::net::addr::Address;
use crate::stats::counters::BackendCounters;
use crate::stats::registry::BackendId;
use crate::stats::traffic::Traffic;

/// The place of a backend in [`Pool::backends`](super::Pool::backends).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIndex(pub usize);

/// A backend of a pool. Counters are exact but for the order in which they are seen.
pub struct Backend {
    index: BackendIndex,
    id: BackendId,
    name: Arc<str>,
    identity: u64,
    configured: BackendAddress,
    backup: bool,
    addresses: ArcSwap<Arc<[Address]>>,
    condition: Mutex<Condition>,
    live: CachePadded<Live>,
    counters: CachePadded<BackendCounters>,
    traffic: Traffic,
    load: Arc<Load>,
    failed_connects: ReasonThrottle,
}

/// Connections of all backends of a pool.
#[derive(Debug, Default)]
pub(super) struct Load {
    open: CachePadded<AtomicU32>,
    /// The most that were open at once.
    peak: AtomicU32,
}

impl Load {
    pub(super) fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    pub(super) fn peak(&self) -> u32 {
        self.peak.load(Relaxed)
    }

    fn rise(&self) {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        if open > self.peak() {
            self.peak.fetch_max(open, Relaxed);
        }
    }

    fn fall(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// What changes with each connection: together, as a pick looks at all of it, and away from everybody else's.
struct Live {
    connections: AtomicU32,
    /// What `connections` never exceeds; `u32::MAX` for no limit.
    max_connections: u32,
    weight: u32,
    /// In sixteenths of a microsecond, so that a small latency still has an average; 0 is unmeasured.
    latency: AtomicU32,
    up: AtomicBool,
    /// Measured since the last decay.
    measured: AtomicBool,
    /// How often it went down.
    downs: AtomicU32,
}

/// Whether a backend, or a pool as a whole, takes connections, why not, and since when.
#[derive(Clone, Debug)]
pub struct Condition {
    /// It takes new connections, as far as its weight and limit go.
    pub up: bool,
    /// Why it is down, for people. `None` while it is up, before the first verdict, and of a pool, whose backends say it.
    pub reason: Option<Arc<str>>,
    /// When `up` last changed.
    pub since: SystemTime,
    /// How long it was down before, all in all.
    pub downtime: Duration,
}

impl Condition {
    pub(super) fn now(up: bool, reason: Option<Arc<str>>) -> Condition {
        Condition { up, reason, since: SystemTime::now(), downtime: Duration::ZERO }
    }

    /// What comes after it. True if it went down by that.
    pub(super) fn change(&mut self, new: Condition) -> bool {
        let went_down = self.up && !new.up;
        let since = if self.up == new.up { self.since } else { new.since };
        let was_down = match new.up && !self.up {
            true => new.since.duration_since(self.since).unwrap_or_default(),
            false => Duration::ZERO,
        };
        *self = Condition { since, downtime: self.downtime + was_down, ..new };
        went_down
    }

    /// How long it was down, all in all, until now.
    pub fn downtime_so_far(&self) -> Duration {
        let now_down = if self.up { Duration::ZERO } else { self.since.elapsed().unwrap_or_default() };
        self.downtime + now_down
    }
}

/// Sixteenths of a microsecond in one.
const FRACTION: u32 = 16;

/// A failed connect counts as a sample of so many times the average: ten in a row make it 24-fold.
const FAILED_SEEMS: u32 = 4;

/// The least that a failed connect counts as, where there is no average worth multiplying.
const FAILED_TAKES: Duration = Duration::from_millis(1);

impl Backend {
    pub(super) fn new(
        index: BackendIndex,
        id: BackendId,
        config: &model::Backend,
        condition: Condition,
        workers: usize,
        load: Arc<Load>,
    ) -> Backend {
        let addresses: Arc<[Address]> = match &config.address {
            BackendAddress::Ip(address) => [Address::Tcp(*address)].into(),
            BackendAddress::Unix(path) => [Address::Unix(Arc::new(PathBuf::clone(path)))].into(),
            BackendAddress::Name { .. } => [].into(),
        };
        Backend {
            index,
            id,
            name: Arc::clone(&config.name),
            identity: balance::identity(&config.name),
            configured: config.address.clone(),
            backup: config.backup,
            addresses: ArcSwap::from_pointee(addresses),
            live: CachePadded::new(Live {
                connections: AtomicU32::new(0),
                max_connections: config.max_connections.map_or(u32::MAX, u32::from),
                weight: config.weight,
                latency: AtomicU32::new(0),
                up: AtomicBool::new(condition.up),
                measured: AtomicBool::new(false),
                downs: AtomicU32::new(0),
            }),
            counters: CachePadded::default(),
            traffic: Traffic::new(workers),
            load,
            failed_connects: ReasonThrottle::new(),
            condition: Mutex::new(condition),
        }
    }

    /// Its id, for statistics.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Its place in the pool.
    pub fn index(&self) -> BackendIndex {
        self.index
    }

    /// Its name: what it is identified by, in the pool, in placement by hash and in statistics.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The address as configured.
    pub fn configured_address(&self) -> &BackendAddress {
        &self.configured
    }

    /// The weight as configured; with 0 it gets no new connections.
    pub fn weight(&self) -> u32 {
        self.live.weight
    }

    /// Whether it is used only when no other backend can be.
    pub fn is_backup(&self) -> bool {
        self.backup
    }

    /// Connections it may have at once.
    pub fn max_connections(&self) -> Option<u32> {
        (self.live.max_connections != u32::MAX).then_some(self.live.max_connections)
    }

    /// Where to connect to: every address that its name has, sorted; the only one if it has no name. Empty while its name
    /// has never been resolved, and then it is down.
    pub fn addresses(&self) -> Arc<[Address]> {
        Arc::clone(&self.addresses.load())
    }

    /// Whether it is healthy and has an address.
    pub fn is_up(&self) -> bool {
        self.live.up.load(Acquire)
    }

    /// Whether it is up, since when, and why not.
    pub fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections leased at this moment.
    pub fn connections(&self) -> u32 {
        self.live.connections.load(Relaxed)
    }

    /// Moving average of connect and first-byte times in microseconds; 0 when it was never measured or not for long.
    pub fn latency_us(&self) -> u32 {
        self.live.latency.load(Relaxed).div_ceil(FRACTION)
    }

    /// What its connections and checks have left behind so far.
    pub fn counters(&self) -> &BackendCounters {
        &self.counters
    }

    /// Bytes, those of connections that are open among them.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Which log lines about its failed connects may be written.
    pub fn failed_connects(&self) -> &ReasonThrottle {
        &self.failed_connects
    }

    /// How often it went down.
    pub fn downs(&self) -> u32 {
        self.live.downs.load(Acquire)
    }

    /// A connect succeeded, and how long it took.
    pub fn record_connect(&self, took: Duration) {
        self.counters.connected();
        self.record_latency(took);
    }

    /// A connect failed, and after how long. Makes the backend look slower, also when it failed at once: a refusal takes less
    /// time than any answer, and `least_latency` would otherwise send everybody to the one that is dead until a health check says so.
    pub fn record_connect_failure(&self, took: Duration) {
        self.counters.connect_failed();
        let average = Duration::from_micros(self.latency_us().into());
        self.record_latency(took.max(average * FAILED_SEEMS).max(FAILED_TAKES));
    }

    /// The backend's first byte came, and how long after the client's first was forwarded.
    pub fn record_first_byte(&self, took: Duration) {
        self.record_latency(took);
    }

    /// Exponentially weighted moving average with a weight of 1/8 for the sample; the first sample is the average.
    fn record_latency(&self, sample: Duration) {
        let sample = sample.as_nanos() * u128::from(FRACTION) / 1_000;
        let sample = u32::try_from(sample).unwrap_or(u32::MAX).max(1);
        let next = |old: u32| match old {
            0 => sample,
            _ => ((u64::from(old) * 7 + u64::from(sample)) / 8).max(1) as u32,
        };
        self.live.latency.update(Relaxed, Relaxed, next);
        if !self.live.measured.load(Relaxed) {
            self.live.measured.store(true, Relaxed);
        }
    }

    /// One second went by: an average that nothing was added to meanwhile loses 1/16, so that `least_latency` gives a
    /// backend that was slow another chance.
    pub(super) fn decay(&self) {
        if self.live.measured.swap(false, Relaxed) {
            return;
        }
        self.live.latency.update(Relaxed, Relaxed, |old| old - old.div_ceil(16));
    }

    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    pub(super) fn set_addresses(&self, addresses: Vec<Address>) {
        self.addresses.store(Arc::new(addresses.into()));
    }

    /// Only the pool's writer calls this, under its lock.
    pub(super) fn set_condition(&self, new: Condition) {
        let up = new.up;
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).change(new);
        if self.live.up.swap(up, AcqRel) && !up {
            self.live.downs.fetch_add(1, Release);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.connections() >= self.live.max_connections
    }

    /// Counts one more connection, unless the backend is full or down.
    pub(super) fn try_take(&self) -> bool {
        let max = self.live.max_connections;
        let more = |open: u32| (open < max).then(|| open + 1);
        let Ok(others) = self.live.connections.try_update(Relaxed, Relaxed, more) else {
            return false;
        };
        if self.is_up() {
            self.counters.are_open(others + 1);
            self.load.rise();
            return true;
        }
        self.live.connections.fetch_sub(1, Relaxed); // it went down since it was chosen
        false
    }

    pub(super) fn give_back(&self) {
        self.load.fall(); // first, so that the pool never seems to have more than its backends
        self.live.connections.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", &self.name).finish_non_exhaustive()
    }
}
