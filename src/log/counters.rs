//! Counters of what a log has lost: lines dropped because its queue was full, lines that could not be written, ends of lines.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The counters of one log. Clones count together.
#[derive(Clone, Debug)]
pub struct LogCounters {
    totals: Arc<Totals>,
    /// Set while the last line could not be written.
    failing: Arc<Mutex<Option<WriteError>>>,
}

#[derive(Debug)]
struct Totals {
    name: &'static str,
    dropped: AtomicU64,
    write_errors: AtomicU64,
    truncated: AtomicU64,
}

/// Why a log cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteError {
    /// When the first of the lines failed or had to wait that have since.
    pub since: SystemTime,
    /// The system's reason.
    pub error: Arc<str>,
}

impl LogCounters {
    pub(super) fn new(name: &'static str) -> LogCounters {
        let [dropped, write_errors, truncated] = [const { AtomicU64::new(0) }; 3];
        LogCounters { totals: Arc::new(Totals { name, dropped, write_errors, truncated }), failing: Arc::default() }
    }

    /// Of the log that takes this one's place: the totals go on, and it is not known to fail.
    pub(super) fn successor(&self) -> LogCounters {
        LogCounters { totals: Arc::clone(&self.totals), failing: Arc::default() }
    }

    /// `access` for the access log, `process` for everything else.
    pub fn name(&self) -> &'static str {
        self.totals.name
    }

    /// Lines dropped because the writer did not keep up.
    pub fn dropped_lines(&self) -> u64 {
        self.totals.dropped.load(Ordering::Relaxed)
    }

    /// Lines that could not be written.
    pub fn write_errors(&self) -> u64 {
        self.totals.write_errors.load(Ordering::Relaxed)
    }

    /// Lines that lost their end, as they were longer than the largest message.
    pub fn truncated_lines(&self) -> u64 {
        self.totals.truncated.load(Ordering::Relaxed)
    }

    /// Why lines cannot be written; `None` once one was written again.
    pub fn failing(&self) -> Option<WriteError> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn dropped(&self) {
        self.totals.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn truncated(&self) {
        self.totals.truncated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn succeeded(&self) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn failed(&self, error: &io::Error, lines: u64) {
        self.totals.write_errors.fetch_add(lines, Ordering::Relaxed);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failing.as_ref().map_or_else(SystemTime::now, |known| known.since);
        *failing = Some(WriteError { since, error: error.to_string().into() });
    }
}
