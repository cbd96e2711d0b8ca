//! A finished connection as text in the field order of HAProxy's tcplog, or as JSON.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::request::RequestLine;
use super::text::{WholeMillis, push_quoted, push_word};
use crate::log::date;
use crate::log::json::{JsonObject, JsonText};
use crate::net::addr::ClientAddr;
use crate::net::protocol::ClientProtocol;
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
    /// The connection's id in `/api/connections`, and in the PROXY header that the backend got (UNIQUE_ID).
    pub id: NonZeroU64,
    /// The wait for a free backend.
    pub queue: Option<Duration>,
    /// Connections that waited when it came to the queue.
    pub queued_behind: u32,
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
    /// The protocol of its first bytes, where routes ask for it.
    pub protocol: Option<ClientProtocol>,
    /// The request, on the line of one.
    pub request: Option<RequestLine<'a>>,
    /// What a trusted peer's PROXY header says beyond addresses: names and values.
    pub proxy_tlvs: &'a [(Cow<'static, str>, String)],
    /// The user that the client names to a database, where its queries are watched.
    pub user: Option<&'a str>,
    /// The database that the client has chosen there.
    pub database: Option<&'a str>,
    /// Its queries, answered or not; `None` where they are not watched.
    pub queries: Option<u64>,
    /// Datagrams from the client and from the backend that were forwarded, with `protocol: udp`.
    pub datagrams: Option<(u64, u64)>,
    /// Backends that were tried after the first one.
    pub retries: u32,
    /// The first connects that failed, in order.
    pub failed_connects: &'a [FailedConnect],
    /// Open connections when it ended, itself included.
    pub open: OpenConnections,
    /// Whether no byte came from either side: a probe. What tidegate took for itself, a PROXY header or the handshake of TLS,
    /// does not count.
    pub is_empty: bool,
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
    /// Appends the fields of HAProxy's `option tcplog` in their order (its configuration manual, 8.2.2), times in whole
    /// milliseconds. Fields that tcplog lacks follow. What names the process is the caller's.
    pub(super) fn text(&self, line: &mut String) {
        if let Some(request) = &self.request {
            let began = self.time.checked_sub(self.duration).unwrap_or(self.time);
            request.combined(line, self.client.ip(), began, self.bytes_out);
            self.push_stages(line);
            request.more(line);
            self.push_failed_connects(line);
            if !matches!(self.ending, Termination::Closed(_)) {
                let _ = write!(line, " reason=\"{}\"", self.ending);
            }
            return;
        }
        let accepted = self.time.checked_sub(self.duration).unwrap_or(self.time);
        let redispatched = if self.retries > 0 { "+" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(line, "{} [{}] ", self.client, date::haproxy(accepted));
        push_word(line, self.listener);
        line.push(' ');
        push_word(line, self.pool);
        line.push('/');
        push_word(line, self.backend.unwrap_or("<NOSRV>"));
        let _ = write!(
            line,
            " {}/{}/{} {} {} {}/{}/{}/{}/{redispatched}{} 0/{} bytes_in={} id={:016x}",
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
            self.queued_behind,
            self.bytes_in,
            self.id,
        );
        if let Some((datagrams_in, datagrams_out)) = self.datagrams {
            let _ = write!(line, " datagrams_in={datagrams_in} datagrams_out={datagrams_out}");
        }
        self.push_failed_connects(line);
        let _ = write!(line, " reason=\"{}\"", self.ending);
    }

    /// Where a request went, and how long each stage took.
    fn push_stages(&self, line: &mut String) {
        line.push_str(" listener=");
        push_word(line, self.listener);
        line.push_str(" backend=");
        push_word(line, self.pool);
        line.push('/');
        push_word(line, self.backend.unwrap_or("<NOSRV>"));
        let _ = write!(
            line,
            " queue_ms={} connect_ms={} first_byte_ms={} duration_ms={} bytes_in={} retries={} id={:016x}",
            WholeMillis(self.queue),
            WholeMillis(self.connect),
            WholeMillis(self.first_byte),
            WholeMillis(Some(self.duration)),
            self.bytes_in,
            self.retries,
            self.id,
        );
    }

    fn push_failed_connects(&self, line: &mut String) {
        if !self.failed_connects.is_empty() {
            line.push_str(" failed_connects=\"");
            for (index, FailedConnect { backend, reason }) in self.failed_connects.iter().enumerate() {
                let separator = if index > 0 { "; " } else { "" };
                push_quoted(line, &format!("{separator}{backend}: {reason}"));
            }
            line.push('"');
        }
    }

    /// Appends a JSON object of the [shared shape](super::super::json); times in milliseconds with three decimals, `null` for a
    /// stage that was not reached.
    pub(super) fn json(&self, line: &mut String) {
        let mut object = JsonObject::begin(line, self.time, "access", "INFO");
        object.value("id", format_args!("\"{:016x}\"", self.id));
        object.text("listener", self.listener);
        object.value("client", format_args!("\"{}\"", self.client));
        object.text("pool", self.pool);
        match self.backend {
            Some(backend) => object.text("backend", backend),
            None => object.value("backend", "null"),
        }
        if let Some(request) = &self.request {
            request.json(&mut object);
        }
        if let Some(protocol) = self.protocol {
            object.text("protocol", protocol.name());
        }
        for (stage, took) in [
            ("queue_ms", self.queue),
            ("connect_ms", self.connect),
            ("tls_handshake_ms", self.client_handshake),
            ("backend_tls_handshake_ms", self.backend_handshake),
            ("first_byte_ms", self.first_byte),
            ("turnaround_ms", self.turnaround),
            ("duration_ms", Some(self.duration)),
        ] {
            match took {
                Some(took) => object.value(stage, Millis(took)),
                None => object.value(stage, "null"),
            }
        }
        if !self.failed_connects.is_empty() {
            let list = |f: &mut fmt::Formatter<'_>| {
                for (index, FailedConnect { backend, reason }) in self.failed_connects.iter().enumerate() {
                    f.write_str(if index > 0 { "," } else { "" })?;
                    write!(f, "{{\"backend\":{},\"reason\":{}}}", JsonText(backend), JsonText(reason))?;
                }
                Ok(())
            };
            object.value("failed_connects", format_args!("[{}]", fmt::from_fn(list)));
        }
        if !self.proxy_tlvs.is_empty() {
            let list = |f: &mut fmt::Formatter<'_>| {
                for (index, (name, value)) in self.proxy_tlvs.iter().enumerate() {
                    f.write_str(if index > 0 { "," } else { "" })?;
                    write!(f, "{{\"type\":{},\"value\":{}}}", JsonText(name), JsonText(value))?;
                }
                Ok(())
            };
            object.value("proxy_tlvs", format_args!("[{}]", fmt::from_fn(list)));
        }
        for (key, name) in [("user", self.user), ("database", self.database)] {
            if let Some(name) = name {
                object.text(key, name);
            }
        }
        if let Some(queries) = self.queries {
            object.value("queries", queries);
        }
        if let Some((datagrams_in, datagrams_out)) = self.datagrams {
            object.value("datagrams_in", datagrams_in);
            object.value("datagrams_out", datagrams_out);
        }
        object.value("turnarounds", self.turnarounds);
        object.value("retries", self.retries);
        object.value("bytes_in", self.bytes_in);
        object.value("bytes_out", self.bytes_out);
        object.value("reason", format_args!("\"{}\"", self.ending));
        object.value("side", format_args!("\"{}\"", self.ending.cause().name()));
        object.value("code", format_args!("\"{}\"", self.ending.code()));
        object.end();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::termination::Side;

    fn text(line: &AccessLine<'_>) -> String {
        let mut text = String::new();
        line.text(&mut text);
        text
    }

    fn json(line: &AccessLine<'_>) -> String {
        let mut text = String::new();
        line.json(&mut text);
        text
    }

    fn line<'a>(listener: &'a str, backend: Option<&'a str>) -> AccessLine<'a> {
        let took = |micros| backend.map(|_| Duration::from_micros(micros));
        AccessLine {
            id: NonZeroU64::new(0xabc).unwrap(),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            listener,
            pool: "web",
            client: ClientAddr::Tcp("[::ffff:192.0.2.7]:5000".parse().unwrap()),
            backend,
            queue: took(0),
            queued_behind: 0,
            protocol: None,
            request: None,
            proxy_tlvs: &[],
            user: None,
            database: None,
            queries: None,
            datagrams: None,
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
            is_empty: false,
            ending: if backend.is_some() { Termination::Closed(Side::Client) } else { Termination::NoBackend },
        }
    }

    #[test]
    fn text_has_the_fields_of_tcplog() {
        assert_eq!(
            text(&line("shop", Some("shop-1"))),
            concat!(
                "192.0.2.7:5000 [14/Nov/2023:22:13:07.777] shop web/shop-1 0/2/12345 34 -- 4/3/2/1/+1 0/0 ",
                "bytes_in=12 id=0000000000000abc reason=\"client closed\""
            )
        );
        assert_eq!(
            text(&line("shop", None)),
            concat!(
                "192.0.2.7:5000 [14/Nov/2023:22:13:07.777] shop web/<NOSRV> -1/-1/12345 34 SC 4/3/2/0/0 0/0 ",
                "bytes_in=12 id=0000000000000abc reason=\"rejected: no backend\""
            )
        );
    }

    #[test]
    fn failed_connects_are_named_with_their_reasons() {
        let failed = [("a", "10.0.0.1:1: refused"), ("b\"", "TLS: \"x\"\n")]
            .map(|(backend, reason)| FailedConnect { backend: backend.into(), reason: reason.to_owned() });
        let line = AccessLine { failed_connects: &failed, ..line("shop", None) };
        let expected = r#"id=0000000000000abc failed_connects="a: 10.0.0.1:1: refused; b\": TLS: \"x\"\n" reason="rejected: no backend""#;
        assert!(text(&line).ends_with(expected), "{}", text(&line));
        let parsed: serde_json::Value = serde_json::from_str(&json(&line)).unwrap();
        assert_eq!(
            parsed["failed_connects"],
            serde_json::json!([
                { "backend": "a", "reason": "10.0.0.1:1: refused" },
                { "backend": "b\"", "reason": "TLS: \"x\"\n" },
            ])
        );
    }

    #[test]
    fn json_has_every_stage() {
        let parsed: serde_json::Value = serde_json::from_str(&json(&line("shop", Some("shop-1")))).unwrap();
        assert_eq!(
            parsed,
            serde_json::json!({
                "time": "2023-11-14T22:13:20.123Z", "type": "access", "level": "INFO", "listener": "shop", "client": "192.0.2.7:5000", "pool": "web",
                "backend": "shop-1", "queue_ms": 0.0, "connect_ms": 2.213, "tls_handshake_ms": null,
                "backend_tls_handshake_ms": 1.5, "first_byte_ms": 3.0, "turnaround_ms": 2.5, "turnarounds": 2,
                "id": "0000000000000abc", "duration_ms": 12345.678, "bytes_in": 12, "bytes_out": 34, "retries": 1,
                "reason": "client closed", "side": "client", "code": "--",
            })
        );
        let parsed: serde_json::Value = serde_json::from_str(&json(&line("shop", None))).unwrap();
        for key in ["backend", "queue_ms", "connect_ms", "first_byte_ms", "turnaround_ms"] {
            assert_eq!(parsed[key], serde_json::Value::Null, "{key}");
        }
    }

    #[test]
    fn json_names_the_user_of_a_database() {
        let line =
            AccessLine { user: Some("al\"ice\n"), database: Some("shop"), queries: Some(7), ..line("shop", None) };
        let parsed: serde_json::Value = serde_json::from_str(&json(&line)).unwrap();
        let named = [&parsed["user"], &parsed["database"], &parsed["queries"]].map(serde_json::Value::to_string);
        assert_eq!(named, [r#""al\"ice\n""#, r#""shop""#, "7"]);
    }

    /// A connection's end must be logged whatever the clock says.
    #[test]
    fn any_clock_gives_a_line() {
        let day = Duration::from_secs(24 * 60 * 60);
        for time in
            [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - 400 * day, SystemTime::UNIX_EPOCH + 4_000_000 * day]
        {
            let line = AccessLine { time, ..line("shop", None) };
            assert!(text(&line).contains("] shop "), "{}", text(&line));
            assert!(serde_json::from_str::<serde_json::Value>(&json(&line)).unwrap()["time"].is_string());
        }
    }

    #[test]
    fn names_cannot_forge_a_line_or_a_field() {
        let evil = "a\r\n2023 b/c\u{1b}[2J\"";
        let text = text(&line(evil, Some(evil)));
        assert!(text.chars().all(|c| !c.is_control()), "{text}");
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!((fields[2], fields[3]), ("a__2023_b_c_[2J_", "web/a__2023_b_c_[2J_"), "{text}");
        let json = json(&line(evil, Some(evil)));
        assert!(!json.contains('\n'), "{json}");
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["listener"], evil);
    }
}
