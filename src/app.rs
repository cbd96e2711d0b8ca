//! The composition root: wires everything from a configuration, runs it, drains it.

mod capacity;
pub mod privileges;
mod readiness;
mod secured;
mod sockets;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::secured::Secured;
use self::sockets::Bound;
use crate::admin::snapshot_model::Snapshot;
use crate::admin::{self, AdminServer, Sources};
use crate::config::model::Config;
use crate::health;
use crate::log::DroppedLines;
use crate::log::access::Access;
use crate::net::addr::Address;
use crate::net::socket_file::SocketFile;
use crate::pool::resolve::Resolver;
use crate::pool::{self, Pool};
use crate::server::{self, ListenerState, Plane, Shared};
use crate::stats::registry::Registry;
use crate::tls;

/// How long the start waits for names to be resolved. Those that are not by then have no address yet.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// How long the start waits for the first verdicts of the health checks, so that the first connections find
/// backends; meanwhile they wait in the kernel's queue.
const FIRST_VERDICTS_LIMIT: Duration = Duration::from_secs(1);
/// How often dropped log lines are reported.
const REPORT_DROPPED: Duration = Duration::from_secs(5);
/// How long threads may take to end that have nothing left to do.
const THREADS_LIMIT: Duration = Duration::from_millis(20);
const THREADS_POLL: Duration = Duration::from_millis(1);
/// After all connections were cut: how long their ends may take.
const CUT_LIMIT: Duration = Duration::from_secs(1);

/// A running balancer.
///
/// It is started, asked and drained on a tokio runtime, the control thread: health checks and the like run
/// there. Connections have threads of their own.
pub struct App {
    plane: Plane,
    addresses: Vec<(Arc<str>, Address)>,
    admin: Option<AdminServer>,
    draining: Arc<AtomicBool>,
    /// Names, timers of the pools, reports; they end with the app, as do the health checks.
    control: JoinSet<()>,
    _checks: Vec<health::Checks>,
    socket_files: Vec<SocketFile>,
    _access: Access,
}

/// Why a balancer could not be started. The text is for people, a line for each error.
#[derive(Debug)]
pub struct StartError(Vec<String>);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError(vec![error.to_string()])
    }
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection ended by itself.
    Clean,
    /// So many connections had to be cut.
    Cut(usize),
}

impl App {
    /// Binds, checks the backends, and accepts. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// A listener cannot be bound, the access log cannot be opened, or the system has no threads or
    /// descriptors left.
    pub async fn start(config: Config, dropped_lines: Vec<DroppedLines>, access: Access) -> Result<App, StartError> {
        let started = (SystemTime::now(), Instant::now());
        let workers = config.workers.get();
        let registry = Registry::default();
        let pools: Vec<Arc<Pool>> =
            config.pools.iter().map(|pool| Pool::new(pool.clone(), &registry, workers)).collect();
        let Secured { servers, clients, upstreams } = Secured::load(&config, &pools).map_err(StartError)?;
        let listeners: Vec<Arc<ListenerState>> = config
            .listeners
            .iter()
            .zip(&servers)
            .map(|(listener, tls)| ListenerState::new(listener.clone(), &registry, &pools, tls.clone(), workers))
            .collect();
        let capacity = capacity::establish(&config);
        let Bound { sockets, addresses, socket_files } = sockets::bind(&listeners, workers).map_err(StartError)?;
        let stats_port = config.admin.as_ref().map(admin::bind).transpose();
        let stats_port = stats_port.map_err(|error| StartError(vec![error]))?;

        let mut control = JoinSet::new();
        let mut resolver = Resolver::new(&pools);
        resolver.resolve_all(RESOLVE_LIMIT).await;
        control.spawn(resolver.run());
        let mut checks: Vec<health::Checks> = pools.iter().map(|pool| health::spawn(Arc::clone(pool))).collect();
        // Too slow ones come in when they come in.
        let _ = timeout(FIRST_VERDICTS_LIMIT, health::first_verdicts(&mut checks)).await;
        control.spawn(keep_time(pools.clone()));
        let servers: Vec<_> = servers.into_iter().flatten().collect();
        if !servers.is_empty() || !clients.is_empty() {
            control.spawn(tls::watch::run(servers.clone(), clients.clone())?);
        }
        let mut logs = dropped_lines;
        logs.extend(access.dropped_lines());
        let log_counters = logs.iter().map(|log| log.counters().clone()).collect();
        control.spawn(report_dropped_lines(logs));

        let shared = Shared::new(pools, upstreams, listeners, workers, capacity);
        let (samples, measurements) = server::samples();
        let samples = stats_port.is_some().then_some(samples);
        let plane = Plane::start(shared, sockets, access.writer().as_ref(), samples.as_ref())?;
        for (listener, address) in &addresses {
            tracing::info!(%listener, %address, "listening");
        }
        let draining = Arc::new(AtomicBool::new(false));
        let mut admin = None;
        if let Some(stats_port) = stats_port {
            let shared = Arc::clone(plane.shared());
            let (addresses, version, draining) = (addresses.clone(), version(), Arc::clone(&draining));
            let config = Arc::new(config);
            let logs = log_counters;
            let sources = Sources { shared, addresses, servers, clients, version, started, config, draining, logs };
            let stats_port = stats_port.start(sources, measurements)?;
            tracing::info!(address = %stats_port.address(), "stats port");
            admin = Some(stats_port);
        }
        tracing::info!(workers, connection_capacity = capacity, "started");
        let is_ready = readiness::log(plane.shared());
        control.spawn(readiness::report(Arc::clone(plane.shared()), is_ready, Arc::clone(&draining)));
        Ok(App { plane, addresses, admin, draining, control, _checks: checks, socket_files, _access: access })
    }

