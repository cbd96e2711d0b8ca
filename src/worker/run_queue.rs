//! The order in which ready tasks run: weighted fair queueing by CPU time.
//!
//! Tasks of one priority run first in, first out. Between priorities it is start-time fair queueing (Goyal, Vin and
//! Cheng, SIGCOMM 1996): a priority's tag advances by the time its tasks ran, divided by its weight, and the lowest
//! tag runs next. A priority that was idle begins at the present virtual time: it runs at once, and saves up nothing.

use std::collections::VecDeque;
use std::time::Duration;

/// The kind of work of a task, which sets its share of the CPU while others wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// A connection up to its first response, and accepting.
    #[default]
    New,
    /// Messages.
    Interactive,
    /// A TLS handshake: a key exchange and a signature take as long as a hundred messages.
    Handshake,
    /// A bulk transfer: as many bytes as one turn allows.
    Bulk,
}

const PRIORITIES: [Priority; 4] = [Priority::New, Priority::Interactive, Priority::Handshake, Priority::Bulk];

impl Priority {
    /// What a nanosecond of CPU adds to the tag: the inverse of the weight. Beside interactive tasks, new connections
    /// get two thirds of the CPU, handshakes a third, bulk a fifth.
    const fn cost(self) -> u64 {
        match self {
            Priority::New => 1,
            Priority::Interactive => 2,
            Priority::Handshake => 4,
            Priority::Bulk => 8,
        }
    }

    /// Tasks that run between two readings of the clock.
    pub(super) const fn quantum(self) -> usize {
        match self {
            Priority::New | Priority::Interactive => 16,
            Priority::Handshake | Priority::Bulk => 1,
        }
    }

    /// Whether the loop takes new events after each task.
    pub(super) const fn is_costly(self) -> bool {
        self.quantum() == 1
    }
}

/// Turns in a row of one bulk transfer while others wait for theirs: what it has in its socket's buffers leaves the CPU's
/// cache in the others' turns. Lighter tasks run between any two of them.
const TURNS_IN_A_ROW: u8 = 4;

/// Tasks that are ready, each in here once.
#[derive(Debug)]
pub(super) struct RunQueue<T> {
    ready: [VecDeque<T>; PRIORITIES.len()],
    tags: [u64; PRIORITIES.len()],
    virtual_time: u64,
    /// Woken by a running task. They run after new events are taken, which may be theirs.
    deferred: VecDeque<Deferred<T>>,
    /// Turns that the bulk transfer has had in a row which ran last.
    in_a_row: u8,
    /// Whether the first bulk transfer is the one that ran last.
    continues: bool,
}

#[derive(Debug)]
struct Deferred<T> {
    task: T,
    priority: Priority,
    /// Whether it has woken itself: it has more to do.
    again: bool,
}

impl<T> Default for RunQueue<T> {
    fn default() -> RunQueue<T> {
        RunQueue {
            ready: Default::default(),
            tags: Default::default(),
            virtual_time: 0,
            deferred: VecDeque::new(),
            in_a_row: 0,
            continues: false,
        }
    }
}

impl<T> RunQueue<T> {
    pub(super) fn push(&mut self, task: T, priority: Priority) {
        self.becomes_ready(priority).push_back(task);
    }

    fn becomes_ready(&mut self, priority: Priority) -> &mut VecDeque<T> {
        let queue = &mut self.ready[priority as usize];
        if queue.is_empty() {
            let tag = &mut self.tags[priority as usize];
            *tag = self.virtual_time.max(*tag);
        }
        queue
    }

    /// Makes it ready after new events are taken; with `again`, it has woken itself.
    pub(super) fn defer(&mut self, task: T, priority: Priority, again: bool) {
        self.deferred.push_back(Deferred { task, priority, again });
    }

    /// Makes the deferred tasks ready.
    pub(super) fn admit_deferred(&mut self, admitted: impl Fn(&T)) {
        while let Some(Deferred { task, priority, again }) = self.deferred.pop_front() {
            admitted(&task);
            if again && priority == Priority::Bulk && self.in_a_row < TURNS_IN_A_ROW {
                self.continues = true;
                self.becomes_ready(priority).push_front(task);
            } else {
                self.push(task, priority);
            }
        }
    }

