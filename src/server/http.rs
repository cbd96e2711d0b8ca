//! `protocol: http`: the life of a client's connection, each of whose requests is balanced by itself.
//!
//! hyper reads and writes HTTP. What it is given has passed a gate first, and what it asks for runs on the worker.

mod client;
mod exchange;
mod interim;
mod kept;
mod link;
mod record;
mod reply;
mod request_body;
mod response_body;
mod sticky;
mod tunnel;
mod upstream_head;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};

use self::client::{ClientIo, HttpClient};
pub(super) use self::kept::KeptLinks;
use self::link::WorkerExecutor;
use self::reply::LocalReply;
use self::response_body::{ForwardError, HttpResponseBody};
pub(super) use self::tunnel::Tunnel;
use super::deadline::expiry;
use super::lingering_close::{LingerLimit, lingering_close};
use super::peek::{Peek, PeekError, PeekedBytes, after};
use super::transport::{ClientConn, Conn};
use super::worker_state::SessionHandle;
use crate::config::model::HttpListener;
use crate::relay::Stream;
use crate::sniff::Recognition;
use crate::stats::termination::{Side, Termination};
use crate::worker::{Timer, poll_fn};

/// What a client of HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams of one connection at once: the least that RFC 9113, 6.5.2 recommends.
const MAX_STREAMS: u32 = 100;

/// Streams that a client may reset before they are served, at once. Beyond it, the connection ends (CVE-2023-44487, rapid reset).
const MAX_RESET_STREAMS: usize = 20;

/// Streams that are reset for what the client did wrong (CVE-2025-8671, MadeYouReset).
const MAX_LOCAL_RESETS: usize = 100;

/// Bytes of a response, of one stream, that wait for the client's window.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// How HTTP ends on a connection.
pub(super) enum Served {
    Ended(Termination),
    /// It goes on as a relay.
    Switched(ClientConn, Box<Tunnel>),
}

/// Answers requests until the connection ends, or switches protocols.
pub(super) async fn serve(conn: ClientConn, peeked: PeekedBytes, handle: &SessionHandle) -> Served {
    let listener = &handle.connection().listener;
    let Some(rules) = &listener.config().http else { return Served::Ended(Termination::InternalError) };
    let (is_http2, peeked) = match begins_as_http2(&conn, peeked, rules, handle).await {
        Ok(known) => known,
        Err(ending) => return Served::Ended(ending),
    };
    let ahead = peeked.into_bytes();
    let client = HttpClient::new(conn, handle.connection(), handle.state(), ahead, is_http2, rules.max_head);
    let client = Rc::new(client);
    let mut http = HttpConn::new(&client, rules);
    let outcome = drive(&mut http, &client, rules, handle).await;
    // What is under way ends with hyper's side.
    let is_cut = !client.is_idle() || !client.is_http2 && client.is_responding();
    let unread = http.end();
    if let Some(tunnel) = client.take_tunnel() {
        // Bytes that came before the 101 are of neither protocol.
        let is_clean = matches!(outcome, HttpEnd::Done(Ok(()))) && unread == 0 && client.violation().is_none();
        if !is_clean {
            client.conn.reset_on_close();
            return Served::Ended(Termination::BadRequest);
        }
        return match Rc::into_inner(client) {
            Some(client) => Served::Switched(client.into_conn(), Box::new(tunnel)),
            None => Served::Ended(Termination::InternalError),
        };
    }
    Served::Ended(close(&client, outcome, is_cut).await)
}

/// Whether the client speaks HTTP/2: by agreement (ALPN), or by its first bytes.
async fn begins_as_http2(
    conn: &ClientConn,
    peeked: PeekedBytes,
    rules: &HttpListener,
    handle: &SessionHandle,
) -> Result<(bool, PeekedBytes), Termination> {
    if let Conn::Tls(tls) = conn {
        return Ok((tls.alpn_protocol().is_some_and(|agreed| agreed == b"h2"), peeked));
    }
    let mut peek = Peek::with(handle.connection(), conn, peeked, after(rules.head_timeout));
    let looking = Box::pin(peek.until(PREFACE.len(), preface));
    let looked = handle.unless_aborted(looking).await?;
    match looked {
        Ok(found) => Ok((found.is_ok(), peek.into_peeked())),
        Err(PeekError::Finished) => Err(Termination::Closed(Side::Client)),
        Err(PeekError::TooSlow) => Err(Termination::PreambleTimeout),
        Err(PeekError::Gone) => Err(Termination::Reset(Side::Client)),
        Err(PeekError::NoMemory) => Err(Termination::OutOfResources),
    }
}

