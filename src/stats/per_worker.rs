//! Counters that each worker has for itself, so that no two write to the same line of cache and no addition has to be
//! atomic; a reader adds them up.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_utils::CachePadded;

/// A set of counters for each worker.
#[derive(Debug)]
pub(super) struct PerWorker<T> {
    workers: Box<[CachePadded<T>]>,
    /// Of workers that came later. Places never move: the first of these workers that counts anything adds twice as many,
    /// so that there are few links to follow.
    later: OnceLock<Box<PerWorker<T>>>,
}

impl<T: Default> PerWorker<T> {
    /// For this number of workers; others may come later.
    pub(super) fn new(workers: usize) -> PerWorker<T> {
        PerWorker { workers: (0..workers.max(1)).map(|_| CachePadded::default()).collect(), later: OnceLock::new() }
    }

    /// The counters that the thread of this worker alone changes.
    pub(super) fn of(&self, worker: usize) -> &T {
        let Some(own) = self.workers.get(worker) else {
            let places = self.workers.len();
            return self.later.get_or_init(|| Box::new(PerWorker::new(places * 2))).of(worker - places);
        };
        own
    }

    /// The sum over all workers.
    pub(super) fn sum(&self, counter: fn(&T) -> u64) -> u64 {
        let own: u64 = self.workers.iter().map(|it| counter(it)).sum();
        own + self.later.get().map_or(0, |later| later.sum(counter))
    }
}

/// Adds to a counter of the calling thread's worker.
pub(super) fn add(to: &AtomicU64, more: u64) {
    if more > 0 {
        to.store(to.load(Relaxed).wrapping_add(more), Relaxed);
    }
}
