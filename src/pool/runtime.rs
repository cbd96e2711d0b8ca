//! What is true of a backend now. It outlives changes of what is configured.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::outlier::Failures;
use super::persist::{HoldId, PersistTable};
use super::queue::Queue;
use super::slow_start::PARTS;
use super::status::Status;
use crate::log::throttle::ReasonThrottle;
use crate::stats::counters::BackendCounters;
use crate::stats::database::DatabaseState;
use crate::stats::registry::BackendId;
use crate::stats::requests::RequestCounters;
use crate::stats::traffic::Traffic;

/// Connections of all backends of a pool, and what they change when they end.
#[derive(Debug, Default)]
pub(super) struct Load {
    open: CachePadded<AtomicU32>,
    /// The most that were open at once.
    peak: AtomicU32,
    /// Connections that wait for one.
    pub(super) queue: Queue,
    pub(super) persist: PersistTable,
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

/// A backend's connections, health and statistics.
pub(super) struct Runtime {
    pub(super) id: BackendId,
    live: CachePadded<LiveCounts>,
    pub(super) counters: CachePadded<BackendCounters>,
    pub(super) traffic: Traffic,
    pub(super) requests: RequestCounters,
    status: Mutex<Status>,
    /// By the last health check that got an answer.
    database: Mutex<Option<DatabaseState>>,
    /// Used only when no other backend can be, by its role.
    fallback: AtomicBool,
    load: Arc<Load>,
    pub(super) failed_connects: ReasonThrottle,
    /// Failed connects and handshakes, for outlier detection.
    pub(super) connects: Failures,
    /// Responses with status 5xx.
    pub(super) responses: Failures,
}

/// What changes with each connection: together, as a pick reads all of it, and on cache lines of its own.
struct LiveCounts {
    connections: AtomicU32,
    /// In sixteenths of a microsecond, so that a small latency still has an average; 0 is unmeasured.
    latency: AtomicU32,
    up: AtomicBool,
    /// Measured since the last decay.
    measured: AtomicBool,
    /// How often it went down.
    downs: AtomicU32,
    /// Of its weight and of its limit, while it is in slow start.
    parts: AtomicU32,
}

/// Sixteenths of a microsecond in one.
const FRACTION: u32 = 16;

/// A failed connect counts as a sample of this multiple of the average: ten in a row make it 24-fold.
const FAILED_SEEMS: u32 = 4;

/// The least that a failed connect counts as, where there is no average worth multiplying.
const FAILED_TAKES: Duration = Duration::from_millis(1);

impl Runtime {
    pub(super) fn new(id: BackendId, status: Status, workers: usize, load: Arc<Load>) -> Arc<Runtime> {
        Arc::new(Runtime {
            id,
            live: CachePadded::new(LiveCounts {
                connections: AtomicU32::new(0),
                latency: AtomicU32::new(0),
                up: AtomicBool::new(status.up),
                measured: AtomicBool::new(false),
                downs: AtomicU32::new(0),
                parts: AtomicU32::new(PARTS),
            }),
            counters: CachePadded::default(),
            traffic: Traffic::new(workers),
            requests: RequestCounters::new(workers),
            status: Mutex::new(status),
            database: Mutex::default(),
            fallback: AtomicBool::new(false),
            load,
            failed_connects: ReasonThrottle::new(),
            connects: Failures::default(),
            responses: Failures::default(),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.live.up.load(Acquire)
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn database(&self) -> Option<DatabaseState> {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_database(&self, state: Option<DatabaseState>) -> Option<DatabaseState> {
        std::mem::replace(&mut *self.database.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    pub(super) fn connections(&self) -> u32 {
        self.live.connections.load(Relaxed)
    }

    pub(super) fn latency_us(&self) -> u32 {
        self.live.latency.load(Relaxed).div_ceil(FRACTION)
    }

    pub(super) fn parts(&self) -> u32 {
        self.live.parts.load(Relaxed)
    }

    /// Only the pool's writer calls this, under its lock.
    pub(super) fn set_parts(&self, parts: u32) {
        self.live.parts.store(parts, Relaxed);
    }

    pub(super) fn downs(&self) -> u32 {
        self.live.downs.load(Acquire)
    }

    /// Makes the backend look slower, also when it failed at once: a refusal takes less time than any answer, and
    /// `least_latency` would otherwise prefer a dead backend until a health check says so.
    pub(super) fn record_failure(&self, took: Duration) {
        let average = Duration::from_micros(self.latency_us().into());
        self.record_latency(took.max(average * FAILED_SEEMS).max(FAILED_TAKES));
    }

    /// Exponentially weighted moving average with a weight of 1/8 for the sample; the first sample is the average.
    pub(super) fn record_latency(&self, sample: Duration) {
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

    /// Called every second: an average without a new sample loses 1/16, so that `least_latency` gives a slow backend
    /// another chance.
    pub(super) fn decay(&self) {
        if self.live.measured.swap(false, Relaxed) {
            return;
        }
        self.live.latency.update(Relaxed, Relaxed, |old| old - old.div_ceil(16));
    }

    /// Only the pool's writer calls this, under its lock. `went_down`: connections that are about to begin do not go on.
    pub(super) fn set_status(&self, new: Status, went_down: bool) {
        let up = new.up;
        self.status.lock().unwrap_or_else(PoisonError::into_inner).change(new);
        self.live.up.store(up, Release);
        if went_down {
            self.live.downs.fetch_add(1, Release);
        }
    }

    /// Whether it stands in for backends that the pool prefers.
    pub(super) fn is_fallback(&self) -> bool {
        self.fallback.load(Relaxed)
    }

    /// Only the pool's writer calls this, under its lock. True if that changed it.
    pub(super) fn set_fallback(&self, fallback: bool) -> bool {
        self.fallback.swap(fallback, Relaxed) != fallback
    }

    /// Counts one more connection, unless the backend has `max` of them, or is down and that matters.
    pub(super) fn try_acquire(&self, max: u32, may_be_down: bool) -> bool {
        let more = |open: u32| (open < max).then(|| open + 1);
        let Ok(others) = self.live.connections.try_update(Relaxed, Relaxed, more) else {
            return false;
        };
        if may_be_down || self.is_up() {
            self.counters.record_peak(others + 1);
            self.load.rise();
            return true;
        }
        // It went down since it was chosen.
        self.free();
        false
    }

    /// A connection ends, which has `held` the entry of its client.
    pub(super) fn release(&self, held: Option<HoldId>) {
        held.into_iter().for_each(|held| self.load.persist.release(held));
        self.load.fall(); // first, so that the pool never seems to have more than its backends
        self.free();
    }

    fn free(&self) {
        self.live.connections.fetch_sub(1, SeqCst);
        self.load.queue.wake_first();
    }
}
