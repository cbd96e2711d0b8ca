//! What all workers share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use super::dial::retry_queue::DescriptorShortage;
use super::listener::Listener;
use crate::limits::{Capacity, PreambleMemory};
use crate::log::throttle::ReasonThrottle;
use crate::pool::Pool;
use crate::stats::registry::PoolId;
use crate::tls::Connector;
use crate::worker::Remote;

/// What all workers share.
pub struct PlaneState {
    members: ArcSwap<Members>,
    pub(super) remotes: Remotes,
    /// Connections of each worker, from accept to end.
    loads: Box<[CachePadded<AtomicUsize>]>,
    /// Listening sockets that still accept.
    accepting: AtomicUsize,
    /// Connections that there are descriptors for.
    capacity: Arc<Capacity>,
    pub(super) preamble_memory: Arc<PreambleMemory>,
    pub(super) descriptor_shortage: Arc<DescriptorShortage>,
    pub(super) accept_trouble: ReasonThrottle,
}

pub(super) type Remotes = Arc<[Arc<Remote>]>;

/// Listeners and pools. Replaced whole when one is added, changed or removed.
#[derive(Clone, Default)]
pub struct Members {
    /// In the order of the configuration.
    pub listeners: Vec<Arc<Listener>>,
    /// Listeners that were removed and still have connections.
    pub leaving: Vec<Arc<Listener>>,
    /// In the order of the configuration.
    pub pools: Vec<Arc<Pool>>,
    /// TLS to the backends of pools.
    pub connectors: HashMap<PoolId, Arc<Connector>>,
    /// Counts the replacements.
    pub(super) generation: u64,
}

impl Members {
    /// Members to be put in service by [`DataPlane::set_members`].
    pub fn new(
        listeners: Vec<Arc<Listener>>,
        leaving: Vec<Arc<Listener>>,
        pools: Vec<Arc<Pool>>,
        connectors: HashMap<PoolId, Arc<Connector>>,
    ) -> Members {
        Members { listeners, leaving, pools, connectors, generation: 0 }
    }
}

impl PlaneState {
    pub(super) fn new(remotes: Remotes, workers: usize, capacity: usize) -> Arc<PlaneState> {
        Arc::new(PlaneState {
            members: ArcSwap::default(),
            remotes,
            loads: (0..workers).map(|_| CachePadded::default()).collect(),
            accepting: AtomicUsize::new(0),
            capacity: Capacity::new(capacity),
            preamble_memory: Arc::default(),
            descriptor_shortage: Arc::default(),
            accept_trouble: ReasonThrottle::new(),
        })
    }

    /// One without threads.
    #[cfg(test)]
    pub(super) fn idle(workers: usize) -> Arc<PlaneState> {
        PlaneState::new(Arc::new([]), workers, 100)
    }

    /// What there is now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    pub(super) fn replace_members(&self, members: Members) -> Arc<Members> {
        let generation = self.members.load().generation + 1;
        let members = Arc::new(Members { generation, ..members });
        members.listeners.iter().for_each(|listener| listener.take_effect());
        self.members.store(Arc::clone(&members));
        members
    }

    /// Changes whenever a listener, pool or backend comes or leaves.
    pub fn generation(&self) -> (u64, u64) {
        let members = self.members.load();
        (members.generation, members.pools.iter().map(|pool| pool.generation_now()).sum())
    }

    /// The listeners, in the order of the configuration.
    pub fn listeners(&self) -> Vec<Arc<Listener>> {
        self.members.load().listeners.clone()
    }

    /// The pools, in the order of the configuration.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.members.load().pools.clone()
    }

    /// TLS to the backends of a pool.
    pub(super) fn connector(&self, pool: PoolId) -> Option<Arc<Connector>> {
        self.members.load().connectors.get(&pool).map(Arc::clone)
    }

    /// Connections open now, over all listeners.
    pub fn open(&self) -> usize {
        let members = self.members.load();
        members.listeners.iter().chain(&members.leaving).map(|listener| listener.counters().open()).sum()
    }

    /// Connections that may be open at once.
    pub fn size(&self) -> usize {
        self.capacity.max()
    }

    /// Workers.
    pub fn workers(&self) -> usize {
        self.loads.len()
    }

    pub(super) fn capacity(&self) -> &Arc<Capacity> {
        &self.capacity
    }

    pub(super) fn remote(&self, worker: usize) -> Option<&Arc<Remote>> {
        self.remotes.get(worker)
    }

    pub(super) fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire) > 0
    }

    /// Counts a connection against a worker until the slot is dropped. The worker on which it was accepted
    /// has it, unless that one has more than its share: then the one with the fewest.
    ///
    /// The kernel spreads connections over listening sockets by a hash, unevenly when they are few. Few and
    /// long ones (databases) come out even; among many, a difference below a sixteenth is not worth a
    /// wake-up of another thread.
    pub(super) fn slot(self: &Arc<Self>, accepted_on: usize) -> WorkerSlot {
        let load = |worker: usize| self.loads[worker].load(Ordering::Relaxed);
        let mine = load(accepted_on);
        let (fewest, least) =
            (0..self.loads.len()).map(|worker| (worker, load(worker))).min_by_key(|&(_, load)| load).unwrap_or((0, 0));
        let slack = (least / 16).max(1);
        let worker = if mine >= least + slack { fewest } else { accepted_on };
        self.loads[worker].fetch_add(1, Ordering::Relaxed);
        WorkerSlot { plane: Arc::clone(self), worker }
    }

    pub(super) fn accepts(self: &Arc<Self>) -> AcceptGuard {
        self.accepting.fetch_add(1, Ordering::Relaxed);
        AcceptGuard(Arc::clone(self))
    }
}

/// A connection's place on a worker.
pub(super) struct WorkerSlot {
    plane: Arc<PlaneState>,
    pub(super) worker: usize,
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.plane.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listening socket that is open.
pub(super) struct AcceptGuard(Arc<PlaneState>);

impl Drop for AcceptGuard {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(slots: &[WorkerSlot], workers: usize) -> Vec<usize> {
        (0..workers).map(|worker| slots.iter().filter(|slot| slot.worker == worker).count()).collect()
    }

    #[test]
    fn few_long_connections_come_out_even_however_the_kernel_spreads_them() {
        for workers in [1, 2, 3, 8] {
            for accepted_on in [|_| 0, |n: usize| n * 7 / 3, |n: usize| n / 5] {
                let plane = PlaneState::idle(workers);
                let slots: Vec<WorkerSlot> = (0..20).map(|n| plane.slot(accepted_on(n) % workers)).collect();
                let counts = counts(&slots, workers);
                let (most, fewest) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
                assert!(most - fewest <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn an_even_spread_moves_nobody() {
        let plane = PlaneState::idle(2);
        let slots: Vec<WorkerSlot> = (0..100).map(|n| plane.slot(n % 2)).collect();
        assert!(slots.iter().enumerate().all(|(n, slot)| slot.worker == n % 2));
    }

    #[test]
    fn among_many_a_small_difference_is_not_worth_a_move() {
        let plane = PlaneState::idle(2);
        let mut slots: Vec<WorkerSlot> = (0..1000).map(|n| plane.slot(n % 2)).collect();
        slots.extend((0..20).map(|_| plane.slot(0)));
        assert_eq!(counts(&slots, 2), [520, 500]);
    }

    #[test]
    fn a_slot_is_given_back() {
        let plane = PlaneState::idle(2);
        drop((0..50).map(|_| plane.slot(0)).collect::<Vec<_>>());
        assert!(plane.loads.iter().all(|load| load.load(Ordering::Relaxed) == 0));
    }
}
