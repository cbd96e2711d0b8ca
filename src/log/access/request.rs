//! What the line of a request has beyond that of a connection: the combined format, and members of JSON.

use std::fmt::Write as _;

use super::line::{AccessLine, WholeMillis, push_quoted, push_word};
use crate::log::date;
use crate::log::json::JsonObject;

/// A request of `protocol: http`, as its line reports it.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// As sent.
    pub method: &'a str,
    /// The target: path and query.
    pub target: &'a str,
    /// As in the Host field.
    pub host: Option<&'a str>,
    /// `HTTP/1.1`.
    pub version: &'a str,
    /// Of the response; `None` if the client got none.
    pub status: Option<u16>,
    /// The Referer field.
    pub referer: Option<&'a str>,
    /// The User-Agent field.
    pub user_agent: Option<&'a str>,
    /// The traceparent field (W3C Trace Context), passed through.
    pub traceparent: Option<&'a str>,
}

impl RequestLine<'_> {
    /// Appends the combined log format of Apache and nginx; fields that it lacks follow.
    pub(super) fn combined(&self, of: &AccessLine<'_>, line: &mut String) {
        let began = of.time.checked_sub(of.duration).unwrap_or(of.time);
        // Writing to a String cannot fail.
        let _ = match of.client.ip() {
            Some(ip) => write!(line, "{ip}"),
            None => write!(line, "unix:"),
        };
        let _ = write!(line, " - - [{}] \"", date::common(began));
        push_quoted(line, self.method);
        line.push(' ');
        push_quoted(line, self.target);
        let _ = write!(line, " {}\" ", self.version);
        let _ = match self.status {
            Some(status) => write!(line, "{status}"),
            None => write!(line, "-"),
        };
        let _ = write!(line, " {}", of.bytes_out);
        for field in [self.referer, self.user_agent] {
            line.push_str(" \"");
            push_quoted(line, field.unwrap_or("-"));
            line.push('"');
        }
        line.push_str(" listener=");
        push_word(line, of.listener);
        line.push_str(" backend=");
        push_word(line, of.pool);
        line.push('/');
        push_word(line, of.backend.unwrap_or("<NOSRV>"));
        let _ = write!(
            line,
            " queue_ms={} connect_ms={} first_byte_ms={} duration_ms={} bytes_in={} retries={} id={:016x}",
            WholeMillis(of.queue),
            WholeMillis(of.connect),
            WholeMillis(of.first_byte),
            WholeMillis(Some(of.duration)),
            of.bytes_in,
            of.retries,
            of.id,
        );
        for (key, value) in [("host", self.host), ("traceparent", self.traceparent)] {
            if let Some(value) = value {
                let _ = write!(line, " {key}=\"");
                push_quoted(line, value);
                line.push('"');
            }
        }
    }

    /// Appends its members.
    pub(super) fn json(&self, object: &mut JsonObject<'_>) {
        object.text("method", self.method);
        object.text("target", self.target);
        object.text("http_version", self.version);
        match self.status {
            Some(status) => object.value("status", status),
            None => object.value("status", "null"),
        }
        let fields = [
            ("host", self.host),
            ("referer", self.referer),
            ("user_agent", self.user_agent),
            ("traceparent", self.traceparent),
        ];
        for (key, value) in fields {
            if let Some(value) = value {
                object.text(key, value);
            }
        }
    }
}
