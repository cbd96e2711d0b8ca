//! The access log: one line for each finished connection.

use std::fmt::{self, Write as _};
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::file::LogFile;
use super::writer::{LogThread, LogWriter};
use super::{DroppedLines, Logging, date};
use crate::config::model::{AccessLog, LogConfig, LogFormat};
use crate::net::addr::ClientAddr;
use crate::stats::termination::Termination;

/// A finished connection, as its line reports it.
#[derive(Clone, Debug)]
pub struct AccessLine<'a> {
    /// When it ended.
    pub time: SystemTime,
    /// The listener's name.
    pub listener: &'a str,
    /// The pool's name.
    pub pool: &'a str,
    /// The client's address, as a PROXY header names it where one is trusted.
    pub client: ClientAddr,
    /// The backend's name; `None` if no backend was connected.
    pub backend: Option<&'a str>,
    /// The unique id in the PROXY header that the backend got.
    pub id: Option<NonZeroU64>,
    /// The wait for a free backend.
    pub queue: Option<Duration>,
    /// The connect that succeeded.
    pub connect: Option<Duration>,
    /// The TLS handshake with the client.
    pub client_handshake: Option<Duration>,
    /// The TLS handshake with the backend.
    pub backend_handshake: Option<Duration>,
    /// From the client's first byte to the backend's.
    pub first_byte: Option<Duration>,
    /// Changes of direction from the client to the backend and back; 0 when that is not measured.
    pub turnarounds: u32,
    /// The mean time from the last byte of a request to the first byte of its response.
    pub turnaround: Option<Duration>,
    /// From accept to end.
    pub duration: Duration,
    /// Bytes from the client, delivered to the backend.
    pub bytes_in: u64,
    /// Bytes from the backend, delivered to the client.
    pub bytes_out: u64,
    /// Backends that were tried after the first one.
    pub retries: u32,
    /// The first connects that failed, in order.
    pub failed_connects: &'a [FailedConnect],
    /// Open connections when it ended, itself included.
    pub open: OpenConnections,
    /// How it ended.
    pub ending: Termination,
}

/// A connect to a backend that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedConnect {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The address, if there is one, and the error.
    pub reason: String,
}

/// Connections that are open.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenConnections {
    /// In the process.
    pub process: usize,
    /// At the listener.
    pub listener: usize,
    /// On the pool's backends.
    pub pool: u32,
    /// On its backend.
    pub backend: u32,
}

impl AccessLine<'_> {
    /// The fields of HAProxy's `option tcplog` in their order (its configuration manual, 8.2.2), times in whole
    /// milliseconds. Fields that tcplog lacks follow.
    pub fn text(&self) -> String {
        let mut line = String::with_capacity(288);
        let accepted = self.time.checked_sub(self.duration).unwrap_or(self.time);
        let redispatched = if self.retries > 0 { "+" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(line, "tidegate[{}]: {} [", std::process::id(), self.client);
        let _ = write!(line, "{}] ", date::haproxy(accepted));
        push_word(&mut line, self.listener);
        line.push(' ');
        push_word(&mut line, self.pool);
        line.push('/');
        push_word(&mut line, self.backend.unwrap_or("<NOSRV>"));
        let _ = write!(
            line,
            " {}/{}/{} {} {} {}/{}/{}/{}/{redispatched}{} 0/0 bytes_in={}",
            WholeMillis(self.queue),
            WholeMillis(self.connect),
            WholeMillis(Some(self.duration)),
            self.bytes_out,
            self.ending.code(),
            self.open.process,
            self.open.listener,
            self.open.pool,
            self.open.backend,
            self.retries,
            self.bytes_in,
        );
        if let Some(id) = self.id {
            let _ = write!(line, " id={id:016x}");
        }
        if !self.failed_connects.is_empty() {
            line.push_str(" failed_connects=\"");
            for (index, FailedConnect { backend, reason }) in self.failed_connects.iter().enumerate() {
                let separator = if index > 0 { "; " } else { "" };
                push_quoted(&mut line, &format!("{separator}{backend}: {reason}"));
            }
            line.push('"');
        }
        let _ = writeln!(line, " reason=\"{}\"", self.ending);
        line
    }

    /// One JSON object on one line; times in milliseconds with three decimals, `null` for a stage that was not reached.
    pub fn json(&self) -> String {
        let mut line = String::with_capacity(512);
        let _ = write!(line, "{{\"time\":\"{}\",\"listener\":", date::rfc3339_millis(self.time));
        push_json(&mut line, self.listener);
        let _ = write!(line, ",\"client\":\"{}\",\"pool\":", self.client);
        push_json(&mut line, self.pool);
        line.push_str(",\"backend\":");
        match self.backend {
            Some(backend) => push_json(&mut line, backend),
            None => line.push_str("null"),
        }
        for (stage, took) in [
            ("queue", self.queue),
            ("connect", self.connect),
            ("tls_handshake", self.client_handshake),
            ("backend_tls_handshake", self.backend_handshake),
            ("first_byte", self.first_byte),
            ("turnaround", self.turnaround),
            ("duration", Some(self.duration)),
        ] {
            match took {
                Some(took) => {
                    let _ = write!(line, ",\"{stage}_ms\":{}", Millis(took));
                }
                None => {
                    let _ = write!(line, ",\"{stage}_ms\":null");
                }
            }
        }
        if let Some(id) = self.id {
            let _ = write!(line, ",\"id\":\"{id:016x}\"");
        }
        if !self.failed_connects.is_empty() {
            line.push_str(",\"failed_connects\":[");
            for (index, FailedConnect { backend, reason }) in self.failed_connects.iter().enumerate() {
                line.push_str(if index > 0 { ",{\"backend\":" } else { "{\"backend\":" });
                push_json(&mut line, backend);
                line.push_str(",\"reason\":");
                push_json(&mut line, reason);
                line.push('}');
            }
            line.push(']');
        }
        let _ = writeln!(
            line,
            ",\"turnarounds\":{},\"retries\":{},\"bytes_in\":{},\"bytes_out\":{},\
             \"reason\":\"{}\",\"side\":\"{}\",\"code\":\"{}\"}}",
            self.turnarounds,
            self.retries,
            self.bytes_in,
            self.bytes_out,
            self.ending,
            self.ending.cause().name(),
            self.ending.code()
        );
        line
    }
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// Whole milliseconds; -1 for a stage that was not reached.
struct WholeMillis(Option<Duration>);

impl fmt::Display for WholeMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(took) => took.as_millis().fmt(f),
            None => f.write_str("-1"),
        }
    }
}

