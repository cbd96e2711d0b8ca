//! Queries that wait for their answers.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{Ended, MAX_OUTSTANDING_QUERIES, Micros, WatchEvent};
use crate::stats::queries::{PassthroughReason, StatementKind};

/// Places that a quiet connection keeps.
const KEPT_PLACES: usize = 16;

/// What is special about the answer to an entry.
pub(super) trait AnswerKind: Copy {
    /// Whether the entry is a query, and no mark between them.
    fn is_query(self) -> bool;
}

/// A query, or a mark between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutstandingQuery<K> {
    /// The upper half of 48 bits of microseconds, 8.9 years, and [`PIPELINED`].
    since_high: u32,
    since_low: u16,
    pub(super) statement: StatementKind,
    pub(super) kind: K,
}

/// Set in the upper half of a time.
const PIPELINED: u32 = 1 << 31;

/// Oldest first.
#[derive(Debug)]
pub(super) struct Outstanding<K> {
    entries: VecDeque<OutstandingQuery<K>>,
    /// Entries that are queries.
    queries: usize,
    /// When the answer to the oldest entry began.
    answer_began: Option<Micros>,
    /// An error is a part of that answer.
    failed: bool,
}

impl<K> Default for Outstanding<K> {
    fn default() -> Outstanding<K> {
        Outstanding { entries: VecDeque::new(), queries: 0, answer_began: None, failed: false }
    }
}

impl<K: AnswerKind> Outstanding<K> {
    /// Puts an entry behind the others.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn push(&mut self, statement: StatementKind, kind: K, now: Micros) -> Result<(), Ended> {
        if self.entries.len() >= MAX_OUTSTANDING_QUERIES {
            return Err(Some(PassthroughReason::Pipelined));
        }
        let pipelined = if self.queries > 0 { PIPELINED } else { 0 };
        let since_high = (now >> 16) as u32 & !PIPELINED | pipelined;
        self.queries += usize::from(kind.is_query());
        self.entries.push_back(OutstandingQuery { since_high, since_low: now as u16, statement, kind });
        Ok(())
    }

    pub(super) fn front(&self) -> Option<&OutstandingQuery<K>> {
        self.entries.front()
    }

    /// Whether there is one after the oldest.
    pub(super) fn is_pipelined(&self) -> bool {
        self.entries.len() > 1
    }

    pub(super) fn queries(&self) -> usize {
        self.queries
    }

    /// A message of the answer to the oldest entry begins.
    pub(super) fn begins(&mut self, now: Micros) {
        if !self.entries.is_empty() {
            self.answer_began.get_or_insert(now);
        }
    }

    /// An error is a part of the answer to the oldest entry.
    pub(super) fn fails(&mut self) {
        self.failed = !self.entries.is_empty();
    }

    /// Takes the oldest entry: it is answered, if it is a query.
    pub(super) fn answered(&mut self, statement: StatementKind, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        let (began, failed) = (self.answer_began.unwrap_or(now), self.failed);
        let Some(entry) = self.pop() else { return };
        if entry.kind.is_query() {
            let since = u64::from(entry.since_high & !PIPELINED) << 16 | u64::from(entry.since_low);
            let time = |until: Micros| Duration::from_micros(until.saturating_sub(since));
            out(WatchEvent::Answered {
                statement,
                failed,
                pipelined: entry.since_high & PIPELINED != 0,
                first_byte: time(began),
                took: time(now),
            });
        }
    }

    /// Takes the oldest entry: no answer will come.
    pub(super) fn skipped(&mut self, out: &mut dyn FnMut(WatchEvent<'_>)) {
        if self.pop().is_some_and(|entry| entry.kind.is_query()) {
            out(WatchEvent::Unanswered);
        }
    }

    /// Takes the marks that follow the oldest entry.
    pub(super) fn drop_marks_behind_front(&mut self) {
        while self.entries.get(1).is_some_and(|entry| !entry.kind.is_query()) {
            self.entries.remove(1);
        }
    }

    /// Whether an entry fits.
    pub(super) fn any(&self, fits: impl Fn(K) -> bool) -> bool {
        self.entries.iter().any(|entry| fits(entry.kind))
    }

    fn pop(&mut self) -> Option<OutstandingQuery<K>> {
        (self.answer_began, self.failed) = (None, false);
        let entry = self.entries.pop_front()?;
        self.queries -= usize::from(entry.kind.is_query());
        if self.entries.is_empty() && self.entries.capacity() > KEPT_PLACES {
            self.entries = VecDeque::new();
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_takes_eight_bytes() {
        assert_eq!(size_of::<OutstandingQuery<u8>>(), 8);
    }
}
