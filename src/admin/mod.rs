//! The stats port: what every backend's latency is right now, and everything else there is to know, where people and
//! tools look for it.
//!
//! It has a thread of its own with a lower priority than the workers'. Connections have limits by kind ([`http`]), and answers
//! are made in rounds ([`answer_throttle`]): readers take little from traffic and nothing from probes. There the [`collector`] takes what workers measure; of that and of the shared counters each
//! question gets a [`Snapshot`](snapshot_model::Snapshot), and each page is one way to write a snapshot down. Calls that change
//! something are in [`changes`]: the control thread carries them out.

mod answer_throttle;
mod changes;
mod collector;
mod compat;
pub mod connections;
mod csv;
mod dashboard;
mod events;
pub mod explain;
mod histograms;
mod http;
mod metrics;
mod pages;
mod predecessors;
mod process;
mod query;
mod rate_limit;
mod rates;
mod readiness;
mod resources;
mod response;
mod service;
mod snapshot;
pub mod snapshot_model;
mod sockets;
mod sources;
mod unix_time;
mod write_timeout;

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::timeout;

use self::collector::Collector;
use self::http::ConnectionSlots;
pub use self::predecessors::answer_drain_call;
pub use self::readiness::{serves, why_not_serving};
use self::service::{Rules, ServeChange, Service};
use self::snapshot_model::Snapshot;
use self::sockets::{AdminSockets, OpenSocket, SocketsChange};
pub use self::sources::Sources;
use crate::config::model;
use crate::net::addr::Address;
use crate::net::inherited::InheritedSockets;
use crate::server::Measurements;
use crate::threads;
use crate::tls::Acceptor;

/// How much lower than that of the workers the thread's priority is (nice(2)).
const NICE: i32 = 10;
/// How long answers may take that were asked for before the end.
pub const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Descriptors beside connections and sockets: the event loop, the token's file, the watch of TLS and its files.
const OWN_FILES: usize = 10;
/// Descriptors of an address: the socket and its duplicate, and those of another address while it changes.
const FILES_PER_ADDRESS: usize = 4;
/// How long the thread may take to serve another address, before a change counts as in effect.
const SERVE_LIMIT: Duration = Duration::from_secs(1);
/// Descriptors that the admin interface may have open with this number of addresses.
pub fn max_open_files(addresses: usize) -> u64 {
    (http::MAX_CONNECTIONS + OWN_FILES + FILES_PER_ADDRESS * addresses) as u64
}

/// A change of the admin interface that cannot fail any more.
pub struct AdminChange {
    sockets: SocketsChange,
    /// `None` leaves them as they are.
    rules: Option<Rules>,
}

