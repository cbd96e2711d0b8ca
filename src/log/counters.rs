//! What a log has lost: lines dropped because its queue was full, and lines that could not be written.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing_appender::non_blocking::ErrorCounter;

/// The counters of one log. Clones count together.
#[derive(Clone)]
pub struct LogCounters {
    name: &'static str,
    dropped: ErrorCounter,
    writes: Arc<Writes>,
}

/// Why a log cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteError {
    /// When the first of the lines was lost that have failed since.
    pub since: SystemTime,
    /// The system's reason.
    pub error: Arc<str>,
}

/// Shared by a log's writer thread and those who read its counters.
#[derive(Debug, Default)]
pub(super) struct Writes {
    errors: AtomicU64,
    /// Set while the last line could not be written.
    failing: Mutex<Option<WriteError>>,
}

impl LogCounters {
    pub(super) fn new(name: &'static str, dropped: ErrorCounter, writes: Arc<Writes>) -> LogCounters {
        LogCounters { name, dropped, writes }
    }

    /// `access` for the access log, `process` for everything else.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Lines dropped because the writer did not keep up.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }

    /// Lines that could not be written.
    pub fn write_errors(&self) -> u64 {
        self.writes.errors.load(Ordering::Relaxed)
    }

    /// Why lines cannot be written; `None` once one was written again.
    pub fn failing(&self) -> Option<WriteError> {
        self.writes.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for LogCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogCounters").field("name", &self.name).field("writes", &self.writes).finish_non_exhaustive()
    }
}

/// A writer that counts what fails. Each line is one `write_all`, so that each error is one line.
pub(super) struct Counted<W> {
    to: W,
    writes: Arc<Writes>,
}

impl<W> Counted<W> {
    pub(super) fn new(to: W, writes: Arc<Writes>) -> Counted<W> {
        Counted { to, writes }
    }
}

impl<W: io::Write> io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.to.write(bytes) {
            // What `write_all` makes of it.
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        };
        match &written {
            Ok(_) => self.writes.succeeded(),
            // `write_all` tries again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.writes.failed(error),
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Writes {
    fn succeeded(&self) {
        // Only after an error there is something to clear: no lock for each line.
        if self.errors.load(Ordering::Relaxed) > 0 {
            *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn failed(&self, error: &io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failing.as_ref().map_or_else(SystemTime::now, |known| known.since);
        *failing = Some(WriteError { since, error: error.to_string().into() });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Fails as often as it is told to, then takes three bytes at a time.
    struct Failing(Vec<io::ErrorKind>);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.pop() {
                Some(io::ErrorKind::WriteZero) => Ok(0),
                Some(kind) => Err(kind.into()),
                None => Ok(bytes.len().min(3)),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_counts_once_and_the_next_written_one_ends_the_failure() {
        use io::ErrorKind::{Interrupted, StorageFull, WriteZero};
        let writes = Arc::<Writes>::default();
        let mut log = Counted::new(Failing(vec![Interrupted, WriteZero, StorageFull]), Arc::clone(&writes));
        let state = || {
            let failing = writes.failing.lock().unwrap().clone();
            (writes.errors.load(Ordering::Relaxed), failing.map(|failing| failing.error.to_string()))
        };
        assert_eq!(state(), (0, None));
        log.write_all(b"line one\n").unwrap_err();
        assert_eq!(state(), (1, Some("no storage space".to_owned())));
        let since = writes.failing.lock().unwrap().clone().unwrap().since;
        log.write_all(b"line two\n").unwrap_err();
        assert_eq!(state().0, 2);
        assert_eq!(writes.failing.lock().unwrap().clone().unwrap().since, since);
        // Interrupted once, and written in three parts.
        log.write_all(b"line three\n").unwrap();
        assert_eq!(state(), (2, None));
    }
}
