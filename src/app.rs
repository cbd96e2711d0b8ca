//! The composition root: wires everything from a configuration, runs it, drains it.

mod apply;
mod capacity;
mod config_watch;
pub mod control;
mod geoip;
mod plan;
pub mod privileges;
mod readiness;
mod restore;
mod sockets;
mod stats_port;
pub mod upgrade;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::apply::Running;
use self::capacity::InUse;
pub use self::plan::{ListenerStep, Plan, PoolStep, Step};
use self::stats_port::AdminPort;
use self::upgrade::inheritance::{Inheritance, SocketInfo};
use crate::admin::snapshot_model::Snapshot;
use crate::admin::{self, Sources};
use crate::config::model::{Config, ListenAddress};
use crate::control::request::ChangeSender;
use crate::control::status::SharedStatus;
use crate::geoip::GeoIp;
use crate::log::{DroppedLines, Logging};
use crate::net::addr::Address;
use crate::net::inherited::InheritedSockets;
use crate::pool::{self, Pool};
use crate::server::{DataPlane, Listener};

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
    /// What the stats port shows.
    config: Arc<ArcSwap<Config>>,
    admin: AdminPort,
    inherited: Arc<InheritedSockets>,
    draining: Arc<AtomicBool>,
    /// Timers and reports; they end with the app.
    control: JoinSet<()>,
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

/// How a balancer is asked for changes while it runs.
#[derive(Clone, Default)]
pub struct ControlLink {
    /// Where the admin interface sends changes; without it, there are none.
    pub changes: Option<ChangeSender>,
    /// Which configuration is in effect.
    pub status: Arc<SharedStatus>,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection ended by itself.
    Clean,
    /// Connections that were closed, at the deadline or before.
    Cut(usize),
}

impl App {
    /// Binds, checks the backends, and accepts. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// A listener cannot be bound, the access log cannot be opened, or the system has no threads or
    /// descriptors left.
    pub async fn start(config: Config, logging: &Logging, link: ControlLink) -> Result<App, StartError> {
        App::start_with(config, logging, link, Inheritance::default()).await
    }

    /// As [`App::start`], with what the process has from others: addresses that have sockets are not bound.
    ///
    /// # Errors
    /// Those of [`App::start`].
    pub async fn start_with(
        config: Config,
        logging: &Logging,
        link: ControlLink,
        inheritance: Inheritance,
    ) -> Result<App, StartError> {
        let started = (SystemTime::now(), Instant::now());
        let Inheritance { sockets: inherited, verdicts, answers_later, .. } = inheritance;
        let plane = DataPlane::new();
        if answers_later {
            // The process that this one replaces still reads them.
            plane.hold_datagrams();
        }
        let inherited = Arc::new(inherited);
        let geoip: Arc<GeoIp> = Arc::default();
        let mut running =
            Running::new(Arc::clone(&plane), Arc::clone(&geoip), logging, Arc::clone(&inherited), verdicts);
        let plan = Plan::between(running.config(), &config);
        let (shown, draining) = (Arc::new(ArcSwap::from(Arc::clone(running.config()))), Arc::default());
        let status = Arc::clone(&link.status);
        let sources = Sources {
            plane: Arc::clone(&plane),
            version: version(),
            started,
            config: Arc::clone(&shown),
            draining: Arc::clone(&draining),
            interface: Arc::default(),
            geoip,
            changes: link.changes,
            status: link.status,
            logging: logging.clone(),
        };
        let mut admin = AdminPort::new(sources, !answers_later);
        let port = admin.prepare(None, config.admin.as_ref(), &inherited).map_err(|error| vec![error]);
        let (prepared, port) = both(running.prepare(&plan, config).await, port)?;
        status.set_accepts();
        running.commit(prepared);
        shown.store(Arc::clone(running.config()));
        for socket in inherited.close_rest() {
            tracing::warn!(%socket, "closed an inherited socket: no listener has its address");
        }

        let mut control = JoinSet::new();
        control.spawn(report_dropped_lines(logging.dropped_lines()));
        control.spawn(keep_time(Arc::clone(&plane), Arc::clone(&shown), Arc::clone(&running.listening)));
        admin.commit(port).await;
        plane.set_samples(admin.samples());
        tracing::info!(workers = plane.workers(), connection_capacity = plane.size(), "started");
        let is_ready = readiness::log(&plane);
        control.spawn(readiness::report(Arc::clone(&plane), is_ready, Arc::clone(&draining)));
        Ok(App { running, plane, config: shown, admin, inherited, draining, control })
    }

    /// Takes another configuration over: connections, counters and listening sockets of what stays are kept. Returns what
    /// has changed.
    ///
    /// # Errors
    /// Everything that is wrong, and then nothing has changed.
    pub async fn apply(&mut self, config: Config) -> Result<Plan, StartError> {
        let plan = Plan::between(self.running.config(), &config);
        let before = self.running.config().admin.as_ref();
        let port = self.admin.prepare(before, config.admin.as_ref(), &self.inherited).map_err(|error| vec![error]);
        let (prepared, port) = both(self.running.prepare(&plan, config).await, port)?;
        self.running.commit(prepared);
        self.config.store(Arc::clone(self.running.config()));
        self.admin.commit(port).await;
        // Of new workers too.
        self.plane.set_samples(self.admin.samples());
        self.plane.wait_until_in_effect().await;
        Ok(plan)
    }

