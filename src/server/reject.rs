//! The answer to a client that gets no backend, in its own protocol: HTTP 429 or 503, PostgreSQL's 53300 or 57P03.

use std::time::Duration;

use super::connection::ConnectionState;
use super::lingering_close::{LingerLimit, lingering_close};
use super::listener::Listener;
use super::peek::{Peek, PeekedBytes, after};
use super::transport::ClientConn;
use super::worker_state::WorkerState;
use crate::config::model::{ListenerTls, Sniff, StartTls};
use crate::relay::Stream;
use crate::sniff::http::NotHttp;
use crate::sniff::{http, postgres};
use crate::stats::http::{HttpEvent, Method, StatusClass};
use crate::stats::registry::BackendId;
use crate::stats::termination::Termination;

/// Tells the client why it gets no backend, if it speaks what the listener is for, and when to try again. `ahead` is what was
/// read of it.
pub(super) async fn reject(
    connection: &ConnectionState,
    client: &ClientConn,
    peeked: PeekedBytes,
    ending: Termination,
    retry_after: Duration,
) {
    let listener = &*connection.listener;
    let Some(why) = Why::of(ending) else { return };
    if let Some((ListenerTls { starttls: Some(StartTls::Postgres), .. }, _)) = listener.tls() {
        lingering_close(client, &why.to_postgres(), LingerLimit::SHORT).await;
    } else if listener.config().sniff == Sniff::Http {
        // An answer before the request would be taken for none, and what is no HTTP gets none.
        let mut peek = Peek::with(connection, client, peeked, after(listener.config().timeouts.sniff));
        let Ok(Ok(request)) = peek.until(http::MAX_HEAD, http::recognise).await else { return };
        let method = Method::named(&request.method);
        let is_over_limit = matches!(why, Why::OverLimit(_));
        let class = if is_over_limit { StatusClass::ClientError } else { StatusClass::ServerError };
        WorkerState::with(|state| state.saw_http(listener, BackendId::NONE, HttpEvent::Responded(method, class)));
        lingering_close(client, &why.to_http(method, retry_after), LingerLimit::LONG).await;
    }
}

/// Why a client gets no backend, for itself to read.
#[derive(Clone, Copy)]
enum Why {
    /// It exceeds a limit.
    OverLimit(&'static str),
    /// The queue is full.
    QueueFull,
    /// It waited in the queue in vain.
    QueueTimeout,
    /// No backend is available.
    NoBackend(&'static str),
}

impl Why {
    /// Nothing for a client that has done something else wrong.
    fn of(ending: Termination) -> Option<Why> {
        Some(match ending {
            Termination::NoBackend => Why::NoBackend("no backend can take the request now"),
            Termination::ConnectFailed => Why::NoBackend("no backend could be reached"),
            Termination::OutOfResources => Why::NoBackend("the load balancer has no resources left for the request"),
            Termination::QueueFull => Why::QueueFull,
            Termination::QueueTimeout => Why::QueueTimeout,
            Termination::AddressConnections => Why::OverLimit("too many connections from this address"),
            Termination::AddressRate => Why::OverLimit("connections from this address come too fast"),
            Termination::ListenerRate => Why::OverLimit("connections come too fast"),
            _ => return None,
        })
    }

    /// An ErrorResponse, which a client takes at any point before its session begins: too_many_connections or
    /// cannot_connect_now.
    fn to_postgres(self) -> Vec<u8> {
        let (code, message) = match self {
            Why::OverLimit(words) => ("53300", words),
            Why::QueueFull => ("53300", "too many connections wait for a database server"),
            Why::QueueTimeout => ("57P03", "no database server could take the connection in time"),
            Why::NoBackend(_) => ("57P03", "no database server can take the connection now"),
        };
        let hint = match self {
            Why::OverLimit(_) => "Try again later.",
            _ => "The load balancer's log says why; try again later.",
        };
        postgres::error_response(code, message, Some(hint))
    }

    /// 503 for a request that no backend can take (RFC 9110, 15.6.4), 429 for a client over a limit (RFC 6585, 4).
    fn to_http(self, method: Method, retry_after: Duration) -> Vec<u8> {
        let (status, words) = match self {
            Why::OverLimit(words) => (429, words),
            Why::QueueFull => (503, "too many requests wait for a backend"),
            Why::QueueTimeout => (503, "no backend could take the request in time"),
            Why::NoBackend(words) => (503, words),
        };
        let seconds = retry_after.as_nanos().div_ceil(1_000_000_000).max(1);
        http_answer(status, words, method, &format!("Retry-After: {seconds}\r\n"))
    }
}

/// Answers a request whose head cannot be read: of `bytes`, which it begins with.
pub(super) async fn refuse_request(listener: &Listener, client: &impl Stream, bytes: &[u8], fault: NotHttp) {
    let method = bytes.trim_ascii_start().split(|&byte| byte == b' ').next().unwrap_or_default();
    let method = std::str::from_utf8(method).map_or(Method::Other, Method::named);
    let event = HttpEvent::Responded(method, StatusClass::ClientError);
    WorkerState::with(|state| state.saw_http(listener, BackendId::NONE, event));
    let answer = http_answer(status_of(fault), &format!("the request {fault}"), method, "");
    lingering_close(client, &answer, LingerLimit::LONG).await;
}

/// 431 for a head with too much in it (RFC 6585, 5), 400 for a malformed one (RFC 9110, 15.5.1).
pub(super) fn status_of(fault: NotHttp) -> u16 {
    match fault {
        NotHttp::TooLong | NotHttp::TooManyHeaders => 431,
        NotHttp::Malformed(_) | NotHttp::TwoHosts | NotHttp::BadHost | NotHttp::OtherProtocol(_) => 400,
    }
}

/// A response that says why, and ends the connection. `fields` are whole lines.
fn http_answer(status: u16, error: &str, method: Method, fields: &str) -> Vec<u8> {
    let reason = match status {
        400 => "Bad Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let body = serde_json::json!({ "error": error }).to_string();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{fields}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len(),
    );
    let body = if method == Method::Head { "" } else { &body };
    [head.as_bytes(), body.as_bytes()].concat()
}
