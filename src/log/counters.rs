//! Counters of what a log has lost: lines dropped because its queue was full, lines that could not be written.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The counters of one log. Clones count together.
#[derive(Clone, Debug)]
pub struct LogCounters(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    name: &'static str,
    dropped: AtomicU64,
    write_errors: AtomicU64,
    /// Set while the last line could not be written.
    failing: Mutex<Option<WriteError>>,
}

/// Why a log cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteError {
    /// When the first of the lines was lost that have failed since.
    pub since: SystemTime,
    /// The system's reason.
    pub error: Arc<str>,
}

impl LogCounters {
    pub(super) fn new(name: &'static str) -> LogCounters {
        let (dropped, write_errors) = (AtomicU64::new(0), AtomicU64::new(0));
        LogCounters(Arc::new(Counts { name, dropped, write_errors, failing: Mutex::default() }))
    }

    /// `access` for the access log, `process` for everything else.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Lines dropped because the writer did not keep up.
    pub fn dropped_lines(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Lines that could not be written.
    pub fn write_errors(&self) -> u64 {
        self.0.write_errors.load(Ordering::Relaxed)
    }

    /// Why lines cannot be written; `None` once one was written again.
    pub fn failing(&self) -> Option<WriteError> {
        self.0.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn dropped(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn succeeded(&self) {
        *self.0.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn failed(&self, error: &io::Error, lines: u64) {
        self.0.write_errors.fetch_add(lines, Ordering::Relaxed);
        let mut failing = self.0.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failing.as_ref().map_or_else(SystemTime::now, |known| known.since);
        *failing = Some(WriteError { since, error: error.to_string().into() });
    }
}
