//! The HTTP/1 server of the admin interface.
//!
//! A connection carries one request: then its cost, its slot and its time can be bounded as those of the request, and none is
//! held open between two scrapes. The server is generic over the stream: what secures one belongs into [`serve_one`],
//! where a stranger's slot and deadline hold.

mod guard;
mod rejection;
mod slots;
mod token;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::guard::{Guard, Permission};
use self::rejection::Rejection;
use self::slots::{ConnectionKind, ConnectionSlot, SlotsFull};
pub(super) use self::slots::{ConnectionSlots, MAX_CONNECTIONS};
pub(super) use self::token::Token;
use super::answer_throttle::AnswerThrottle;
use super::changes::{self, ChangeCall};
use super::collector::Collector;
use super::dashboard::feed::{self, Feed};
use super::events::{self, EventStreams};
use super::pages::{self, Endpoint};
use super::rate_limit::RateLimit;
use super::response::ResponseBody;
use super::write_timeout::WriteTimeout;
use crate::control::request::Actor;
use crate::geoip::GeoIp;
use crate::limits::ClientSet;
use crate::log::throttle::ReasonThrottle;
use crate::net::addr::Address;
use crate::tls::{Acceptor, FailedHandshake};

/// Bytes of a head, and of what waits to be read.
const MAX_HEAD: usize = 16 * 1024;
/// Between two connections when they come without a pause. Bounds what strangers can cost.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(1);
/// Connections that are accepted at once. No more than there are strangers' slots, so that each is looked at before it has
/// to make room.
const ACCEPT_BURST: u32 = ConnectionKind::Stranger.limit() as u32;
/// Pause after an error of accept, such as no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Connections in the queue of a socket that are served still when it is closed.
const LAST_CONNECTIONS: usize = 64;
/// After a failed handshake: how long what the client still sends is read, and how many bytes of it.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: u64 = 64 * 1024;
/// How long the body of a request may take. Until then it has a stranger's slot, whose time it must not outlast.
const BODY_LIMIT: Duration = Duration::from_secs(4);
/// How long an answer may wait until it is made. Prometheus gives up after 10 s, other readers after 5.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// How long a scrape may take, in seconds; Prometheus sends it.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// Header of `/events`: `allowed` where its reader may change something too.
const MAY_CHANGE: HeaderName = HeaderName::from_static("tidegate-changes");
/// The first second of the year 10000, for which HTTP has no date.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_800);

/// The listening socket.
pub(super) enum ListeningSocket {
    Tcp(OwnedFd),
    Unix(OwnedFd),
}

impl ListeningSocket {
    pub(super) fn new(socket: OwnedFd, address: &Address) -> ListeningSocket {
        match address {
            Address::Tcp(_) => ListeningSocket::Tcp(socket),
            Address::Unix(_) => ListeningSocket::Unix(socket),
        }
    }
}

/// What connections are held to. Each takes what holds when it is accepted.
#[derive(Default)]
pub(super) struct AccessRules {
    pub(super) token: Option<Rc<Token>>,
    /// Clients over TCP; empty admits all.
    pub(super) allow: ClientSet,
    /// Of clients over TCP; `None`: they speak plain HTTP.
    pub(super) tls: Option<Arc<Acceptor>>,
}

impl AccessRules {
    fn admits(&self, client: IpAddr, geoip: &GeoIp) -> bool {
        let country = || geoip.country(client).filter(|_| self.allow.needs_country());
        self.allow.is_empty() || self.allow.contains(Some(client), country())
    }
}

/// The other end of a connection.
struct Client {
    /// For the audit line.
    name: String,
    guard: Guard,
    /// Its handshake comes first.
    tls: Option<Arc<Acceptor>>,
}

