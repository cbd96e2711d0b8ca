//! Listing open connections, and ending some of them: what other threads ask of the workers.
//!
//! A worker goes through its list in portions, between which its connections are served. The work of a portion is bounded,
//! so that tens of thousands of connections hold none of them up.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::connection::{Abort, ConnectionId, ConnectionState};
use super::crew::CrewMember;
use super::database_session::DatabaseSession;
use super::plane_state::PlaneState;
use super::worker_state::WorkerState;
use crate::net::addr::ClientAddr;
use crate::stats::registry::BackendId;
use crate::worker::{self, Priority};

/// Places of a worker's list that are looked at in one turn of its loop: 50 µs where few of them fit, 170 µs where
/// all of them are shown (benches/connections.rs).
const PORTION: usize = 256;

/// Which connections are meant: those that fit everything that is set. By default, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Only the one with this id.
    pub id: Option<ConnectionId>,
    /// The listener's name.
    pub listener: Option<String>,
    /// The pool's name. A connection whose first bytes are still to say its pool is in none.
    pub pool: Option<String>,
    /// The backend's name, which may be one of several pools.
    pub backend: Option<String>,
    /// The backend, those that are still connecting to it included.
    pub backend_id: Option<BackendId>,
    /// Where the client's address lies. Clients of unix sockets have none.
    pub client: Option<IpNet>,
    /// The least time since it was accepted.
    pub older: Option<Duration>,
    /// The user that its client names to a database, where `sniff` has its queries watched.
    pub user: Option<String>,
}

/// An open connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The client, as a PROXY header names it where one is trusted.
    pub client: ClientAddr,
    /// The pool's name; `None` while its first bytes are still to say which.
    pub pool: Option<Arc<str>>,
    /// The backend's name; `None` until one is connected.
    pub backend: Option<Arc<str>>,
    /// When it was accepted.
    pub accepted: Instant,
    /// When a byte or FIN was last delivered in either direction; when it was accepted, before the first.
    pub last_moved: Instant,
    /// Bytes from the client, delivered to the backend.
    pub bytes_in: u64,
    /// Bytes from the backend, delivered to the client.
    pub bytes_out: u64,
    /// The server name that the client asked for by TLS, where tidegate has read it.
    pub server_name: Option<Arc<str>>,
    /// The user that the client names to a database, where its queries are watched.
    pub user: Option<Arc<str>>,
    /// The database that the client has chosen there.
    pub database: Option<Arc<str>>,
}

/// Open connections that fit a filter.
#[derive(Clone, Debug, Default)]
pub struct ConnectionList {
    /// The oldest of them first, as many as were asked for.
    pub connections: Vec<ConnectionInfo>,
    /// How many there are.
    pub matched: usize,
}

impl ConnectionFilter {
    /// Whether all connections are meant.
    pub fn is_empty(&self) -> bool {
        *self == ConnectionFilter::default()
    }

    /// `asked` is when the question was asked: what has come since is not meant.
    fn fits(&self, connection: &ConnectionState, session: Option<&DatabaseSession>, asked: Instant) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| wanted.as_deref().is_none_or(|it| Some(it) == name);
        let age = asked.checked_duration_since(connection.accepted);
        let lies_in = |network: &IpNet| connection.client.get().ip().is_some_and(|ip: IpAddr| network.contains(&ip));
        age.is_some_and(|age| self.older.is_none_or(|older| age >= older))
            && self.id.is_none_or(|id| id == connection.id)
            && self.user.as_ref().is_none_or(|user| session.is_some_and(|session| session.is_of(user)))
            && self.backend_id.is_none_or(|backend| backend == connection.leased())
            && self.client.as_ref().is_none_or(lies_in)
            && is(&self.listener, Some(&connection.listener.config().name))
            && (self.pool.is_none() || is(&self.pool, connection.known_pool().map(|pool| &**pool.name())))
            && (self.backend.is_none()
                || is(&self.backend, connection.lease().as_ref().map(|lease| &**lease.backend().name())))
    }
}

impl ConnectionInfo {
    fn of(connection: &ConnectionState, session: Option<&DatabaseSession>) -> ConnectionInfo {
        let server_name = connection.preamble().and_then(|preamble| preamble.server_name.get());
        ConnectionInfo {
            id: connection.id,
            listener: Arc::clone(&connection.listener.config().name),
            client: connection.client.get(),
            pool: connection.known_pool().map(|pool| Arc::clone(pool.name())),
            backend: connection.lease().as_ref().map(|lease| Arc::clone(lease.backend().name())),
            accepted: connection.accepted,
            last_moved: connection.last_moved(),
            bytes_in: connection.bytes_in(),
            bytes_out: connection.bytes_out(),
            server_name: server_name.map(Arc::clone),
            user: session.and_then(DatabaseSession::user),
            database: session.and_then(DatabaseSession::database),
        }
    }
}

/// The oldest connections of those that were seen, of which the youngest comes first.
struct Oldest {
    limit: usize,
    kept: BinaryHeap<ByAge>,
    matched: usize,
}

struct ByAge(ConnectionInfo);

