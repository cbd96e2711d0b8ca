//! What a request leaves behind: counters, histograms, its access line.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::Version;
use hyper::header::{HeaderName, REFERER, USER_AGENT};
use hyper::http::request::Parts;

use super::super::connection::Abort;
use super::super::dial::Attempts;
use super::super::route::RouteMatch;
use super::super::worker_state::{SessionHandle, WorkerState};
use crate::http::target::authority;
use crate::log::access::{AccessLine, OpenConnections, RequestLine};
use crate::pool::{Backend, Lease, Pool};
use crate::stats::http::{HttpEvent, Method, StatusClass};
use crate::stats::latency::{Sample, Stage};
use crate::stats::registry::RouteId;
use crate::stats::requests::RouteCounters;
use crate::stats::termination::{Side, Termination};
use crate::worker;

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Characters of a field that are logged.
const MAX_LOGGED: usize = 2048;

/// A request, counted and logged when dropped.
pub(super) struct RequestRecord {
    pub(super) handle: SessionHandle,
    pub(super) pool: Arc<Pool>,
    pub(super) attempts: Attempts,
    pub(super) connect: Option<Duration>,
    pub(super) backend_handshake: Option<Duration>,
    method: Method,
    /// For the access line, where there is one.
    facts: Option<Box<RequestFacts>>,
    began: Instant,
    first_byte: Option<Duration>,
    /// Of the response whose head the client has.
    status: Option<u16>,
    /// The backend that has switched protocols: its lease is the connection's.
    pub(super) switched_to: Option<Arc<Backend>>,
    /// The place of its route's counters, once it is routed.
    route: Option<usize>,
    /// Whether all of the response has come.
    pub(super) is_whole: bool,
    pub(super) ending: Termination,
}

impl RequestRecord {
    pub(super) fn new(handle: SessionHandle, pool: &Arc<Pool>, parts: &Parts) -> RequestRecord {
        let is_logged = handle.state().access().is_some();
        RequestRecord {
            handle,
            pool: Arc::clone(pool),
            attempts: Attempts::default(),
            connect: None,
            backend_handshake: None,
            method: Method::named(parts.method.as_str()),
            facts: is_logged.then(|| Box::new(RequestFacts::of(parts))),
            began: Instant::now(),
            first_byte: None,
            status: None,
            switched_to: None,
            route: None,
            is_whole: false,
            ending: Termination::Closed(Side::Client),
        }
    }

    fn state(&self) -> &Rc<WorkerState> {
        self.handle.state()
    }

    /// Why it is to end now, if it is.
    pub(super) fn aborted(&self) -> Option<Abort> {
        self.handle.aborted()
    }

    /// The backend that it was forwarded to.
    pub(super) fn backend(&self) -> Option<Arc<Backend>> {
        self.handle.connection().lease().as_ref().map(|lease| Arc::clone(lease.backend()))
    }

    /// The request has this route, or none of the listener's.
    pub(super) fn routed(&mut self, route: Option<RouteMatch>) {
        let listener = &self.handle.connection().listener;
        let place = listener.route_place(route);
        if let Some(counters) = listener.route_counters().get(place) {
            counters.requests().begin(self.state().worker);
            self.route = Some(place);
        }
    }

    fn route_counters(&self) -> Option<&RouteCounters> {
        let counters = self.handle.connection().listener.route_counters();
        self.route.and_then(|place| counters.get(place)).map(|counters| &**counters)
    }

    /// It is the leased backend's from now on.
    pub(super) fn hold(&self, lease: Lease) {
        drop(self.release());
        lease.backend().requests().begin(self.state().worker);
        self.handle.connection().hold(lease);
    }

    /// It is no backend's from now on.
    pub(super) fn release(&self) -> Option<Lease> {
        let lease = self.handle.connection().take_lease()?;
        lease.backend().requests().end(self.state().worker);
        Some(lease)
    }

    fn measure(&self, sample: Sample) {
        let route = self.route_counters().map_or(RouteId::NONE, RouteCounters::id);
        self.state().measure_request(sample.of_route(route));
    }

    /// A backend has answered with this status.
    pub(super) fn responded(&mut self, status: u16) {
        let took = self.began.elapsed();
        self.status = Some(status);
        self.first_byte = Some(took);
        let connection = self.handle.connection();
        if let Some(lease) = &*connection.lease() {
            lease.backend().record_first_byte(took);
        }
        self.measure(Sample::new(connection.listener.id(), connection.leased(), Stage::HttpFirstByte, took));
    }

    /// tidegate answers with this status itself.
    pub(super) fn answered(&mut self, status: u16, ending: Termination) {
        self.status = Some(status);
        self.is_whole = true;
        self.ending = ending;
    }

