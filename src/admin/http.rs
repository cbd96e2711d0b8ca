//! The HTTP/1 server of the admin interface.
//!
//! A connection carries one request: then its cost, its place and its time can be bounded as those of the request, and none is
//! held open between two scrapes. The server is generic over the stream: what secures one belongs into [`serve_one`],
//! where a stranger's place and deadline hold.

mod guard;
mod places;
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

use self::guard::{Access, Denied, Guard};
use self::places::{Full, Kind, Place};
pub(super) use self::places::{MAX_CONNECTIONS, Places};
pub(super) use self::token::Token;
use super::answer_throttle::AnswerThrottle;
use super::collector::Collector;
use super::dashboard::feed::{self, Feed};
use super::pages::{self, Route};
use super::patient::Patient;
use super::rate_limit::RateLimit;
use super::response::{Body, plain, whole};
use crate::net::addr::Address;

/// Bytes of a head, and of what waits to be read.
const BUFFER: usize = 16 * 1024;
/// Between two connections when they come without a pause. Bounds what strangers can cost.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(1);
/// Connections that are accepted at once. No more than there are strangers' places, so that each is looked at before it has
/// to make room.
const ACCEPT_BURST: u32 = Kind::Stranger.limit() as u32;
/// Pause after an error of accept, such as no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may wait until it is made. Prometheus gives up after 10 s, other readers after 5.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// Seconds after which a client that is turned away may try again.
const RETRY_AFTER: &str = "1";
/// How long a scrape may take, in seconds; Prometheus sends it.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// The first second of the year 10000, for which HTTP has no date.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_800);

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

/// What all connections share.
pub(super) struct Server {
    guard: Guard,
    throttle: AnswerThrottle,
    collector: Rc<Collector>,
    feed: Rc<Feed>,
    places: Rc<Places>,
}

/// Why a request gets no answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Denied(Denied),
    Method,
    NotFound,
    /// No answer can be made in time.
    Busy,
    /// As many event streams as there may be are open.
    Streams,
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        Refusal::Denied(denied)
    }
}

impl Server {
    pub(super) fn new(
        address: &Address,
        token: Option<Rc<Token>>,
        collector: Rc<Collector>,
        places: Rc<Places>,
    ) -> Server {
        let throttle = AnswerThrottle::new(Instant::now());
        Server { guard: Guard::new(address, token), throttle, collector, feed: Rc::default(), places }
    }

    /// Accepts and answers until it is dropped.
    pub(super) async fn serve(self, listener: Listener) {
        let server = Rc::new(self);
        let served = match listener {
            Listener::Tcp(socket) => match TcpListener::from_std(socket.into()) {
                Ok(socket) => server.accept(async || socket.accept().await.map(|(stream, _)| stream)).await,
                Err(error) => error,
            },
            Listener::Unix(socket) => match UnixListener::from_std(socket.into()) {
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
        let pace = RateLimit::new(ACCEPT_INTERVAL, ACCEPT_BURST, Instant::now());
        loop {
            pace.acquire().await;
            match next().await {
                Ok(stream) => self.places.enter(|place| {
                    let server = Rc::clone(self);
                    spawn_local(async move { server.serve_one(stream, place).await }).abort_handle()
                }),
                // That client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => sleep(PAUSE).await,
            }
            // What it sent with its connect is read before further ones come.
            yield_now().await;
        }
    }

    /// One connection, from its first byte to its end.
    async fn serve_one<S>(&self, stream: S, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let respond = service_fn(async |request| Ok::<_, Infallible>(self.respond(&request, &place).await));
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(BUFFER)
            .auto_date_header(has_date(SystemTime::now()))
            .serve_connection(TokioIo::new(Patient::new(stream)), respond);
        tokio::select! {
            // What went wrong is the client's to notice.
            _ = connection => {}
            () = place.overdue() => {}
        }
    }

    async fn respond(&self, request: &Request<Incoming>, place: &Place) -> Response<Body> {
        let mut response = self.answer(request, place).await.unwrap_or_else(Refusal::response);
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

    async fn answer(&self, request: &Request<Incoming>, place: &Place) -> Result<Response<Body>, Refusal> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match Route::of(request.uri().path()) {
            // Whatever else the request says: a probe knows no token, and calls this host by any name.
            Route::Live if reads => Ok(pages::live()),
            Route::Ready if reads => Ok(pages::ready(&self.collector, self.guard.admit(request, Access::Read).is_ok())),
            Route::Asset(asset) if reads => {
                self.guard.admit(request, Access::Public)?;
                Ok(asset)
            }
            Route::Events if reads => {
                self.guard.admit(request, Access::Stream)?;
                place.become_kind(Kind::Stream).map_err(|Full| Refusal::Streams)?;
                Ok(feed::events(&self.feed, &self.collector))
            }
            Route::Answer if reads => {
                self.guard.admit(request, Access::Read)?;
                place.become_kind(Kind::Answer).map_err(|Full| Refusal::Busy)?;
                let make = |began: Instant| pages::answer(request, &self.collector, began.into_std());
                let question = pages::question(request);
                let answer = self.throttle.answer(&question, make);
                timeout(answer_limit(request.headers()), answer).await.map_err(|_| Refusal::Busy)
            }
            route => {
                self.guard.admit(request, Access::Read)?;
                Err(if matches!(route, Route::Unknown) && reads { Refusal::NotFound } else { Refusal::Method })
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

impl Refusal {
    fn response(self) -> Response<Body> {
        let (status, text) = match self {
            Refusal::Denied(Denied::Token) => {
                (StatusCode::UNAUTHORIZED, "send the token of admin.token_file: Authorization: Bearer ...\n")
            }
            Refusal::Denied(Denied::Host) => (
                StatusCode::FORBIDDEN,
                "the stats port is asked for by a name that is not this machine's: use its address or localhost\n",
            ),
            Refusal::Denied(Denied::Origin) => {
                (StatusCode::FORBIDDEN, "pages of other sites may not read the stats port: open it by itself\n")
            }
            Refusal::Method => (StatusCode::METHOD_NOT_ALLOWED, "the stats port is read-only: GET and HEAD\n"),
            Refusal::NotFound => (StatusCode::NOT_FOUND, "there is no such page\n"),
            Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "the stats port is busy: try again in a second\n"),
            Refusal::Streams => {
                let text =
                    format!("{} dashboards are open, which is the limit: close one of them\n", Kind::Stream.limit());
                return with_header(
                    whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", text),
                    header::RETRY_AFTER,
                    RETRY_AFTER,
                );
            }
        };
        let response = plain(status, text);
        match self {
            Refusal::Denied(Denied::Token) => with_header(response, header::WWW_AUTHENTICATE, "Bearer"),
            Refusal::Method => with_header(response, header::ALLOW, "GET, HEAD"),
            Refusal::Busy => with_header(response, header::RETRY_AFTER, RETRY_AFTER),
            _ => response,
        }
    }
}

fn with_header(mut response: Response<Body>, name: header::HeaderName, value: &'static str) -> Response<Body> {
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
