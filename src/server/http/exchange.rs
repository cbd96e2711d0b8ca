//! One request: checked, routed, forwarded to a backend, and answered.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};

use super::super::connection::Preamble;
use super::super::dial::{self, FirstChoice, Link};
use super::super::listener::Listener;
use super::super::route::{RequestView, RouteKey, RouteMatch};
use super::super::transport::BackendConn;
use super::super::upstream::Origin;
use super::super::worker_state::SessionHandle;
use super::client::{HttpClient, UnderWay};
use super::interim::Interim;
use super::kept::{KeptLinks, ReuseKept};
use super::link::{HttpLink, SendFailed};
use super::record::RequestRecord;
use super::reply::{LocalReply, Unanswered, aborted, of_dial};
use super::request_body::RequestBody;
use super::response_body::{ForwardError, ForwardedBody, HttpResponseBody};
use super::sticky::Sticky;
use super::tunnel::Tunnel;
use super::upstream_head::{Wishes, prepare};
use crate::config::model::{HttpRetry, HttpVersion};
use crate::http::forward::strip_hop_by_hop;
use crate::http::request::check_request;
use crate::http::response::check_response;
use crate::http::target::authority;
use crate::pool::{Backend, Excluded, Pool};
use crate::relay::Stream;
use crate::stats::termination::{Side, Termination};
use crate::worker::{self, poll_fn};