/// What all connections share.
pub(super) struct HttpServer {
    rules: RefCell<AccessRules>,
    refusals: ReasonThrottle,
    throttle: AnswerThrottle,
    collector: Rc<Collector>,
    feed: Rc<Feed>,
    events: Rc<EventStreams>,
    slots: Rc<ConnectionSlots>,
    /// Room for a large body.
    large_bodies: Arc<Semaphore>,
}

impl HttpServer {
    pub(super) fn new(collector: Rc<Collector>, slots: Rc<ConnectionSlots>) -> HttpServer {
        HttpServer {
            rules: RefCell::default(),
            refusals: ReasonThrottle::new(),
            throttle: AnswerThrottle::new(Instant::now()),
            collector,
            feed: Rc::default(),
            events: Rc::default(),
            slots,
            large_bodies: Arc::new(Semaphore::new(1)),
        }
    }

    /// For connections that are accepted from now on.
    pub(super) fn set_rules(&self, rules: AccessRules) {
        self.rules.replace(rules);
    }

    /// Accepts while `answers` says so, until `stop` ends: then what waits in the queue is served still.
    pub(super) async fn serve(
        self: Rc<Self>,
        address: Address,
        listener: ListeningSocket,
        answers: watch::Receiver<bool>,
        stop: oneshot::Receiver<()>,
    ) {
        let served = match listener {
            ListeningSocket::Tcp(socket) => match TcpListener::from_std(socket.into()) {
                Ok(socket) => {
                    let next = async || socket.accept().await.map(|(stream, peer)| self.admit(stream, peer));
                    self.accept(&address, answers, stop, next).await
                }
                Err(error) => Err(error),
            },
            ListeningSocket::Unix(socket) => match UnixListener::from_std(socket.into()) {
                Ok(socket) => {
                    let next = async || {
                        socket.accept().await.map(|(stream, _)| {
                            let client = Client { name: credentials(&stream), guard: Guard::unix(), tls: None };
                            Some((stream, client))
                        })
                    };
                    self.accept(&address, answers, stop, next).await
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = served {
            tracing::error!(%error, "the admin interface cannot accept");
        }
    }

    /// `None` closes a connection of which nothing was read.
    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<(TcpStream, Client)> {
        let rules = self.rules.borrow();
        let sources = self.collector.sources();
        if !rules.admits(peer.ip(), &sources.geoip) {
            sources.interface.reject();
            if let Some(more) = self.refusals.admit(Instant::now().into_std(), &peer.ip()) {
                let client = peer.ip().to_canonical();
                tracing::warn!(%client, more, "admin: connection closed: the client is not in admin.allow");
            }
            return None;
        }
        let guard = Guard::tcp(rules.token.clone(), rules.tls.clone());
        Some((stream, Client { name: peer.to_string(), guard, tls: rules.tls.clone() }))
    }

    async fn accept<S>(
        self: &Rc<Self>,
        address: &Address,
        mut answers: watch::Receiver<bool>,
        mut stop: oneshot::Receiver<()>,
        next: impl AsyncFn() -> io::Result<Option<(S, Client)>>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let limit = RateLimit::new(ACCEPT_INTERVAL, ACCEPT_BURST, Instant::now());
        loop {
            // The other end of `answers` lives as long as this thread is wanted.
            let ready = async {
                limit.acquire().await;
                let _ = answers.wait_for(|answers| *answers).await;
            };
            let is_ready = tokio::select! {
                biased;
                _ = &mut stop => false,
                () = ready => true,
            };
            let accepted = match is_ready {
                false => break,
                true => tokio::select! {
                    biased;
                    _ = &mut stop => break,
                    accepted = next() => accepted,
                    Ok(_) = answers.wait_for(|answers| !answers) => continue,
                },
            };
            match accepted {
                Ok(accepted) => self.enter(address, accepted),
                // That client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => sleep(ACCEPT_RETRY).await,
            }
            // What it sent with its connect is read before further ones come.
            yield_now().await;
        }
        // Closing the socket resets what waits in its queue. During an upgrade the queue is the new process's.
        for _ in 0..LAST_CONNECTIONS {
            let is_answering = *answers.borrow();
            tokio::select! {
                biased;
                Ok(accepted) = next(), if is_answering => self.enter(address, accepted),
                // One turn of the event loop says whether there is one.
                () = yield_now() => break,
            }
        }
        Ok(())
    }

    fn enter<S>(self: &Rc<Self>, address: &Address, accepted: Option<(S, Client)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Some((stream, client)) = accepted else { return };
        self.slots.enter(address, |slot| {
            let server = Rc::clone(self);
            spawn_local(async move { server.serve_one(stream, &client, slot).await }).abort_handle()
        });
    }

    /// One connection, from its first byte to its end.
    async fn serve_one<S>(&self, stream: S, client: &Client, slot: ConnectionSlot)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        // Below TLS: bytes that the client takes are what counts.
        let stream = WriteTimeout::new(stream);
        let served = async {
            let Some(tls) = &client.tls else { return self.serve_http(stream, client, &slot).await };
            match tls.handshake(stream).await {
                Ok(stream) => self.serve_http(stream, client, &slot).await,
                Err(failed) => self.fail_handshake(failed, client).await,
            }
        };
        tokio::select! {
            () = served => {}
            () = slot.overdue() => {}
        }
    }

    async fn serve_http<S>(&self, stream: S, client: &Client, slot: &ConnectionSlot)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let respond = service_fn(async |request| Ok::<_, Infallible>(self.respond(request, client, slot).await));
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(MAX_HEAD)
            .auto_date_header(has_date(SystemTime::now()))
            .serve_connection(TokioIo::new(stream), respond);
        // What went wrong is the client's to notice.
        let _ = connection.await;
    }

    async fn fail_handshake<S>(&self, FailedHandshake { reason, stream }: FailedHandshake<S>, client: &Client)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // A client that only goes away is a probe of the port.
        if let Some(reason) = reason {
            self.collector.sources().interface.fail_handshake();
            if let Some(more) = self.refusals.admit(Instant::now().into_std(), &reason) {
                tracing::info!(client = client.name, reason, more, "admin: TLS handshake failed");
            }
        }
        let Some(mut stream) = stream else { return };
        // Closed with bytes unread, a socket sends RST, which can overtake the alert.
        let close = async {
            let _ = stream.shutdown().await;
            let _ = tokio::io::copy(&mut stream.take(MAX_LINGER), &mut tokio::io::sink()).await;
        };
        let _ = timeout(LINGER, close).await;
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        client: &Client,
        slot: &ConnectionSlot,
    ) -> Response<ResponseBody> {
        let is_api_change =
            !matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path().starts_with("/api/");
        let answer = match *request.method() {
            Method::GET | Method::HEAD => self.answer(&request, client, slot).await,
            _ => self.change(request, client, slot).await,
        };
        let mut response = answer.unwrap_or_else(|rejection| match is_api_change {
            true => rejection.problem(),
            false => rejection.response(),
        });
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

    /// Whether who sends this could change something too: then the page shows how.
    fn may_change(&self, request: &Request<Incoming>, client: &Client) -> bool {
        self.collector.sources().changes.is_some() && client.guard.admit(request, Permission::Change).is_ok()
    }

    /// Answers a request that changes something.
    async fn change(
        &self,
        request: Request<Incoming>,
        client: &Client,
        slot: &ConnectionSlot,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let path = request.uri().path();
        if changes::methods(path).is_none() {
            client.guard.admit(&request, Permission::Read)?;
            let is_known = !matches!(Endpoint::of(path), Endpoint::Unknown) && !path.starts_with("/api/");
            return Err(if is_known { Rejection::Method } else { Rejection::NotFound });
        }
        client.guard.admit(&request, Permission::Change)?;
        let (head, body) = request.into_parts();
        let (body, room) = self.read(body).await?;
        // A call that waits for a backend to go leaves room for other changes.
        let kind = match changes::waits(head.uri.query().unwrap_or_default()) {
            true => ConnectionKind::Wait,
            false => ConnectionKind::Change,
        };
        slot.become_kind(kind).map_err(|SlotsFull| Rejection::Busy)?;
        let call = ChangeCall {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            body,
            room,
            actor: Actor(client.name.clone()),
        };
        Ok(changes::answer(call, &self.collector).await)
    }

    /// Reads a body. A large one takes the room for it; without room, it is read to its end and kept nowhere: closed with bytes
    /// unread, a socket sends RST, which can overtake the answer.
    async fn read(&self, body: Incoming) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Rejection> {
        let (mut body, end) = (Limited::new(body, changes::MAX_BODY), Instant::now() + BODY_LIMIT);
        let (mut bytes, mut room) = (Vec::new(), None);
        loop {
            let data = match timeout_at(end, body.frame()).await {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) => return Ok((bytes.into(), room)),
                Ok(Some(Err(_))) | Err(_) => return Err(Rejection::Body),
            };
            if room.is_none() && bytes.len() + data.len() > changes::MAX_SMALL_BODY {
                match Arc::clone(&self.large_bodies).try_acquire_owned() {
                    Ok(permit) => room = Some(permit),
                    Err(_) => break,
                }
            }
            bytes.extend_from_slice(&data);
        }
        drop(bytes);
        while let Ok(Some(Ok(_))) = timeout_at(end, body.frame()).await {}
        Err(Rejection::LargeBodies)
    }

