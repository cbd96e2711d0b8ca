//! Connections that wait for a backend, in the order in which they came.
//!
//! Only the first in line tries to lease: when a connection of the pool ends, or the pool changes, it is woken. Once it has its
//! lease, it wakes the next. A newcomer joins the end of the line, so that it takes no backend from those who wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::slow_start::PARTS;

/// The queue of a pool.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Those in line and aside. Read at the end of each of the pool's connections.
    in_line: AtomicU32,
    line: Mutex<WaitLine>,
    queued: AtomicU64,
    overflowed: AtomicU64,
    timed_out: AtomicU64,
}

#[derive(Debug, Default)]
struct WaitLine {
    /// By ticket, with whom to wake.
    waiting: BTreeMap<u64, Option<Waker>>,
    /// Those who could not reach a backend, and look again soon: those behind them wait.
    aside: BTreeSet<u64>,
    issued: u64,
    /// All who have a place: in line, aside, or about to connect.
    occupied: u32,
    peak: u32,
    pace: Option<Pace>,
}

/// Service while all backends with room are in slow start.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Those who waited when it began or have come since.
    backlog: u64,
    served: u64,
}

/// How the queue of a pool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Connections that wait.
    pub waiting: u32,
    /// The most that waited at once.
    pub peak: u32,
    /// Connections that have waited so far.
    pub queued: u64,
    /// Connections that found the queue full.
    pub overflowed: u64,
    /// Connections that waited for `queue.timeout` in vain.
    pub timed_out: u64,
}

impl Queue {
    /// Whether newcomers have to join.
    pub(super) fn has_waiting(&self) -> bool {
        self.in_line.load(SeqCst) > 0
    }

    /// Somebody may find a backend now.
    ///
    /// A waiter registers, then looks for room; who makes room changes its count, then calls this: sequential consistency makes one of
    /// the two see the other.
    pub(super) fn wake_first(&self) {
        if self.has_waiting() {
            wake(self.line().next());
        }
    }

    /// A place at the end of the line, by its ticket, and how many have one before it; `None` where `size` connections wait.
    pub(super) fn enter(&self, size: u32) -> Option<(u64, u32)> {
        let mut line = self.line();
        let before = line.occupied;
        if before >= size {
            self.overflowed.fetch_add(1, Relaxed);
            return None;
        }
        line.occupied += 1;
        line.peak = line.peak.max(line.occupied);
        let ticket = line.issued;
        line.issued += 1;
        self.queued.fetch_add(1, Relaxed);
        self.stand(&mut line, ticket);
        Some((ticket, before))
    }

    /// Whether it is this ticket's turn, when the backends with room have `parts` of their weight. `waker` is woken when it is worth
    /// another look.
    pub(super) fn is_turn_of(&self, ticket: u64, waker: &Waker, parts: u32) -> bool {
        let mut line = self.line();
        self.stand(&mut line, ticket);
        line.waiting.insert(ticket, Some(waker.clone()));
        line.is_first(ticket) && line.keeps_pace(parts)
    }

    /// The first in line has its backend.
    pub(super) fn served(&self, ticket: u64) {
        let next = {
            let mut line = self.line();
            if let Some(pace) = &mut line.pace {
                pace.served += 1;
            }
            self.remove(&mut line, ticket);
            line.next()
        };
        wake(next);
    }

    /// Does not look for a while, and keeps the place in line.
    pub(super) fn step_aside(&self, ticket: u64) {
        let mut line = self.line();
        self.stand(&mut line, ticket);
        line.waiting.remove(&ticket);
        line.aside.insert(ticket);
    }

    /// Gives the place up.
    pub(super) fn leave(&self, ticket: u64) {
        let next = {
            let mut line = self.line();
            self.remove(&mut line, ticket);
            line.occupied -= 1;
            line.next()
        };
        wake(next);
    }

    /// A connection has waited in vain.
    pub(super) fn timed_out(&self) {
        self.timed_out.fetch_add(1, Relaxed);
    }

    pub(super) fn status(&self) -> QueueStatus {
        let line = self.line();
        QueueStatus {
            waiting: line.occupied,
            peak: line.peak,
            queued: self.queued.load(Relaxed),
            overflowed: self.overflowed.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
        }
    }

    fn stand(&self, line: &mut WaitLine, ticket: u64) {
        if line.waiting.contains_key(&ticket) {
            return;
        }
        line.waiting.insert(ticket, None);
        if line.aside.remove(&ticket) {
            return;
        }
        self.in_line.fetch_add(1, SeqCst);
        if let Some(pace) = &mut line.pace {
            pace.backlog += 1;
        }
    }

    fn remove(&self, line: &mut WaitLine, ticket: u64) {
        if line.waiting.remove(&ticket).is_some() || line.aside.remove(&ticket) {
            self.in_line.fetch_sub(1, SeqCst);
        }
        if line.waiting.is_empty() && line.aside.is_empty() {
            line.pace = None;
        }
    }

    fn line(&self) -> MutexGuard<'_, WaitLine> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitLine {
    /// Whom to wake: the first, unless that one is aside.
    fn next(&self) -> Option<Waker> {
        let (ticket, waker) = self.waiting.first_key_value()?;
        waker.clone().filter(|_| self.is_first(*ticket))
    }

    fn is_first(&self, ticket: u64) -> bool {
        let is_first = self.waiting.first_key_value().is_some_and(|(first, _)| *first == ticket);
        is_first && self.aside.first().is_none_or(|aside| *aside > ticket)
    }

    fn keeps_pace(&mut self, parts: u32) -> bool {
        if parts >= PARTS {
            self.pace = None;
            return true;
        }
        let backlog = self.waiting.len() as u64;
        let pace = self.pace.get_or_insert(Pace { backlog, served: 0 });
        pace.served < (pace.backlog * u64::from(parts)).div_ceil(PARTS.into())
    }
}

/// Outside of the lock: a waker may run anything.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
