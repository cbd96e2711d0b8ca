//! Connections: accepted, given a backend, relayed, and what they leave behind.
//!
//! [`Plane`] is the data plane as the control thread sees it: workers and what they share.
//! [`session`] is the life of one connection, top-down.

mod accept;
mod ahead;
mod cancel;
mod context;
mod dial;
mod farewell;
mod gate;
mod last_words;
mod opening;
mod peer;
mod samples;
mod screened;
mod session;
mod upstream;
mod wanted;
mod watched;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use context::{Context, Cut};
pub use context::{ListenerState, Refusal, Shared};
pub use samples::{Measurements, Samples, samples};
pub use upstream::Upstream;
pub use wanted::Wanted;

use crate::log::access::AccessWriter;
use crate::stats::registry::BackendId;
use crate::worker::Worker;

/// How often a drain looks whether connections are left.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// The running data plane.
pub struct Plane {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

/// A listening socket for one worker.
pub struct Accepting {
    /// Whose connections it takes.
    pub listener: Arc<ListenerState>,
    /// Non-blocking, listening.
    pub socket: OwnedFd,
}

impl Plane {
    /// Starts as many workers as `sockets` has entries, each with its listening sockets, and accepts. With `samples`,
    /// they measure.
    ///
    /// # Errors
    /// A thread or its descriptors cannot be had.
    pub fn start(
        shared: Arc<Shared>,
        sockets: Vec<Vec<Accepting>>,
        access: Option<&AccessWriter>,
        samples: Option<&Samples>,
    ) -> io::Result<Plane> {
        let workers = (0..sockets.len())
            .map(|index| Worker::start(&format!("worker-{index}"), Context::release))
            .collect::<io::Result<Vec<_>>>()?;
        shared.set_remotes(workers.iter().map(|worker| Arc::clone(worker.remote())).collect());
        for (index, (worker, sockets)) in workers.iter().zip(sockets).enumerate() {
            let (shared, access, samples) = (Arc::clone(&shared), access.cloned(), samples.cloned());
            worker.remote().run(move || {
                Context::install(index, shared, access, samples);
                for accepting in sockets {
                    accept::start(accepting);
                }
            });
        }
        for pool in shared.pools() {
            let shared = Arc::downgrade(&shared);
            pool.on_cut(Box::new(move |backend| {
                if let Some(shared) = shared.upgrade() {
                    shared.cut_backend(backend);
                }
            }));
        }
        Ok(Plane { shared, workers })
    }

    /// What the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes what waits in the kernel's queues, then closes the listening sockets.
    pub fn stop_accepting(&self) {
        self.shared.on_each_worker(|| Context::with(Context::stop_accepting));
    }

    /// Returns once nothing is accepted any more and no connection is open.
    pub async fn drained(&self) {
        while self.shared.accepting() > 0 || self.shared.open() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Ends all connections.
    pub fn cut_all(&self) {
        self.shared.on_each_worker(|| Context::with(|context| context.cut_all(Cut::DrainDeadline)));
    }

    /// Ends the workers, and with them every connection that is left. Returns their threads, which end as soon as they
    /// can.
    pub fn stop(self) -> Vec<JoinHandle<()>> {
        self.workers.into_iter().map(Worker::stop).collect()
    }
}

impl Shared {
    /// Has every worker hand over what it has measured. Returns once they have: at once on one that has stopped.
    pub async fn hand_over(&self) {
        let mut answers = Vec::new();
        for remote in self.remotes() {
            let (answer, answered) = oneshot::channel();
            remote.run(move || {
                Context::with(Context::hand_over);
                // Who asked may have gone.
                let _ = answer.send(());
            });
            answers.push(answered);
        }
        for answered in answers {
            let _ = answered.await;
        }
    }

    fn cut_backend(&self, backend: BackendId) {
        self.on_each_worker(move || Context::with(|context| context.cut_backend(backend)));
    }
}
