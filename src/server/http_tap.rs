//! HTTP as it goes by, where `sniff: http` has it watched: from what the relay sees to what is counted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::connection::ConnectionState;
use super::listener::Listener;
use super::worker_state::WorkerState;
use crate::pool::{Backend, Pool};
use crate::relay::Tap;
use crate::sniff::http::{Event, Watcher};
use crate::stats::http::{HttpEvent, StatusClass};
use crate::stats::latency::Stage;
use crate::stats::registry::BackendId;
use crate::stats::termination::Side;

/// A connection that is watched, until it is dropped: then what is unanswered will never be answered.
pub(super) struct HttpTap {
    watcher: Watcher,
    sink: HttpSink,
}

/// Where events go: to the counters of a listener and a backend.
struct HttpSink {
    state: Rc<WorkerState>,
    listener: Arc<Listener>,
    backend: BackendId,
    /// Whom to tell of responses, where those with status 5xx eject a backend.
    outlier: Option<(Arc<Pool>, Arc<Backend>)>,
}

impl HttpTap {
    /// For a connection with a backend; `None` where HTTP is not watched, or its events have no reader.
    pub(super) fn new(state: &Rc<WorkerState>, connection: &ConnectionState) -> Option<HttpTap> {
        let listener = &connection.listener;
        if !listener.sniffs_http() {
            return None;
        }
        let (pool, lease) = (connection.pool(), connection.lease());
        let ejects = pool.settings().outlier.as_ref().is_some_and(|rules| rules.http_5xx);
        let backend = lease.as_ref().map(|lease| Arc::clone(lease.backend()));
        let outlier = backend.filter(|_| ejects).map(|backend| (Arc::clone(pool), backend));
        if outlier.is_none() && !state.measures() {
            return None;
        }
        let (state, listener, backend) = (Rc::clone(state), Arc::clone(listener), connection.backend());
        let sink = HttpSink { state, listener, backend, outlier };
        Some(HttpTap { watcher: Watcher::default(), sink })
    }
}

impl Tap for HttpTap {
    fn skippable(&self, from: Side) -> u64 {
        match from {
            Side::Client => self.watcher.unseen_from_client(),
            Side::Backend => self.watcher.unseen_from_backend(),
        }
    }

    fn on_bytes(&mut self, from: Side, bytes: &[u8], now: Instant) {
        let HttpTap { watcher, sink } = self;
        match from {
            Side::Client => watcher.client_sent(bytes, now, &mut |event| sink.of(event)),
            Side::Backend => watcher.backend_sent(bytes, now, &mut |event| sink.of(event)),
        }
    }

    fn on_spliced(&mut self, from: Side, count: u64, now: Instant) {
        let HttpTap { watcher, sink } = self;
        match from {
            Side::Client => watcher.passed_from_client(count),
            Side::Backend => watcher.passed_from_backend(count, now, &mut |event| sink.of(event)),
        }
    }

    fn on_fin(&mut self, from: Side, now: Instant) {
        let HttpTap { watcher, sink } = self;
        if from == Side::Backend {
            watcher.backend_finished(now, &mut |event| sink.of(event));
        }
    }
}

impl Drop for HttpTap {
    fn drop(&mut self) {
        let HttpTap { watcher, sink } = self;
        watcher.ended(&mut |event| sink.of(event));
    }
}

impl HttpSink {
    fn of(&self, event: Event) {
        let HttpSink { state, listener, backend, outlier } = self;
        let event = match event {
            Event::Responded { method, class, first_byte, took } => {
                if let Some((pool, backend)) = outlier {
                    pool.record_response(backend, class == StatusClass::ServerError);
                }
                state.measure(listener, *backend, Stage::HttpFirstByte, first_byte);
                state.measure(listener, *backend, Stage::HttpResponse, took);
                HttpEvent::Responded(method, class)
            }
            Event::Unanswered => HttpEvent::Unanswered,
            Event::Opaque(why) => {
                tracing::debug!(listener = %listener.config().name, "not watched any more: a connection that {why}");
                HttpEvent::Opaque
            }
        };
        state.saw_http(listener, *backend, event);
    }
}
