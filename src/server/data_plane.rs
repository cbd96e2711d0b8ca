//! The data plane as the control thread sees it: workers, and what they are asked to do.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::accept;
use super::connection::Abort;
use super::connections::{self, ConnectionFilter, ConnectionList};
use super::crew::{Crew, CrewMember, WorkerSlot};
use super::http::KeptLinks;
use super::listener::Listener;
use super::plane_state::{Members, PlaneState};
use super::samples::Samples;
use super::udp::{self, HandedSession, SessionStore};
use super::worker_state::WorkerState;
use crate::log::access::AccessWriter;
use crate::net::addr::Address;
use crate::stats::registry::{BackendId, ListenerId};
use crate::worker::Worker;

/// How often a drain looks whether connections are left.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// How long a change waits for workers before it counts as in effect.
const EFFECT_LIMIT: Duration = Duration::from_secs(1);

/// The data plane, and by dereference what its workers share.
pub struct DataPlane {
    state: Arc<PlaneState>,
    /// Of every worker. Its lock is held while the crew is replaced.
    threads: Mutex<Vec<(Arc<CrewMember>, Worker)>>,
    /// Connections that workers had which have ended, by index: ids go on.
    entered: Mutex<HashMap<usize, u64>>,
}

impl Deref for DataPlane {
    type Target = PlaneState;

    fn deref(&self) -> &PlaneState {
        &self.state
    }
}

/// A crew that can be put to work. Dropped, its new workers end.
pub struct PreparedCrew {
    active: Vec<Arc<CrewMember>>,
    started: Vec<(Arc<CrewMember>, Worker)>,
    /// Keeps workers that had retired from ending.
    held: Vec<WorkerSlot>,
}

/// A listening socket for one worker.
#[derive(Debug)]
pub struct WorkerSocket {
    /// Among the sockets of its address.
    pub number: usize,
    /// The worker's index.
    pub worker: usize,
    /// Non-blocking, listening.
    pub socket: OwnedFd,
}

impl PreparedCrew {
    /// The indexes of the workers that will take connections. One that stays has its own for good.
    pub fn workers(&self) -> Vec<usize> {
        self.active.iter().map(|worker| worker.index).collect()
    }
}

impl Drop for PreparedCrew {
    fn drop(&mut self) {
        for (_, worker) in self.started.drain(..) {
            // Its thread ends by itself.
            let _ = worker.stop();
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        // Their threads end by themselves.
        let _ = self.stop();
    }
}

impl DataPlane {
    /// One without workers, which has room for nothing.
    pub fn new() -> Arc<DataPlane> {
        Arc::new(DataPlane { state: PlaneState::new(), threads: Mutex::default(), entered: Mutex::default() })
    }

    /// One with this number of workers, and room for as many connections.
    ///
    /// # Errors
    /// Those of [`DataPlane::prepare_crew`].
    pub fn start(workers: usize, connections: usize) -> io::Result<Arc<DataPlane>> {
        let plane = DataPlane::new();
        plane.set_crew(plane.prepare_crew(workers)?);
        plane.resize(connections);
        Ok(plane)
    }

    /// Workers for another number of them. The first ones stay; those that have retired come back before threads are started.
    ///
    /// # Errors
    /// A thread or its descriptors cannot be had.
    pub fn prepare_crew(&self, workers: usize) -> io::Result<PreparedCrew> {
        let threads = self.threads();
        let crew = Crew::clone(&self.crew.load());
        let mut prepared = PreparedCrew { active: crew.active, started: Vec::new(), held: Vec::new() };
        prepared.active.truncate(workers);
        for retired in &crew.retired {
            if prepared.active.len() < workers
                && let Some(slot) = retired.enter()
            {
                prepared.active.push(Arc::clone(retired));
                prepared.held.push(slot);
            }
        }
        while prepared.active.len() < workers {
            let known = || threads.iter().map(|(member, _)| member).chain(&prepared.active);
            let index = (0..).find(|index| known().all(|worker| worker.index != *index)).unwrap_or(0);
            let worker = Worker::start(&format!("worker-{index}"), release)?;
            let entered = self.entered().get(&index).copied().unwrap_or(0);
            let member = CrewMember::new(index, Arc::clone(worker.remote()), entered);
            let (of_worker, state) = (Arc::clone(&member), Arc::clone(&self.state));
            worker.remote().run(move || WorkerState::install(of_worker, state));
            prepared.active.push(Arc::clone(&member));
            prepared.started.push((member, worker));
        }
        Ok(prepared)
    }

