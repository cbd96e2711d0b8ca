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
use self::writer::{FLUSH_LIMIT, LogThread, PROCESS, Queue, Sink, Written};
use crate::config::model::{Log, LogFormat, LogLevel};

/// The logs of the process. A clone is for another thread; the drop of the last one writes the lines that wait.
#[derive(Clone, Debug)]
pub struct Logging(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stderr: LogThread,
    /// All of them.
    queues: Mutex<Vec<Weak<Queue>>>,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
        // Not by the lock of std's stderr: a write that is stuck must not hold up others who have a word to say.
        Ok(Written::Bytes(rustix::io::write(io::stderr(), bytes)?))
    }
}

/// Starts logging to stderr. `RUST_LOG` (`warn`, `tidegate::health=debug,info`) wins over the level.
///
/// # Errors
/// A RUST_LOG that cannot be read, logging was started before in this process, or there is no thread.
pub fn start(config: &Log) -> Result<Logging, StartError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            let usage = |error| StartError::Usage(format!("RUST_LOG={text:?} cannot be read: {error}"));
            Targets::from_str(&text).map_err(usage)?
        }
        _ => Targets::new().with_default(level(config.level)),
    };
    let stderr = LogThread::start(PROCESS, Stderr).map_err(StartError::Thread)?;
    let layer = fmt::layer().with_writer(stderr.writer()).with_ansi(false).with_target(false);
    let layer = match config.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|error| StartError::Usage(format!("logging cannot start: {error}")))?;
    let queues = Mutex::new(vec![Arc::downgrade(stderr.queue())]);
    Ok(Logging(Arc::new(Inner { stderr, queues })))
}

impl Logging {
    /// The writer of messages, for lines that are none.
    pub fn stderr(&self) -> LogWriter {
        self.0.stderr.writer()
    }

    /// The count of lines that were dropped.
    pub fn dropped_lines(&self) -> DroppedLines {
        DroppedLines::new(self.stderr().counters().clone())
    }

    /// Opens the files of all logs again, as after a rotation. Returns at once.
    pub fn reopen(&self) {
        self.each_queue(Queue::reopen);
    }

    /// Writes what waits in all logs. Waits for no write that is stuck, so that it returns soon in any case.
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

    fn each_queue(&self, call: impl Fn(&Queue)) {
        let queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Messages last: the thread of another log may have something to say.
        queues.iter().rev().filter_map(Weak::upgrade).for_each(|queue| call(&queue));
    }
}

/// Lines that a log has dropped because its writer could not keep up.
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

    /// Logs how many there were so far, if there were more since the last time. The line may be dropped like any
    /// other; that adds to the number, and the next time says it.
    pub fn report(&mut self) {
        let total = self.counters.dropped_lines();
        if total > self.reported {
            tracing::warn!(log = self.counters.name(), total, "lines dropped: what reads the log does not keep up");
            self.reported = total;
        }
    }
}

/// Has panics logged like everything else. One ends its connection and nothing more.
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
