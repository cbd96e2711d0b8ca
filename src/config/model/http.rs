//! `listeners[].http` and `pools[].http`: keys of `protocol: http`.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// `listeners[].http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpListener {
    /// X-Forwarded-For, -Proto, -Host and X-Real-IP.
    pub forwarded: Forwarded,
    /// Bytes of a request's head; over it, 431.
    pub max_head: u32,
    /// Until a request's head is complete; `None` is no limit.
    pub head_timeout: Option<Duration>,
    /// Between requests; `None` is no limit.
    pub keep_alive: Option<Duration>,
    /// From the end of a request's head to the head of the response; `None` is no limit.
    pub request_timeout: Option<Duration>,
}

/// `listeners[].http.forwarded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Forwarded {
    /// The client's address is added to X-Forwarded-For; the other fields are replaced.
    Append,
    /// What the client says is replaced.
    Replace,
    /// What the client says is passed on.
    Off,
}

/// `pools[].http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPool {
    /// Of requests to the backends.
    pub version: HttpVersion,
    /// Idle connections to each backend that a worker keeps.
    pub idle_connections: u32,
    /// Age of an idle connection at which it is closed; `None` is no limit.
    pub idle_timeout: Option<Duration>,
    /// Failures after which a request is sent again, if it may be repeated.
    pub retry: Vec<HttpRetry>,
}

impl Default for HttpPool {
    fn default() -> HttpPool {
        HttpPool {
            version: HttpVersion::Http1,
            idle_connections: 64,
            idle_timeout: Some(Duration::from_secs(60)),
            retry: vec![HttpRetry::Connect, HttpRetry::Closed],
        }
    }
}

/// `pools[].http.version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, over TLS or by prior knowledge.
    Http2,
}

/// `pools[].http.retry`: a failure of a request at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRetry {
    /// The connect, or the TLS handshake.
    Connect,
    /// A reused connection closed before the first byte of the response.
    Closed,
    /// The response has this status: 502, 503 or 504.
    Status(u16),
}

/// `routes[].match.header`: a field that a request must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lowercase.
    pub name: Arc<str>,
    /// The whole value; `None` matches any.
    pub value: Option<Arc<str>>,
}

impl std::fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.value.as_deref().unwrap_or("*"))
    }
}

/// `pools[].persist` with `by: cookie`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistCookie {
    /// The cookie's name.
    pub name: Arc<str>,
    /// Max-Age; `None` lasts as long as the browser's session.
    pub ttl: Option<Duration>,
    /// SameSite.
    pub same_site: SameSite,
}

/// `pools[].persist.same_site`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Sent with requests of the same site, and with navigation to it.
    #[default]
    Lax,
    /// Sent with requests of the same site only.
    Strict,
    /// Sent with all requests; browsers take it over TLS only.
    None,
}