/// A name as one word: white space, quotes and slashes become `_`, so that fields stay apart. JSON needs no such thing.
fn push_word(line: &mut String, name: &str) {
    let fits = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '/';
    line.extend(name.chars().map(|c| if fits(c) { c } else { '_' }));
}

/// The inside of a quoted value, escaped so that neither the value nor the line ends early.
fn push_quoted(line: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
}

fn push_json(line: &mut String, value: &str) {
    line.push_str(&serde_json::Value::from(value).to_string());
}

/// Writes access lines. Each worker has a clone.
#[derive(Clone, Debug)]
pub struct AccessWriter {
    to: LogWriter,
    format: LogFormat,
}

impl AccessWriter {
    /// Queues the line. Drops and counts it when the log thread does not keep up.
    pub fn write(&mut self, line: &AccessLine<'_>) {
        let text = match self.format {
            LogFormat::Text => line.text(),
            LogFormat::Json => line.json(),
        };
        self.to.line(text.as_bytes());
    }
}

/// The access log of the process. Its drop writes the queued lines.
#[derive(Debug, Default)]
pub struct Access {
    writer: Option<AccessWriter>,
    /// The thread that writes the file; `None` for stderr.
    thread: Option<LogThread>,
}

impl Access {
    /// Opens what `log.access` says; `logging` lends it its stderr.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or there is no thread to write it; the message names it.
    pub fn open(config: &LogConfig, logging: &Logging) -> io::Result<Access> {
        let format = config.format;
        match &config.access {
            AccessLog::Off => Ok(Access::default()),
            AccessLog::Stderr => {
                Ok(Access { writer: Some(AccessWriter { to: logging.stderr(), format }), thread: None })
            }
            AccessLog::File(path) => {
                let cannot = |what: &str, error: &io::Error| {
                    io::Error::new(error.kind(), format!("log.access: cannot {what} {}: {error}", path.display()))
                };
                let file = LogFile::open(path).map_err(|error| cannot("open", &error))?;
                if file.waits_for_reader() {
                    let path = path.display();
                    tracing::warn!(log = "access", "the FIFO {path} has no reader: lines wait for one");
                }
                let thread = LogThread::start("access", file).map_err(|error| cannot("start the thread of", &error))?;
                logging.add(&thread);
                Ok(Access { writer: Some(AccessWriter { to: thread.writer(), format }), thread: Some(thread) })
            }
        }
    }

    /// A writer for one worker; `None` when there is no access log.
    pub fn writer(&self) -> Option<AccessWriter> {
        self.writer.clone()
    }

