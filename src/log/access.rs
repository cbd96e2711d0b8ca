//! The access log: one line for each finished connection.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};

use super::{DroppedLines, Logging, non_blocking};
use crate::config::model::{AccessLog, Log, LogFormat};
use crate::net::addr::ClientAddr;
use crate::stats::ending::Ending;

/// A file that was moved away (rotated) is noticed after at most this time.
const REOPEN: Duration = Duration::from_secs(1);

/// What is said of a connection once it has ended.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// When it ended.
    pub time: SystemTime,
    /// The listener's name.
    pub listener: &'a str,
    /// Where it came from.
    pub client: ClientAddr,
    /// The backend's name; `None` if it got none.
    pub backend: Option<&'a str>,
    /// What names it to a backend that was sent a PROXY header.
    pub id: Option<NonZeroU64>,
    /// How long the connect that succeeded took.
    pub connect: Option<Duration>,
    /// From accept to end.
    pub duration: Duration,
    /// From the client, handed to the backend.
    pub bytes_in: u64,
    /// From the backend, handed to the client.
    pub bytes_out: u64,
    /// How it ended.
    pub ending: Ending,
}

impl Line<'_> {
    /// `key=value` pairs on one line, control characters escaped.
    pub fn text(&self) -> String {
        let mut line = String::with_capacity(224);
        // Writing to a String cannot fail.
        let _ = write!(line, "{} listener=", humantime::format_rfc3339_millis(self.time));
        push_escaped(&mut line, self.listener);
        let _ = write!(line, " client={} backend=", self.client);
        match self.backend {
            Some(backend) => push_escaped(&mut line, backend),
            None => line.push('-'),
        }
        match self.connect {
            Some(connect) => {
                let _ = write!(line, " connect_ms={}", Millis(connect));
            }
            None => line.push_str(" connect_ms=-"),
        }
        if let Some(id) = self.id {
            let _ = write!(line, " id={id:016x}");
        }
        let _ = writeln!(
            line,
            " duration_ms={} bytes_in={} bytes_out={} end=\"{}\"",
            Millis(self.duration),
            self.bytes_in,
            self.bytes_out,
            self.ending
        );
        line
    }

    /// One JSON object on one line.
    pub fn json(&self) -> String {
        let mut line = String::with_capacity(320);
        let _ = write!(line, "{{\"time\":\"{}\",\"listener\":", humantime::format_rfc3339_millis(self.time));
        push_json(&mut line, self.listener);
        let _ = write!(line, ",\"client\":\"{}\",\"backend\":", self.client);
        match self.backend {
            Some(backend) => push_json(&mut line, backend),
            None => line.push_str("null"),
        }
        match self.connect {
            Some(connect) => {
                let _ = write!(line, ",\"connect_ms\":{}", Millis(connect));
            }
            None => line.push_str(",\"connect_ms\":null"),
        }
        if let Some(id) = self.id {
            let _ = write!(line, ",\"id\":\"{id:016x}\"");
        }
        let _ = writeln!(
            line,
            ",\"duration_ms\":{},\"bytes_in\":{},\"bytes_out\":{},\"end\":\"{}\",\"side\":\"{}\",\"reason\":\"{}\"}}",
            Millis(self.duration),
            self.bytes_in,
            self.bytes_out,
            self.ending,
            self.ending.side(),
            self.ending.reason()
        );
        line
    }
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// A value of a text line: quoted when it holds what would blur its borders.
fn push_escaped(line: &mut String, value: &str) {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '\\' | '=');
    if !value.is_empty() && value.chars().all(plain) {
        line.push_str(value);
        return;
    }
    line.push('"');
    line.extend(value.chars().flat_map(char::escape_debug));
    line.push('"');
}

fn push_json(line: &mut String, value: &str) {
    line.push_str(&serde_json::Value::from(value).to_string());
}

/// Where access lines go. A clone for each worker.
#[derive(Clone, Debug)]
pub struct AccessWriter {
    to: NonBlocking,
    format: LogFormat,
}

impl AccessWriter {
    /// Queues the line; drops and counts it when the writer cannot keep up.
    pub fn write(&mut self, line: &Line<'_>) {
        let text = match self.format {
            LogFormat::Text => line.text(),
            LogFormat::Json => line.json(),
        };
        // A lossy queue never fails: what it drops, it counts.
        let _ = self.to.write(text.as_bytes());
    }
}

/// The access log of the process; its drop writes the lines that wait.
#[derive(Default)]
pub struct Access {
    writer: Option<AccessWriter>,
    /// Of its own thread, if it has one.
    guard: Option<WorkerGuard>,
}

