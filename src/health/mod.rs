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

use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use self::failure::Failure;
use self::verdict::{Change, Verdict};
use crate::config::model::{self, Health, SendProxy};
use crate::log::throttle::Throttle;
use crate::net::addr::Address;
use crate::pool::{Backend, Pool};
use crate::sniff::proxy_protocol::Outgoing;
use crate::stats::counters::Check;

/// Trouble of this host's, whichever of the checks meets it. With a thousand of them, the log would be the next trouble.
static OUR_TROUBLE: Throttle = Throttle::new();

/// The checks of one pool. They end when this is dropped.
pub struct Checks {
    pool: Arc<Pool>,
    /// Only held for its end: every task holds a sender until it has its first verdict.
    first: mpsc::Receiver<Infallible>,
    _tasks: JoinSet<()>,
}

/// Starts to check the backends of `pool`, at once and then at every interval. `None` if it has no checks.
///
/// Verdicts go to [`Pool::set_up`] and [`Pool::set_down`], and changes to the log. Who has to know of a backend that went
/// down asks [`Pool::on_cut`].
///
/// # Panics
///
/// Outside of a tokio runtime with I/O and time enabled.
pub fn spawn(pool: Arc<Pool>) -> Option<Checks> {
    let health = Arc::new(pool.config().health.clone()?);
    let (waiting, first) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    for backend in pool.backends() {
        let checker = Checker {
            pool: Arc::clone(&pool),
            backend: Arc::clone(backend),
            verdict: Verdict::new(&health),
            health: Arc::clone(&health),
            waiting: Some(waiting.clone()),
        };
        tasks.spawn(checker.run());
    }
    Some(Checks { pool, first, _tasks: tasks })
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

/// Checks one backend.
struct Checker {
    pool: Arc<Pool>,
    backend: Arc<Backend>,
    health: Arc<Health>,
    verdict: Verdict,
    /// Dropped with the first verdict.
    waiting: Option<mpsc::Sender<Infallible>>,
}

impl Checker {
    async fn run(mut self) {
        loop {
            let started = Instant::now();
            let outcome = self.probe().await;
            self.settle(outcome, started.elapsed());
            // From start to start. Where a probe has outlasted its interval, the next one starts now, and none is made up for.
            time::sleep_until(started + jittered(self.health.interval, fastrand::f64())).await;
        }
    }

    /// Tries the backend's addresses one after the other, until one passes or the time is up.
    async fn probe(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.health.timeout;
        let addresses = self.backend.addresses();
        let mut outcome = Err(self.no_address());
        for address in &*addresses {
            outcome = time::timeout_at(deadline, self.probe_one(address))
                .await
                .unwrap_or_else(|_| Err(Failure::timed_out(self.health.timeout)));
            if outcome.is_ok() || Instant::now() >= deadline {
                break;
            }
        }
        outcome
    }

    fn no_address(&self) -> Failure {
        match self.backend.condition().reason {
            Some(why) => Failure::theirs(&*why),
            None => Failure::theirs("name is not resolved yet"),
        }
    }

    async fn probe_one(&self, own: &Address) -> Result<(), Failure> {
        let address = self.probed(own);
        let mut connection = tcp::connect(&address, self.pool.source(&address)).await?;
        // Where it is demanded of every connection. A port of its own (`health.port`) is another service, which takes none.
        if let Some(version) = self.pool.config().send_proxy.filter(|_| address == *own) {
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

    /// What follows from a probe.
    fn settle(&mut self, outcome: Result<(), Failure>, took: Duration) {
        let (pool, backend) = (self.pool.name(), self.backend.name());
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
        self.backend.counters().checked(Check { at: SystemTime::now(), took, failure });
        let index = self.backend.index();
        match (self.verdict.observe(reason.is_none()), &reason) {
            (Some(Change::Up), _) => {
                self.pool.set_up(index);
                info!(%pool, %backend, "backend up");
            }
            (Some(Change::Down), reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                self.pool.set_down(index, reason);
                warn!(%pool, %backend, reason, "backend down");
            }
            (None, Some(reason)) => {
                if self.verdict.is_down() {
                    self.pool.set_down(index, reason); // the latest reason is shown
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
