//! The data plane as the control thread sees it: workers, and what they share.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::sync::oneshot;

use super::accept;
use super::dial::DescriptorShortage;
use super::listener::Listener;
use super::samples::Samples;
use super::upstream::Upstream;
use super::worker_state::{Abort, WorkerState};
use crate::limits::{Capacity, PreambleMemory};
use crate::log::access::AccessWriter;
use crate::log::throttle::ReasonThrottle;
use crate::net::addr::Address;
use crate::pool::Pool;
use crate::stats::registry::{BackendId, ListenerId, PoolId};
use crate::worker::{Remote, Worker};

/// How often a drain looks whether connections are left.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What all workers share.
pub struct DataPlane {
    members: ArcSwap<Members>,
    remotes: Remotes,
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
    pub upstreams: HashMap<PoolId, Arc<Upstream>>,
    /// Counts the replacements.
    generation: u64,
}

impl Members {
    /// Members to be put in service by [`DataPlane::set_members`].
    pub fn new(
        listeners: Vec<Arc<Listener>>,
        leaving: Vec<Arc<Listener>>,
        pools: Vec<Arc<Pool>>,
        upstreams: HashMap<PoolId, Arc<Upstream>>,
    ) -> Members {
        Members { listeners, leaving, pools, upstreams, generation: 0 }
    }
}

/// The threads of the data plane.
pub struct Threads(Vec<Worker>);

type Remotes = Arc<[Arc<Remote>]>;

impl DataPlane {
    /// Starts the workers, which accept nothing yet, for at most `capacity` connections at once. With `samples`, they measure.
    ///
    /// # Errors
    /// A thread or its descriptors cannot be had.
    pub fn start(
        workers: usize,
        capacity: usize,
        access: Option<&AccessWriter>,
        samples: Option<&Samples>,
    ) -> io::Result<(Arc<DataPlane>, Threads)> {
        let workers = (0..workers)
            .map(|index| Worker::start(&format!("worker-{index}"), WorkerState::release))
            .collect::<io::Result<Vec<_>>>()?;
        let remotes = workers.iter().map(|worker| Arc::clone(worker.remote())).collect();
        let plane = DataPlane::new(remotes, workers.len(), capacity);
        for (index, remote) in plane.remotes.iter().enumerate() {
            let (plane, access, samples) = (Arc::clone(&plane), access.cloned(), samples.cloned());
            remote.run(move || WorkerState::install(index, plane, access, samples));
        }
        Ok((plane, Threads(workers)))
    }

    fn new(remotes: Remotes, workers: usize, capacity: usize) -> Arc<DataPlane> {
        Arc::new(DataPlane {
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
    pub(crate) fn idle(workers: usize) -> Arc<DataPlane> {
        DataPlane::new(Arc::new([]), workers, 100)
    }

    /// What there is now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Puts other members in service. Connections go on with what they began with.
    pub fn set_members(&self, members: Members) {
        let generation = self.members.load().generation + 1;
        let members = Arc::new(Members { generation, ..members });
        members.listeners.iter().for_each(|listener| listener.take_effect());
        self.members.store(Arc::clone(&members));
        self.on_each_worker(move || {
            WorkerState::with(|state| members.listeners.iter().for_each(|listener| state.replace(listener)));
        });
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
    pub(super) fn upstream(&self, pool: PoolId) -> Option<Arc<Upstream>> {
        self.members.load().upstreams.get(&pool).map(Arc::clone)
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

    fn on_each_worker(&self, call: impl FnOnce() + Send + Clone + 'static) {
        on_each(&self.remotes, call);
    }

    /// Accepts a listener's connections from `sockets`, one for each worker: non-blocking, listening on `address`.
    pub fn accept(&self, listener: &Arc<Listener>, address: &Address, sockets: Vec<OwnedFd>) {
        for (remote, socket) in self.remotes.iter().zip(sockets) {
            let (listener, address) = (Arc::clone(listener), address.clone());
            remote.run(move || accept::start(listener, address, socket));
        }
    }

    /// Takes what waits in the kernel's queue of one address of a listener, then closes the workers' listening sockets.
    pub fn stop_accepting_at(&self, listener: ListenerId, address: &Address) {
        let address = address.clone();
        self.on_each_worker(move || WorkerState::with(|state| state.stop(listener, &address)));
    }

    /// Takes what waits in the kernel's queues, then closes the workers' listening sockets.
    pub fn stop_accepting(&self) {
        self.on_each_worker(|| WorkerState::with(WorkerState::stop_accepting));
    }

    /// Returns once nothing is accepted any more and no connection is open.
    pub async fn drained(&self) {
        while self.accepting.load(Ordering::Acquire) > 0 || self.open() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Ends all connections.
    pub fn abort_all(&self) {
        self.on_each_worker(|| WorkerState::with(|state| state.abort_all(Abort::DrainDeadline)));
    }

    /// What ends the connections of a backend, for [`Pool::new`].
    pub fn on_cut(&self) -> Box<dyn Fn(BackendId) + Send + Sync> {
        let remotes = Arc::clone(&self.remotes);
        Box::new(move |backend| {
            on_each(&remotes, move || WorkerState::with(|state| state.abort_backend(backend)));
        })
    }

    /// Has every worker hand over what it has measured. Returns once they have: at once on one that has stopped.
    pub async fn hand_over(&self) {
        let mut answers = Vec::new();
        for remote in &*self.remotes {
            let (answer, answered) = oneshot::channel();
            remote.run(move || {
                WorkerState::with(WorkerState::hand_over);
                // The one that asked may have gone.
                let _ = answer.send(());
            });
            answers.push(answered);
        }
        for answered in answers {
            let _ = answered.await;
        }
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

impl Threads {
    /// Ends the workers, and with them every connection that is left. Returns their threads, which end as soon as they
    /// can.
    pub fn stop(self) -> Vec<JoinHandle<()>> {
        self.0.into_iter().map(Worker::stop).collect()
    }
}

fn on_each(remotes: &[Arc<Remote>], call: impl FnOnce() + Send + Clone + 'static) {
    for remote in remotes {
        remote.run(call.clone());
    }
}

/// A connection's place on a worker.
pub(super) struct WorkerSlot {
    plane: Arc<DataPlane>,
    pub(super) worker: usize,
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.plane.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listening socket that is open.
pub(super) struct AcceptGuard(Arc<DataPlane>);

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
                let plane = DataPlane::idle(workers);
                let slots: Vec<WorkerSlot> = (0..20).map(|n| plane.slot(accepted_on(n) % workers)).collect();
                let counts = counts(&slots, workers);
                let (most, fewest) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
                assert!(most - fewest <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn an_even_spread_moves_nobody() {
        let plane = DataPlane::idle(2);
        let slots: Vec<WorkerSlot> = (0..100).map(|n| plane.slot(n % 2)).collect();
        assert!(slots.iter().enumerate().all(|(n, slot)| slot.worker == n % 2));
    }

    #[test]
    fn among_many_a_small_difference_is_not_worth_a_move() {
        let plane = DataPlane::idle(2);
        let mut slots: Vec<WorkerSlot> = (0..1000).map(|n| plane.slot(n % 2)).collect();
        slots.extend((0..20).map(|_| plane.slot(0)));
        assert_eq!(counts(&slots, 2), [520, 500]);
    }

    #[test]
    fn a_slot_is_given_back() {
        let plane = DataPlane::idle(2);
        drop((0..50).map(|_| plane.slot(0)).collect::<Vec<_>>());
        assert!(plane.loads.iter().all(|load| load.load(Ordering::Relaxed) == 0));
    }
}