    /// Tasks that could run now.
    pub(super) fn ready(&self) -> usize {
        self.ready.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready() == 0 && self.deferred.is_empty()
    }

    /// The priority whose turn it is.
    pub(super) fn next_priority(&mut self) -> Option<Priority> {
        let waiting = PRIORITIES.into_iter().filter(|&priority| !self.ready[priority as usize].is_empty());
        let next = waiting.min_by_key(|&priority| self.tags[priority as usize]);
        self.virtual_time = match next {
            Some(priority) => self.tags[priority as usize],
            // Debts end with the busy period.
            None => self.tags.into_iter().max().unwrap_or_default(),
        };
        next
    }

    pub(super) fn pop(&mut self, priority: Priority) -> Option<T> {
        if priority == Priority::Bulk {
            self.in_a_row = if std::mem::take(&mut self.continues) { self.in_a_row + 1 } else { 1 };
        }
        self.ready[priority as usize].pop_front()
    }

    pub(super) fn charge(&mut self, priority: Priority, ran: Duration) {
        let nanos = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX);
        let tag = &mut self.tags[priority as usize];
        *tag = tag.saturating_add(nanos.saturating_mul(priority.cost()));
    }

    pub(super) fn clear(&mut self) {
        *self = RunQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs tasks that take as many microseconds as they say, and come back at once, for so long. Returns how long
    /// each priority ran.
    fn shares(tasks: &[(Priority, u64)], total: u64) -> [u64; 4] {
        let mut queue = RunQueue::default();
        tasks.iter().for_each(|&(priority, micros)| queue.push(micros, priority));
        let mut ran = [0; 4];
        while ran.iter().sum::<u64>() < total {
            let priority = queue.next_priority().unwrap();
            let micros = queue.pop(priority).unwrap();
            ran[priority as usize] += micros;
            queue.charge(priority, Duration::from_micros(micros));
            queue.push(micros, priority);
        }
        ran
    }

    #[test]
    fn shares_of_saturated_priorities_are_those_of_their_weights() {
        use Priority::{Bulk, Handshake, Interactive, New};
        let [new, interactive, handshake, bulk] =
            shares(&[(New, 20), (Interactive, 5), (Interactive, 5), (Handshake, 300), (Bulk, 100)], 1_000_000);
        // 8 : 4 : 2 : 1
        for (share, weight) in [(new, 8.0), (interactive, 4.0), (handshake, 2.0), (bulk, 1.0)] {
            let expected = 1_000_000.0 * weight / 15.0;
            assert!((share as f64 - expected).abs() < expected * 0.01 + 400.0, "{share} of {expected}");
        }
    }

    #[test]
    fn a_priority_alone_has_all() {
        assert_eq!(shares(&[(Priority::Bulk, 100)], 10_000), [0, 0, 0, 10_000]);
    }

    #[test]
    fn a_task_that_comes_to_a_busy_queue_runs_next() {
        for priority in [Priority::New, Priority::Interactive] {
            let mut queue = RunQueue::default();
            (0..2_000).for_each(|_| queue.push("handshake", Priority::Handshake));
            for _ in 0..50 {
                assert_eq!(queue.next_priority(), Some(Priority::Handshake));
                queue.pop(Priority::Handshake);
                queue.charge(Priority::Handshake, Duration::from_micros(300));
            }
            queue.push("message", priority);
            assert_eq!(queue.next_priority(), Some(priority));
        }
    }

    #[test]
    fn idleness_saves_up_nothing() {
        let mut queue = RunQueue::default();
        for _ in 0..1_000 {
            queue.push("bulk", Priority::Bulk);
            queue.next_priority();
            queue.pop(Priority::Bulk);
            queue.charge(Priority::Bulk, Duration::from_millis(1));
        }
        (0..1_000).for_each(|_| queue.push("message", Priority::Interactive));
        queue.push("bulk", Priority::Bulk);
        let mut before_bulk = 0;
        while queue.next_priority() != Some(Priority::Bulk) {
            queue.pop(Priority::Interactive);
            queue.charge(Priority::Interactive, Duration::from_micros(100));
            before_bulk += 1;
        }
        assert!(before_bulk <= 41, "bulk waited for {before_bulk} messages of 100 µs after 4 ms of its own debt");
    }

    #[test]
    fn a_debt_ends_with_the_busy_period() {
        let mut queue = RunQueue::default();
        queue.push("bulk", Priority::Bulk);
        queue.next_priority();
        queue.pop(Priority::Bulk);
        queue.charge(Priority::Bulk, Duration::from_secs(1));
        assert_eq!(queue.next_priority(), None);
        queue.push("bulk", Priority::Bulk);
        (0..10).for_each(|_| queue.push("message", Priority::Interactive));
        for _ in 0..2 {
            let next = queue.next_priority().unwrap();
            queue.pop(next);
            queue.charge(next, Duration::from_micros(10));
        }
        assert!(queue.pop(Priority::Bulk).is_none(), "it had its turn among the first two");
    }

    #[test]
    fn deferred_tasks_wait_until_they_are_admitted() {
        let mut queue = RunQueue::default();
        queue.defer("a", Priority::Interactive, false);
        assert_eq!((queue.next_priority(), queue.ready(), queue.is_empty()), (None, 0, false));
        queue.admit_deferred(|_| ());
        assert_eq!(queue.next_priority(), Some(Priority::Interactive));
        assert_eq!(queue.pop(Priority::Interactive), Some("a"));
        assert!(queue.is_empty());
    }

    /// Runs bulk transfers that always have more to do. Returns whose turns there were.
    fn bulk_turns(queue: &mut RunQueue<&'static str>, count: usize) -> String {
        let turn = |queue: &mut RunQueue<&'static str>| {
            assert_eq!(queue.next_priority(), Some(Priority::Bulk));
            let task = queue.pop(Priority::Bulk).unwrap();
            queue.charge(Priority::Bulk, Duration::from_micros(100));
            queue.defer(task, Priority::Bulk, true);
            queue.admit_deferred(|_| ());
            task
        };
        (0..count).map(|_| turn(queue)).collect()
    }

    #[test]
    fn a_bulk_transfer_has_some_turns_in_a_row() {
        let mut queue = RunQueue::default();
        ["a", "b", "c"].into_iter().for_each(|task| queue.push(task, Priority::Bulk));
        assert_eq!(bulk_turns(&mut queue, 16), "aaaabbbbccccaaaa");
    }

    #[test]
    fn a_bulk_transfer_that_comes_back_by_an_event_goes_last() {
        let mut queue = RunQueue::default();
        ["a", "b"].into_iter().for_each(|task| queue.push(task, Priority::Bulk));
        assert_eq!(bulk_turns(&mut queue, 2), "aa");
        assert_eq!(queue.pop(Priority::Bulk), Some("a"));
        queue.push("a", Priority::Bulk);
        assert_eq!(bulk_turns(&mut queue, 9), "bbbbaaaab", "it has four turns in a row again");
    }

    #[test]
    fn a_message_runs_between_two_turns_in_a_row() {
        let mut queue = RunQueue::default();
        ["a", "b"].into_iter().for_each(|task| queue.push(task, Priority::Bulk));
        assert_eq!(bulk_turns(&mut queue, 2), "aa");
        queue.push("message", Priority::Interactive);
        assert_eq!(queue.next_priority(), Some(Priority::Interactive));
        queue.pop(Priority::Interactive);
        assert_eq!(bulk_turns(&mut queue, 3), "aab");
    }

    proptest! {
        /// Whatever else wants to run, a task runs once its share of the time has come: nothing starves.
        #[test]
        fn every_task_runs(
            others in prop::collection::vec((0..4usize, 1..500u64), 1..40),
            mine in 0..4usize,
        ) {
            let mut queue = RunQueue::default();
            others.iter().for_each(|&(priority, micros)| queue.push(Some(micros), PRIORITIES[priority]));
            queue.push(None, PRIORITIES[mine]);
            let mut ran = 0;
            loop {
                let priority = queue.next_priority().unwrap();
                let Some(micros) = queue.pop(priority).unwrap() else { break };
                queue.charge(priority, Duration::from_micros(micros));
                queue.push(Some(micros), priority);
                ran += micros;
                // At least a fifteenth of the time is its priority's, in which at most 40 tasks of 500 µs come first.
                prop_assert!(ran < 16 * 41 * 500, "it has waited for {ran} µs");
            }
        }
    }
}