/// The stats port: its thread, which goes on measuring while there is no address to serve.
pub struct AdminServer {
    sockets: AdminSockets,
    orders: mpsc::UnboundedSender<Order>,
    end: Arc<Notify>,
    answers: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked for.
enum Order {
    Snapshot(oneshot::Sender<Snapshot>),
    /// Serves other addresses, or by other rules, and answers then.
    Serve(Box<ServeChange>, oneshot::Sender<()>),
}

impl AdminChange {
    /// Where it begins to listen.
    pub fn opened(&self) -> impl Iterator<Item = &Address> {
        self.sockets.opened()
    }
}

impl AdminServer {
    /// Starts to measure. [`AdminServer::serve`] begins to answer, if it `answers`; else it waits for [`AdminServer::answer`].
    ///
    /// # Errors
    /// No thread or no descriptors to be had.
    pub fn start(sources: Sources, measurements: Measurements, answers: bool) -> io::Result<AdminServer> {
        let (orders, mut asked) = mpsc::unbounded_channel();
        let (answers, is_answering) = watch::channel(answers);
        let end = Arc::new(Notify::new());
        let ended = Arc::clone(&end);
        // Made on the thread that it is for: on the caller's, which runs tasks, it could not be dropped.
        let (built, is_built) = std::sync::mpsc::channel();
        let thread = threads::spawn("stats", move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(built.send(Err(error))),
            };
            let _ = built.send(Ok(()));
            // Of this thread alone. Without it, it only is less polite.
            let _ = rustix::process::setpriority_process(None, NICE);
            LocalSet::new().block_on(&runtime, async move {
                let collector = Rc::new(Collector::new(sources, measurements));
                let of_run = Rc::clone(&collector);
                tokio::task::spawn_local(async move { of_run.run().await });
                let slots = Rc::new(ConnectionSlots::default());
                let mut service = Service::new(collector, Rc::clone(&slots), is_answering);
                loop {
                    tokio::select! {
                        Some(order) = asked.recv() => match order {
                            // Who asked may have gone.
                            Order::Snapshot(answer) => {
                                let _ = answer.send(service.snapshot().await);
                            }
                            Order::Serve(change, answer) => {
                                service.change(*change).await;
                                let _ = answer.send(());
                            }
                        },
                        () = ended.notified() => {
                            // Who has asked for the end is to have an answer.
                            let _ = timeout(LAST_ANSWERS, slots.answered()).await;
                            return;
                        }
                    }
                }
            });
        })?;
        is_built.recv().map_err(io::Error::other)??;
        Ok(AdminServer { sockets: AdminSockets::default(), orders, end, answers, thread: Some(thread) })
    }

    /// Prepares a change from one configuration to another: opens the sockets of new addresses, reads another token.
    ///
    /// # Errors
    /// The reason. Nothing has changed then.
    pub fn prepare(
        &self,
        before: Option<&model::AdminConfig>,
        after: &model::AdminConfig,
        tls: Option<Arc<Acceptor>>,
        inherited: &InheritedSockets,
    ) -> Result<AdminChange, String> {
        // A start loads it, and so does an interface that was closed.
        let before = before.filter(|_| self.addresses().next().is_some());
        let of = |it: &model::AdminConfig| (it.token_file.clone(), it.tls.clone(), it.allow.clone());
        let rules = match before {
            Some(before) if of(before) == of(after) => None,
            _ => Some(Rules::load(after, tls)?),
        };
        Ok(AdminChange { sockets: self.sockets.prepare(after, inherited, *self.answers.borrow())?, rules })
    }

    /// Closes every address.
    pub fn closing(&self) -> AdminChange {
        AdminChange { sockets: self.sockets.close(), rules: None }
    }

    /// Makes a change. Requests that were accepted are still answered; streams end with their address, and all of them with
    /// other rules.
    pub async fn commit(&mut self, change: AdminChange) {
        let AdminChange { mut sockets, rules } = change;
        let (added, removed) = (std::mem::take(&mut sockets.added), sockets.removed.clone());
        let mut gone = self.sockets.commit(sockets);
        // No client finds the file without a socket: the new addresses listen already.
        gone.iter_mut().for_each(OpenSocket::remove_file);
        let (answer, answered) = oneshot::channel();
        let change = ServeChange { added, removed, rules };
        if self.orders.send(Order::Serve(Box::new(change), answer)).is_ok() {
            // A thread that hangs in a file system does not hold up the change.
            let _ = timeout(SERVE_LIMIT, answered).await;
        }
    }

    /// Where it listens, in the order in which the addresses came.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.sockets.addresses()
    }

    /// The listening sockets, each with its address as configured and as it is.
    pub fn sockets(&self) -> impl Iterator<Item = (&Address, &Address, BorrowedFd<'_>)> {
        self.sockets.sockets()
    }

    /// Whether connections are accepted. Those that are open go on in any case.
    pub fn answer(&self, answers: bool) {
        if answers {
            self.sockets.set_modes();
        }
        self.answers.send_replace(answers);
    }

    /// What is true now; `None` when the stats port is closed.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.addresses().next()?;
        let (question, answer) = oneshot::channel();
        self.orders.send(Order::Snapshot(question)).ok()?;
        answer.await.ok()
    }

    /// Ends it. Returns the thread, which may hang in a file system.
    pub fn stop(mut self) -> Option<JoinHandle<()>> {
        self.thread.take()
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // The file first: see there.
        self.sockets.remove_files();
        self.answers.send_replace(false);
        self.end.notify_one();
    }
}
