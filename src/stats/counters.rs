//! Counters of a listener, shared by all workers. They change once or twice in a connection's life, never
//! for a read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::ending::Ending;

/// What a listener's connections leave behind.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    open: CachePadded<AtomicUsize>,
    accepted: CachePadded<AtomicU64>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    endings: [AtomicU64; Ending::ALL.len()],
}

impl ListenerCounters {
    /// A connection was accepted.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended.
    pub fn closed(&self, ending: Ending, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        self.endings[ending.index()].fetch_add(1, Ordering::Relaxed);
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

    /// Bytes from clients that were handed to backends, by connections that have ended.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes from backends that were handed to clients, by connections that have ended.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Connections that ended this way.
    pub fn ended(&self, ending: Ending) -> u64 {
        self.endings[ending.index()].load(Ordering::Relaxed)
    }

    /// Connections that got no backend.
    pub fn refused(&self) -> u64 {
        Ending::ALL.into_iter().filter(|ending| ending.is_refusal()).map(|ending| self.ended(ending)).sum()
    }
}
