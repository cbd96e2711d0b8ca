//! The composition root: wires everything from a configuration, runs it, drains it.

mod apply;
mod capacity;
mod plan;
pub mod privileges;
mod readiness;
mod sockets;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::apply::Running;
pub use self::plan::{ListenerStep, Plan, PoolStep, Step};
use crate::admin::snapshot_model::Snapshot;
use crate::admin::{self, AdminServer, Sources};
use crate::config::model::Config;
use crate::log::DroppedLines;
use crate::log::access::Access;
use crate::net::addr::Address;
use crate::pool::{self, Pool};
use crate::server::{self, DataPlane, Listener, Threads};

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
    running: Running,
    plane: Arc<DataPlane>,
    threads: Threads,
    /// What the stats port shows.
    config: Arc<ArcSwap<Config>>,
    admin: Option<AdminServer>,
    draining: Arc<AtomicBool>,
    /// Timers and reports; they end with the app.
    control: JoinSet<()>,
    _access: Access,
}

/// Why a start or a change failed: a line for each error.
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
    /// Connections that were closed at the deadline.
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
        let capacity = capacity::establish(&config);
        let (samples, measurements) = server::samples();
        let samples = config.admin.is_some().then_some(samples);
        let (plane, threads) = DataPlane::start(workers, capacity, access.writer().as_ref(), samples.as_ref())?;
        drop(samples);

        let mut running = Running::new(Arc::clone(&plane));
        let plan = Plan::between(running.config(), &config);
        let stats_port = config.admin.as_ref().map(admin::bind).transpose().map_err(|error| vec![error]);
        let prepared = running.prepare(&plan, config).await;
        let (prepared, stats_port) = match (prepared, stats_port) {
            (Ok(prepared), Ok(stats_port)) => (prepared, stats_port),
            (prepared, stats_port) => {
                threads.stop();
                let errors = prepared.err().into_iter().chain(stats_port.err()).flatten();
                return Err(StartError(errors.collect()));
            }
        };
        running.commit(prepared);

        let mut control = JoinSet::new();
        control.spawn(keep_time(Arc::clone(&plane)));
        let mut logs = dropped_lines;
        logs.extend(access.dropped_lines());
        let log_counters = logs.iter().map(|log| log.counters().clone()).collect();
        control.spawn(report_dropped_lines(logs));
        let (config, draining) =
            (Arc::new(ArcSwap::from(Arc::clone(running.config()))), Arc::new(AtomicBool::new(false)));
        let mut admin = None;
        if let Some(stats_port) = stats_port {
            let sources = Sources {
                plane: Arc::clone(&plane),
                version: version(),
                started,
                config: Arc::clone(&config),
                draining: Arc::clone(&draining),
                logs: log_counters,
            };
            let stats_port = stats_port.start(sources, measurements)?;
            tracing::info!(address = %stats_port.address(), "stats port");
            admin = Some(stats_port);
        }
        tracing::info!(workers, connection_capacity = capacity, "started");
        let is_ready = readiness::log(&plane);
        control.spawn(readiness::report(Arc::clone(&plane), is_ready, Arc::clone(&draining)));
        Ok(App { running, plane, threads, config, admin, draining, control, _access: access })
    }

    /// Takes another configuration over: connections, counters and listening sockets of what stays are kept. Returns what
    /// has changed.
    ///
    /// # Errors
    /// Everything that is wrong, and then nothing has changed.
    pub async fn apply(&mut self, config: Config) -> Result<Plan, StartError> {
        let plan = Plan::between(self.running.config(), &config);
        let prepared = self.running.prepare(&plan, config).await.map_err(StartError)?;
        self.running.commit(prepared);
        self.config.store(Arc::clone(self.running.config()));
        Ok(plan)
    }

    /// Where each listener listens; port 0 is replaced by the port that the kernel chose.
    pub fn addresses(&self) -> Vec<(Arc<str>, Address)> {
        let of = |listener: &Arc<Listener>| {
            let name = Arc::clone(&listener.config().name);
            listener.addresses().iter().map(|address| (Arc::clone(&name), address.clone())).collect::<Vec<_>>()
        };
        self.plane.listeners().iter().flat_map(of).collect()
    }

    /// The listeners with their counters.
    pub fn listeners(&self) -> Vec<Arc<Listener>> {
        self.plane.listeners()
    }

    /// The pools with their backends' state and counters.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.plane.pools()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.plane.open()
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
        self.running.close_sockets();
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
            self.plane.abort_all();
            // Each is cut in one turn of its worker's loop; who is stuck ends with its worker.
            let _ = timeout(CUT_LIMIT, self.plane.drained()).await;
            Drained::Cut(connections)
        };
        self.control.abort_all();
        let mut threads = self.threads.stop();
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
async fn keep_time(plane: Arc<DataPlane>) {
    let mut ticks = interval(pool::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        plane.members().pools.iter().for_each(|pool| pool.tick(now));
    }
}

async fn report_dropped_lines(mut logs: Vec<DroppedLines>) {
    let mut ticks = interval(REPORT_DROPPED);
    loop {
        ticks.tick().await;
        logs.iter_mut().for_each(DroppedLines::report);
    }
}

#[cfg(test)]
mod tests;