/// Forwards a request, or answers it.
///
/// # Errors
/// The request is reset.
pub(super) async fn exchange(
    client: Rc<HttpClient>,
    request: Request<Incoming>,
) -> Result<Response<HttpResponseBody>, ForwardError> {
    let under_way = UnderWay::new(&client);
    let (parts, incoming) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let (pool, route) = match admit(&client, &parts) {
        Ok(admitted) => admitted,
        Err((answer, ending)) => {
            let mut record = RequestRecord::new(client.enter(None), client.connection.listener.pool(None), &parts);
            record.answered(answer.status, ending);
            return Ok(answer.into_response(is_head, under_way));
        }
    };
    let mut record = RequestRecord::new(client.enter(route), &pool, &parts);
    record.routed(route);
    if route.is_some_and(|found| client.connection.listener.refuses(found)) {
        let answer = LocalReply::new(403, "the route refuses this request");
        record.answered(answer.status, Termination::RouteRefused);
        return Ok(answer.into_response(is_head, under_way));
    }
    match forward(&client, parts, incoming, &mut record).await {
        Ok(ForwardedResponse::Response(head, incoming, link)) => {
            client.responds(true);
            Ok(Response::from_parts(head, ForwardedBody::forwarded(incoming, link, record, under_way)))
        }
        Ok(ForwardedResponse::Switched(head, backend, ahead)) => {
            record.answered(101, Termination::Closed(Side::Client));
            // From here on, the connection has it.
            record.switched_to = record.backend();
            match record.release() {
                Some(lease) => client.switch(Tunnel { backend, ahead, lease }),
                None => return Err("the request is reset: its backend has gone".into()),
            }
            Ok(Response::from_parts(head, HttpResponseBody::own(hyper::body::Bytes::new(), under_way)))
        }
        Err(Unanswered::Reply(answer, ending)) => {
            record.answered(answer.status, ending);
            Ok(answer.into_response(is_head, under_way))
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
fn admit(client: &HttpClient, parts: &Parts) -> Result<Routed, (LocalReply, Termination)> {
    let listener = &*client.connection.listener;
    if let Err(fault) = check_request(parts) {
        let answer = LocalReply { closes: true, ..LocalReply::new(fault.status(), fault.to_string()) };
        return Err((answer, Termination::BadRequest));
    }
    if parts.method == Method::CONNECT {
        let answer = LocalReply { closes: true, ..LocalReply::new(405, "CONNECT is not supported") };
        return Err((answer, Termination::BadRequest));
    }
    if let Err(wait) = listener.admission.admit_request(client.connection.client.get()) {
        let answer = LocalReply::new(429, "requests from this address come too fast").retry_after(wait);
        return Err((answer, Termination::RequestRate));
    }
    if listener.config().routes.is_empty() {
        return Ok((Arc::clone(listener.pool(None)), None));
    }
    let route = route(listener, client, parts);
    Ok((Arc::clone(listener.pool(route)), route))
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
enum ForwardedResponse {
    Response(hyper::http::response::Parts, Incoming, HttpLink),
    /// 101, and the backend's socket.
    Switched(hyper::http::response::Parts, BackendConn, Vec<u8>),
}

async fn forward(
    client: &Rc<HttpClient>,
    mut parts: Parts,
    incoming: Incoming,
    record: &mut RequestRecord,
) -> Result<ForwardedResponse, Unanswered> {
    let listener = Arc::clone(&client.connection.listener);
    let Some(rules) = &listener.config().http else { return Err(Unanswered::Reset(Termination::InternalError)) };
    let pool = Arc::clone(&record.pool);
    let settings = pool.settings();
    let version = settings.http.version;
    let wishes = prepare(client, rules, version, &mut parts);
    let mut body = Some(RequestBody::of(incoming, record.handle.connection()));
    if body.as_ref().is_some_and(|body| !body.is_empty())
        && version == HttpVersion::Http1
        && !parts.headers.contains_key(CONTENT_LENGTH)
    {
        // hyper takes GET and HEAD without it for requests that have no body.
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let is_awaited = body.as_ref().and_then(RequestBody::is_awaited);
    let is_idempotent = parts.method.is_idempotent();
    let may_repeat = is_idempotent && body.as_ref().is_some_and(RequestBody::is_empty);
    let deadline = rules.request_timeout.and_then(|timeout| worker::now().checked_add(timeout));
    let sticky = settings.persistence_cookie().map(|cookie| Sticky::new(cookie, &pool, &parts.headers));
    let mut lease = sticky.as_ref().and_then(Sticky::lease);
    let mut tried = Excluded::new();
    let mut head = Some(parts);
    let (mut fresh, mut failure) = (false, None);
    for attempt in 0..=settings.retries {
        let first = FirstChoice { lease: lease.take(), tried: tried.clone() };
        let (mut link, is_reused) = match dial(client, &pool, version, record, first, fresh).await {
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
        if let (true, Some(interim)) = (wishes.expects_continue && !request.body().is_empty(), &wishes.interim) {
            request.body_mut().hold(Arc::clone(interim));
        }
        let sending = worker::until(deadline, watch(client, wishes.interim.as_deref(), link.send(request)));
        let sent = match record.handle.unless_aborted(sending).await {
            Err(ending) => return Err(aborted(ending)),
            Ok(None) if is_awaited.as_ref().is_some_and(|it| it.get()) => {
                let answer = LocalReply::new(408, "the request's body was not complete in time");
                return Err(Unanswered::Reply(answer, Termination::PreambleTimeout));
            }
            Ok(None) => {
                record.record_outcome(&backend, None);
                if version == HttpVersion::Http2 {
                    // The connection that others share may be dead.
                    KeptLinks::forget(&backend);
                }
                let answer = LocalReply::new(504, "the backend did not answer in time");
                return Err(Unanswered::Reply(answer, Termination::ResponseTimeout));
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
                    tried.add(backend.id());
                    if has_other(&pool, &tried) {
                        retried(record, &listener, &backend);
                        failure = None;
                        continue;
                    }
                }
                record.responded(status);
                return respond(client, &wishes, sticky.as_ref(), &backend, response, link).await;
            }
            // The client has cut its request.
            Err(SendFailed { error, .. }) if error.is_user() => {
                return Err(Unanswered::Reset(Termination::ClientLeft));
            }
            Err(SendFailed { request, error }) => {
                let was_sent = request.is_none();
                let answer = LocalReply::new(502, format!("the backend ended the connection: {}", describe(&error)));
                let ended = Unanswered::Reply(answer, Termination::Reset(Side::Backend));
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
                    tried.add(backend.id());
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
    // Its place is free for the next try, which may be at the same backend.
    drop(record.release());
    record.attempts.retried();
    backend.counters().retried();
    listener.counters().retried();
}

/// What hyper says of a failed connection, without its own outline.
fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Forwards interim responses meanwhile. Ends with `None` when the client of HTTP/1 has reset its connection. A stream of HTTP/2 is
/// dropped by hyper.
async fn watch<T>(client: &HttpClient, interim: Option<&Interim>, sending: impl Future<Output = T>) -> Option<T> {
    let mut sending = std::pin::pin!(sending);
    poll_fn(|cx| {
        let sent = sending.as_mut().poll(cx);
        if let Some(interim) = interim {
            client.send_interim(interim.take());
        }
        match sent {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending if !client.is_http2 && client.conn.poll_reset().is_ready() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A connection to a backend of the pool: a kept one, or a new one.
async fn dial(
    client: &Rc<HttpClient>,
    pool: &Arc<Pool>,
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
    let reuse = ReuseKept { fresh };
    let dialled = Box::pin(dial::dial(handle, &listener, pool, &origin, &reuse, first, attempts)).await?;
    let backend = Arc::clone(dialled.lease.backend());
    record.hold(dialled.lease);
    match dialled.link {
        Link::Reused(link) => Ok((link, true)),
        Link::New(conn) => {
            record.connect = Some(dialled.took);
            record.backend_handshake = dialled.handshake;
            let link = HttpLink::begin(version, conn, &backend, client.state.worker).await;
            let link = link.map_err(|_| Termination::ConnectFailed)?;
            if let HttpLink::Http2(link) = &link {
                // At once, for other streams to share it.
                KeptLinks::keep(pool, &backend, HttpLink::Http2(link.clone()));
            }
            Ok((link, false))
        }
    }
}

/// The response as the client gets it.
async fn respond(
    client: &Rc<HttpClient>,
    wishes: &Wishes,
    sticky: Option<&Sticky<'_>>,
    backend: &Backend,
    response: Response<Incoming>,
    link: HttpLink,
) -> Result<ForwardedResponse, Unanswered> {
    let (mut head, incoming) = response.into_parts();
    if let Err(fault) = check_response(&head.headers) {
        let answer = LocalReply::new(502, format!("the backend sent {fault}"));
        return Err(Unanswered::Reply(answer, Termination::Reset(Side::Backend)));
    }
    let upgrade = head.headers.get(UPGRADE).cloned();
    strip_hop_by_hop(&mut head.headers);
    head.extensions.clear();
    if let Some(cookie) = sticky.and_then(|sticky| sticky.set_cookie(backend, client.is_tls)) {
        head.headers.append(hyper::header::SET_COOKIE, cookie);
    }
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        head.version = Version::HTTP_11;
        return Ok(ForwardedResponse::Response(head, incoming, link));
    }
    let bad = || {
        let answer = LocalReply::new(502, "the backend switched protocols unasked");
        Unanswered::Reply(answer, Termination::Reset(Side::Backend))
    };
    if !wishes.switches || client.is_http2 {
        return Err(bad());
    }
    drop(incoming);
    let mut link = link;
    poll_fn(|cx| {
        link.drive(cx);
        if link.has_ended() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let Some((socket, ahead)) = link.into_socket() else { return Err(bad()) };
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(upgrade) = upgrade {
        head.headers.insert(UPGRADE, upgrade);
    }
    Ok(ForwardedResponse::Switched(head, socket, ahead))
}