    async fn answer(
        &self,
        request: &Request<Incoming>,
        client: &Client,
        slot: &ConnectionSlot,
    ) -> Result<Response<ResponseBody>, Rejection> {
        match Endpoint::of(request.uri().path()) {
            // Whatever else the request says: a probe knows no token, and calls this host by any name.
            Endpoint::Live => Ok(pages::live()),
            Endpoint::Ready => Ok(pages::ready(&self.collector, client.guard.admit(request, Permission::Read).is_ok())),
            Endpoint::Asset(asset) => {
                client.guard.admit(request, Permission::Public)?;
                Ok(asset)
            }
            Endpoint::Events => {
                client.guard.admit(request, Permission::Stream)?;
                slot.become_kind(ConnectionKind::Stream).map_err(|SlotsFull| Rejection::Streams)?;
                let mut response = feed::events(&self.feed, &self.collector);
                if self.may_change(request, client) {
                    response.headers_mut().insert(MAY_CHANGE, HeaderValue::from_static("allowed"));
                }
                Ok(response)
            }
            Endpoint::ApiEvents => {
                client.guard.admit(request, Permission::Stream)?;
                slot.become_kind(ConnectionKind::Stream).map_err(|SlotsFull| Rejection::Streams)?;
                Ok(events::stream(&self.events, &self.collector))
            }
            Endpoint::Answer => {
                client.guard.admit(request, Permission::Read)?;
                slot.become_kind(ConnectionKind::Answer).map_err(|SlotsFull| Rejection::Busy)?;
                let make = |began: Instant| pages::answer(request, &self.collector, began.into_std());
                let question = pages::question(request);
                let answer = self.throttle.answer(&question, make);
                timeout(answer_limit(request.headers()), answer).await.map_err(|_| Rejection::Busy)
            }
            route => {
                client.guard.admit(request, Permission::Read)?;
                Err(if matches!(route, Endpoint::Unknown) { Rejection::NotFound } else { Rejection::Method })
            }
        }
    }
}

/// Who is on the other side of a unix socket, for the audit line.
fn credentials(stream: &UnixStream) -> String {
    match stream.peer_cred() {
        Ok(peer) => format!("unix uid={} gid={} pid={}", peer.uid(), peer.gid(), peer.pid().unwrap_or_default()),
        Err(_) => "unix".to_owned(),
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