    /// New connections go to these workers from now on. The others keep theirs, and end with the last of them; they must not
    /// accept any more.
    pub fn set_crew(&self, mut prepared: PreparedCrew) {
        let mut threads = self.threads();
        threads.append(&mut prepared.started);
        let active = std::mem::take(&mut prepared.active);
        let retired = threads.iter().map(|(member, _)| member);
        let retired =
            retired.filter(|member| !active.iter().any(|active| Arc::ptr_eq(active, member))).cloned().collect();
        self.crew.store(Crew { active, retired });
    }

    /// Ends workers that have retired and have no connection left. True if there were any.
    pub fn end_retired(&self) -> bool {
        if self.crew.load().retired.is_empty() {
            return false;
        }
        let mut threads = self.threads();
        let Crew { active, retired } = Crew::clone(&self.crew.load());
        let (ended, retired): (Vec<_>, Vec<_>) = retired.into_iter().partition(|worker| worker.close());
        self.crew.store(Crew { active, retired });
        for (member, worker) in
            threads.extract_if(.., |(member, _)| ended.iter().any(|ended| Arc::ptr_eq(ended, member)))
        {
            self.entered().insert(member.index, member.entered());
            tracing::debug!(worker = member.index, "a worker has ended: it had no connection left");
            // Its thread ends by itself.
            let _ = worker.stop();
        }
        !ended.is_empty()
    }

    /// Ends the workers, and with them every connection that is left. Returns their threads, which end as soon as they
    /// can.
    pub fn stop(&self) -> Vec<JoinHandle<()>> {
        self.threads().drain(..).map(|(_, worker)| worker.stop()).collect()
    }

    fn entered(&self) -> MutexGuard<'_, HashMap<usize, u64>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<(Arc<CrewMember>, Worker)>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other members in service. Connections go on with what they began with.
    pub fn set_members(&self, members: Members) {
        let members = self.replace_members(members);
        self.on_each_worker(move || {
            WorkerState::with(|state| members.listeners.iter().for_each(|listener| state.replace(listener)));
        });
    }

    /// Access lines go to this writer from now on; `None` is no access log.
    pub fn set_access(&self, writer: Option<AccessWriter>) {
        self.on_each_worker(move || WorkerState::with(|state| state.set_access(writer)));
    }

    /// Measures for the stats port from now on; `None` ends that.
    pub fn set_samples(&self, samples: Option<Samples>) {
        self.on_each_worker(move || WorkerState::with(|state| state.set_samples(samples)));
    }

    fn on_each_worker(&self, call: impl FnOnce() + Send + Clone + 'static) {
        self.crew.on_each(call);
    }

    /// Accepts a listener's connections from sockets that listen on `address`.
    fn accept(&self, listener: &Arc<Listener>, address: &Address, sockets: Vec<WorkerSocket>) {
        let crew = self.crew.load();
        for WorkerSocket { number, worker, socket } in sockets {
            let (listener, address) = (Arc::clone(listener), address.clone());
            if let Some(worker) = crew.all().find(|member| member.index == worker) {
                worker.remote.run(move || match listener.config().udp {
                    Some(_) => udp::start(listener, address, number, socket, Vec::new()),
                    None => accept::start(listener, address, number, socket),
                });
            }
        }
    }

    /// Workers begin to take from sockets that listen on `address`, and others stop: pairs of a socket's number and a worker's index.
    pub fn change_sockets(
        &self,
        listener: &Arc<Listener>,
        address: &Address,
        added: Vec<WorkerSocket>,
        removed: &[(usize, usize)],
    ) {
        if listener.config().udp.is_none() {
            self.accept(listener, address, added);
            for (number, worker) in removed {
                self.stop_socket(listener.id(), address, *number, *worker);
            }
            return;
        }
        for socket in added {
            match removed.iter().find(|(number, _)| *number == socket.number) {
                Some((_, worker)) => self.move_socket(listener, address, socket, *worker),
                None => self.accept(listener, address, vec![socket]),
            }
        }
    }

    /// Gives a socket of datagrams to another worker. The one that had it goes on with its sessions.
    fn move_socket(&self, listener: &Arc<Listener>, address: &Address, socket: WorkerSocket, from: usize) {
        let crew = self.crew.load();
        let member = |index: usize| crew.all().find(|member| member.index == index).cloned();
        let WorkerSocket { number, worker, socket } = socket;
        let (Some(from), Some(to)) = (member(from), member(worker)) else { return };
        let (listener, address) = (Arc::clone(listener), address.clone());
        from.remote.run(move || {
            let sessions = udp::hand_over(listener.id(), &address, number, &to);
            to.remote.run(move || udp::start(listener, address, number, socket, sessions));
        });
    }

    /// Reads no datagrams until [`DataPlane::release_datagrams`], as another process has the same sockets.
    pub fn hold_datagrams(&self) {
        self.datagrams_held.store(true, Ordering::Release);
    }