fn preface(bytes: &[u8]) -> Recognition<(), ()> {
    match bytes.len().min(PREFACE.len()) {
        count if bytes.get(..count) != PREFACE.get(..count) => Recognition::No(()),
        count if count == PREFACE.len() => Recognition::Yes(()),
        count => Recognition::one_more(count),
    }
}

/// hyper's side of the connection.
enum HttpConn {
    Http1(Box<http1::Connection<ClientIo, HttpService>>),
    Http2(Box<http2::Connection<ClientIo, HttpService, WorkerExecutor>>),
}

impl HttpConn {
    fn new(client: &Rc<HttpClient>, rules: &HttpListener) -> HttpConn {
        let (io, service) = (ClientIo(Rc::clone(client)), HttpService(Rc::clone(client)));
        if client.is_http2 {
            let mut builder = http2::Builder::new(WorkerExecutor);
            builder
                .auto_date_header(false)
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(rules.max_head)
                .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
                .max_local_error_reset_streams(MAX_LOCAL_RESETS)
                .max_send_buf_size(MAX_SEND_BUFFER)
                .initial_stream_window_size(link::STREAM_WINDOW)
                .initial_connection_window_size(link::STREAM_WINDOW * MAX_STREAMS);
            return HttpConn::Http2(Box::new(builder.serve_connection(io, service)));
        }
        let mut builder = http1::Builder::new();
        // The gate has bounded the head already.
        let room = (rules.max_head as usize).saturating_mul(2).max(64 * 1024);
        builder.auto_date_header(false).half_close(true).header_read_timeout(None).max_buf_size(room);
        HttpConn::Http1(Box::new(builder.serve_connection(io, service)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            HttpConn::Http1(conn) => Pin::new(conn).poll(cx),
            HttpConn::Http2(conn) => Pin::new(conn).poll(cx),
        }
    }

    /// Ends it after the requests that are under way.
    fn finish(&mut self) {
        match self {
            HttpConn::Http1(conn) => Pin::new(&mut **conn).graceful_shutdown(),
            HttpConn::Http2(conn) => Pin::new(&mut **conn).graceful_shutdown(),
        }
    }

    /// Gives up the connection. Returns how many bytes it has read and not used.
    fn end(self) -> usize {
        match self {
            HttpConn::Http1(conn) => conn.into_parts().read_buf.len(),
            HttpConn::Http2(_) => 0,
        }
    }
}

struct HttpService(Rc<HttpClient>);

impl Service<Request<Incoming>> for HttpService {
    type Response = Response<HttpResponseBody>;
    type Error = ForwardError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<HttpResponseBody>, ForwardError>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(exchange::exchange(Rc::clone(&self.0), request))
    }
}

/// Why hyper's side has ended.
enum HttpEnd {
    Done(hyper::Result<()>),
    /// From outside, or by a timeout.
    Ended(Termination),
    /// The head of a request was not complete in time.
    HeadTimeout,
}

/// What is due when nothing moves.
enum HttpDue {
    End(Termination),
    HeadTimeout,
    /// No request has come for long.
    KeepAlive,
    /// No further request is taken.
    Finish,
}

async fn drive(http: &mut HttpConn, client: &HttpClient, rules: &HttpListener, handle: &SessionHandle) -> HttpEnd {
    let expires = expiry(&client.connection.listener.config().timeouts, client.connection.accepted);
    let (mut timer, mut is_finishing) = (Timer::default(), false);
    poll_fn(|cx| {
        if let Some(abort) = handle.aborted() {
            return Poll::Ready(HttpEnd::Ended(abort.into()));
        }
        // The first request of a new connection is answered: its client has no reason to send it again.
        if !is_finishing && client.has_requested() && handle.state().draining_since().is_some() {
            is_finishing = true;
            http.finish();
        }
        loop {
            if let Poll::Ready(done) = http.poll(cx) {
                return Poll::Ready(HttpEnd::Done(done));
            }
            let Some((deadline, due)) = next_due(client, rules, expires.filter(|_| !is_finishing)) else {
                return Poll::Pending;
            };
            if timer.poll_expired(deadline).is_pending() {
                return Poll::Pending;
            }
            match due {
                HttpDue::End(ending) => return Poll::Ready(HttpEnd::Ended(ending)),
                HttpDue::HeadTimeout => return Poll::Ready(HttpEnd::HeadTimeout),
                // A close would reset what the client has not read yet, if it sends anything meanwhile.
                HttpDue::KeepAlive if client.is_sending() && !client.is_stalled() => client.restart_idle(),
                HttpDue::KeepAlive | HttpDue::Finish if is_finishing => {
                    return Poll::Ready(HttpEnd::Ended(Termination::IdleTimeout));
                }
                HttpDue::KeepAlive | HttpDue::Finish => {
                    is_finishing = true;
                    http.finish();
                }
            }
        }
    })
    .await
}

