//! Queries of databases as they go by, where `sniff: postgres`, `mysql` or `redis` has them watched: from what the relay sees to what
//! is counted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::ConnectionState;
use super::database_session::DatabaseSession;
use super::listener::Listener;
use super::worker_state::WorkerState;
use crate::config::model::Sniff;
use crate::relay::Tap;
use crate::sniff::queries::{QueryWatcher, WatchEvent};
use crate::stats::latency::Stage;
use crate::stats::queries::{QueryEvent, QueryProtocol};
use crate::stats::registry::BackendId;
use crate::stats::termination::Side;
use crate::worker;

/// A connection whose queries are watched, until it is dropped: then what is unanswered will never be answered.
pub(super) struct QueryTap {
    watcher: QueryWatcher,
    sink: QuerySink,
}

/// Where events go: to the counters of a listener and a backend, and to what is known of the connection.
struct QuerySink {
    state: Rc<WorkerState>,
    listener: Arc<Listener>,
    backend: BackendId,
    protocol: QueryProtocol,
    session: Rc<DatabaseSession>,
}

impl QueryTap {
    /// For a connection with a backend; `None` where no queries are watched, or nothing reads what is seen of them.
    pub(super) fn new(state: &Rc<WorkerState>, connection: &ConnectionState) -> Option<QueryTap> {
        let listener = &connection.listener;
        let protocol = match listener.config().sniff {
            Sniff::Off | Sniff::Http => return None,
            Sniff::Postgres => QueryProtocol::Postgres,
            Sniff::Mysql => QueryProtocol::Mysql,
            Sniff::Redis => QueryProtocol::Redis,
        };
        if !state.measures() && state.access().is_none() {
            return None;
        }
        let session = state.database_sessions.begin(connection.id);
        let login = session.take_login();
        let (state, listener, backend) = (Rc::clone(state), Arc::clone(listener), connection.backend());
        let sink = QuerySink { state, listener, backend, protocol, session };
        let watcher = match login {
            None => QueryWatcher::new(protocol, worker::now()),
            Some(login) => QueryWatcher::after_mysql_login(login, worker::now(), &mut |event| sink.of(event)),
        };
        Some(QueryTap { watcher, sink })
    }
}

impl Tap for QueryTap {
    fn skippable(&self, from: Side) -> u64 {
        self.watcher.skippable(from)
    }

    fn on_bytes(&mut self, from: Side, bytes: &[u8], now: Instant) {
        let QueryTap { watcher, sink } = self;
        watcher.read(from, bytes, now, &mut |event| sink.of(event));
    }

    fn on_spliced(&mut self, from: Side, count: u64, now: Instant) {
        let QueryTap { watcher, sink } = self;
        watcher.skip(from, count, now, &mut |event| sink.of(event));
    }

    /// An answer ends by itself.
    fn on_fin(&mut self, _: Side, _: Instant) {}
}

impl Drop for QueryTap {
    fn drop(&mut self) {
        let QueryTap { watcher, sink } = self;
        watcher.ended(&mut |event| sink.of(event));
    }
}

impl QuerySink {
    fn of(&self, event: WatchEvent<'_>) {
        let QuerySink { state, listener, backend, protocol, session } = self;
        let mut took = Duration::ZERO;
        let event = match event {
            WatchEvent::User(name) => return session.set_user(name),
            WatchEvent::Database(name) => return session.set_database(name),
            WatchEvent::Answered { statement, failed, pipelined, first_byte, took: whole } => {
                session.count_query();
                state.measure(listener, *backend, Stage::QueryFirstByte, first_byte);
                took = whole;
                QueryEvent::Answered { statement, failed, pipelined }
            }
            WatchEvent::Failed(class) => QueryEvent::Failed(class),
            WatchEvent::Unanswered => {
                session.count_query();
                QueryEvent::Unanswered
            }
            WatchEvent::Opaque(reason) => {
                let (name, protocol, why) = (&listener.config().name, protocol.name(), reason.name());
                tracing::debug!(listener = %name, protocol, why, "not watched any more: the queries of a connection");
                QueryEvent::Passthrough(reason)
            }
        };
        state.saw_query(listener, *backend, *protocol, event, took);
    }
}