    /// Where each listener listens; port 0 is replaced by the port that the kernel chose.
    pub fn addresses(&self) -> &[(Arc<str>, Address)] {
        &self.addresses
    }

    /// The listeners with their counters.
    pub fn listeners(&self) -> &[Arc<ListenerState>] {
        self.plane.shared().listeners()
    }

    /// The pools with their backends' state and counters.
    pub fn pools(&self) -> &[Arc<Pool>] {
        self.plane.shared().pools()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.plane.shared().open()
    }

    /// Where the stats port is; `None` if there is none.
    pub fn stats_port(&self) -> Option<&Address> {
        self.admin.as_ref().map(AdminServer::address)
    }

    /// Everything that the stats port shows; `None` without one.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.admin.as_ref()?.snapshot().await
    }

    /// Stops accepting, waits until every connection has ended, at most for `limit` or until `hurry` is ready,
    /// then cuts those that are left.
    pub async fn drain(mut self, limit: Duration, hurry: impl Future<Output = ()>) -> Drained {
        tracing::info!(connections = self.open(), deadline = ?limit, "draining");
        self.draining.store(true, Ordering::Relaxed);
        // First, so that no client finds a file behind which the socket is closed.
        self.socket_files.clear();
        self.plane.stop_accepting();
        let in_time = tokio::select! {
            drained = timeout(limit, self.plane.drained()) => drained.is_ok(),
            () = hurry => false,
        };
        let outcome = if in_time {
            tracing::info!("drain complete");
            Drained::Clean
        } else {
            let connections = self.open();
            tracing::warn!(connections, "drain deadline exceeded: closed {connections} connections");
            self.plane.cut_all();
            // Each is cut in one turn of its worker's loop; who is stuck ends with its worker.
            let _ = timeout(CUT_LIMIT, self.plane.drained()).await;
            Drained::Cut(connections)
        };
        self.control.abort_all();
        let mut threads = self.plane.stop();
        threads.extend(self.admin.take().map(AdminServer::stop));
        end_of(&threads).await;
        outcome
    }
}

/// Waits for the threads to end, at most for [`THREADS_LIMIT`].
async fn end_of(threads: &[JoinHandle<()>]) {
    let all_ended = async {
        while !threads.iter().all(JoinHandle::is_finished) {
            sleep(THREADS_POLL).await;
        }
    };
    // A thread that is stuck does not hold up the exit.
    let _ = timeout(THREADS_LIMIT, all_ended).await;
}

/// The version, and the commit that it was built from.
fn version() -> (&'static str, &'static str) {
    (env!("CARGO_PKG_VERSION"), env!("TIDEGATE_GIT_HASH"))
}

/// Pools' slow starts and aging latencies.
async fn keep_time(pools: Vec<Arc<Pool>>) {
    let mut ticks = interval(pool::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for pool in &pools {
            pool.tick(now);
        }
    }
}

async fn report_dropped_lines(mut logs: Vec<DroppedLines>) {
    let mut ticks = interval(REPORT_DROPPED);
    loop {
        ticks.tick().await;
        logs.iter_mut().for_each(DroppedLines::report);
    }
}
