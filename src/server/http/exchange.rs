//! One request: checked, routed, forwarded to a backend, and answered.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::super::connection::Preamble;
use super::super::dial::{self, FirstChoice, Link};
use super::super::listener::Listener;
use super::super::route::{RequestView, RouteKey, RouteMatch};
use super::super::transport::BackendConn;
use super::super::upstream::Origin;
use super::super::worker_state::SessionHandle;
use super::answer::Answer;
use super::body::{ForwardError, ForwardedBody, RequestBody, ResponseBody};
use super::client::{HttpClient, UnderWay};
use super::kept::ReuseKept;
use super::link::{HttpLink, SendFailed};
use super::record::RequestRecord;
use super::sticky;
use super::tunnel::Tunnel;
use crate::config::model::{HttpListener, HttpRetry, HttpVersion};
use crate::http::forward::{ForwardedFacts, set_forwarded, strip_hop_by_hop};
use crate::http::request::check_request;
use crate::http::target::authority;
use crate::pool::{Backend, Excluded, Pool};
use crate::relay::Stream;
use crate::stats::termination::{Side, Termination};
use crate::worker::{self, poll_fn};

/// Retry-After of a response that says no backend can take the request.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(1);

/// What becomes of a request that no backend has answered.
enum Unanswered {
    /// tidegate answers.
    Answer(Answer, Termination),
    /// The connection, or the stream, is reset.
    Reset(Termination),
}