/// The next moment at which there is something to do.
fn next_due(client: &HttpClient, rules: &HttpListener, expires: Option<Instant>) -> Option<(Instant, HttpDue)> {
    let timeouts = &client.connection.listener.config().timeouts;
    let idle = match (client.is_idle(), client.head_since()) {
        (false, _) => {
            let idle = timeouts.idle.and_then(|idle| client.connection.last_moved().checked_add(idle));
            idle.map(|at| (at, HttpDue::End(Termination::IdleTimeout)))
        }
        (true, Some(since)) => {
            let timeout = rules.head_timeout.and_then(|timeout| since.checked_add(timeout));
            timeout.map(|at| (at, HttpDue::HeadTimeout))
        }
        (true, None) if !client.has_requested() => {
            let timeout = rules.head_timeout.and_then(|timeout| client.idle_since().checked_add(timeout));
            timeout.map(|at| (at, HttpDue::End(Termination::PreambleTimeout)))
        }
        (true, None) => {
            let timeout = rules.keep_alive.and_then(|timeout| client.idle_since().checked_add(timeout));
            timeout.map(|at| (at, HttpDue::KeepAlive))
        }
    };
    let lifetime = expires.map(|at| (at, HttpDue::Finish));
    [idle, lifetime].into_iter().flatten().min_by_key(|&(at, _)| at)
}

/// Says a last word where there is one to say, and says how the connection ended.
///
/// `is_cut`: a response was under way.
async fn close(client: &HttpClient, outcome: HttpEnd, is_cut: bool) -> Termination {
    let last = match (client.violation(), &outcome) {
        (Some(violation), _) => {
            client.connection.listener.log_refusal(client.connection.client.get(), &violation);
            Some((LocalReply::new(violation.status(), violation.to_string()), Termination::BadRequest))
        }
        (None, HttpEnd::HeadTimeout) => {
            let answer = LocalReply::new(408, "the request's head was not complete in time");
            Some((answer, Termination::PreambleTimeout))
        }
        (None, _) => None,
    };
    if let Some((answer, ending)) = last {
        match is_cut {
            // The client would take it for a part of the response.
            true => client.conn.reset_on_close(),
            false => lingering_close(&client.conn, &answer.to_last_bytes(), LingerLimit::LONG).await,
        }
        return ending;
    }
    match outcome {
        HttpEnd::Done(Ok(())) => {
            if !client.has_finished() {
                // A client may be sending a body that its request was answered without. A drain does not wait for that.
                let is_draining = client.state.draining_since().is_some();
                let limit = if is_draining { LingerLimit::SHORT } else { LingerLimit::LONG };
                lingering_close(&client.conn, b"", limit).await;
            }
            Termination::Closed(Side::Client)
        }
        // The gate lets nothing pass that hyper refuses; if it does, hyper has answered.
        HttpEnd::Done(Err(error)) if error.is_parse() && !client.is_http2 => {
            client.connection.listener.log_refusal(client.connection.client.get(), &error);
            lingering_close(&client.conn, b"", LingerLimit::LONG).await;
            Termination::BadRequest
        }
        HttpEnd::Done(Err(error)) => {
            match client.is_http2 {
                // A reset would overtake GOAWAY. A stream that was cut has no end.
                true => lingering_close(&client.conn, b"", LingerLimit::SHORT).await,
                false => client.conn.reset_on_close(),
            }
            match error.is_user() || error.is_body_write_aborted() {
                true => Termination::Reset(Side::Backend),
                false => Termination::Reset(Side::Client),
            }
        }
        HttpEnd::Ended(ending) => {
            if is_cut {
                client.conn.reset_on_close();
            }
            ending
        }
        HttpEnd::HeadTimeout => Termination::PreambleTimeout,
    }
}
