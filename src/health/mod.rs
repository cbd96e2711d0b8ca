//! Health checks: whether backends are well, asked again and again on the control thread.
//!
//! One task a backend. What a probe's outcome means is [`verdict`]'s to say, which is pure; how to
//! probe is one file a kind. The pool is told what has changed, and never learns who probes it.

mod exchange;
mod failure;
mod http;
mod tcp;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use self::failure::Failure;
use self::verdict::{Change, Verdict};
use crate::config::model::{self, Health, SendProxy};
use crate::log::throttle::Throttle;
use crate::net::addr::Address;
use crate::pool::{Backend, Pool};
use crate::sniff::proxy_protocol::Outgoing;
use crate::stats::counters::CheckRecord;
use crate::stats::registry::BackendId;

/// Trouble of this host's, whichever of the checks meets it. With a thousand of them, the log would be the next trouble.
static OUR_TROUBLE: Throttle = Throttle::new();

/// The checks of one pool. They end when this is dropped.
pub struct Checks {
    pool: Arc<Pool>,
    /// Only held for its end: every task holds a sender until it has its first verdict.
    first: mpsc::Receiver<Infallible>,
    _supervisor: JoinSet<()>,
}

/// Starts to check the backends of `pool`, at once and then at every interval: those that it has, and those that come.
///
/// Verdicts go to [`Pool::set_up`] and [`Pool::set_down`], and changes to the log.
///
/// # Panics
///
/// Outside of a tokio runtime with I/O and time enabled.
pub fn spawn(pool: Arc<Pool>) -> Checks {
    let (waiting, first) = mpsc::channel(1);
    let generation = pool.generation();
    let mut running = Running::default();
    running.spawn_missing(&pool, Some(&waiting));
    let mut supervisor = JoinSet::new();
    supervisor.spawn(running.supervise(Arc::clone(&pool), generation));
    Checks { pool, first, _supervisor: supervisor }
}

/// Waits until every backend had its first verdict, and the pools go by all of them. A check that never ends is not waited for
/// longer than its timeout; the caller may have less patience.
pub async fn first_verdicts(checks: &mut [Checks]) {
    for checks in checks {
        // Nothing is ever sent: `None` comes when the last sender is gone.
        while checks.first.recv().await.is_some() {}
        checks.pool.tick(std::time::Instant::now());
    }
}

/// A task for each backend of a pool.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    by_backend: HashMap<BackendId, AbortHandle>,
}

impl Running {
    async fn supervise(mut self, pool: Arc<Pool>, mut generation: watch::Receiver<u64>) {
        loop {
            tokio::select! {
                changed = generation.changed() => if changed.is_err() { return },
                Some(_) = self.tasks.join_next() => {}
            }
            self.spawn_missing(&pool, None);
        }
    }

    fn spawn_missing(&mut self, pool: &Arc<Pool>, waiting: Option<&mpsc::Sender<Infallible>>) {
        self.by_backend.retain(|_, task| !task.is_finished());
        let settings = pool.settings();
        let Some(health) = &settings.health else { return };
        for backend in pool.backends().iter() {
            let id = backend.id();
            self.by_backend.entry(id).or_insert_with(|| {
                let verdict = Verdict::new(health);
                let checker = Checker { pool: Arc::clone(pool), id, verdict, waiting: waiting.cloned() };
                self.tasks.spawn(checker.run())
            });
        }
    }
}

/// Checks one backend.
struct Checker {
    pool: Arc<Pool>,
    id: BackendId,
    verdict: Verdict,
    /// Dropped with the first verdict.
    waiting: Option<mpsc::Sender<Infallible>>,
}

/// One probe: whom, and how.
struct Probe<'a> {
    pool: &'a Pool,
    settings: &'a model::Pool,
    health: &'a Health,
    backend: &'a Backend,
}

