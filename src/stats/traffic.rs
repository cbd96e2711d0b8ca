//! Bytes, counted while they move.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Bytes of a listener or a backend. Each worker adds to a place of its own, so that no two write to the same line
/// of cache and no addition has to be atomic; a reader adds them up.
#[derive(Debug)]
pub struct Traffic {
    workers: Box<[CachePadded<Bytes>]>,
    /// Of workers that came later. Places never move: the first of these workers that moves a byte adds twice as many,
    /// so that there are few links to follow.
    later: OnceLock<Box<Traffic>>,
}

#[derive(Debug, Default)]
struct Bytes {
    from_clients: AtomicU64,
    from_backends: AtomicU64,
}

impl Traffic {
    /// For this number of workers; others may come later.
    pub fn new(workers: usize) -> Traffic {
        Traffic { workers: (0..workers.max(1)).map(|_| CachePadded::default()).collect(), later: OnceLock::new() }
    }

    /// Adds bytes that have moved. To be called by the thread of that worker only.
    pub fn add(&self, worker: usize, from_client: u64, from_backend: u64) {
        let Some(bytes) = self.workers.get(worker) else {
            let places = self.workers.len();
            let later = self.later.get_or_init(|| Box::new(Traffic::new(places * 2)));
            return later.add(worker - places, from_client, from_backend);
        };
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
        self.sum(|bytes| &bytes.from_clients)
    }

    /// Bytes from backends that were handed to clients.
    pub fn bytes_out(&self) -> u64 {
        self.sum(|bytes| &bytes.from_backends)
    }

    fn sum(&self, counter: fn(&Bytes) -> &AtomicU64) -> u64 {
        let own: u64 = self.workers.iter().map(|bytes| counter(bytes).load(Ordering::Relaxed)).sum();
        own + self.later.get().map_or(0, |later| later.sum(counter))
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