    /// Reads datagrams again.
    pub fn release_datagrams(&self) {
        self.datagrams_held.store(false, Ordering::Release);
        self.on_each_worker(udp::wake);
    }

    /// The open sessions of datagrams, and duplicates of their sockets. Nothing is read from these any more, nor from those that listen.
    pub async fn export_sessions(&self) -> Vec<(HandedSession, OwnedFd)> {
        self.hold_datagrams();
        let store = SessionStore::default();
        let export = store.clone();
        self.asked_of_each(move || export.add(udp::export())).await;
        store.take(|_| true)
    }

    /// Goes on with sessions of another process. Returns when it does.
    pub async fn adopt_sessions(&self, sessions: Vec<(HandedSession, OwnedFd)>) {
        let store = SessionStore::new(sessions);
        self.asked_of_each(move || udp::adopt(&store)).await;
    }

    /// Forgets its sessions of datagrams: another process has them.
    pub async fn forget_sessions(&self) {
        self.asked_of_each(udp::forget).await;
    }

    /// A worker accepts no more from one socket of an address. Another one has a duplicate, and takes what waits there.
    fn stop_socket(&self, listener: ListenerId, address: &Address, number: usize, worker: usize) {
        let address = address.clone();
        if let Some(worker) = self.crew.load().all().find(|member| member.index == worker) {
            worker.remote.run(move || WorkerState::with(|state| state.hand_socket_over(listener, &address, number)));
        }
    }

    /// Takes what waits in the kernel's queues of addresses of a listener, then closes the workers' listening sockets.
    pub fn stop_accepting_at(&self, listener: ListenerId, addresses: Vec<Address>) {
        let addresses: Arc<HashSet<Address>> = Arc::new(addresses.into_iter().collect());
        self.on_each_worker(move || WorkerState::with(|state| state.stop(listener, &addresses)));
    }

    /// Takes what waits in the kernel's queues, then closes the workers' listening sockets.
    pub fn stop_accepting(&self) {
        self.on_each_worker(|| WorkerState::with(WorkerState::stop_accepting));
    }

    /// Returns once nothing is accepted any more and no connection is open.
    pub async fn drained(&self) {
        while self.is_accepting() || self.open() > 0 {
            sleep(DRAIN_POLL).await;
        }
    }

    /// Ends the connections of a listener.
    pub fn abort_listener(&self, listener: ListenerId) {
        self.on_each_worker(move || WorkerState::with(|state| state.abort_listener(listener)));
    }

    /// Ends all connections, as the drain has reached its deadline or, `early`, was aborted before.
    pub fn abort_all(&self, early: bool) {
        let abort = if early { Abort::DrainAborted } else { Abort::DrainDeadline };
        self.on_each_worker(move || WorkerState::with(|state| state.abort_all(abort)));
    }

    /// The open connections that fit a filter, the oldest `limit` of them. One that is open all the while is in it once.
    pub async fn connections(&self, filter: ConnectionFilter, limit: usize) -> ConnectionList {
        connections::list(self, filter, limit).await
    }

    /// Ends the connections that fit a filter: client and backend get RST. Returns how many; those that come after the call
    /// are not among them.
    pub async fn end_connections(&self, filter: ConnectionFilter) -> usize {
        connections::end(self, filter).await
    }

    /// What ends the connections of a backend, for [`Pool::new`].
    pub fn on_cut(&self) -> Box<dyn Fn(BackendId) + Send + Sync> {
        let crew = self.crew.clone();
        Box::new(move |backend| crew.on_each(move || WorkerState::with(|state| state.abort_backend(backend))))
    }

    /// Waits until every worker has carried out what it was asked for before. One that is stuck is not waited for.
    pub async fn wait_until_in_effect(&self) {
        let _ = timeout(EFFECT_LIMIT, self.asked_of_each(|| {})).await;
    }

    /// Has every worker hand over what it has measured. Returns once they have: at once on one that has stopped.
    pub async fn hand_over(&self) {
        self.asked_of_each(|| WorkerState::with(WorkerState::hand_over)).await;
    }

    /// Calls it on each worker, and waits for all of them.
    async fn asked_of_each(&self, call: impl FnOnce() + Send + Clone + 'static) {
        let ask = |worker: &Arc<CrewMember>| {
            let (answer, answered) = oneshot::channel();
            let call = call.clone();
            worker.remote.run(move || {
                call();
                // The one that asked may have gone.
                let _ = answer.send(());
            });
            answered
        };
        let answers: Vec<_> = self.crew.load().all().map(ask).collect();
        for answered in answers {
            let _ = answered.await;
        }
    }
}

/// Gives up what a worker's thread-locals hold. Called at the end of its thread.
fn release() {
    KeptLinks::release();
    udp::release();
    WorkerState::release();
}
