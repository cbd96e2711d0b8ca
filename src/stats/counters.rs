//! Counters of listeners and backends, shared by all workers. They change a few times in a connection's life, never
//! for a read.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crossbeam_utils::CachePadded;

use super::termination::Termination;

/// What a listener's connections leave behind.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    open: CachePadded<AtomicUsize>,
    accepted: CachePadded<AtomicU64>,
    /// The most that were open at once.
    peak: AtomicUsize,
    retries: AtomicU64,
    handshakes: Handshakes,
    endings: Endings,
}

/// One for each of [`Termination::ALL`].
#[derive(Debug)]
struct Endings([AtomicU64; Termination::ALL.len()]);

/// By hand: the standard library has it for arrays of up to 32.
impl Default for Endings {
    fn default() -> Endings {
        Endings(std::array::from_fn(|_| AtomicU64::default()))
    }
}

/// TLS handshakes that succeeded.
#[derive(Debug, Default)]
pub struct Handshakes {
    full: AtomicU64,
    resumed: AtomicU64,
}

impl Handshakes {
    /// One more. `resumed` is one that went on with a session that both knew.
    pub fn add(&self, resumed: bool) {
        let count = if resumed { &self.resumed } else { &self.full };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Those that were made from the beginning.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Those that went on with a session that both knew.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }
}

impl ListenerCounters {
    /// A connection was accepted.
    pub fn opened(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        if open > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(open, Ordering::Relaxed);
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended.
    pub fn closed(&self, ending: Termination) {
        self.endings.0[ending.index()].fetch_add(1, Ordering::Relaxed);
        // Last, and released: who reads that nothing is open sees all the rest.
        self.open.fetch_sub(1, Ordering::Release);
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A connect has failed, and another backend is tried.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// The most connections that were open at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Connects that were tried again with another backend.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Handshakes with clients.
    pub fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Connections that ended this way.
    pub fn ended(&self, ending: Termination) -> u64 {
        self.endings.0[ending.index()].load(Ordering::Relaxed)
    }
}

/// What a backend's connections and health checks leave behind.
#[derive(Debug, Default)]
pub struct BackendCounters {
    connections: AtomicU64,
    connect_failures: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    client_aborts: AtomicU64,
    ejections: AtomicU64,
    handshakes: Handshakes,
    /// The most connections that it had at once.
    peak: AtomicU32,
    checks: Mutex<CheckCounters>,
}

/// The health checks that a backend had.
#[derive(Clone, Debug, Default)]
pub struct CheckCounters {
    /// How many.
    pub count: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The last one.
    pub last: Option<CheckRecord>,
}

/// One health check.
#[derive(Clone, Debug)]
pub struct CheckRecord {
    /// When it ended.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Why it failed; `None` when it passed.
    pub failure: Option<Arc<str>>,
}

impl BackendCounters {
    /// A connection was established.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of connections open now.
    pub fn record_peak(&self, open: u32) {
        if open > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(open, Ordering::Relaxed);
        }
    }

    /// A connect failed.
    pub fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// It was ejected.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// A connect failed, and another backend is tried.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended by the backend's fault.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended by the client's fault.
    pub fn client_aborted(&self) {
        self.client_aborts.fetch_add(1, Ordering::Relaxed);
    }

    /// A health check has ended.
    pub fn checked(&self, check: CheckRecord) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.count += 1;
        checks.failed += u64::from(check.failure.is_some());
        checks.last = Some(check);
    }

    /// Connections established.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The most connections that it had at once.
    pub fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Connects that failed.
    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Ordering::Relaxed)
    }

    /// Failed connects after which another backend was tried.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Connections that ended by the backend's fault: it reset them, was lost, or broke the rules of TLS.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Connections that ended by the client's fault: it reset them, was lost, or broke the rules of TLS.
    pub fn client_aborts(&self) -> u64 {
        self.client_aborts.load(Ordering::Relaxed)
    }

    /// Handshakes with it.
    pub fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Its health checks.
    pub fn checks(&self) -> CheckCounters {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
