//! Log lines, on a writer that never blocks traffic: when it cannot keep up, lines are dropped and counted.

pub mod access;
pub mod throttle;

use std::io;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::model::{Log, LogFormat, LogLevel};

/// Lines that may wait for the writer's thread: some 4 MiB of them.
const WAITING_LINES: usize = 16 * 1024;

/// The process's log: as long as it lives, lines are written, and its drop writes those that wait.
pub struct Logging {
    stderr: NonBlocking,
    dropped: ErrorCounter,
    reported: usize,
    _guard: WorkerGuard,
}

/// A writer with a thread of its own and a bounded queue.
pub(crate) fn non_blocking(to: impl io::Write + Send + 'static, thread: &str) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name(thread).finish(to)
}

/// Starts logging to stderr. `RUST_LOG` (`warn`, `tidegate::health=debug,info`) wins over the level.
///
/// # Errors
/// A RUST_LOG that cannot be read, or logging was started before in this process.
pub fn start(config: &Log) -> Result<Logging, String> {
    let (stderr, guard) = non_blocking(io::stderr(), "log");
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
    let dropped = stderr.error_counter();
    Ok(Logging { stderr, dropped, reported: 0, _guard: guard })
}

impl Logging {
    /// The same writer, for lines that are not log events.
    pub fn stderr(&self) -> NonBlocking {
        self.stderr.clone()
    }

    /// Logs how many lines were dropped since the last time, if any were.
    pub fn report_dropped(&mut self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > self.reported {
            tracing::warn!(lines = dropped - self.reported, "log lines dropped: stderr does not keep up");
            self.reported = dropped;
        }
    }
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
