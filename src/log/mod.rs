//! Log lines, on a writer that never blocks traffic: when it cannot keep up, lines are dropped and counted.

pub mod access;
pub mod counters;
pub mod throttle;

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use self::counters::{Counted, LogCounters, Writes};
use crate::config::model::{Log, LogFormat, LogLevel};

/// Lines that may wait for the writer's thread: some 4 MiB of them.
const WAITING_LINES: usize = 16 * 1024;

/// The process's log: as long as it lives, lines are written, and its drop writes those that wait.
pub struct Logging {
    stderr: NonBlocking,
    counters: LogCounters,
    _guard: WorkerGuard,
}

/// A writer with a thread of its own and a bounded queue.
struct Queue {
    writer: NonBlocking,
    guard: WorkerGuard,
    counters: LogCounters,
}

impl Queue {
    fn start(to: impl io::Write + Send + 'static, name: &'static str, thread: &str) -> Queue {
        let writes = Arc::<Writes>::default();
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(WAITING_LINES)
            .thread_name(thread)
            .finish(Counted::new(to, Arc::clone(&writes)));
        let counters = LogCounters::new(name, writer.error_counter(), writes);
        Queue { writer, guard, counters }
    }
}

/// Starts logging to stderr. `RUST_LOG` (`warn`, `tidegate::health=debug,info`) wins over the level.
///
/// # Errors
/// A RUST_LOG that cannot be read, or logging was started before in this process.
pub fn start(config: &Log) -> Result<Logging, String> {
    let Queue { writer: stderr, guard, counters } = Queue::start(io::stderr(), "process", "log");
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            Targets::from_str(&text).map_err(|error| format!("RUST_LOG={text:?} cannot be read: {error}"))?
        }
        _ => Targets::new().with_default(level(config.level)),
    };
    let layer = fmt::layer().with_writer(stderr.clone()).with_ansi(false).with_target(false);
    let layer = match config.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|error| format!("logging cannot start: {error}"))?;
    Ok(Logging { stderr, counters, _guard: guard })
}

impl Logging {
    /// The same writer, for lines that are not log events.
    pub fn stderr(&self) -> NonBlocking {
        self.stderr.clone()
    }

    /// The count of lines that were dropped.
    pub fn dropped_lines(&self) -> DroppedLines {
        DroppedLines::new(self.counters.clone())
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
