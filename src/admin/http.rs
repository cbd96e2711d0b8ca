//! The HTTP/1 server of the admin interface.
//!
//! A connection carries one request: then its cost, its slot and its time can be bounded as those of the request, and none is
//! held open between two scrapes. The server is generic over the stream: what secures one belongs into [`serve_one`],
//! where a stranger's slot and deadline hold.

mod guard;
mod slots;
mod token;

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};

use self::guard::{Denied, Guard, Permission};
use self::slots::{ConnectionKind, ConnectionSlot, SlotsFull};
pub(super) use self::slots::{ConnectionSlots, MAX_CONNECTIONS};
pub(super) use self::token::Token;
use super::answer_throttle::AnswerThrottle;
use super::collector::Collector;
use super::dashboard::feed::{self, Feed};
use super::pages::{self, Endpoint};
use super::rate_limit::RateLimit;
use super::response::{ResponseBody, plain, whole};
use super::write_timeout::WriteTimeout;
use crate::net::addr::Address;

/// Bytes of a head, and of what waits to be read.
const MAX_HEAD: usize = 16 * 1024;
/// Between two connections when they come without a pause. Bounds what strangers can cost.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(1);
/// Connections that are accepted at once. No more than there are strangers' slots, so that each is looked at before it has
/// to make room.
const ACCEPT_BURST: u32 = ConnectionKind::Stranger.limit() as u32;
/// Pause after an error of accept, such as no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long an answer may wait until it is made. Prometheus gives up after 10 s, other readers after 5.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// Seconds after which a client that is turned away may try again.
const RETRY_AFTER: &str = "1";
/// How long a scrape may take, in seconds; Prometheus sends it.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// The first second of the year 10000, for which HTTP has no date.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_800);

/// The listening socket.
pub(super) enum ListeningSocket {
    Tcp(OwnedFd),
    Unix(OwnedFd),
}

impl ListeningSocket {
    pub(super) fn new(socket: OwnedFd, address: &Address) -> io::Result<ListeningSocket> {
        Ok(match address {
            Address::Tcp(_) => ListeningSocket::Tcp(socket),
            Address::Unix(_) => ListeningSocket::Unix(socket),
        })
    }
}

/// What all connections share.
pub(super) struct HttpServer {
    guard: Guard,
    throttle: AnswerThrottle,
    collector: Rc<Collector>,
    feed: Rc<Feed>,
    slots: Rc<ConnectionSlots>,
}

/// Why a request gets no answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejection {
    Denied(Denied),
    Method,
    NotFound,
    /// No answer can be made in time.
    Busy,
    /// As many event streams as there may be are open.
    Streams,
}

impl From<Denied> for Rejection {
    fn from(denied: Denied) -> Rejection {
        Rejection::Denied(denied)
    }
}

impl HttpServer {
    pub(super) fn new(
        address: &Address,
        token: Option<Rc<Token>>,
        collector: Rc<Collector>,
        slots: Rc<ConnectionSlots>,
    ) -> HttpServer {
        let throttle = AnswerThrottle::new(Instant::now());
        HttpServer { guard: Guard::new(address, token), throttle, collector, feed: Rc::default(), slots }
    }

    /// Accepts and answers until it is dropped.
    pub(super) async fn serve(self, listener: ListeningSocket) {
        let server = Rc::new(self);
        let served = match listener {
            ListeningSocket::Tcp(socket) => match TcpListener::from_std(socket.into()) {
                Ok(socket) => server.accept(async || socket.accept().await.map(|(stream, _)| stream)).await,
                Err(error) => error,
            },
            ListeningSocket::Unix(socket) => match UnixListener::from_std(socket.into()) {
                Ok(socket) => server.accept(async || socket.accept().await.map(|(stream, _)| stream)).await,
                Err(error) => error,
            },
        };
        tracing::error!(error = %served, "the stats port cannot accept");
    }