    /// The count of lines that were dropped; `None` when they are counted with the lines of stderr.
    pub fn dropped_lines(&self) -> Option<DroppedLines> {
        self.thread.as_ref().map(|thread| DroppedLines::new(thread.writer().counters().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::termination::Side;

    fn line<'a>(listener: &'a str, backend: Option<&'a str>) -> AccessLine<'a> {
        let took = |micros| backend.map(|_| Duration::from_micros(micros));
        AccessLine {
            id: backend.and(NonZeroU64::new(0xabc)),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            listener,
            pool: "web",
            client: ClientAddr::Tcp("[::ffff:192.0.2.7]:5000".parse().unwrap()),
            backend,
            queue: took(0),
            connect: took(2_213),
            client_handshake: None,
            backend_handshake: took(1_500),
            first_byte: took(3_000),
            turnarounds: if backend.is_some() { 2 } else { 0 },
            turnaround: took(2_500),
            duration: Duration::from_micros(12_345_678),
            bytes_in: 12,
            bytes_out: 34,
            retries: u32::from(backend.is_some()),
            failed_connects: &[],
            open: OpenConnections { process: 4, listener: 3, pool: 2, backend: u32::from(backend.is_some()) },
            ending: if backend.is_some() { Termination::Closed(Side::Client) } else { Termination::NoBackend },
        }
    }

    #[test]
    fn text_has_the_fields_of_tcplog() {
        let pid = std::process::id();
        assert_eq!(
            line("shop", Some("shop-1")).text(),
            format!(
                "tidegate[{pid}]: 192.0.2.7:5000 [14/Nov/2023:22:13:07.777] shop web/shop-1 0/2/12345 34 -- 4/3/2/1/+1 0/0 \
                 bytes_in=12 id=0000000000000abc reason=\"client closed\"\n"
            )
        );
        assert_eq!(
            line("shop", None).text(),
            format!(
                "tidegate[{pid}]: 192.0.2.7:5000 [14/Nov/2023:22:13:07.777] shop web/<NOSRV> -1/-1/12345 34 SC 4/3/2/0/0 0/0 \
                 bytes_in=12 reason=\"rejected: no backend\"\n"
            )
        );
    }

    #[test]
    fn failed_connects_are_named_with_their_reasons() {
        let failed = [("a", "10.0.0.1:1: refused"), ("b\"", "TLS: \"x\"\n")]
            .map(|(backend, reason)| FailedConnect { backend: backend.into(), reason: reason.to_owned() });
        let line = AccessLine { failed_connects: &failed, ..line("shop", None) };
        let expected =
            r#"bytes_in=12 failed_connects="a: 10.0.0.1:1: refused; b\": TLS: \"x\"\n" reason="rejected: no backend""#;
        assert!(line.text().trim_end().ends_with(expected), "{}", line.text());
        let parsed: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(
            parsed["failed_connects"],
            serde_json::json!([
                { "backend": "a", "reason": "10.0.0.1:1: refused" },
                { "backend": "b\"", "reason": "TLS: \"x\"\n" },
            ])
        );
    }

    #[test]
    fn json() {
        let parsed: serde_json::Value = serde_json::from_str(&line("shop", Some("shop-1")).json()).unwrap();
        assert_eq!(
            parsed,
            serde_json::json!({
                "time": "2023-11-14T22:13:20.123Z", "listener": "shop", "client": "192.0.2.7:5000", "pool": "web",
                "backend": "shop-1", "queue_ms": 0.0, "connect_ms": 2.213, "tls_handshake_ms": null,
                "backend_tls_handshake_ms": 1.5, "first_byte_ms": 3.0, "turnaround_ms": 2.5, "turnarounds": 2,
                "id": "0000000000000abc", "duration_ms": 12345.678, "bytes_in": 12, "bytes_out": 34, "retries": 1,
                "reason": "client closed", "side": "client", "code": "--",
            })
        );
        let parsed: serde_json::Value = serde_json::from_str(&line("shop", None).json()).unwrap();
        for key in ["backend", "queue_ms", "connect_ms", "first_byte_ms", "turnaround_ms"] {
            assert_eq!(parsed[key], serde_json::Value::Null, "{key}");
        }
    }

    /// A connection's end must be logged whatever the clock says.
    #[test]
    fn any_clock_gives_a_line() {
        let day = Duration::from_secs(24 * 60 * 60);
        for time in
            [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - 400 * day, SystemTime::UNIX_EPOCH + 4_000_000 * day]
        {
            let line = AccessLine { time, ..line("shop", None) };
            assert!(line.text().contains("] shop "), "{}", line.text());
            assert!(serde_json::from_str::<serde_json::Value>(&line.json()).unwrap()["time"].is_string());
        }
    }

    #[test]
    fn names_cannot_forge_a_line_or_a_field() {
        let evil = "a\r\n2023 b/c\u{1b}[2J\"";
        let text = line(evil, Some(evil)).text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.trim_end_matches('\n').chars().all(|c| !c.is_control()), "{text}");
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!((fields[3], fields[4]), ("a__2023_b_c_[2J_", "web/a__2023_b_c_[2J_"), "{text}");
        let json = line(evil, Some(evil)).json();
        assert_eq!(json.matches('\n').count(), 1, "{json}");
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["listener"], evil);
    }
}
