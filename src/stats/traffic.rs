//! Bytes, counted while they move.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::per_worker::{PerWorker, add};

/// Bytes of a listener or a backend.
#[derive(Debug)]
pub struct Traffic(PerWorker<Bytes>);

#[derive(Debug, Default)]
struct Bytes {
    from_clients: AtomicU64,
    from_backends: AtomicU64,
}

impl Traffic {
    /// For this number of workers; others may come later.
    pub fn new(workers: usize) -> Traffic {
        Traffic(PerWorker::new(workers))
    }

    /// Adds bytes that have moved. To be called by the thread of that worker only.
    pub fn add(&self, worker: usize, from_client: u64, from_backend: u64) {
        let bytes = self.0.of(worker);
        add(&bytes.from_clients, from_client);
        add(&bytes.from_backends, from_backend);
    }

    /// Bytes from clients that were handed to backends.
    pub fn bytes_in(&self) -> u64 {
        self.0.sum(|bytes| bytes.from_clients.load(Relaxed))
    }

    /// Bytes from backends that were handed to clients.
    pub fn bytes_out(&self) -> u64 {
        self.0.sum(|bytes| bytes.from_backends.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_add_is_added_up() {
        let traffic = Traffic::new(3);
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let traffic = &traffic;
                scope.spawn(move || (0..10_000).for_each(|_| traffic.add(worker, 1, worker as u64)));
            }
        });
        assert_eq!((traffic.bytes_in(), traffic.bytes_out()), (30_000, 30_000));
    }

    #[test]
    fn workers_that_come_later_have_places_of_their_own() {
        let traffic = Traffic::new(1);
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let traffic = &traffic;
                scope.spawn(move || (0..10_000).for_each(|_| traffic.add(worker, 1, worker as u64)));
            }
        });
        assert_eq!((traffic.bytes_in(), traffic.bytes_out()), (80_000, 280_000));
    }
}
