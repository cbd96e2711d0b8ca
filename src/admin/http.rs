//! HTTP/1 of the stats port: who may read, and how much a client may hold up.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::collector::Collector;
use super::dashboard;
use super::pace::Pace;
use super::pages;
use super::patient::Patient;
use crate::net::addr::Address;

/// Connections at once; further ones wait in the kernel's queue.
pub(super) const MOST: usize = 64;
/// How long a request's head may take, and how long a connection may be idle before the next.
const HEAD: Duration = Duration::from_secs(10);
/// Bytes of a head, and of what waits to be read.
const BUFFER: usize = 16 * 1024;
/// Pause after an error of accept, such as no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// An answer's body: whole, or one event after the other.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The listening socket.
pub(super) enum Listener {
    Tcp(OwnedFd),
    Unix(OwnedFd),
}

impl Listener {
    pub(super) fn new(socket: OwnedFd, address: &Address) -> io::Result<Listener> {
        Ok(match address {
            Address::Tcp(_) => Listener::Tcp(socket),
            Address::Unix(_) => Listener::Unix(socket),
        })
    }
}

/// Accepts and answers until it is dropped.
pub(super) async fn serve(listener: Listener, guard: Guard, collector: Rc<Collector>) {
    let served = match listener {
        Listener::Tcp(socket) => match TcpListener::from_std(socket.into()) {
            Ok(socket) => accept(async || socket.accept().await.map(|(stream, _)| stream), guard, collector).await,
            Err(error) => Err(error),
        },
        Listener::Unix(socket) => match UnixListener::from_std(socket.into()) {
            Ok(socket) => accept(async || socket.accept().await.map(|(stream, _)| stream), guard, collector).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = served {
        tracing::error!(%error, "the stats port cannot accept");
    }
}

async fn accept<S>(next: impl AsyncFn() -> io::Result<S>, guard: Guard, collector: Rc<Collector>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (guard, pace) = (Rc::new(guard), Rc::new(Pace::new(Instant::now())));
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        // Never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let Ok(stream) = next().await else {
            sleep(PAUSE).await;
            continue;
        };
        let (guard, pace, collector) = (Rc::clone(&guard), Rc::clone(&pace), Rc::clone(&collector));
        tokio::task::spawn_local(async move {
            let _permit = permit;
            let answer = service_fn(|request| answer(request, &guard, &pace, &collector));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(BUFFER)
                .serve_connection(TokioIo::new(Patient::new(stream)), answer);
            // What went wrong is the client's to notice.
            let _ = connection.await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    guard: &Guard,
    pace: &Pace,
    collector: &Rc<Collector>,
) -> Result<Response<Body>, Infallible> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let asset = if reads { dashboard::asset(request.uri().path()) } else { None };
    let mut response = match (guard.admits(&request), asset) {
        // A browser asks for the page without the token, which the page then asks for.
        (Ok(()) | Err(Refusal::Token), Some(asset)) => asset,
        (Ok(()), None) if reads => {
            let answer = pages::answer(&request, collector);
            match pages::may_wait(request.uri().path()) {
                true => pace.answer(&question(&request), answer).await,
                false => answer.await,
            }
        }
        (Ok(()), None) => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "the stats port is read-only: GET and HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        (Err(refusal), _) => refusal.response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    Ok(response)
}

/// What an answer depends on: what is asked for, and in which form.
fn question(request: &Request<Incoming>) -> String {
    let forms = request.headers().get_all(header::ACCEPT).iter().filter_map(|form| form.to_str().ok());
    let what = request.uri().path_and_query().map_or("", |what| what.as_str());
    [what].into_iter().chain(forms).collect::<Vec<_>>().join("\n")
}

/// The body of an answer that is whole; each such answer has it among its extensions too.
#[derive(Clone, Debug)]
pub(super) struct Whole(pub(super) Bytes);

impl Whole {
    pub(super) fn into_body(self) -> Body {
        Full::new(self.0).boxed_unsync()
    }
}

/// A whole answer.
pub(super) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Whole(body.into());
    let mut response = Response::new(body.clone().into_body());
    response.extensions_mut().insert(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer of one line.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", text)
}

/// Who may read.
pub(super) struct Guard {
    token: Option<String>,
    /// Whether a browser on this machine could be made to ask for it in somebody else's name.
    checks_host: bool,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Token,
    Host,
}

impl Guard {
    pub(super) fn new(address: &Address, token: Option<String>) -> Guard {
        // With a token, a page of another site gets nothing: it does not know it.
        let checks_host = matches!(address, Address::Tcp(_)) && token.is_none();
        Guard { token, checks_host }
    }

    fn admits(&self, request: &Request<impl Sized>) -> Result<(), Refusal> {
        if let Some(token) = &self.token {
            let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
            let given = match given.split_at_checked("Bearer ".len()) {
                Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"Bearer ") => given,
                _ => b"",
            };
            return if is_same(given, token.as_bytes()) { Ok(()) } else { Err(Refusal::Token) };
        }
        // A name of the attacker's own may be made to mean this machine (DNS rebinding), an address or `localhost` not.
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let is_near = match (hosts.next(), hosts.next()) {
            (None, _) => request.version() == Version::HTTP_10,
            (Some(host), None) => host.to_str().is_ok_and(is_near),
            (Some(_), Some(_)) => false,
        };
        if self.checks_host && !is_near { Err(Refusal::Host) } else { Ok(()) }
    }
}

/// Whether a Host header names this machine by an address, or by a name that always means it (RFC 6761, 6.3).
fn is_near(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// Compares in a time that says nothing of where they differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differs = given.iter().zip(token).fold(0, |differs, (one, two)| differs | (one ^ two));
    given.len() == token.len() && differs == 0
}

impl Refusal {
    fn response(self) -> Response<Body> {
        match self {
            Refusal::Token => {
                let mut response =
                    plain(StatusCode::UNAUTHORIZED, "send the token of admin.token_file: Authorization: Bearer ...\n");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Refusal::Host => plain(
                StatusCode::FORBIDDEN,
                "the stats port is asked for by a name that is not this machine's: use its address or localhost\n",
            ),
        }
    }
}