/// Forwards a request, or answers it.
///
/// # Errors
/// The request is reset.
pub(super) async fn exchange(
    client: Rc<HttpClient>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, ForwardError> {
    let under_way = UnderWay::new(&client);
    let (parts, incoming) = request.into_parts();
    let (pool, route) = match admit(&client, &parts) {
        Ok(admitted) => admitted,
        Err((answer, ending)) => {
            let mut record = RequestRecord::new(client.enter(None), client.connection.listener.pool(None), &parts);
            record.answered(answer.status, ending);
            return Ok(answer.into_response(under_way));
        }
    };
    let mut record = RequestRecord::new(client.enter(route), &pool, &parts);
    match forward(&client, parts, incoming, &mut record).await {
        Ok(Forwarded::Response(head, incoming, link)) => {
            client.responds(true);
            Ok(Response::from_parts(head, ForwardedBody::new(incoming, link, record, under_way)))
        }
        Ok(Forwarded::Switched(head, backend, ahead)) => {
            record.answered(101, Termination::Closed(Side::Client));
            // From here on, the connection has it.
            match record.handle.connection().take_lease() {
                Some(lease) => client.switch(Tunnel { backend, ahead, lease }),
                None => return Err("the request is reset: its backend has gone".into()),
            }
            Ok(Response::from_parts(head, ResponseBody::own(hyper::body::Bytes::new(), under_way)))
        }
        Err(Unanswered::Answer(answer, ending)) => {
            record.answered(answer.status, ending);
            Ok(answer.into_response(under_way))
        }
        Err(Unanswered::Reset(ending)) => {
            record.ending = ending;
            Err(format!("the request is reset: {ending}").into())
        }
    }
}

impl HttpClient {
    /// Puts a request on the worker's list.
    fn enter(&self, route: Option<RouteMatch>) -> SessionHandle {
        let connection = &self.connection;
        let handle = self.state.enter(Arc::clone(&connection.listener), connection.client.get(), worker::now());
        handle.connection().begin();
        if route.is_some() {
            handle.connection().opened(Preamble { route, ..Preamble::default() });
        }
        handle
    }
}

type Routed = (Arc<Pool>, Option<RouteMatch>);

/// Checks a request, and finds its pool.
fn admit(client: &HttpClient, parts: &Parts) -> Result<Routed, (Answer, Termination)> {
    let listener = &*client.connection.listener;
    if let Err(fault) = check_request(parts) {
        let answer = Answer { closes: true, ..Answer::new(fault.status(), fault.to_string()) };
        return Err((answer, Termination::BadRequest));
    }
    if parts.method == Method::CONNECT {
        let answer = Answer { closes: true, ..Answer::new(405, "CONNECT is not supported") };
        return Err((answer, Termination::BadRequest));
    }
    if let Err(wait) = listener.admission.admit_request(client.connection.client.get()) {
        let answer = Answer::new(429, "requests from this address come too fast").retry_after(wait);
        return Err((answer, Termination::RequestRate));
    }
    if listener.config().routes.is_empty() {
        return Ok((Arc::clone(listener.pool(None)), None));
    }
    let route = route(listener, client, parts);
    match route {
        Some(found) if listener.refuses(found) => {
            Err((Answer::new(403, "the route refuses this request"), Termination::RouteRefused))
        }
        route => Ok((Arc::clone(listener.pool(route)), route)),
    }
}

fn route(listener: &Listener, client: &HttpClient, parts: &Parts) -> Option<RouteMatch> {
    let connection = &client.connection;
    let preamble = connection.preamble();
    let alpn: &[&[u8]] = match (client.is_tls, client.is_http2) {
        (false, _) => &[],
        (true, true) => &[b"h2"],
        (true, false) => &[b"http/1.1"],
    };
    let host = authority(parts).and_then(crate::sniff::http::host);
    let key = RouteKey {
        client: listener.route_client(connection.client.get().ip(), connection.id.get().get()),
        server_name: preamble.and_then(|preamble| preamble.server_name.get()).map(|name| &**name),
        alpn,
        protocol: None,
        request: Some(RequestView {
            host: host.as_deref(),
            path: parts.uri.path(),
            method: parts.method.as_str(),
            headers: Some(&parts.headers),
        }),
    };
    listener.route(&key)
}

/// A backend's response.
enum Forwarded {
    Response(hyper::http::response::Parts, Incoming, HttpLink),
    /// 101, and the backend's socket.
    Switched(hyper::http::response::Parts, BackendConn, Vec<u8>),
}

/// What is asked of the backend beyond the request itself.
struct Wishes {
    /// The protocol to switch to.
    upgrade: Option<HeaderValue>,
    expects_continue: bool,
}

async fn forward(
    client: &Rc<HttpClient>,
    mut parts: Parts,
    incoming: Incoming,
    record: &mut RequestRecord,
) -> Result<Forwarded, Unanswered> {
    let listener = Arc::clone(&client.connection.listener);
    let Some(rules) = &listener.config().http else { return Err(Unanswered::Reset(Termination::InternalError)) };
    let pool = Arc::clone(&record.pool);
    let settings = pool.settings();
    let version = settings.http.version;
    let wishes = prepare(client, rules, version, &mut parts);
    let mut body = Some(RequestBody::of(incoming, record.handle.connection()));
    let is_idempotent = parts.method.is_idempotent();
    let may_repeat = is_idempotent && body.as_ref().is_some_and(RequestBody::is_empty);
    let deadline = rules.request_timeout.and_then(|timeout| worker::now().checked_add(timeout));
    let sticky = settings.persistence_cookie().map(|cookie| sticky::Sticky::new(cookie, &parts.headers));
    let mut first = FirstChoice::default();
    if let Some(sticky) = &sticky {
        first.lease = sticky.lease(&pool);
    }
    let mut head = Some(parts);
    let (mut fresh, mut failure) = (false, None);
    for attempt in 0..=settings.retries {
        let (mut link, is_reused) = match dial(client, &pool, version, record, std::mem::take(&mut first), fresh).await
        {
            Ok(dialled) => dialled,
            Err(ending) => return Err(failure.unwrap_or_else(|| of_dial(ending))),
        };
        let Some(backend) = record.backend() else { return Err(Unanswered::Reset(Termination::InternalError)) };
        let is_last = attempt == settings.retries;
        let this = match (may_repeat && !is_last, &head) {
            (true, Some(head)) => head.clone(),
            _ => match head.take() {
                Some(head) => head,
                None => return Err(failure.unwrap_or(Unanswered::Reset(Termination::InternalError))),
            },
        };
        let mut request = Request::from_parts(this, body.take().unwrap_or_else(RequestBody::empty));
        if wishes.expects_continue && !request.body().is_empty() {
            expect_continue(&mut request);
        }
        let sending = worker::until(deadline, watch(client, link.send(request)));
        let sent = match record.handle.unless_aborted(sending).await {
            Err(ending) => return Err(aborted(ending)),
            Ok(None) => {
                record.record_outcome(&backend, None);
                let answer = Answer::new(504, "the backend did not answer in time");
                return Err(Unanswered::Answer(answer, Termination::ResponseTimeout));
            }
            Ok(Some(None)) => return Err(Unanswered::Reset(Termination::ClientLeft)),
            Ok(Some(Some(sent))) => sent,
        };
        match sent {
            Ok(response) => {
                let status = response.status().as_u16();
                record.record_outcome(&backend, Some(status));
                let retries = may_repeat && !is_last && settings.http.retry.contains(&HttpRetry::Status(status));
                if retries {
                    first.tried.add(backend.id());
                    retried(record, &listener, &backend);
                    failure = None;
                    if has_other(&pool, &first.tried) {
                        continue;
                    }
                }
                record.responded(status);
                return respond(client, &pool, &wishes, sticky.as_ref(), &backend, response, link).await;
            }
            Err(SendFailed { request, error }) => {
                let was_sent = request.is_none();
                let answer = Answer::new(502, format!("the backend ended the connection: {}", describe(&error)));
                let ended = Unanswered::Answer(answer, Termination::Reset(Side::Backend));
                let repeats = match (was_sent, is_reused) {
                    (false, _) => true,
                    (true, true) => may_repeat && settings.http.retry.contains(&HttpRetry::Closed),
                    (true, false) => false,
                };
                if !repeats || is_last {
                    record.record_outcome(&backend, None);
                    backend.counters().failed();
                    return Err(ended);
                }
                if let Some(request) = request {
                    let (parts, unsent) = request.into_parts();
                    (head, body) = (Some(parts), Some(unsent));
                }
                retried(record, &listener, &backend);
                (fresh, failure) = (is_reused, Some(ended));
                if !is_reused {
                    first.tried.add(backend.id());
                }
            }
        }
    }
    Err(failure.unwrap_or(Unanswered::Reset(Termination::InternalError)))
}

/// Whether the pool has a backend that was not tried.
fn has_other(pool: &Pool, tried: &Excluded) -> bool {
    pool.backends().iter().any(|backend| backend.is_up() && !tried.contains(backend.id()))
}

fn retried(record: &mut RequestRecord, listener: &Listener, backend: &Backend) {
    record.attempts.retried();
    backend.counters().retried();
    listener.counters().retried();
}

/// What hyper says of a failed connection, without its own outline.
fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Ends with `None` when the client of HTTP/1 has reset its connection. A stream of HTTP/2 is dropped by hyper.
async fn watch<T>(client: &HttpClient, sending: impl Future<Output = T>) -> Option<T> {
    let mut sending = std::pin::pin!(sending);
    poll_fn(|cx| {
        if let std::task::Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(sent));
        }
        match !client.is_http2 && client.conn.poll_reset().is_ready() {
            true => std::task::Poll::Ready(None),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

/// A connection to a backend of the pool: a kept one, or a new one.
async fn dial(
    client: &Rc<HttpClient>,
    pool: &Pool,
    version: HttpVersion,
    record: &mut RequestRecord,
    first: FirstChoice,
    fresh: bool,
) -> Result<(HttpLink, bool), Termination> {
    let RequestRecord { handle, attempts, .. } = record;
    let listener = Arc::clone(&client.connection.listener);
    let origin = Origin {
        id: handle.connection().id,
        is_stream: client.is_http2,
        http: Some(version),
        ..Origin::of(&client.connection, &client.conn)
    };
    let reuse = ReuseKept { kept: &client.state.kept_links, fresh };
    let dialled = Box::pin(dial::dial(handle, &listener, pool, &origin, &reuse, first, attempts)).await?;
    let backend = Arc::clone(dialled.lease.backend());
    record.handle.connection().hold(dialled.lease);
    match dialled.link {
        Link::Reused(link) => Ok((link, true)),
        Link::New(conn) => {
            record.connect = Some(dialled.took);
            record.backend_handshake = dialled.handshake;
            let link = HttpLink::begin(version, conn, &backend, client.state.worker).await;
            let link = link.map_err(|_| Termination::ConnectFailed)?;
            if let HttpLink::Http2(link) = &link {
                // At once, for other streams to share it.
                client.state.kept_links.keep(&backend, HttpLink::Http2(link.clone()));
            }
            Ok((link, false))
        }
    }
}

/// The request as the backend gets it.
fn prepare(client: &HttpClient, rules: &HttpListener, version: HttpVersion, parts: &mut Parts) -> Wishes {
    // A clone of a value copies no bytes.
    let host = match parts.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    };
    let headers = &mut parts.headers;
    let upgrade = match version {
        HttpVersion::Http1 if parts.version == Version::HTTP_11 && names(headers, &CONNECTION, "upgrade") => {
            headers.get(UPGRADE).cloned()
        }
        _ => None,
    };
    let expects_continue = headers.contains_key(EXPECT);
    strip_hop_by_hop(headers);
    if version == HttpVersion::Http1 {
        // It would be an announcement that only a backend of HTTP/2 can rely on.
        headers.remove(hyper::header::TE);
        join_cookies(headers);
        if let Some(upgrade) = &upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, upgrade.clone());
        }
    }
    let scheme = if client.is_tls { "https" } else { "http" };
    let address = client.connection.client.get().ip();
    set_forwarded(
        headers,
        rules.forwarded,
        ForwardedFacts { client: address, is_tls: client.is_tls, host: host.as_ref() },
    );
    match version {
        HttpVersion::Http1 => {
            if let Some(host) = host {
                headers.insert(HOST, host);
            }
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            parts.uri = target.parse().unwrap_or_else(|_| Uri::from_static("/"));
            parts.version = Version::HTTP_11;
        }
        HttpVersion::Http2 => {
            headers.remove(HOST);
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            let uri = Uri::builder()
                .scheme(scheme)
                .authority(host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost"));
            parts.uri = uri.path_and_query(target).build().unwrap_or_else(|_| Uri::from_static("/"));
            parts.version = Version::HTTP_2;
        }
    }
    parts.extensions.clear();
    Wishes { upgrade, expects_continue }
}

/// Whether a list of tokens has this one.
fn names(headers: &HeaderMap, field: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// One field of cookies, as HTTP/1 wants it (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let joined = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

/// Holds the body back until the backend asks for it. hyper asks the client when the body is first read.
fn expect_continue(request: &mut Request<RequestBody>) {
    let is_wanted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_wanted);
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            seen.store(true, Ordering::Relaxed);
        }
    });
    request.body_mut().hold(is_wanted);
}