impl Access {
    /// Opens what `log.access` says; `logging` lends it its stderr.
    ///
    /// # Errors
    /// The file cannot be opened for appending; the message names it.
    pub fn open(config: &Log, logging: &Logging) -> io::Result<Access> {
        let format = config.format;
        match &config.access {
            AccessLog::Off => Ok(Access::default()),
            AccessLog::Stderr => {
                Ok(Access { writer: Some(AccessWriter { to: logging.stderr(), format }), guard: None })
            }
            AccessLog::File(path) => {
                let file = RotatedFile::open(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("log.access: cannot open {}: {error}", path.display()))
                })?;
                let (to, guard) = non_blocking(file, "access-log");
                Ok(Access { writer: Some(AccessWriter { to, format }), guard: Some(guard) })
            }
        }
    }

    /// A writer for one worker; `None` when there is no access log.
    pub fn writer(&self) -> Option<AccessWriter> {
        self.writer.clone()
    }

    /// The count of lines that were dropped; `None` when they are counted with the lines of stderr.
    pub fn dropped_lines(&self) -> Option<DroppedLines> {
        self.guard.as_ref()?;
        self.writer.as_ref().map(|writer| DroppedLines::new(&writer.to, "access log"))
    }
}

/// A file that is opened again when another one has taken its name, or none has it any more.
struct RotatedFile {
    path: PathBuf,
    file: File,
    checked: Instant,
}

impl RotatedFile {
    fn open(path: &Path) -> io::Result<RotatedFile> {
        Ok(RotatedFile { path: path.to_owned(), file: append(path)?, checked: Instant::now() })
    }

    fn follow_rotation(&mut self) {
        let identity = |meta: &std::fs::Metadata| (meta.dev(), meta.ino());
        let named = std::fs::metadata(&self.path).ok().as_ref().map(identity);
        let open = self.file.metadata().ok().as_ref().map(identity);
        if named != open
            && let Ok(file) = append(&self.path)
        {
            self.file = file;
        }
    }
}

impl io::Write for RotatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.checked.elapsed() >= REOPEN {
            self.checked = Instant::now();
            self.follow_rotation();
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ending::Side;

    fn line<'a>(listener: &'a str, backend: Option<&'a str>) -> Line<'a> {
        Line {
            id: backend.and(NonZeroU64::new(0xabc)),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            listener,
            client: ClientAddr::Tcp("[::ffff:192.0.2.7]:5000".parse().unwrap()),
            backend,
            connect: backend.map(|_| Duration::from_micros(213)),
            duration: Duration::from_micros(12_345_678),
            bytes_in: 12,
            bytes_out: 34,
            ending: if backend.is_some() { Ending::Closed(Side::Client) } else { Ending::NoBackend },
        }
    }

    #[test]
    fn text() {
        assert_eq!(
            line("shop", Some("shop-1")).text(),
            "2023-11-14T22:13:20.123Z listener=shop client=192.0.2.7:5000 backend=shop-1 connect_ms=0.213 \
             id=0000000000000abc duration_ms=12345.678 bytes_in=12 bytes_out=34 end=\"client closed\"\n"
        );
        assert_eq!(
            line("shop", None).text(),
            "2023-11-14T22:13:20.123Z listener=shop client=192.0.2.7:5000 backend=- connect_ms=- \
             duration_ms=12345.678 bytes_in=12 bytes_out=34 end=\"refused: no backend\"\n"
        );
    }

    #[test]
    fn json() {
        let parsed: serde_json::Value = serde_json::from_str(&line("shop", Some("shop-1")).json()).unwrap();
        assert_eq!(
            parsed,
            serde_json::json!({
                "time": "2023-11-14T22:13:20.123Z", "listener": "shop", "client": "192.0.2.7:5000",
                "backend": "shop-1", "connect_ms": 0.213, "id": "0000000000000abc", "duration_ms": 12345.678, "bytes_in": 12,
                "bytes_out": 34, "end": "client closed", "side": "client", "reason": "closed",
            })
        );
        let parsed: serde_json::Value = serde_json::from_str(&line("shop", None).json()).unwrap();
        assert_eq!((&parsed["backend"], &parsed["connect_ms"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let evil = "a\r\n2023 listener=b\u{1b}[2J\"";
        let text = line(evil, Some(evil)).text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.trim_end_matches('\n').chars().all(|c| !c.is_control()), "{text}");
        let json = line(evil, Some(evil)).json();
        assert_eq!(json.matches('\n').count(), 1, "{json}");
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["listener"], evil);
    }

    #[test]
    fn a_rotated_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let mut file = RotatedFile::open(&path).unwrap();
        file.write_all(b"old\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        file.follow_rotation();
        file.write_all(b"new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "old\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    }
}