    /// The configuration in effect.
    pub fn config(&self) -> &Arc<Config> {
        self.running.config()
    }

    /// Where each listener listens; port 0 is replaced by the port that the kernel chose.
    pub fn addresses(&self) -> Vec<(Arc<str>, Address)> {
        let of = |listener: &Arc<Listener>| {
            let name = Arc::clone(&listener.config().name);
            let addresses = listener.addresses().iter().flat_map(ListenAddress::addresses);
            addresses.map(|address| (Arc::clone(&name), address)).collect::<Vec<_>>()
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

    /// The first address of the admin interface; `None` if there is none.
    pub fn stats_port(&self) -> Option<&Address> {
        self.admin.address()
    }

    /// Everything that the stats port shows; `None` without one.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.admin.snapshot().await
    }

    /// The data plane: listeners, pools, connections.
    pub fn plane(&self) -> &Arc<DataPlane> {
        &self.plane
    }

    /// The listening sockets, the admin interface's included, to be handed over to another process.
    pub fn listening_sockets(&self) -> Vec<(SocketInfo, BorrowedFd<'_>)> {
        let admin = self
            .admin
            .sockets()
            .map(|(configured, actual, socket)| (SocketInfo::new(None, configured, actual, socket, 0), socket));
        self.running.listening_sockets().chain(admin).collect()
    }

    /// Whether the admin interface accepts connections. Those that it does not accept wait, or are another process's.
    pub fn answer(&self, answers: bool) {
        self.admin.answer(answers);
    }

    /// Says that the process is not ready any more, and goes on accepting for `delay` or until `hurry` is ready: a load balancer in front
    /// has time to notice. [`App::drain`] comes next.
    pub async fn announce_drain(&self, delay: Duration, hurry: impl Future<Output = ()>) {
        if delay.is_zero() {
            return;
        }
        self.draining.store(true, Ordering::Relaxed);
        tracing::info!(?delay, "shutting down: not ready any more, still accepting");
        tokio::select! {
            () = sleep(delay) => {}
            () = hurry => {}
        }
    }

    /// Stops accepting, waits until every connection has ended, at most for `limit` or until `hurry` is ready,
    /// then cuts those that are left.
    pub async fn drain(mut self, limit: Duration, hurry: impl Future<Output = ()>) -> Drained {
        self.draining.store(true, Ordering::Relaxed);
        tracing::info!(connections = self.open(), deadline = ?limit, "draining");
        // First, so that no client finds a file behind which the socket is closed.
        self.running.close_sockets();
        self.plane.stop_accepting();
        // `None` once it is aborted.
        let in_time = tokio::select! {
            drained = timeout(limit, self.plane.drained()) => Some(drained.is_ok()),
            () = hurry => None,
        };
        let outcome = if in_time == Some(true) {
            tracing::info!("drain complete");
            Drained::Clean
        } else {
            let connections = self.open();
            match in_time {
                Some(_) => tracing::warn!(connections, "drain deadline exceeded: closed {connections} connections"),
                None => tracing::warn!(connections, "drain aborted: closed {connections} connections"),
            }
            self.plane.abort_all(in_time.is_none());
            // Each is cut in one turn of its worker's loop; who is stuck ends with its worker.
            let _ = timeout(CUT_LIMIT, self.plane.drained()).await;
            Drained::Cut(connections)
        };
        self.control.abort_all();
        end_of(&self.plane.stop(), THREADS_LIMIT).await;
        let admin: Vec<_> = self.admin.stop().into_iter().collect();
        end_of(&admin, THREADS_LIMIT + admin::LAST_ANSWERS).await;
        outcome
    }
}

/// Both, or the errors of both.
fn both<A, B>(one: Result<A, Vec<String>>, other: Result<B, Vec<String>>) -> Result<(A, B), StartError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => Err(StartError(one.err().into_iter().chain(other.err()).flatten().collect())),
    }
}

/// Waits for the threads to end, at most for `limit`.
async fn end_of(threads: &[JoinHandle<()>], limit: Duration) {
    let all_ended = async {
        while !threads.iter().all(JoinHandle::is_finished) {
            sleep(THREADS_POLL).await;
        }
    };
    // A thread that is stuck does not hold up the exit.
    let _ = timeout(limit, all_ended).await;
}

/// The version, and the commit that it was built from.
fn version() -> (&'static str, &'static str) {
    (env!("CARGO_PKG_VERSION"), env!("TIDEGATE_GIT_HASH"))
}

/// Pools' slow starts and aging latencies, and the ends of workers.
async fn keep_time(plane: Arc<DataPlane>, config: Arc<ArcSwap<Config>>, listening: Arc<AtomicUsize>) {
    let mut ticks = interval(pool::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        plane.members().pools.iter().for_each(|pool| pool.tick(now));
        if plane.end_retired() {
            let used = InUse { workers: plane.threads(), listening: listening.load(Ordering::Relaxed) };
            capacity::establish(&config.load(), used, &plane);
        }
    }
}

async fn report_dropped_lines(mut lines: DroppedLines) {
    let mut ticks = interval(REPORT_DROPPED);
    loop {
        ticks.tick().await;
        lines.report();
    }
}

#[cfg(test)]
mod tests;
