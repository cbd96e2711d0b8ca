//! The access log: one line for each finished connection, to stderr, a file or a syslog server.

mod line;
mod request;

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process;
use std::sync::Arc;

use tracing::Level;

pub use self::line::{AccessLine, FailedConnect, OpenConnections};
pub use self::request::RequestLine;
use super::file::LogFile;
use super::syslog::{SyslogHeader, SyslogSink};
use super::writer::{LogThread, LogWriter};
use super::{Logging, journal};
use crate::config::model::{AccessLog, LogConfig, LogFormat};

/// The log, by its name in the counters.
const NAME: &str = "access";

/// Writes access lines. Each worker has a clone.
#[derive(Clone, Debug)]
pub struct AccessWriter {
    to: LogWriter,
    format: LogFormat,
    envelope: Envelope,
    takes_empty: bool,
}

/// What comes before each line.
#[derive(Clone, Debug)]
enum Envelope {
    /// The program and its process id, before text.
    Tag,
    /// The priority, then the same.
    Journal,
    /// The header of a syslog message, which names the process.
    Syslog(Arc<SyslogHeader>),
}

impl AccessWriter {
    /// Queues the line. Drops and counts it when the log thread does not keep up.
    pub fn write(&mut self, line: &AccessLine<'_>) {
        if line.is_empty && !self.takes_empty {
            return;
        }
        let mut text = String::with_capacity(512);
        match (&self.envelope, self.format) {
            (Envelope::Syslog(header), _) => header.push(&mut text, line.time),
            (Envelope::Journal | Envelope::Tag, LogFormat::Json) => {}
            (envelope, LogFormat::Text) => {
                if matches!(envelope, Envelope::Journal) {
                    text.push_str(journal::prefix(Level::INFO));
                }
                text.push_str(&format!("tidegate[{}]: ", process::id()));
            }
        }
        match self.format {
            LogFormat::Text => line.text(&mut text),
            LogFormat::Json => line.json(&mut text),
        }
        text.push('\n');
        self.to.line(text.as_bytes());
    }

    /// Whether connections without a byte have a line.
    pub fn takes_empty(&self) -> bool {
        self.takes_empty
    }
}

/// The access log of the process. Its drop writes the queued lines.
#[derive(Debug, Default)]
pub struct Access {
    format: LogFormat,
    takes_empty: bool,
    destination: Destination,
}

#[derive(Debug, Default)]
enum Destination {
    #[default]
    Off,
    Stderr(LogWriter, Envelope),
    Own {
        /// A file or a syslog server.
        target: AccessLog,
        envelope: Envelope,
        /// Writes to the target. It stays while the target is the same.
        thread: Arc<LogThread>,
    },
}

impl Access {
    /// Opens what `log.access` says, unless this is it already; `logging` lends it its stderr. Lines go there once workers have the
    /// new [`Access::writer`].
    ///
    /// A syslog server that cannot be reached is no error: lines wait for it.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or there is no thread to write it; the message names it.
    pub fn change(&self, config: &LogConfig, logging: &Logging) -> io::Result<Access> {
        let destination = match (&config.access, &self.destination) {
            (AccessLog::Off, _) => Destination::Off,
            (AccessLog::Stderr, _) => {
                let envelope = if logging.is_journal() { Envelope::Journal } else { Envelope::Tag };
                Destination::Stderr(logging.stderr(), envelope)
            }
            (new, Destination::Own { target, envelope, thread }) if new == target => {
                Destination::Own { target: new.clone(), envelope: envelope.clone(), thread: Arc::clone(thread) }
            }
            (AccessLog::File(path), _) => Destination::Own {
                target: config.access.clone(),
                envelope: Envelope::Tag,
                thread: Arc::new(open(path, logging)?),
            },
            (AccessLog::Syslog(server), _) => Destination::Own {
                target: config.access.clone(),
                envelope: Envelope::Syslog(Arc::new(SyslogHeader::of_this_process())),
                thread: Arc::new(
                    LogThread::start(logging.counters_of(NAME), SyslogSink::new(server.clone()))
                        .map_err(|error| cannot("start the thread of", server, &error))?,
                ),
            },
        };
        Ok(Access { format: config.format, takes_empty: config.access_empty, destination })
    }

    /// A writer for one worker; `None` when there is no access log.
    pub fn writer(&self) -> Option<AccessWriter> {
        let (to, envelope) = match &self.destination {
            Destination::Off => return None,
            Destination::Stderr(to, envelope) => (to.clone(), envelope),
            Destination::Own { thread, envelope, .. } => (thread.writer(), envelope),
        };
        Some(AccessWriter { to, format: self.format, envelope: envelope.clone(), takes_empty: self.takes_empty })
    }

    /// Takes the place of `before`, whose lines are written once the last worker has another writer. Returns at once.
    pub fn replace(&mut self, with: Access, logging: &Logging) {
        let before = std::mem::replace(self, with);
        match (&self.destination, before.destination) {
            (Destination::Own { thread, .. }, before) => {
                logging.add(thread);
                before.retire();
            }
            (_, before @ Destination::Own { .. }) => {
                logging.count_in(logging.counters_of(NAME));
                before.retire();
            }
            _ => {}
        }
    }
}

impl Destination {
    fn retire(self) {
        // It is not the last one where the next log goes on with the same thread.
        if let Destination::Own { thread, .. } = self
            && let Some(thread) = Arc::into_inner(thread)
        {
            thread.retire();
        }
    }
}

fn open(path: &Path, logging: &Logging) -> io::Result<LogThread> {
    let file = LogFile::open(path).map_err(|error| cannot("open", path.display(), &error))?;
    if file.waits_for_reader() {
        let path = path.display();
        tracing::warn!(log = NAME, "the FIFO {path} has no reader: lines wait for one");
    }
    LogThread::start(logging.counters_of(NAME), file)
        .map_err(|error| cannot("start the thread of", path.display(), &error))
}

fn cannot(what: &str, target: impl Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("log.access: cannot {what} {target}: {error}"))
}