    /// Bytes of the body have come.
    pub(super) fn sent(&self, count: u64) {
        let connection = self.handle.connection();
        connection.moved(connection.bytes_in(), connection.bytes_out() + count, worker::now());
    }

    /// What a failure at the backend means for the next choice.
    pub(super) fn record_outcome(&self, backend: &Backend, status: Option<u16>) {
        if self.pool.settings().outlier.as_ref().is_some_and(|rules| rules.http_5xx) {
            self.pool.record_response(backend, status.is_none_or(|status| status >= 500));
        }
    }
}

/// What the access line says of a request.
struct RequestFacts {
    method: String,
    target: String,
    version: &'static str,
    host: Option<String>,
    referer: Option<String>,
    user_agent: Option<String>,
    traceparent: Option<String>,
}

impl RequestFacts {
    fn of(parts: &Parts) -> RequestFacts {
        let field = |name: &HeaderName| {
            let value = parts.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).chars().take(MAX_LOGGED).collect())
        };
        let target = parts.uri.path_and_query().map_or("*", |target| target.as_str());
        RequestFacts {
            method: parts.method.as_str().chars().take(MAX_LOGGED).collect(),
            target: target.chars().take(MAX_LOGGED).collect(),
            version: if parts.version == Version::HTTP_2 {
                "HTTP/2.0"
            } else if parts.version == Version::HTTP_10 {
                "HTTP/1.0"
            } else {
                "HTTP/1.1"
            },
            host: authority(parts).map(str::to_owned),
            referer: field(&REFERER),
            user_agent: field(&USER_AGENT),
            traceparent: field(&TRACEPARENT),
        }
    }

    fn line(&self, status: Option<u16>) -> RequestLine<'_> {
        RequestLine {
            method: &self.method,
            target: &self.target,
            host: self.host.as_deref(),
            version: self.version,
            status,
            referer: self.referer.as_deref(),
            user_agent: self.user_agent.as_deref(),
            traceparent: self.traceparent.as_deref(),
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if let (false, Some(abort)) = (self.is_whole, self.aborted()) {
            self.ending = abort.into();
        }
        let connection = self.handle.connection();
        let listener = &connection.listener;
        let took = self.began.elapsed();
        let lease = self.release();
        let backend = lease.as_ref().map(|lease| Arc::clone(lease.backend())).or(self.switched_to.take());
        let open = self.facts.is_some().then(|| OpenConnections {
            process: self.state().plane.open(),
            listener: listener.counters().open(),
            pool: self.pool.connections(),
            backend: backend.as_ref().map_or(0, |backend| backend.connections()),
        });
        if let Some(lease) = lease {
            self.pool.record_end(connection.client.get().ip(), lease.backend());
            match (self.is_whole, self.ending.fault()) {
                (false, Some(Side::Backend)) => lease.backend().counters().failed(),
                (false, Some(Side::Client)) => lease.backend().counters().client_aborted(),
                _ => {}
            }
        }
        let class = self.status.and_then(StatusClass::of);
        let event = match class.filter(|_| self.is_whole) {
            Some(class) => HttpEvent::Responded(self.method, class),
            None => HttpEvent::Unanswered,
        };
        if self.is_whole {
            self.measure(Sample::new(listener.id(), connection.leased(), Stage::HttpResponse, took));
        }
        self.measure(Sample::http(listener.id(), connection.leased(), event));
        if let Some(route) = self.route_counters() {
            route.requests().retried(self.state().worker, self.attempts.retries().into());
            route.requests().end(self.state().worker);
        }
        if let (Some(facts), Some(writer), Some(open)) = (&self.facts, &mut *self.state().access(), open) {
            writer.write(&AccessLine {
                time: SystemTime::now(),
                listener: &listener.config().name,
                pool: self.pool.name(),
                client: connection.client.get(),
                backend: backend.as_ref().map(|backend| &**backend.name()),
                id: connection.id.get(),
                queue: Some(self.attempts.time_waited()).filter(|waited| backend.is_some() || !waited.is_zero()),
                queued_behind: self.attempts.queued_behind(),
                protocol: None,
                request: Some(facts.line(self.status)),
                proxy_tlvs: &[],
                user: None,
                database: None,
                queries: None,
                datagrams: None,
                connect: self.connect,
                client_handshake: None,
                backend_handshake: self.backend_handshake,
                first_byte: self.first_byte,
                turnarounds: 0,
                turnaround: None,
                duration: took,
                bytes_in: connection.bytes_in(),
                bytes_out: connection.bytes_out(),
                retries: self.attempts.retries(),
                failed_connects: self.attempts.failed(),
                open,
                is_empty: false,
                ending: self.ending,
            });
        }
    }
}
