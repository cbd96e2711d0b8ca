//! The answer to a client that gets no backend, in its own protocol: PostgreSQL, MySQL, Redis or HTTP.

use std::time::Duration;

use super::connection::ConnectionState;
use super::lingering_close::{LingerLimit, lingering_close};
use super::listener::Listener;
use super::peek::{Peek, PeekedBytes, after, write_all};
use super::transport::ClientConn;
use super::worker_state::WorkerState;
use crate::config::model::{SpokenProtocol, StartTls};
use crate::mysql::packet::error_packet;
use crate::net::protocol::ClientProtocol;
use crate::relay::Stream;
use crate::sniff::http::NotHttp;
use crate::sniff::postgres::Opening;
use crate::sniff::{http, postgres};
use crate::stats::http::{HttpEvent, Method, StatusClass};
use crate::stats::registry::BackendId;
use crate::stats::termination::{Side, Termination};

/// The longest wait for a first message that is answered: also without timeouts.sniff, clients that are rejected do not stay.
const MAX_FIRST_MESSAGE: Duration = Duration::from_secs(5);

/// First messages of a PostgreSQL client before its startup message: requests for TLS and for GSSAPI encryption.
const MAX_ENCRYPTION_REQUESTS: usize = 2;

/// Tells the client why it gets no backend, if the listener knows what its clients speak, and when to try again. `peeked` is what
/// was read of it; `sequence` is the number of the packet that a MySQL client expects,
/// which has had a greeting.
pub(super) async fn reject(
    connection: &ConnectionState,
    client: &ClientConn,
    peeked: PeekedBytes,
    ending: Termination,
    retry_after: Duration,
    sequence: Option<u8>,
) {
    let listener = &*connection.listener;
    let spoken = sequence.map_or_else(|| spoken(connection), |_| Some(SpokenProtocol::Mysql));
    let (Some(why), Some(protocol)) = (Why::of(ending), spoken) else { return };
    // The listener has answered the client's request for TLS.
    let has_begun = listener.tls().is_some_and(|(tls, _)| tls.starttls.is_some());
    match protocol {
        SpokenProtocol::Postgres if has_begun => {
            lingering_close(client, &why.to_postgres(), LingerLimit::SHORT).await;
        }
        SpokenProtocol::Postgres => {
            let mut peek = Peek::with(connection, client, peeked, after(Some(first_message_limit(listener))));
            if has_startup_message(&mut peek).await {
                lingering_close(client, &why.to_postgres(), LingerLimit::SHORT).await;
            }
        }
        // The server speaks first.
        SpokenProtocol::Mysql => {
            lingering_close(client, &why.to_mysql(sequence.unwrap_or_default()), LingerLimit::SHORT).await;
        }
        // As Redis itself does for a client above its maxclients.
        SpokenProtocol::Redis => lingering_close(client, &why.to_redis(), LingerLimit::SHORT).await,
        SpokenProtocol::Http => {
            // An answer before the request would be taken for none, and what is no HTTP gets none.
            let mut peek = Peek::with(connection, client, peeked, after(Some(first_message_limit(listener))));
            let Ok(Ok(request)) = peek.until(http::MAX_HEAD, http::recognise).await else { return };
            let method = Method::named(&request.method);
            if listener.sniffs_http() || listener.config().http.is_some() {
                let class = if why.is_the_clients() { StatusClass::ClientError } else { StatusClass::ServerError };
                WorkerState::with(|state| {
                    state.saw_http(listener, BackendId::NONE, HttpEvent::Responded(method, class));
                });
            }
            lingering_close(client, &why.to_http(method, retry_after), LingerLimit::LONG).await;
        }
    }
}

/// What the client speaks, by its first bytes where routes ask for them; otherwise as the listener's clients do.
fn spoken(connection: &ConnectionState) -> Option<SpokenProtocol> {
    let listener = &*connection.listener;
    let preamble = connection.preamble();
    // No client reads an answer to a CancelRequest, and TLS that passes through has no room for one.
    if preamble
        .is_some_and(|preamble| preamble.is_cancel || preamble.server_name.get().is_some() && listener.tls().is_none())
    {
        return None;
    }
    match preamble.and_then(|preamble| preamble.protocol) {
        Some(ClientProtocol::Postgres) => Some(SpokenProtocol::Postgres),
        Some(ClientProtocol::Redis) => Some(SpokenProtocol::Redis),
        Some(ClientProtocol::Http) => Some(SpokenProtocol::Http),
        Some(ClientProtocol::Tls | ClientProtocol::Ssh) => None,
        None => listener.config().speaks().or_else(|| asks_as_mysql(connection).then_some(SpokenProtocol::Mysql)),
    }
}

/// Whether the client's pool asks for TLS as MySQL does.
fn asks_as_mysql(connection: &ConnectionState) -> bool {
    let settings = connection.pool().settings();
    settings.tls.as_ref().is_some_and(|tls| tls.starttls == Some(StartTls::Mysql))
}

/// Time for the first message of a client that is to be answered.
fn first_message_limit(listener: &Listener) -> Duration {
    listener.config().timeouts.sniff.map_or(MAX_FIRST_MESSAGE, |sniff| sniff.min(MAX_FIRST_MESSAGE))
}

