//! The data plane as the control thread sees it: workers, and what they are asked to do.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::accept;
use super::listener::Listener;
use super::plane_state::{Members, PlaneState};
use super::samples::Samples;
use super::worker_state::{Abort, WorkerState};
use crate::log::access::AccessWriter;
use crate::net::addr::Address;
use crate::stats::registry::{BackendId, ListenerId};
use crate::worker::{Remote, Worker};

/// How often a drain looks whether connections are left.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// The data plane, and by dereference what its workers share.
pub struct DataPlane(Arc<PlaneState>);

impl Deref for DataPlane {
    type Target = PlaneState;

    fn deref(&self) -> &PlaneState {
        &self.0
    }
}

/// The threads of the data plane.
pub struct Threads(Vec<Worker>);

impl DataPlane {
    /// Starts the workers, which accept nothing yet, for at most `capacity` connections at once. With `samples`, they measure.
    ///
    /// # Errors
    /// A thread or its descriptors cannot be had.
    pub fn start(
        workers: usize,
        capacity: usize,
        access: Option<&AccessWriter>,
        samples: Option<&Samples>,
    ) -> io::Result<(Arc<DataPlane>, Threads)> {
        let workers = (0..workers)
            .map(|index| Worker::start(&format!("worker-{index}"), WorkerState::release))
            .collect::<io::Result<Vec<_>>>()?;
        let remotes = workers.iter().map(|worker| Arc::clone(worker.remote())).collect();
        let state = PlaneState::new(remotes, workers.len(), capacity);
        for (index, remote) in state.remotes.iter().enumerate() {
            let (state, access, samples) = (Arc::clone(&state), access.cloned(), samples.cloned());
            remote.run(move || WorkerState::install(index, state, access, samples));
        }
        Ok((Arc::new(DataPlane(state)), Threads(workers)))
    }

    /// One without threads.
    #[cfg(test)]
    pub(crate) fn idle(workers: usize) -> Arc<DataPlane> {
        Arc::new(DataPlane(PlaneState::idle(workers)))
    }

    /// Puts other members in service. Connections go on with what they began with.
    pub fn set_members(&self, members: Members) {
        let members = self.replace_members(members);
        self.on_each_worker(move || {
            WorkerState::with(|state| members.listeners.iter().for_each(|listener| state.replace(listener)));
        });
    }

    fn on_each_worker(&self, call: impl FnOnce() + Send + Clone + 'static) {
        on_each(&self.remotes, call);
    }

    /// Accepts a listener's connections from `sockets`, one for each worker: non-blocking, listening on `address`.
    pub fn accept(&self, listener: &Arc<Listener>, address: &Address, sockets: Vec<OwnedFd>) {
        for (remote, socket) in self.remotes.iter().zip(sockets) {
            let (listener, address) = (Arc::clone(listener), address.clone());
            remote.run(move || accept::start(listener, address, socket));
        }
    }

    /// Takes what waits in the kernel's queue of one address of a listener, then closes the workers' listening sockets.
    pub fn stop_accepting_at(&self, listener: ListenerId, address: &Address) {
        let address = address.clone();
        self.on_each_worker(move || WorkerState::with(|state| state.stop(listener, &address)));
    }

    /// Takes what waits in the kernel's queues, then closes the workers' listening sockets.
    pub fn stop_accepting(&self) {
        self.on_each_worker(|| WorkerState::with(WorkerState::stop_accepting));
    }

    /// Returns once nothing is accepted any more and no connection is open.
    pub async fn drained(&self) {
        while self.is_accepting() || self.open() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Ends all connections.
    pub fn abort_all(&self) {
        self.on_each_worker(|| WorkerState::with(|state| state.abort_all(Abort::DrainDeadline)));
    }

    /// What ends the connections of a backend, for [`Pool::new`].
    pub fn on_cut(&self) -> Box<dyn Fn(BackendId) + Send + Sync> {
        let remotes = Arc::clone(&self.remotes);
        Box::new(move |backend| {
            on_each(&remotes, move || WorkerState::with(|state| state.abort_backend(backend)));
        })
    }

    /// Has every worker hand over what it has measured. Returns once they have: at once on one that has stopped.
    pub async fn hand_over(&self) {
        let mut answers = Vec::new();
        for remote in &*self.remotes {
            let (answer, answered) = oneshot::channel();
            remote.run(move || {
                WorkerState::with(WorkerState::hand_over);
                // The one that asked may have gone.
                let _ = answer.send(());
            });
            answers.push(answered);
        }
        for answered in answers {
            let _ = answered.await;
        }
    }
}

impl Threads {
    /// Ends the workers, and with them every connection that is left. Returns their threads, which end as soon as they
    /// can.
    pub fn stop(self) -> Vec<JoinHandle<()>> {
        self.0.into_iter().map(Worker::stop).collect()
    }
}

fn on_each(remotes: &[Arc<Remote>], call: impl FnOnce() + Send + Clone + 'static) {
    for remote in remotes {
        remote.run(call.clone());
    }
}
