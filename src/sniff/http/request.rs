//! The head of a connection's first request, as far as routes need it.

#![forbid(unsafe_code)]

use std::sync::Arc;

use httparse::{EMPTY_HEADER, Request, Status};
use thiserror::Error;

use super::limits::{MAX_FIELDS, MAX_HEAD};
use crate::net::name::NamePattern;
use crate::sniff::Recognition;

/// Those of RFC 9110 and 5789, and the one with which HTTP/2 begins.
const METHODS: [&[u8]; 10] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];

/// A request, as far as routes need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Its method, in the case it was sent in.
    pub method: Arc<str>,
    /// The host name or IPv4 address it is for, in lower case, without a dot at its end and without port. `None` if
    /// it names none, or what is neither of these.
    pub host: Option<Arc<str>>,
    /// The path, without the query and with nothing decoded. Empty with CONNECT, `*` with OPTIONS of the server itself.
    pub path: Arc<str>,
    /// Bytes of the head, the empty line at its end among them.
    pub length: usize,
}

/// Why bytes are no head of an HTTP/1.x request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotHttp {
    /// The grammar is another, from the first line on.
    #[error("is not HTTP/1: {0}")]
    OtherProtocol(httparse::Error),
    /// A known method or a complete request line, and then something else.
    #[error("has a malformed HTTP head: {0}")]
    Malformed(httparse::Error),
    /// The head does not end within the limit.
    #[error("has an HTTP head longer than 16 KiB")]
    TooLong,
    /// There are more fields than are read.
    #[error("has an HTTP head with more than 100 fields")]
    TooManyHeaders,
    /// Which of them is believed depends on the reader (RFC 9112, 3.2: to be refused).
    #[error("has an HTTP head with more than one Host")]
    TwoHosts,
    /// Which host it names depends on the reader (RFC 9112, 3.2: to be refused).
    #[error("has an HTTP head with a malformed Host")]
    BadHost,
}

impl NotHttp {
    /// Whether the bytes begin as a request of HTTP/1 does: one that is damaged or too long. Its host and
    /// path are unknown. Otherwise the bytes are another protocol.
    pub fn begins_as_http(self) -> bool {
        match self {
            NotHttp::OtherProtocol(_) => false,
            NotHttp::Malformed(_)
            | NotHttp::TooLong
            | NotHttp::TooManyHeaders
            | NotHttp::TwoHosts
            | NotHttp::BadHost => true,
        }
    }
}

/// Whether bytes start like an HTTP request. For error messages only.
pub fn looks_like_http(bytes: &[u8]) -> bool {
    METHODS.iter().any(|method| bytes.strip_prefix(*method).is_some_and(|rest| rest.starts_with(b" ")))
}

/// Recognises a request's head. What follows it does not matter.
///
/// Each call parses from the start; byte by byte, that costs about as much as the reads themselves.
pub fn recognise(bytes: &[u8]) -> Recognition<RequestHead, NotHttp> {
    let within = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = Request::new(&mut fields);
    let length = match request.parse(within) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if within.len() < MAX_HEAD => return Recognition::one_more(within.len()),
        Ok(Status::Partial) => return Recognition::No(NotHttp::TooLong),
        Err(httparse::Error::TooManyHeaders) => return Recognition::No(NotHttp::TooManyHeaders),
        Err(error) if request.version.is_some() || begins_with_method(within) => {
            return Recognition::No(NotHttp::Malformed(error));
        }
        Err(error) => return Recognition::No(NotHttp::OtherProtocol(error)),
    };
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let field = hosts.next();
    if hosts.next().is_some() {
        return Recognition::No(NotHttp::TwoHosts);
    }
    let method = request.method.unwrap_or_default();
    let (authority, path) = target(method, request.path.unwrap_or_default());
    let named = field.map(|field| std::str::from_utf8(field.value).map(str::trim)).transpose();
    let Some(named) = named.ok().filter(|named| [authority, *named].into_iter().flatten().all(is_unambiguous)) else {
        return Recognition::No(NotHttp::BadHost);
    };
    Recognition::Yes(RequestHead {
        method: method.into(),
        // The target's own authority wins (RFC 9112, 3.2.2).
        host: authority.or(named).and_then(host),
        path: path.into(),
        length,
    })
}