impl Oldest {
    fn add(&mut self, connection: &ConnectionState, session: Option<&DatabaseSession>) {
        self.matched += 1;
        if self.kept.len() == self.limit {
            match self.kept.peek() {
                Some(ByAge(youngest)) if connection.accepted < youngest.accepted => drop(self.kept.pop()),
                _ => return,
            }
        }
        self.kept.push(ByAge(ConnectionInfo::of(connection, session)));
    }
}

impl Ord for ByAge {
    fn cmp(&self, other: &ByAge) -> Ordering {
        self.0.accepted.cmp(&other.0.accepted)
    }
}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &ByAge) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByAge {
    fn eq(&self, other: &ByAge) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByAge {}

/// The connections that fit, the oldest `limit` of them. A worker that stops meanwhile has none.
pub(super) async fn list(plane: &PlaneState, filter: ConnectionFilter, limit: usize) -> ConnectionList {
    let (filter, asked) = (Arc::new(filter), Instant::now());
    let answers = ask(plane, &filter, move |filter, answer| list_here(filter, asked, limit, answer));
    let mut list = ConnectionList::default();
    for answer in answers {
        let Ok(Oldest { kept, matched, .. }) = answer.await else { continue };
        list.connections.extend(kept.into_iter().map(|ByAge(connection)| connection));
        list.matched += matched;
    }
    list.connections.sort_by_key(|connection| connection.accepted);
    list.connections.truncate(limit);
    list
}

/// Ends the connections that fit, those that come meanwhile excepted. Returns how many; they end in one of the next turns of
/// their workers.
pub(super) async fn end(plane: &PlaneState, filter: ConnectionFilter) -> usize {
    let (filter, asked) = (Arc::new(filter), Instant::now());
    let mut ended = 0;
    for answer in ask(plane, &filter, move |filter, answer| end_here(filter, asked, answer)) {
        ended += answer.await.unwrap_or_default();
    }
    ended
}

/// Starts `task` on each worker that may have what the filter means.
fn ask<A, F, T>(plane: &PlaneState, filter: &Arc<ConnectionFilter>, task: T) -> Vec<oneshot::Receiver<A>>
where
    A: Send + 'static,
    F: Future<Output = ()> + 'static,
    T: FnOnce(Arc<ConnectionFilter>, oneshot::Sender<A>) -> F + Copy + Send + 'static,
{
    let only = filter.id.map(|id| plane.connection_ids.worker(id));
    let crew = plane.crew.load();
    let concerned = crew.all().filter(|worker| only.is_none_or(|only| only == worker.index));
    let start = |member: &Arc<CrewMember>| {
        let (filter, (answer, answered)) = (Arc::clone(filter), oneshot::channel());
        member.remote.run(move || worker::spawn(task(filter, answer)));
        answered
    };
    concerned.map(start).collect()
}

async fn list_here(filter: Arc<ConnectionFilter>, asked: Instant, limit: usize, answer: oneshot::Sender<Oldest>) {
    let mut oldest = Oldest { limit, kept: BinaryHeap::new(), matched: 0 };
    let see = |connection: &ConnectionState, session: Option<&DatabaseSession>| {
        if filter.fits(connection, session, asked) {
            oldest.add(connection, session);
        }
    };
    // Of no use to one that has gone.
    go_through(see, || !answer.is_closed()).await;
    // Who asked has gone: then the rows are freed as they were made.
    let Err(oldest) = answer.send(oldest) else { return };
    let mut rows = oldest.kept.into_vec();
    while !rows.is_empty() {
        worker::yield_now().await;
        rows.truncate(rows.len().saturating_sub(PORTION));
    }
}

async fn end_here(filter: Arc<ConnectionFilter>, asked: Instant, answer: oneshot::Sender<usize>) {
    let mut ended = 0;
    let see = |connection: &ConnectionState, session: Option<&DatabaseSession>| {
        if filter.fits(connection, session, asked) && connection.abort(Abort::Killed) {
            ended += 1;
        }
    };
    // Begun is done: who asked may be gone.
    go_through(see, || true).await;
    let _ = answer.send(ended);
}

/// Shows all of this worker's connections to `see`, a portion in each turn of its loop, as long as `goes_on`.
async fn go_through(mut see: impl FnMut(&ConnectionState, Option<&DatabaseSession>), goes_on: impl Fn() -> bool) {
    // As a connection with small messages: neither before newcomers nor behind bulk.
    worker::set_priority(Priority::Interactive);
    let state = WorkerState::current();
    let mut next = Some(0);
    while let Some(from) = next.filter(|_| goes_on()) {
        worker::yield_now().await;
        next = state.visit(from, PORTION, &mut see);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::super::data_plane::DataPlane;
    use super::super::listener::{Listener, ListenerParts};
    use super::super::worker_state::SessionHandle;
    use super::*;
    use crate::config::{self, files::Unread};
    use crate::pool::Pool;
    use crate::stats::registry::Registry;

    fn listener() -> Arc<Listener> {
        let text = "listeners: [{ name: in, bind: \"127.0.0.1:1\", pool: p }]\n\
                    pools: [{ name: p, backends: [{ address: \"127.0.0.1:2\" }] }]";
        let config = config::parse("test", text, &Unread).unwrap().config;
        let registry = Registry::default();
        let pool = Pool::new(config.pools[0].clone(), &registry, 1);
        let parts = ListenerParts { pool, routed: Vec::new(), geoip: Arc::default(), tls: None, addresses: Vec::new() };
        Listener::new(config.listeners[0].clone(), parts, &registry, 1)
    }

    /// Runs `f` on the worker of a plane that has one, and returns what it sends.
    fn on_worker<T: Send + 'static, F: Future<Output = T>>(f: impl FnOnce() -> F + Send + 'static) -> T {
        let plane = DataPlane::start(1, 10_000).unwrap();
        let (answer, answered) = mpsc::channel();
        plane.crew.load().active[0].remote.run(move || {
            worker::spawn(async move { answer.send(f().await).unwrap() });
        });
        let answer = answered.recv_timeout(Duration::from_secs(60)).unwrap();
        plane.stop();
        answer
    }

    fn enter(state: &Rc<WorkerState>, listener: &Arc<Listener>, accepted: Instant) -> SessionHandle {
        let client = ClientAddr::Tcp(([10, 0, 0, 7], 5000).into());
        state.enter(Arc::clone(listener), client, accepted)
    }

    /// What holds up a worker is a portion; a time would be the machine's. benches/connections.rs has that.
    #[test]
    fn portions_are_bounded_and_show_each_that_stays_once() {
        const STAYING: usize = 20_000;
        let (staying, seen) = on_worker(|| async {
            let (state, listener) = (WorkerState::current(), listener());
            let now = Instant::now();
            let mut passing = Vec::new();
            let held: Vec<SessionHandle> = (0..STAYING)
                .map(|number| {
                    if number % 3 == 0 {
                        passing.push(enter(&state, &listener, now));
                    }
                    enter(&state, &listener, now)
                })
                .collect();
            let staying: Vec<ConnectionId> = held.iter().map(|handle| handle.connection().id).collect();
            let mut seen = Vec::new();
            let passing = RefCell::new(passing);
            let change = || {
                // Between two portions, some leave and others come, in any place that is free.
                let mut passing = passing.borrow_mut();
                let kept = passing.len().saturating_sub(50);
                passing.truncate(kept);
                passing.extend((0..60).map(|_| enter(&state, &listener, now)));
                true
            };
            go_through(|it, _| seen.push((worker::turn(), it.id)), change).await;
            (staying, seen)
        });
        let (mut turns, mut times) = (HashMap::<u64, usize>::new(), HashMap::<ConnectionId, usize>::new());
        for (turn, id) in seen {
            *turns.entry(turn).or_default() += 1;
            *times.entry(id).or_default() += 1;
        }
        assert!(turns.values().all(|count| *count <= PORTION) && turns.len() >= STAYING / PORTION, "{turns:?}");
        assert!(staying.iter().all(|id| times[id] == 1));
        assert!(times.values().all(|count| *count == 1), "nor is any other seen twice");
    }

    #[test]
    fn oldest_are_kept_in_any_order_of_places() {
        let kept = on_worker(|| async {
            let (state, listener, now) = (WorkerState::current(), listener(), Instant::now());
            let ages = [3, 9, 1, 7, 5, 8, 2];
            let accepted = |age: u64| now.checked_sub(Duration::from_secs(age)).unwrap();
            let _held: Vec<SessionHandle> = ages.map(|age| enter(&state, &listener, accepted(age))).into();
            let mut kept = Vec::new();
            for limit in [0, 3, 100] {
                let mut oldest = Oldest { limit, kept: BinaryHeap::new(), matched: 0 };
                state.visit(0, 100, |connection, session| oldest.add(connection, session));
                let mut ages: Vec<u64> =
                    oldest.kept.iter().map(|ByAge(it)| now.duration_since(it.accepted).as_secs()).collect();
                ages.sort_unstable();
                kept.push((oldest.matched, ages));
            }
            kept
        });
        assert_eq!(kept, [(7, vec![]), (7, vec![7, 8, 9]), (7, vec![1, 2, 3, 5, 7, 8, 9])]);
    }

    #[test]
    fn what_has_come_since_the_question_is_not_meant() {
        let fits = on_worker(|| async {
            let (state, listener, asked) = (WorkerState::current(), listener(), Instant::now());
            let later = asked + Duration::from_secs(1);
            let [before, after] = [asked, later].map(|accepted| enter(&state, &listener, accepted));
            [before, after].map(|it| ConnectionFilter::default().fits(it.connection(), None, asked))
        });
        assert_eq!(fits, [true, false]);
    }

    /// Counted once, and by the reason that came first.
    #[test]
    fn connection_is_ended_once() {
        let aborts = on_worker(|| async {
            let (state, listener) = (WorkerState::current(), listener());
            let handle = enter(&state, &listener, Instant::now());
            let connection = handle.connection();
            (connection.abort(Abort::BackendDown), connection.abort(Abort::Killed), connection.aborted())
        });
        assert_eq!(aborts, (true, false, Some(Abort::BackendDown)));
    }
}
