//! Log lines, on a writer that never blocks traffic: when it cannot keep up, lines are dropped and counted.

pub mod access;
pub mod counters;
pub mod date;
mod file;
mod journal;
mod json;
mod lines;
mod syslog;
pub mod throttle;
mod writer;

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tracing::Level;
use tracing_subscriber::util::SubscriberInitExt;

use self::counters::LogCounters;
use self::lines::LineOutput;
use self::writer::{FLUSH_LIMIT, LogQueue, LogThread, LogWriter, PROCESS, Sink, Written};
use crate::config::model::LogConfig;

/// The logs of the process. The drop of the last clone writes the queued lines.
#[derive(Clone, Debug)]
pub struct Logging(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stderr: LogThread,
    /// Of all logs, to reopen and flush.
    queues: Mutex<Vec<Weak<LogQueue>>>,
    /// Of each log that there is or was.
    counters: Mutex<Vec<LogCounters>>,
    /// `None` where lines of tracing go elsewhere.
    lines: Option<LineOutput>,
    /// Lines of text on stderr begin with their priority.
    to_journal: bool,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogStartError {
    /// RUST_LOG is wrong, or logging was started before.
    #[error("{0}")]
    Usage(String),
    /// The system has no thread for the writer.
    #[error("cannot start the thread of the log: {0}")]
    Thread(io::Error),
}

struct Stderr;

impl Sink for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        // Not by the lock of std's stderr: a write that is stuck must not block other writers.
        Ok(Written::Bytes(rustix::io::write(io::stderr(), bytes)?))
    }
}

/// Starts logging to stderr. `RUST_LOG` (`warn`, `tidegate::health=debug,info`) wins over the level.
///
/// # Errors
/// A RUST_LOG that cannot be read, logging was started before in this process, or there is no thread.
pub fn start(config: &LogConfig) -> Result<Logging, LogStartError> {
    let environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let stderr = LogThread::start(LogCounters::new(PROCESS), Stderr).map_err(LogStartError::Thread)?;
    let to_journal = journal::is_stderr();
    let (lines, subscriber) = lines::subscriber(config, environment.as_deref(), &stderr.writer(), to_journal)
        .map_err(LogStartError::Usage)?;
    subscriber.try_init().map_err(|error| LogStartError::Usage(format!("logging cannot start: {error}")))?;
    Ok(Logging::with(stderr, Some(lines), to_journal))
}

impl Logging {
    fn with(stderr: LogThread, lines: Option<LineOutput>, to_journal: bool) -> Logging {
        let queues = Mutex::new(vec![Arc::downgrade(stderr.queue())]);
        let counters = Mutex::new(vec![stderr.writer().counters().clone()]);
        Logging(Arc::new(Inner { stderr, queues, counters, lines, to_journal }))
    }

    /// One that gets no lines of tracing.
    #[cfg(test)]
    pub(crate) fn detached() -> Logging {
        Logging::with(LogThread::start(LogCounters::new(PROCESS), Stderr).expect("a thread"), None, false)
    }

    /// Another level and format from the next line on. The access log has a change of its own: [`access::Access::change`].
    pub fn change(&self, config: &LogConfig) {
        if let Some(lines) = &self.0.lines {
            lines.change(config);
        }
    }

    /// Writes why the process ends, as commands write an error.
    pub fn fatal(&self, error: impl Display) {
        let prefix = if self.is_journal() { journal::prefix(Level::ERROR) } else { "" };
        for line in format!("error: {error}").lines() {
            self.stderr().line(format!("{prefix}{line}\n").as_bytes());
        }
    }

    /// The writer of the process log, for lines that do not come from tracing.
    fn stderr(&self) -> LogWriter {
        self.0.stderr.writer()
    }

    /// Whether lines of text on stderr begin with their priority.
    fn is_journal(&self) -> bool {
        self.0.to_journal
    }

    /// The counters of each log: totals go on when another file takes the place of one, and stay when there is none any more.
    pub fn counters(&self) -> Vec<LogCounters> {
        self.0.counters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counters for a log with this name, whose totals go on.
    fn counters_of(&self, name: &'static str) -> LogCounters {
        let known = self.counters().into_iter().find(|counters| counters.name() == name);
        known.map_or_else(|| LogCounters::new(name), |known| known.successor())
    }

    /// These are the counters of the log with this name from now on.
    fn count_in(&self, new: LogCounters) {
        let mut counters = self.0.counters.lock().unwrap_or_else(PoisonError::into_inner);
        match counters.iter_mut().find(|known| known.name() == new.name()) {
            Some(known) => *known = new,
            None => counters.push(new),
        }
    }

    /// Reports lines that were dropped from now on.
    pub fn dropped_lines(&self) -> DroppedLines {
        DroppedLines { logging: self.clone(), reported: Vec::new() }
    }

    /// Reopens the files of all logs, as after a rotation. Returns at once.
    pub fn reopen(&self) {
        self.each_queue(LogQueue::reopen);
    }

    /// Writes the queued lines of all logs. Skips a write that is stuck: returns within half a second.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_LIMIT;
        self.each_queue(|queue| {
            queue.flush(deadline);
        });
    }

    /// Reopens, flushes and counts this log too.
    fn add(&self, log: &LogThread) {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        if !queues.iter().any(|queue| std::ptr::eq(queue.as_ptr(), Arc::as_ptr(log.queue()))) {
            queues.push(Arc::downgrade(log.queue()));
        }
        drop(queues);
        self.count_in(log.writer().counters().clone());
    }

    fn each_queue(&self, call: impl Fn(&LogQueue)) {
        let queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The process log last: the thread of another log may report a failure there.
        queues.iter().rev().filter_map(Weak::upgrade).for_each(|queue| call(&queue));
    }
}

/// Lines that logs have dropped because their threads did not keep up.
pub struct DroppedLines {
    logging: Logging,
    /// The total of each log, by its name.
    reported: Vec<(&'static str, u64)>,
}

impl DroppedLines {
    /// Logs the total of each log that has dropped lines since the last report. The line may be dropped like any other: the next
    /// report counts it.
    pub fn report(&mut self) {
        for counters in self.logging.counters() {
            let (name, total) = (counters.name(), counters.dropped_lines());
            let place = self.reported.iter().position(|(reported, _)| *reported == name);
            let reported = place.map_or(0, |place| self.reported.swap_remove(place).1);
            if total > reported {
                tracing::warn!(log = name, total, "lines dropped: what reads the log does not keep up");
            }
            self.reported.push((name, total));
        }
    }
}

/// Logs panics. A panic ends its connection and nothing else.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(message, place, %backtrace, "a defect of tidegate: please report it");
    }));
}