/// The response as the client gets it.
async fn respond(
    client: &Rc<HttpClient>,
    pool: &Pool,
    wishes: &Wishes,
    sticky: Option<&sticky::Sticky>,
    backend: &Backend,
    response: Response<Incoming>,
    link: HttpLink,
) -> Result<Forwarded, Unanswered> {
    let (mut head, incoming) = response.into_parts();
    let upgrade = head.headers.get(UPGRADE).cloned();
    strip_hop_by_hop(&mut head.headers);
    head.extensions.clear();
    if let Some(cookie) = sticky.and_then(|sticky| sticky.set_cookie(pool, backend, client.is_tls)) {
        head.headers.append(hyper::header::SET_COOKIE, cookie);
    }
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        head.version = Version::HTTP_11;
        return Ok(Forwarded::Response(head, incoming, link));
    }
    let bad = || {
        let answer = Answer::new(502, "the backend switched protocols unasked");
        Unanswered::Answer(answer, Termination::Reset(Side::Backend))
    };
    if wishes.upgrade.is_none() || client.is_http2 {
        return Err(bad());
    }
    drop(incoming);
    let mut link = link;
    poll_fn(|cx| {
        link.drive(cx);
        if link.has_ended() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    let Some((socket, ahead)) = link.into_socket() else { return Err(bad()) };
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(upgrade) = upgrade {
        head.headers.insert(UPGRADE, upgrade);
    }
    Ok(Forwarded::Switched(head, socket, ahead))
}

/// What an end of the request from outside means.
fn aborted(ending: Termination) -> Unanswered {
    match ending {
        Termination::BackendDown => {
            Unanswered::Answer(Answer::new(502, "the backend has gone down"), Termination::BackendDown)
        }
        ending => Unanswered::Reset(ending),
    }
}

/// The answer to a request for which no backend was found.
fn of_dial(ending: Termination) -> Unanswered {
    let answer = match ending {
        Termination::ConnectFailed => Answer::new(502, "no backend could be reached"),
        Termination::NoBackend => {
            Answer::new(503, "no backend can take the request now").retry_after(RETRY_AFTER_UNAVAILABLE)
        }
        Termination::QueueFull => {
            Answer::new(503, "too many requests wait for a backend").retry_after(RETRY_AFTER_UNAVAILABLE)
        }
        Termination::QueueTimeout => {
            Answer::new(503, "no backend could take the request in time").retry_after(RETRY_AFTER_UNAVAILABLE)
        }
        Termination::OutOfResources => Answer::new(503, "the load balancer has no resources left for the request")
            .retry_after(RETRY_AFTER_UNAVAILABLE),
        Termination::BackendDown => Answer::new(502, "the backend has gone down"),
        ending => return Unanswered::Reset(ending),
    };
    Unanswered::Answer(answer, ending)
}
