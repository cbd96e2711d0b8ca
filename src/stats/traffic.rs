//! Bytes, counted while they move.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Bytes of a listener or a backend. Each worker adds to a place of its own, so that no two write to the same line
/// of cache and no addition has to be atomic; a reader adds them up.
#[derive(Debug)]
pub struct Traffic {
    workers: Box<[CachePadded<Bytes>]>,
}

#[derive(Debug, Default)]
struct Bytes {
    from_clients: AtomicU64,
    from_backends: AtomicU64,
}

impl Traffic {
    /// For this number of workers.
    pub fn new(workers: usize) -> Traffic {
        Traffic { workers: (0..workers).map(|_| CachePadded::default()).collect() }
    }

    /// Adds bytes that have moved. To be called by the thread of that worker only.
    pub fn add(&self, worker: usize, from_client: u64, from_backend: u64) {
        let Some(bytes) = self.workers.get(worker) else { return };
        let add = |to: &AtomicU64, more: u64| {
            if more > 0 {
                to.store(to.load(Ordering::Relaxed) + more, Ordering::Relaxed);
            }
        };
        add(&bytes.from_clients, from_client);
        add(&bytes.from_backends, from_backend);
    }

    /// Bytes from clients that were handed to backends.
    pub fn bytes_in(&self) -> u64 {
        self.workers.iter().map(|bytes| bytes.from_clients.load(Ordering::Relaxed)).sum()
    }

    /// Bytes from backends that were handed to clients.
    pub fn bytes_out(&self) -> u64 {
        self.workers.iter().map(|bytes| bytes.from_backends.load(Ordering::Relaxed)).sum()
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
}
