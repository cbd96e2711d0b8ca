//! Log lines, on a writer that never blocks traffic: when it cannot keep up, lines are dropped and counted.

pub mod access;
pub mod counters;
pub mod date;
mod file;
pub mod throttle;
mod writer;

use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use self::counters::LogCounters;
pub use self::writer::LogWriter;
use self::writer::{FLUSH_LIMIT, LogQueue, LogThread, PROCESS, Sink, Written};
use crate::config::model::{LogConfig, LogFormat, LogLevel};

/// The logs of the process. The drop of the last clone writes the queued lines.
#[derive(Clone, Debug)]
pub struct Logging(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stderr: LogThread,
    /// Of all logs, to reopen and flush.
    queues: Mutex<Vec<Weak<LogQueue>>>,
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
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            let usage = |error| LogStartError::Usage(format!("RUST_LOG={text:?} cannot be read: {error}"));
            Targets::from_str(&text).map_err(usage)?
        }
        _ => Targets::new().with_default(level(config.level)),
    };
    let stderr = LogThread::start(PROCESS, Stderr).map_err(LogStartError::Thread)?;
    let layer = fmt::layer().with_writer(stderr.writer()).with_ansi(false).with_target(false);
    let layer = match config.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|error| LogStartError::Usage(format!("logging cannot start: {error}")))?;
    let queues = Mutex::new(vec![Arc::downgrade(stderr.queue())]);
    Ok(Logging(Arc::new(Inner { stderr, queues })))
}

impl Logging {
    /// The writer of the process log, for lines that do not come from tracing.
    pub fn stderr(&self) -> LogWriter {
        self.0.stderr.writer()
    }

    /// The count of lines that were dropped.
    pub fn dropped_lines(&self) -> DroppedLines {
        DroppedLines::new(self.stderr().counters().clone())
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

    fn add(&self, log: &LogThread) {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(log.queue()));
    }

    fn each_queue(&self, call: impl Fn(&LogQueue)) {
        let queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The process log last: the thread of another log may report a failure there.
        queues.iter().rev().filter_map(Weak::upgrade).for_each(|queue| call(&queue));
    }
}

/// Lines that a log has dropped because its thread did not keep up.
pub struct DroppedLines {
    counters: LogCounters,
    reported: u64,
}

impl DroppedLines {
    fn new(counters: LogCounters) -> DroppedLines {
        DroppedLines { counters, reported: 0 }
    }

    /// The counters of the log.
    pub fn counters(&self) -> &LogCounters {
        &self.counters
    }

    /// Logs the total, if it grew since the last report. The line may be dropped like any other: the next report
    /// counts it.
    pub fn report(&mut self) {
        let total = self.counters.dropped_lines();
        if total > self.reported {
            tracing::warn!(log = self.counters.name(), total, "lines dropped: what reads the log does not keep up");
            self.reported = total;
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

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