    async fn accept<S>(self: &Rc<Self>, next: impl AsyncFn() -> io::Result<S>) -> io::Error
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let limit = RateLimit::new(ACCEPT_INTERVAL, ACCEPT_BURST, Instant::now());
        loop {
            limit.acquire().await;
            match next().await {
                Ok(stream) => self.slots.enter(|slot| {
                    let server = Rc::clone(self);
                    spawn_local(async move { server.serve_one(stream, slot).await }).abort_handle()
                }),
                // That client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => sleep(ACCEPT_RETRY).await,
            }
            // What it sent with its connect is read before further ones come.
            yield_now().await;
        }
    }

    /// One connection, from its first byte to its end.
    async fn serve_one<S>(&self, stream: S, slot: ConnectionSlot)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let respond = service_fn(async |request| Ok::<_, Infallible>(self.respond(&request, &slot).await));
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(MAX_HEAD)
            .auto_date_header(has_date(SystemTime::now()))
            .serve_connection(TokioIo::new(WriteTimeout::new(stream)), respond);
        tokio::select! {
            // What went wrong is the client's to notice.
            _ = connection => {}
            () = slot.overdue() => {}
        }
    }

    async fn respond(&self, request: &Request<Incoming>, slot: &ConnectionSlot) -> Response<ResponseBody> {
        let mut response = self.answer(request, slot).await.unwrap_or_else(Rejection::response);
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        response
    }

    async fn answer(
        &self,
        request: &Request<Incoming>,
        slot: &ConnectionSlot,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match Endpoint::of(request.uri().path()) {
            // Whatever else the request says: a probe knows no token, and calls this host by any name.
            Endpoint::Live if reads => Ok(pages::live()),
            Endpoint::Ready if reads => {
                Ok(pages::ready(&self.collector, self.guard.admit(request, Permission::Read).is_ok()))
            }
            Endpoint::Asset(asset) if reads => {
                self.guard.admit(request, Permission::Public)?;
                Ok(asset)
            }
            Endpoint::Events if reads => {
                self.guard.admit(request, Permission::Stream)?;
                slot.become_kind(ConnectionKind::Stream).map_err(|SlotsFull| Rejection::Streams)?;
                Ok(feed::events(&self.feed, &self.collector))
            }
            Endpoint::Answer if reads => {
                self.guard.admit(request, Permission::Read)?;
                slot.become_kind(ConnectionKind::Answer).map_err(|SlotsFull| Rejection::Busy)?;
                let make = |began: Instant| pages::answer(request, &self.collector, began.into_std());
                let question = pages::question(request);
                let answer = self.throttle.answer(&question, make);
                timeout(answer_limit(request.headers()), answer).await.map_err(|_| Rejection::Busy)
            }
            route => {
                self.guard.admit(request, Permission::Read)?;
                Err(if matches!(route, Endpoint::Unknown) && reads { Rejection::NotFound } else { Rejection::Method })
            }
        }
    }
}

/// How long an answer may wait: half of what the scraper says that it waits, so that there is time to send it.
fn answer_limit(headers: &HeaderMap) -> Duration {
    let given = headers.get(SCRAPE_TIMEOUT).and_then(|given| given.to_str().ok()?.parse::<f64>().ok());
    let given = given.and_then(|seconds| Duration::try_from_secs_f64(seconds / 2.0).ok());
    given.map_or(ANSWER_LIMIT, |given| given.min(ANSWER_LIMIT))
}

/// Whether HTTP can write this time down. hyper panics at others.
fn has_date(now: SystemTime) -> bool {
    // A clock that is about to leave them behind is no clock.
    now.duration_since(UNIX_EPOCH).is_ok_and(|since| since + Duration::from_secs(86_400) < END_OF_DATES)
}

impl Rejection {
    fn response(self) -> Response<ResponseBody> {
        let (status, text) = match self {
            Rejection::Denied(Denied::Token) => {
                (StatusCode::UNAUTHORIZED, "send the token of admin.token_file: Authorization: Bearer ...\n")
            }
            Rejection::Denied(Denied::Host) => (
                StatusCode::FORBIDDEN,
                "the stats port is asked for by a name that is not this machine's: use its address or localhost\n",
            ),
            Rejection::Denied(Denied::Origin) => {
                (StatusCode::FORBIDDEN, "pages of other sites may not read the stats port: open it by itself\n")
            }
            Rejection::Method => (StatusCode::METHOD_NOT_ALLOWED, "the stats port is read-only: GET and HEAD\n"),
            Rejection::NotFound => (StatusCode::NOT_FOUND, "there is no such page\n"),
            Rejection::Busy => (StatusCode::SERVICE_UNAVAILABLE, "the stats port is busy: try again in a second\n"),
            Rejection::Streams => {
                let text = format!(
                    "{} dashboards are open, which is the limit: close one of them\n",
                    ConnectionKind::Stream.limit()
                );
                return with_header(
                    whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", text),
                    header::RETRY_AFTER,
                    RETRY_AFTER,
                );
            }
        };
        let response = plain(status, text);
        match self {
            Rejection::Denied(Denied::Token) => with_header(response, header::WWW_AUTHENTICATE, "Bearer"),
            Rejection::Method => with_header(response, header::ALLOW, "GET, HEAD"),
            Rejection::Busy => with_header(response, header::RETRY_AFTER, RETRY_AFTER),
            _ => response,
        }
    }
}

fn with_header(
    mut response: Response<ResponseBody>,
    name: header::HeaderName,
    value: &'static str,
) -> Response<ResponseBody> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_limit_is_below_the_scraper_timeout() {
        let limit = |value: &str| {
            answer_limit(&HeaderMap::from_iter([(SCRAPE_TIMEOUT.parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(answer_limit(&HeaderMap::new()), ANSWER_LIMIT);
        assert_eq!(limit("10"), ANSWER_LIMIT);
        assert_eq!(limit("0.5"), Duration::from_millis(250));
        for odd in ["", "x", "-1", "NaN", "inf", "1e300"] {
            assert_eq!(limit(odd), ANSWER_LIMIT, "{odd}");
        }
    }

    #[test]
    fn times_that_http_cannot_write_have_no_date() {
        assert!(has_date(SystemTime::now()));
        assert!(has_date(UNIX_EPOCH));
        assert!(!has_date(UNIX_EPOCH - Duration::from_secs(1)));
        assert!(!has_date(UNIX_EPOCH + END_OF_DATES));
    }
}