/// Reads up to a startup message, which an ErrorResponse may answer: libpq does not show one that comes in place of the answer to
/// a request for encryption (CVE-2024-10977).
async fn has_startup_message(peek: &mut Peek<'_, ClientConn>) -> bool {
    for _ in 0..=MAX_ENCRYPTION_REQUESTS {
        match peek.until(postgres::MAX_STARTUP_PACKET, postgres::recognise).await {
            Ok(Ok(Opening::Startup { .. })) => return true,
            Ok(Ok(Opening::SslRequest | Opening::GssEncRequest)) => {
                peek.take_off(postgres::SSL_REQUEST.len());
                if write_all(peek.stream(), &[postgres::REFUSE]).await.is_err() {
                    return false;
                }
            }
            _ => return false,
        }
    }
    false
}

/// Why a client gets no backend, for itself to read.
#[derive(Clone, Copy)]
enum Why {
    /// It may not connect.
    Denied,
    /// It exceeds a limit.
    OverLimit(&'static str),
    /// The queue is full.
    QueueFull,
    /// It waited in the queue in vain.
    QueueTimeout,
    /// The process ends.
    Drain,
    /// No backend is available.
    NoBackend(&'static str),
}

impl Why {
    /// Nothing for a client that has done something else wrong.
    fn of(ending: Termination) -> Option<Why> {
        Some(match ending {
            Termination::AccessDenied => Why::Denied,
            Termination::NoBackend => Why::NoBackend("no backend can take the request now"),
            Termination::ConnectFailed => Why::NoBackend("no backend could be reached"),
            Termination::LoginTimeout(Side::Backend) => Why::NoBackend("the backend did not answer"),
            Termination::OutOfResources => Why::NoBackend("the load balancer has no resources left for the request"),
            Termination::QueueFull => Why::QueueFull,
            Termination::QueueTimeout => Why::QueueTimeout,
            Termination::DrainDeadline | Termination::DrainAborted => Why::Drain,
            Termination::AddressConnections => Why::OverLimit("too many connections from this address"),
            Termination::AddressRate => Why::OverLimit("connections from this address come too fast"),
            Termination::ListenerRate => Why::OverLimit("connections come too fast"),
            _ => return None,
        })
    }

    /// Whether it is up to the client.
    fn is_the_clients(self) -> bool {
        matches!(self, Why::Denied | Why::OverLimit(_))
    }

    /// For a client of a database.
    fn in_words(self) -> &'static str {
        match self {
            Why::Denied => "connections from this address are not allowed",
            Why::OverLimit(words) => words,
            Why::QueueFull => "too many connections wait for a database server",
            Why::QueueTimeout => "no database server could take the connection in time",
            Why::Drain => "the server is shutting down",
            Why::NoBackend(_) => "no database server can take the connection now",
        }
    }

    /// An ErrorResponse, which a client takes at any point before its session begins. Codes of PostgreSQL, Appendix A:
    /// invalid_authorization_specification, too_many_connections, admin_shutdown, cannot_connect_now.
    fn to_postgres(self) -> Vec<u8> {
        let code = match self {
            Why::Denied => "28000",
            Why::OverLimit(_) | Why::QueueFull => "53300",
            Why::Drain => "57P01",
            Why::QueueTimeout | Why::NoBackend(_) => "57P03",
        };
        let hint = match self {
            Why::Denied => "The load balancer's access list decides.",
            Why::OverLimit(_) | Why::Drain => "Try again later.",
            _ => "The load balancer's log says why; try again later.",
        };
        postgres::error_response(code, self.in_words(), Some(hint))
    }

    /// An ERR packet. Numbers of MySQL's "Server Error Message Reference": ER_HOST_NOT_PRIVILEGED, ER_CON_COUNT_ERROR,
    /// ER_SERVER_SHUTDOWN, ER_UNKNOWN_ERROR.
    fn to_mysql(self, sequence: u8) -> Vec<u8> {
        let (code, state) = match self {
            Why::Denied => (1130, b"HY000"),
            Why::OverLimit(_) | Why::QueueFull => (1040, b"08004"),
            Why::Drain => (1053, b"08S01"),
            Why::QueueTimeout | Why::NoBackend(_) => (1105, b"HY000"),
        };
        error_packet(sequence, code, state, self.in_words())
    }

    /// A simple error (RESP).
    fn to_redis(self) -> Vec<u8> {
        format!("-ERR {}\r\n", self.in_words()).into_bytes()
    }

    /// 503 for a request that no backend can take (RFC 9110, 15.6.4), 429 for a client over a limit (RFC 6585, 4), 403 for one that
    /// is denied (RFC 9110, 15.5.4).
    fn to_http(self, method: Method, retry_after: Duration) -> Vec<u8> {
        let (status, words) = match self {
            Why::Denied => (403, self.in_words()),
            Why::OverLimit(words) => (429, words),
            Why::QueueFull => (503, "too many requests wait for a backend"),
            Why::QueueTimeout => (503, "no backend could take the request in time"),
            Why::Drain => (503, self.in_words()),
            Why::NoBackend(words) => (503, words),
        };
        let seconds = retry_after.as_nanos().div_ceil(1_000_000_000).max(1);
        let fields = if status == 403 { String::new() } else { format!("Retry-After: {seconds}\r\n") };
        http_answer(status, words, method, &fields)
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
        403 => "Forbidden",
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
