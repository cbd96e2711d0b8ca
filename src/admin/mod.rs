//! The stats port: what every backend's latency is right now, and everything else there is to know, where people and
//! tools look for it.
//!
//! It has a thread of its own with a lower priority than the workers'. Connections have limits by kind ([`http`]), and answers
//! are made in rounds ([`answer_throttle`]): readers take little from traffic and nothing from probes. There the [`collector`] takes what workers measure; of that and of the shared counters each
//! question gets a [`Snapshot`](snapshot_model::Snapshot), and each page is one way to write a snapshot down. Nothing here changes anything.

mod answer_throttle;
mod collector;
mod compat;
mod configuration;
mod csv;
mod dashboard;
pub mod explain;
mod histograms;
mod http;
mod metrics;
mod pages;
mod process;
mod query;
mod rate_limit;
mod rates;
mod readiness;
mod response;
mod snapshot;
pub mod snapshot_model;
mod sources;
mod unix_time;
mod write_timeout;

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;

use self::collector::Collector;
use self::http::{ConnectionSlots, HttpServer, Token};
pub use self::readiness::unusable_pools;
use self::snapshot_model::Snapshot;
pub use self::sources::Sources;
use crate::config::model;
use crate::net::addr::Address;
use crate::net::dial::Options;
use crate::net::listen::{self, ListenOptions, Listening, Sharing};
use crate::net::socket_file::SocketFile;
use crate::server::Measurements;
use crate::threads::{self, BlockingThread};

/// How much lower than that of the workers the thread's priority is (nice(2)).
const NICE: i32 = 10;
/// Descriptors that the stats port may have open: its connections, its event loop, the socket, and the token's file.
pub const MAX_OPEN_FILES: u64 = http::MAX_CONNECTIONS as u64 + 6;
/// Connections that may wait to be accepted: those of strangers who come without a pause, and a probe behind them.
const BACKLOG: i32 = 1024;

/// The stats port before it knows what to show: bound, so that it is known that it can be.
pub struct BoundAdmin {
    socket: OwnedFd,
    file: Option<SocketFile>,
    address: Address,
    token: Option<Token>,
}

/// The stats port.
pub struct AdminServer {
    address: Address,
    questions: mpsc::UnboundedSender<oneshot::Sender<Snapshot>>,
    end: Arc<Notify>,
    thread: JoinHandle<()>,
    /// Its drop must come before the end of the thread, which has the socket.
    file: Option<SocketFile>,
}

/// Binds the stats port and reads its token.
///
/// # Errors
/// The reason.
pub fn bind(config: &model::AdminConfig) -> Result<BoundAdmin, String> {
    let token = config.token_file.as_ref().map(|path| Token::load(path.reveal())).transpose()?;
    let options = ListenOptions {
        backlog: BACKLOG,
        connection: Options { nodelay: true, keepalive: None },
        fast_open: 0,
        defer_accept: 0,
        mptcp: false,
        transparent: false,
        sharing: Sharing::Exclusive,
        v6_only: false,
    };
    let bound = listen::listen(&config.bind, &options)
        .and_then(|listening| Ok((listen::local_address(&listening.socket)?, listening)));
    let (address, Listening { socket, file }) = bound.map_err(|error| {
        let why = listen::explain(&config.bind, &options, &error, None);
        format!("admin: cannot listen on {}: {why}", config.bind)
    })?;
    Ok(BoundAdmin { socket, file, token, address })
}

impl BoundAdmin {
    /// Starts to answer.
    ///
    /// # Errors
    /// No thread or no descriptors to be had.
    pub fn start(self, sources: Sources, measurements: Measurements) -> io::Result<AdminServer> {
        let BoundAdmin { socket, file, address, token } = self;
        let (questions, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<Snapshot>>();
        let end = Arc::new(Notify::new());
        let ended = Arc::clone(&end);
        let reader = token.as_ref().map(|_| BlockingThread::start("token")).transpose()?;
        // Made on the thread that it is for: on the caller's, which runs tasks, it could not be dropped.
        let (built, is_built) = std::sync::mpsc::channel();
        let listener = http::ListeningSocket::new(socket, &address)?;
        let bound = address.clone();
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
                let (token, slots) = (token.map(Rc::new), Rc::new(ConnectionSlots::default()));
                if let (Some(token), Some(reader)) = (&token, reader) {
                    let (token, slots) = (Rc::clone(token), Rc::clone(&slots));
                    // Requests show the token each; a stream has shown one that is no longer valid.
                    tokio::task::spawn_local(async move { token.watch(reader, || slots.end_streams()).await });
                }
                let server = HttpServer::new(&bound, token, Rc::clone(&collector), slots);
                tokio::task::spawn_local(server.serve(listener));
                loop {
                    tokio::select! {
                        Some(question) = asked.recv() => {
                            // Who asked may have gone.
                            let _ = question.send(Snapshot::clone(&*collector.snapshot().await));
                        }
                        () = ended.notified() => return,
                    }
                }
            });
        })?;
        is_built.recv().map_err(io::Error::other)??;
        Ok(AdminServer { address, questions, end, thread, file })
    }
}

impl AdminServer {
    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What is true now; `None` when the stats port has ended, which it does only with the process.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (question, answer) = oneshot::channel();
        self.questions.send(question).ok()?;
        answer.await.ok()
    }

    /// Ends it. Returns the thread, which may hang in a file system.
    pub fn stop(self) -> JoinHandle<()> {
        drop(self.file);
        self.end.notify_one();
        self.thread
    }
}