impl Checker {
    /// Ends when the backend is gone, or its pool has no checks any more.
    async fn run(mut self) {
        loop {
            let settings = self.pool.settings();
            let (Some(health), Some(backend)) = (&settings.health, self.pool.backend(self.id)) else { return };
            let probe = Probe { pool: &self.pool, settings: &settings, health, backend: &backend };
            let started = Instant::now();
            let outcome = probe.run().await;
            self.verdict.adjust(health);
            self.settle(&backend, outcome, started.elapsed());
            // From start to start. Where a probe has outlasted its interval, the next one starts now, and none is made up for.
            time::sleep_until(started + jittered(health.interval, fastrand::f64())).await;
        }
    }
}

impl Probe<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let Some(address) = self.backend.address() else { return Err(self.no_address()) };
        time::timeout(self.health.timeout, self.of(address))
            .await
            .unwrap_or_else(|_| Err(Failure::timed_out(self.health.timeout)))
    }

    fn no_address(&self) -> Failure {
        match self.backend.status().reason {
            Some(why) => Failure::theirs(&*why),
            None => Failure::theirs("name is not resolved yet"),
        }
    }

    async fn of(&self, own: &Address) -> Result<(), Failure> {
        let address = self.probed(own);
        let source = self.pool.source(self.settings, &address);
        let mut connection = tcp::connect(&address, source).await?;
        // Where it is demanded of every connection. A port of its own (`health.port`) is another service, which takes none.
        if let Some(version) = self.settings.send_proxy.filter(|_| address == *own) {
            match connection.write_all(&header(version)).await {
                // Closed already; what is said before that tells more.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
                sent => sent?,
            }
        }
        match &self.health.check {
            model::Check::Tcp => Ok(()),
            model::Check::Http(check) => {
                let host = http::host(check, self.backend.configured_address(), &address);
                http::probe(connection, &host, check).await
            }
            model::Check::Exchange { send, expect } => {
                exchange::probe(connection, send.reveal(), expect.reveal()).await
            }
        }
    }

    fn probed(&self, address: &Address) -> Address {
        match (address, self.health.port) {
            (Address::Tcp(address), Some(port)) => {
                let mut address = *address;
                address.set_port(port);
                Address::Tcp(address)
            }
            _ => address.clone(),
        }
    }
}

impl Checker {
    /// What follows from a probe.
    fn settle(&mut self, checked: &Backend, outcome: Result<(), Failure>, took: Duration) {
        let (pool, backend) = (self.pool.name(), checked.name());
        let reason = match outcome {
            Ok(()) => None,
            Err(Failure::Theirs(reason)) => Some(reason),
            Err(Failure::Ours(reason)) => {
                if let Some(more) = OUR_TROUBLE.admit(Instant::now().into_std()) {
                    warn!(%pool, %backend, %reason, more, "health check not possible");
                }
                return; // no verdict: the backend had no chance
            }
        };
        let failure = reason.as_deref().map(Arc::from);
        checked.counters().checked(CheckRecord { at: SystemTime::now(), took, failure });
        match (self.verdict.observe(reason.is_none()), &reason) {
            (Some(Change::Up), _) => {
                self.pool.set_up(self.id);
                info!(%pool, %backend, "backend up");
            }
            (Some(Change::Down), reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                self.pool.set_down(self.id, reason);
                warn!(%pool, %backend, reason, "backend down");
            }
            (None, Some(reason)) => {
                if self.verdict.is_down() {
                    self.pool.set_down(self.id, reason); // the latest reason is shown
                }
                debug!(%pool, %backend, reason, "health check failed");
            }
            (None, None) => {}
        }
        self.waiting = None;
    }
}

/// The PROXY header of a connection that is tidegate's own: UNKNOWN, or LOCAL.
fn header(version: SendProxy) -> Vec<u8> {
    let own = Outgoing::default();
    match version {
        SendProxy::V1 => own.v1(),
        SendProxy::V2 => own.v2(),
    }
}

/// The time to the next probe, `random` in 0..1: within 10 % of the interval, so that probes do not march in step.
fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}
