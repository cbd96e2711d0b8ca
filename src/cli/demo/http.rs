//! HTTP/1.1 of the demo's backends and switches: just enough for curl, a browser and a health check.

use std::io;

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Headers in it.
const MAX_HEADERS: usize = 64;

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DemoRequest {
    pub(super) method: String,
    pub(super) path: String,
    /// The client may send another request.
    pub(super) keep_alive: bool,
}

/// Why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DemoRefusal {
    BadRequest,
    HeadTooLarge,
}

/// What is answered.
pub(super) struct DemoResponse {
    pub(super) status: u16,
    pub(super) body: String,
    /// Methods in `Allow`; empty for none.
    pub(super) allow: &'static str,
}

impl DemoRequest {
    /// The answer has no body.
    fn wants_head_only(&self) -> bool {
        self.method == "HEAD"
    }
}

impl DemoResponse {
    pub(super) fn new(status: u16, body: impl Into<String>) -> DemoResponse {
        DemoResponse { status, body: body.into(), allow: "" }
    }

    /// A method that is none of these.
    pub(super) fn only(allow: &'static str) -> DemoResponse {
        DemoResponse { status: 405, body: format!("only {allow}\n"), allow }
    }

    pub(super) fn to_refused(refusal: &DemoRefusal) -> DemoResponse {
        match refusal {
            DemoRefusal::BadRequest => DemoResponse::new(400, "not understood\n"),
            DemoRefusal::HeadTooLarge => DemoResponse::new(431, "too large\n"),
        }
    }

    /// As bytes; `request` is what it answers.
    pub(super) fn encode(&self, request: &Result<DemoRequest, DemoRefusal>, keep_alive: bool) -> Vec<u8> {
        let status = self.status;
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        let allow = if self.allow.is_empty() { String::new() } else { format!("Allow: {}\r\n", self.allow) };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let length = self.body.len();
        let sent = if request.as_ref().is_ok_and(DemoRequest::wants_head_only) { "" } else { &self.body };
        format!(
            "HTTP/1.1 {status} {reason}\r\n{allow}Content-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n\r\n{sent}"
        )
        .into_bytes()
    }
}

/// The next request, or `None` when the client has finished. What follows the request stays in `received`.
pub(super) async fn read_request(
    socket: &mut (impl AsyncRead + Unpin),
    received: &mut Vec<u8>,
) -> io::Result<Option<Result<DemoRequest, DemoRefusal>>> {
    loop {
        if let Some((request, length)) = parse(received) {
            received.drain(..length);
            return Ok(Some(request));
        }
        let mut part = [0; 1024];
        let read = socket.read(&mut part).await?;
        if read == 0 {
            return Ok(None);
        }
        received.extend_from_slice(&part[..read]);
    }
}

/// The request that the bytes begin with, and the length of its head; `None` while that has not ended.
fn parse(received: &[u8]) -> Option<(Result<DemoRequest, DemoRefusal>, usize)> {
    let refused = |refusal| Some((Err(refusal), received.len()));
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(received) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if received.len() <= MAX_HEAD => return None,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return refused(DemoRefusal::HeadTooLarge),
        Err(_) => return refused(DemoRefusal::BadRequest),
    };
    // A body is not read, so where a request after it would begin is unknown.
    let has_body = head.headers.iter().any(|header| {
        let name = |name| header.name.eq_ignore_ascii_case(name);
        name("transfer-encoding") || (name("content-length") && header.value != b"0")
    });
    let asks_to_close = head.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("connection")
            && header.value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    let request = DemoRequest {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        keep_alive: head.version == Some(1) && !asks_to_close && !has_body,
    };
    Some((Ok(request), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let request = |method: &str, path: &str, keep_alive| {
            Some(Ok(DemoRequest { method: method.to_owned(), path: path.to_owned(), keep_alive }))
        };
        let refused = |refusal| Some(Err(refusal));
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        for (text, expected) in [
            ("", None),
            ("GET / HT", None),
            ("GET / HTTP/1.1\r\nHost: a\r\n", None),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", request("GET", "/", true)),
            ("GET /a?b HTTP/1.1\r\n\r\n", request("GET", "/a?b", true)),
            ("GET / HTTP/1.0\r\n\r\n", request("GET", "/", false)),
            ("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n", request("GET", "/", false)),
            ("GET / HTTP/1.1\r\nConnection: te, close\r\n\r\n", request("GET", "/", false)),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", request("GET", "/", true)),
            ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", request("GET", "/", false)),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", request("GET", "/", false)),
            ("POST / HTTP/1.1\r\n\r\n", request("POST", "/", true)),
            ("\x16\x03\x01\x02", refused(DemoRefusal::BadRequest)),
            (&long, refused(DemoRefusal::HeadTooLarge)),
            (&long[..MAX_HEAD + 1], refused(DemoRefusal::HeadTooLarge)),
            (&many, refused(DemoRefusal::HeadTooLarge)),
        ] {
            assert_eq!(parse(text.as_bytes()).map(|(request, _)| request), expected, "{text:?}");
        }
    }

    #[test]
    fn a_head_ends_where_the_next_begins() {
        let first = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let both = format!("{first}GET /health HTTP/1.1\r\n\r\n");
        assert_eq!(parse(both.as_bytes()).map(|(_, length)| length), Some(first.len()));
    }

    #[test]
    fn an_answer_to_head_has_the_length_but_not_the_body() {
        let request = parse(b"HEAD / HTTP/1.1\r\n\r\n").unwrap().0;
        let answer = String::from_utf8(DemoResponse::new(200, "hello\n").encode(&request, true)).unwrap();
        assert!(answer.contains("Content-Length: 6\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = String::from_utf8(DemoResponse::only("POST").encode(&request, false)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\n"), "{answer}");
    }
}
