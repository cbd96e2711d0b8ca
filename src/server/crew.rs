//! The workers: those that take connections, and those that only keep the ones they have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};
use crossbeam_utils::CachePadded;

use crate::worker::Remote;

/// A worker, and how many connections it has.
pub(super) struct CrewMember {
    /// Of its thread alone until that has ended: the lowest that was free.
    pub(super) index: usize,
    pub(super) remote: Arc<Remote>,
    /// Connections from accept to end, and [`CLOSED`].
    load: CachePadded<AtomicUsize>,
    /// Connections that were entered on it, and on those that had its index before.
    entered: AtomicU64,
}

/// Set in the load of a worker whose thread ends. None has half of all numbers of connections.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// All workers at one time.
#[derive(Clone, Default)]
pub(super) struct Crew {
    /// New connections go to these.
    pub(super) active: Vec<Arc<CrewMember>>,
    /// These end with their last connection.
    pub(super) retired: Vec<Arc<CrewMember>>,
}

/// The workers as they are now. Replaced whole when one comes or leaves.
#[derive(Clone, Default)]
pub(super) struct CurrentCrew(Arc<ArcSwap<Crew>>);

impl CrewMember {
    pub(super) fn new(index: usize, remote: Arc<Remote>, entered: u64) -> Arc<CrewMember> {
        Arc::new(CrewMember { index, remote, load: CachePadded::default(), entered: AtomicU64::new(entered) })
    }

    /// The number of one more connection. To be called by the thread of this worker only.
    pub(super) fn next_number(&self) -> u64 {
        let number = self.entered();
        self.entered.store(number + 1, Ordering::Relaxed);
        number
    }

    pub(super) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Counts one more connection; `None` if the worker ends.
    pub(super) fn enter(self: &Arc<Self>) -> Option<WorkerSlot> {
        let slot = WorkerSlot { worker: Arc::clone(self) };
        (self.load.fetch_add(1, Ordering::Relaxed) & CLOSED == 0).then_some(slot)
    }

    /// Whether its thread ends, or has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.load.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Takes no connection any more, if it has none. True if so.
    pub(super) fn close(&self) -> bool {
        self.load.compare_exchange(0, CLOSED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

impl Crew {
    /// Every worker.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<CrewMember>> {
        self.active.iter().chain(&self.retired)
    }

    /// The worker for a connection that was accepted on this one; `None` where there is none at all.
    fn choose(&self, accepted_on: usize) -> Option<&Arc<CrewMember>> {
        let (fewest, least) = self.active.iter().map(|worker| (worker, worker.load())).min_by_key(|&(_, load)| load)?;
        let mine = self.active.iter().find(|worker| worker.index == accepted_on);
        let slack = (least / 16).max(1);
        Some(mine.filter(|mine| mine.load() < least + slack).unwrap_or(fewest))
    }
}

impl CurrentCrew {
    pub(super) fn load(&self) -> Guard<Arc<Crew>> {
        self.0.load()
    }

    pub(super) fn store(&self, crew: Crew) {
        self.0.store(Arc::new(crew));
    }

    /// Runs `call` on each worker.
    pub(super) fn on_each(&self, call: impl FnOnce() + Send + Clone + 'static) {
        for worker in self.load().all() {
            worker.remote.run(call.clone());
        }
    }

    /// Counts a connection against a worker until the slot is dropped. The worker on which it was accepted
    /// has it, unless that one retires or has more than its share: then the one with the fewest.
    ///
    /// The kernel spreads connections over listening sockets by a hash, unevenly when they are few. Few and
    /// long ones (databases) come out even; among many, a difference below a sixteenth is not worth a
    /// wake-up of another thread.
    pub(super) fn slot(&self, accepted_on: usize) -> Option<WorkerSlot> {
        loop {
            // Again if it has retired and ended since: the crew is another one by then.
            if let Some(slot) = self.load().choose(accepted_on)?.enter() {
                return Some(slot);
            }
        }
    }
}

/// A connection's place on a worker.
pub(super) struct WorkerSlot {
    pub(super) worker: Arc<CrewMember>,
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        // Who closes the worker sees all that the connection has counted.
        self.worker.load.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(workers: usize) -> CurrentCrew {
        let members = (0..workers).map(|index| CrewMember::new(index, Arc::new(Remote::new().unwrap()), 0));
        let crew = CurrentCrew::default();
        crew.store(Crew { active: members.collect(), retired: Vec::new() });
        crew
    }

    fn slot(crew: &CurrentCrew, accepted_on: usize) -> WorkerSlot {
        crew.slot(accepted_on).unwrap()
    }

    fn counts(slots: &[WorkerSlot], workers: usize) -> Vec<usize> {
        (0..workers).map(|worker| slots.iter().filter(|slot| slot.worker.index == worker).count()).collect()
    }

    #[test]
    fn few_long_connections_come_out_even_however_the_kernel_spreads_them() {
        for workers in [1, 2, 3, 8] {
            for accepted_on in [|_| 0, |n: usize| n * 7 / 3, |n: usize| n / 5] {
                let crew = crew(workers);
                let slots: Vec<WorkerSlot> = (0..20).map(|n| slot(&crew, accepted_on(n) % workers)).collect();
                let counts = counts(&slots, workers);
                let (most, fewest) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
                assert!(most - fewest <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn an_even_spread_moves_nobody() {
        let crew = crew(2);
        let slots: Vec<WorkerSlot> = (0..100).map(|n| slot(&crew, n % 2)).collect();
        assert!(slots.iter().enumerate().all(|(n, slot)| slot.worker.index == n % 2));
    }

    #[test]
    fn among_many_a_small_difference_is_not_worth_a_move() {
        let crew = crew(2);
        let mut slots: Vec<WorkerSlot> = (0..1000).map(|n| slot(&crew, n % 2)).collect();
        slots.extend((0..20).map(|_| slot(&crew, 0)));
        assert_eq!(counts(&slots, 2), [520, 500]);
    }

    #[test]
    fn a_slot_is_given_back() {
        let crew = crew(2);
        drop((0..50).map(|_| slot(&crew, 0)).collect::<Vec<_>>());
        assert!(crew.load().active.iter().all(|worker| worker.load() == 0));
    }

    #[test]
    fn retired_worker_gets_no_connection_and_closes_with_its_last() {
        let crew = crew(3);
        let kept = slot(&crew, 2);
        let Crew { mut active, .. } = Crew::clone(&crew.load());
        let last = active.pop().unwrap();
        crew.store(Crew { active, retired: vec![Arc::clone(&last)] });
        let slots: Vec<WorkerSlot> = (0..20).map(|_| slot(&crew, 2)).collect();
        assert_eq!(counts(&slots, 3), [10, 10, 0]);
        assert!(!last.close());
        drop(kept);
        assert!(last.close() && last.enter().is_none());
        assert!(last.enter().is_none(), "for good");
    }
}
