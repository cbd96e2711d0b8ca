//! Lines of tracing: which of them are written, and as what. Both may change while the process runs.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Layer, registry};

use super::journal::JournalFormat;
use super::json::JsonObject;
use super::writer::LogWriter;
use crate::config::model::{LogConfig, LogFormat, LogLevel};

type LineLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The way to the filter and the format of the process log.
pub(super) struct LineOutput {
    filter: Handle<Targets, Registry>,
    layer: Handle<LineLayer, Registry>,
    to: LogWriter,
    /// Lines of text begin with their priority.
    to_journal: bool,
    /// RUST_LOG has set the filter, which then stays.
    has_environment: bool,
    current: Mutex<(LogLevel, LogFormat)>,
}

impl fmt::Debug for LineOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineOutput").field("current", &self.current).finish_non_exhaustive()
    }
}

/// What tracing writes to `to`. `environment` is RUST_LOG, which wins over the configured level.
///
/// # Errors
/// RUST_LOG cannot be read.
pub(super) fn subscriber(
    config: &LogConfig,
    environment: Option<&str>,
    to: &LogWriter,
    to_journal: bool,
) -> Result<(LineOutput, impl Subscriber + Send + Sync + use<>), String> {
    let filter = match environment {
        Some(text) => Targets::from_str(text).map_err(|error| format!("RUST_LOG={text:?} cannot be read: {error}"))?,
        None => filter(config.level),
    };
    let (filter, filter_handle) = reload::Layer::new(filter);
    let (layer, layer_handle) = reload::Layer::new(layer(config.format, to, to_journal));
    let lines = LineOutput {
        filter: filter_handle,
        layer: layer_handle,
        to: to.clone(),
        to_journal,
        has_environment: environment.is_some(),
        current: Mutex::new((config.level, config.format)),
    };
    Ok((lines, registry().with(layer.with_filter(filter))))
}

impl LineOutput {
    /// Another level and format from the next line on.
    pub(super) fn change(&self, config: &LogConfig) {
        let (level, format) = (config.level, config.format);
        let before =
            std::mem::replace(&mut *self.current.lock().unwrap_or_else(PoisonError::into_inner), (level, format));
        let mut changed = Ok(());
        if before.1 != format {
            changed = self.layer.reload(layer(format, &self.to, self.to_journal));
        }
        if before.0 != level {
            if self.has_environment {
                tracing::warn!("log.level has changed, and has no effect: RUST_LOG is set, which wins");
            } else {
                changed = changed.and(self.filter.reload(filter(level)));
            }
        }
        // Only where the subscriber is gone, with all that logs.
        if let Err(error) = changed {
            self.to.line(format!("the log cannot be changed: {error}\n").as_bytes());
        }
    }
}

fn layer(format: LogFormat, to: &LogWriter, to_journal: bool) -> LineLayer {
    let layer = tracing_subscriber::fmt::layer().with_writer(to.clone()).with_ansi(false);
    let text = tracing_subscriber::fmt::format().with_target(false);
    match format {
        LogFormat::Text if to_journal => layer.event_format(JournalFormat(text)).boxed(),
        LogFormat::Text => layer.event_format(text).boxed(),
        LogFormat::Json => layer.event_format(JsonFormat).boxed(),
    }
}

/// An event as an object of the [shape of all lines](super::json), its fields among the members.
struct JsonFormat;

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(256);
        let mut members =
            JsonMembers(JsonObject::begin(&mut line, SystemTime::now(), "log", event.metadata().level().as_str()));
        event.record(&mut members);
        members.0.end();
        writeln!(writer, "{line}")
    }
}

/// Appends fields as members: numbers and truth values as such, all else as text.
struct JsonMembers<'l>(JsonObject<'l>);

impl Visit for JsonMembers<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinite number.
        if value.is_finite() {
            self.0.value(field.name(), value);
        } else {
            self.0.value(field.name(), "null");
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.value(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.value(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.value(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.text(field.name(), &format!("{value:?}"));
    }
}

fn filter(level: LogLevel) -> Targets {
    Targets::new().with_default(match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::model::AccessLog;
    use crate::log::counters::LogCounters;
    use crate::log::writer::{LogThread, Sink, Written};

    struct KeptSink(Arc<Mutex<String>>);

    impl Sink for KeptSink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
            self.0.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(Written::Bytes(bytes.len()))
        }
    }

    fn config(level: LogLevel, format: LogFormat) -> LogConfig {
        LogConfig { level, format, access: AccessLog::Off, access_empty: true }
    }

    /// The messages, and which of them are JSON, after each of `changes`.
    fn written(environment: Option<&str>, changes: &[LogConfig]) -> Vec<(String, bool)> {
        let kept = Arc::default();
        let log = LogThread::start(LogCounters::new("process"), KeptSink(Arc::clone(&kept))).unwrap();
        let start = config(LogLevel::Info, LogFormat::Text);
        let (lines, subscriber) = subscriber(&start, environment, &log.writer(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let log = |place: usize| {
                tracing::info!("info{place}");
                tracing::debug!("debug{place}");
            };
            log(0);
            for (place, change) in changes.iter().enumerate() {
                lines.change(change);
                log(place + 1);
            }
        });
        assert!(log.queue().flush(Instant::now() + Duration::from_secs(60)));
        let text = kept.lock().unwrap().clone();
        let message = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
            Ok(line) => (line["message"].as_str().unwrap().to_owned(), true),
            Err(_) => (
                line.rsplit("  ")
                    .next()
                    .unwrap()
                    .rsplit("INFO ")
                    .next()
                    .unwrap()
                    .rsplit("DEBUG ")
                    .next()
                    .unwrap()
                    .to_owned(),
                false,
            ),
        };
        text.lines().map(message).collect()
    }

    #[test]
    fn level_and_format_change_from_one_line_to_the_next() {
        let changes = [
            config(LogLevel::Debug, LogFormat::Text),
            config(LogLevel::Debug, LogFormat::Json),
            config(LogLevel::Info, LogFormat::Json),
            config(LogLevel::Error, LogFormat::Text),
            config(LogLevel::Info, LogFormat::Text),
        ];
        let expected = [
            ("info0", false),
            ("info1", false),
            ("debug1", false),
            ("info2", true),
            ("debug2", true),
            ("info3", true),
            ("info5", false),
        ];
        assert_eq!(written(None, &changes), expected.map(|(message, json)| (message.to_owned(), json)));
    }

    #[test]
    fn rust_log_wins_over_a_changed_level() {
        let lines = written(Some("info"), &[config(LogLevel::Debug, LogFormat::Json)]);
        assert!(lines.iter().all(|(message, _)| !message.starts_with("debug")), "{lines:?}");
        assert!(lines.iter().any(|(message, json)| message.contains("RUST_LOG is set") && *json), "{lines:?}");
        assert_eq!(lines.last().map(|(message, _)| message.as_str()), Some("info1"));
    }
}
