//! What a request leaves behind: counters, histograms, its access line.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::connection::Abort;
use super::super::dial::Attempts;
use super::super::worker_state::{SessionHandle, WorkerState};
use crate::pool::{Backend, Pool};
use crate::stats::http::{HttpEvent, Method, StatusClass};
use crate::stats::latency::Stage;
use crate::stats::termination::{Side, Termination};
use crate::worker;

/// A request, counted and logged when dropped.
pub(super) struct RequestRecord {
    pub(super) handle: SessionHandle,
    pub(super) pool: Arc<Pool>,
    pub(super) attempts: Attempts,
    pub(super) connect: Option<Duration>,
    pub(super) backend_handshake: Option<Duration>,
    method: Method,
    began: Instant,
    first_byte: Option<Duration>,
    /// Of the response whose head the client has.
    status: Option<u16>,
    /// Whether all of the response has come.
    pub(super) is_whole: bool,
    pub(super) ending: Termination,
}

impl RequestRecord {
    pub(super) fn new(handle: SessionHandle, pool: &Arc<Pool>, method: Method) -> RequestRecord {
        RequestRecord {
            handle,
            pool: Arc::clone(pool),
            attempts: Attempts::default(),
            connect: None,
            backend_handshake: None,
            method,
            began: Instant::now(),
            first_byte: None,
            status: None,
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

    /// A backend has answered with this status.
    pub(super) fn responded(&mut self, status: u16) {
        let took = self.began.elapsed();
        self.status = Some(status);
        self.first_byte = Some(took);
        let connection = self.handle.connection();
        if let Some(lease) = &*connection.lease() {
            lease.backend().record_first_byte(took);
        }
        self.state().measure(&connection.listener, connection.leased(), Stage::HttpFirstByte, took);
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

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let connection = self.handle.connection();
        let listener = &connection.listener;
        let took = self.began.elapsed();
        if let Some(lease) = connection.take_lease() {
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
            self.state().measure(listener, connection.leased(), Stage::HttpResponse, took);
        }
        self.state().saw_http(listener, connection.leased(), event);
    }
}