/// Recognises the line with which a request of HTTP/1.x begins. What follows it does not matter.
pub fn recognise_request_line(bytes: &[u8]) -> Recognition<(), NotHttp> {
    let within = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut request = Request::new(&mut []);
    match request.parse(within) {
        // Set once the line has ended.
        _ if request.version.is_some() => Recognition::Yes(()),
        Ok(_) if within.len() < MAX_HEAD => Recognition::one_more(within.len()),
        Ok(_) => Recognition::No(NotHttp::TooLong),
        Err(error) => Recognition::No(NotHttp::OtherProtocol(error)),
    }
}

/// Whether a method of HTTP/1 comes first, after empty lines (RFC 9112, 2.2). HTTP/2 begins with `PRI`.
fn begins_with_method(bytes: &[u8]) -> bool {
    let mut line = bytes;
    while let Some(rest) = line.strip_prefix(b"\r\n").or_else(|| line.strip_prefix(b"\n")) {
        line = rest;
    }
    looks_like_http(line) && !line.starts_with(b"PRI ")
}

/// The authority and the path in a request's target (RFC 9112, 3.2).
fn target<'a>(method: &str, target: &'a str) -> (Option<&'a str>, &'a str) {
    if method == "CONNECT" {
        return (Some(target), "");
    }
    let (authority, rest) = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) => {
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), rest)
        }
        _ => (None, target),
    };
    let path = rest.split('?').next().unwrap_or_default();
    (authority, if path.is_empty() { "/" } else { path })
}

/// Whether every server takes `host:port` for the same host: there are no user, no path and no second port in it.
fn is_unambiguous(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, ""),
        Some((host, port)) => match port.strip_prefix(':') {
            Some(port) => (host, port),
            None => return false,
        },
        None => match authority.split_once(':') {
            Some((host, _)) if host.contains(['[', ']']) => return false,
            Some(parts) => parts,
            None => (authority, ""),
        },
    };
    let is_host = |byte: u8| !byte.is_ascii_whitespace() && !byte.is_ascii_control() && !b"@/\\?#\"<>".contains(&byte);
    host.bytes().all(is_host) && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// The host of `host:port`, normal.
