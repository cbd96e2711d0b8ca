//! Requests of `protocol: http` that are under way, and routes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::per_worker::{PerWorker, add};
use super::registry::RouteId;

/// Requests of a listener, a route or a backend.
#[derive(Debug)]
pub struct RequestCounters(PerWorker<WorkerRequests>);

#[derive(Debug, Default)]
struct WorkerRequests {
    begun: AtomicU64,
    ended: AtomicU64,
    retries: AtomicU64,
}

impl RequestCounters {
    /// For this number of workers; others may come later.
    pub fn new(workers: usize) -> RequestCounters {
        RequestCounters(PerWorker::new(workers))
    }

    /// A request has begun. To be called by the thread of that worker only, as the other changes.
    pub fn begin(&self, worker: usize) {
        add(&self.0.of(worker).begun, 1);
    }

    /// A request has ended.
    pub fn end(&self, worker: usize) {
        let ended = &self.0.of(worker).ended;
        // Released: who reads that it has ended reads that it had begun.
        ended.store(ended.load(Relaxed).wrapping_add(1), Release);
    }

    /// A request was sent again this often.
    pub fn retried(&self, worker: usize, count: u64) {
        add(&self.0.of(worker).retries, count);
    }

    /// Requests that are under way.
    pub fn open(&self) -> u64 {
        // A request ends on the worker on which it began: what has ended is read first.
        let ended = self.0.sum(|it| it.ended.load(Acquire));
        self.0.sum(|it| it.begun.load(Relaxed)).saturating_sub(ended)
    }

    /// Requests that were sent again.
    pub fn retries(&self) -> u64 {
        self.0.sum(|it| it.retries.load(Relaxed))
    }
}

/// What a route of a listener leaves behind. It survives a reload while a route has the same label.
#[derive(Debug)]
pub struct RouteCounters {
    id: RouteId,
    label: Arc<str>,
    requests: RequestCounters,
}

impl RouteCounters {
    /// A route that has not been there before.
    pub fn new(id: RouteId, label: Arc<str>, workers: usize) -> RouteCounters {
        RouteCounters { id, label, requests: RequestCounters::new(workers) }
    }

    /// Its id.
    pub fn id(&self) -> RouteId {
        self.id
    }

    /// What it is called, unique within the listener.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Its requests.
    pub fn requests(&self) -> &RequestCounters {
        &self.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_requests_are_those_that_began_and_did_not_end() {
        let requests = RequestCounters::new(2);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let requests = &requests;
                scope.spawn(move || {
                    for number in 0..10_000 {
                        requests.begin(worker);
                        assert!(requests.open() <= 4 * 10_000);
                        if number % 2 == 0 {
                            requests.retried(worker, 1);
                        }
                        if number >= worker {
                            requests.end(worker);
                        }
                    }
                });
            }
        });
        assert_eq!((requests.open(), requests.retries()), (1 + 2 + 3, 20_000));
    }
}