pub fn host(authority: &str) -> Option<Arc<str>> {
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match NamePattern::parse(host)? {
        NamePattern::Exact(name) => Some(name),
        NamePattern::Wildcard(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> RequestHead {
        let Recognition::Yes(head) = recognise(bytes) else { panic!("{:?}", recognise(bytes)) };
        head
    }

    fn route(text: &str) -> (Option<String>, String) {
        let head = head(text.as_bytes());
        (head.host.as_deref().map(str::to_owned), head.path.to_string())
    }

    #[test]
    fn a_request_is_read_and_its_body_is_not() {
        let bytes = b"POST /api/v1?x=/y HTTP/1.1\r\nUser-Agent: test\r\nhOST: API.Example.com.:8080\r\n\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(recognise(&bytes[..cut]), Recognition::one_more(cut));
        }
        let wanted = RequestHead {
            method: "POST".into(),
            host: Some("api.example.com".into()),
            path: "/api/v1".into(),
            length: bytes.len(),
        };
        assert_eq!(head(bytes), wanted);
        assert_eq!(head(&[bytes, &b"\r\n\x00\xff body"[..]].concat()), wanted);
    }

    #[test]
    fn the_host_is_the_one_that_servers_believe() {
        let cases = [
            ("GET / HTTP/1.0\r\n\r\n", None, "/"),
            ("GET http://a.example.com:80/x?y HTTP/1.1\r\nHost: b.example.com\r\n\r\n", Some("a.example.com"), "/x"),
            ("GET http://a.example.com HTTP/1.1\r\nHost: b\r\n\r\n", Some("a.example.com"), "/"),
            ("GET http://a?b/c HTTP/1.1\r\nHost: b\r\n\r\n", Some("a"), "/"),
            ("GET /x://y HTTP/1.1\r\nHost: b\r\n\r\n", Some("b"), "/x://y"),
            ("CONNECT c.example.com:443 HTTP/1.1\r\nHost: d\r\n\r\n", Some("c.example.com"), ""),
            ("OPTIONS * HTTP/1.1\r\nHost: \t10.0.0.1:80 \r\n\r\n", Some("10.0.0.1"), "*"),
            ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", None, "/"),
            ("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", None, "/"),
            ("GET / HTTP/1.1\r\nHost: m\u{fc}nchen.example\r\n\r\n", None, "/"),
            ("GET / HTTP/1.1\r\nHost: my_host:8080\r\n\r\n", Some("my_host"), "/"),
            ("GET / HTTP/1.1\r\nHost: *.example.com\r\n\r\n", None, "/"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", None, "/"),
        ];
        for (text, host, path) in cases {
            assert_eq!(route(text), (host.map(str::to_owned), path.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_HEAD));
        let cases = [
            ("\u{16}\u{3}\u{1}", NotHttp::OtherProtocol(httparse::Error::Token)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotHttp::OtherProtocol(httparse::Error::Version)),
            ("HTTP/1.1 200 OK\r\n\r\n", NotHttp::OtherProtocol(httparse::Error::Token)),
            ("EHLO example.com\r\n", NotHttp::OtherProtocol(httparse::Error::Token)),
            ("GET /\r\n", NotHttp::Malformed(httparse::Error::Token)),
            ("\r\n\nGET / HTTP/3.0\r\n", NotHttp::Malformed(httparse::Error::Version)),
            ("GET / HTTP/1.1\r\nHost : a\r\n", NotHttp::Malformed(httparse::Error::HeaderName)),
            ("FIND / HTTP/1.1\r\nA: b\0\r\n", NotHttp::Malformed(httparse::Error::HeaderValue)),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", NotHttp::TwoHosts),
            ("GET / HTTP/1.1\r\nHost: user@example.com\r\n\r\n", NotHttp::BadHost),
            ("GET / HTTP/1.1\r\nHost: example.com:80:81\r\n\r\n", NotHttp::BadHost),
            ("GET / HTTP/1.1\r\nHost: example.com:http\r\n\r\n", NotHttp::BadHost),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", NotHttp::BadHost),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", NotHttp::BadHost),
            ("GET / HTTP/1.1\r\nHost: [::1]80\r\n\r\n", NotHttp::BadHost),
            ("GET http://user:word@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", NotHttp::BadHost),
            ("GET http://a.example/ HTTP/1.1\r\nHost: b@c\r\n\r\n", NotHttp::BadHost),
            (&many, NotHttp::TooManyHeaders),
            (&long, NotHttp::TooLong),
        ];
        for (text, wanted) in cases {
            assert_eq!(recognise(text.as_bytes()), Recognition::No(wanted), "{text}");
        }
        assert_eq!(recognise(&long.as_bytes()[..MAX_HEAD - 1]), Recognition::one_more(MAX_HEAD - 1));
        assert_eq!(recognise(&long.as_bytes()[..MAX_HEAD]), Recognition::No(NotHttp::TooLong));
    }

    #[test]
    fn http_is_known_by_its_method() {
        for text in ["GET / HTTP/1.1\r\n\r\n", "POST /", "CONNECT a:443 HTTP/1.1", "PRI * HTTP/2.0"] {
            assert!(looks_like_http(text.as_bytes()), "{text}");
        }
        for text in ["", "GET", "GETS /", "EHLO example.com", "\u{16}\u{3}\u{1}", "get /", "PROXY TCP4 "] {
            assert!(!looks_like_http(text.as_bytes()), "{text}");
        }
    }
}
