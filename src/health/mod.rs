//! Health checks: periodic probes of backends, on the control thread.
//!
//! One task a backend, one file a kind of probe. [`rise_fall`] turns outcomes into transitions, without I/O; this module
//! passes them to the pool and the log.

mod database;
mod exchange;
mod failure;
mod http;
mod probe;
mod rise_fall;
mod tcp;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use self::database::DatabaseShared;
use self::database::password::{self, PasswordReading};
use self::failure::ProbeFailure;
use self::probe::{CheckContext, Probe};
use self::rise_fall::{RiseFall, StateChange};
use crate::config::model::{AdminState, Health};
use crate::log::throttle::Throttle;
use crate::pool::{Backend, Pool};
use crate::stats::counters::CheckRecord;
use crate::stats::registry::BackendId;
use crate::tls::Connector;

/// Limits warnings about this host's own errors, of which a thousand checks would fill the log.
static LOCAL_ERRORS: Throttle = Throttle::new();

/// Limits warnings about backends that are full, which they may be for hours.
static FULL_BACKENDS: Throttle = Throttle::new();

/// The checks of one pool; dropped, they stop.
pub struct HealthChecks {
    pool: Arc<Pool>,
    context: Arc<CheckContext>,
    /// Closes once every backend has its first outcome: until then, its task holds a sender.
    first: mpsc::Receiver<Infallible>,
    _supervisor: JoinSet<()>,
}

/// Starts to check the backends of `pool`, at once and then at every interval, also those that are added later. `connector` is TLS
/// to them.
///
/// Transitions go to [`Pool::set_up`], [`Pool::set_down`] and the log.
///
/// # Panics
///
/// Outside of a tokio runtime with I/O and time enabled.
pub fn spawn(pool: Arc<Pool>, connector: Option<Arc<Connector>>) -> HealthChecks {
    let (waiting, first) = mpsc::channel(1);
    let generation = pool.generation();
    let (read, readings) = watch::channel(PasswordReading::default());
    let context = Arc::new(CheckContext::new(connector, DatabaseShared::new(readings)));
    let tasks = JoinSet::new();
    let mut running = CheckTasks { context: Arc::clone(&context), tasks, by_backend: HashMap::new() };
    running.spawn_missing(&pool, Some(&waiting));
    let mut supervisor = JoinSet::new();
    supervisor.spawn(running.supervise(Arc::clone(&pool), generation));
    supervisor.spawn(password::watch(Arc::clone(&pool), read));
    HealthChecks { pool, context, first, _supervisor: supervisor }
}

impl HealthChecks {
    /// Replaces TLS to the backends: before the pool's settings that go with it.
    pub fn set_connector(&self, connector: Option<Arc<Connector>>) {
        self.context.set_connector(connector);
    }
}

/// Waits until every backend has its first outcome, at most as long as the probes' timeout, and updates the pools.
pub async fn first_outcomes(checks: &mut [HealthChecks]) {
    for checks in checks {
        // Nothing is ever sent: `None` comes when the last sender is gone.
        while checks.first.recv().await.is_some() {}
        checks.pool.tick(std::time::Instant::now());
    }
}

/// A task for each backend of a pool.
struct CheckTasks {
    context: Arc<CheckContext>,
    tasks: JoinSet<()>,
    by_backend: HashMap<BackendId, AbortHandle>,
}

impl CheckTasks {
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
                let rise_fall = RiseFall::resumed(health, pool.verdict(id));
                let (pool, context) = (Arc::clone(pool), Arc::clone(&self.context));
                let checker = HealthChecker { pool, context, id, rise_fall, waiting: waiting.cloned() };
                self.tasks.spawn(checker.run())
            });
        }
    }
}

/// Checks one backend.
struct HealthChecker {
    pool: Arc<Pool>,
    context: Arc<CheckContext>,
    id: BackendId,
    rise_fall: RiseFall,
    /// Dropped with the first outcome.
    waiting: Option<mpsc::Sender<Infallible>>,
}

impl HealthChecker {
    /// Ends when the backend is gone, or its pool has no checks any more.
    async fn run(mut self) {
        let mut generation = self.pool.generation();
        loop {
            generation.mark_unchanged();
            let settings = self.pool.settings();
            let Some(backend) = self.pool.backend(self.id) else { return };
            let Some(health) = &settings.health else {
                backend.set_database(None);
                return;
            };
            if backend.state() == AdminState::Maintenance {
                self.waiting = None;
                // Its last verdict is stale by the time it is back.
                self.rise_fall = RiseFall::new(health);
                backend.set_database(None);
                if generation.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let probe =
                Probe { pool: &self.pool, context: &self.context, settings: &settings, health, backend: &backend };
            let started = Instant::now();
            let outcome = probe.run().await;
            self.rise_fall.adjust(health);
            self.settle(&backend, outcome, started.elapsed());
            // From start to start. After a probe longer than the interval, the next one starts at once; missed ones are skipped.
            let next = started + jittered(health.interval, fastrand::f64());
            tokio::select! {
                () = time::sleep_until(next) => {}
                // A changed check probes at once.
                () = self.changed(health, &mut generation) => {}
            }
        }
    }

    /// Until what is checked, or whether, is configured differently.
    async fn changed(&self, health: &Health, generation: &mut watch::Receiver<u64>) {
        while generation.changed().await.is_ok() {
            let same = self.pool.settings().health.as_ref().is_some_and(|now| now == health);
            let is_checked = self.pool.backend(self.id).is_some_and(|it| it.state() != AdminState::Maintenance);
            if !same || !is_checked {
                return;
            }
        }
    }
}

impl HealthChecker {
    /// Counts and logs an outcome, and passes a transition to the pool.
    fn settle(&mut self, checked: &Backend, outcome: Result<(), ProbeFailure>, took: Duration) {
        let (pool, backend) = (self.pool.name(), checked.name());
        let reason = match outcome {
            Ok(()) => None,
            Err(ProbeFailure::Backend(reason)) => Some(reason),
            Err(ProbeFailure::Local(reason)) => {
                if let Some(more) = LOCAL_ERRORS.admit(Instant::now().into_std()) {
                    warn!(%pool, %backend, %reason, more, "health check not possible");
                }
                return; // no outcome: nothing was learnt of the backend
            }
            Err(ProbeFailure::Full(reason)) => {
                if let Some(more) = FULL_BACKENDS.admit(Instant::now().into_std()) {
                    warn!(%pool, %backend, %reason, more, "health check not possible: the backend keeps its state");
                }
                let failure = Some(Arc::from(reason));
                checked.counters().checked(CheckRecord { at: SystemTime::now(), took, failure });
                self.waiting = None;
                return;
            }
        };
        let failure = reason.as_deref().map(Arc::from);
        checked.counters().checked(CheckRecord { at: SystemTime::now(), took, failure });
        let settings = checked.settings();
        if let (Some(health), Some(_)) = (&settings.health, &settings.outlier) {
            self.pool.record_check(self.id, reason.is_none(), health.rise.get());
        }
        match (self.rise_fall.observe(reason.is_none()), &reason) {
            (Some(StateChange::Up), _) => {
                self.pool.set_up(self.id);
                info!(%pool, %backend, "backend up");
            }
            (Some(StateChange::Down), reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                self.pool.set_down(self.id, reason);
                warn!(%pool, %backend, reason, "backend down");
            }
            (None, Some(reason)) => {
                if self.rise_fall.is_down() {
                    self.pool.set_down(self.id, reason); // the latest reason is shown
                }
                debug!(%pool, %backend, reason, "health check failed");
            }
            (None, None) => {}
        }
        self.waiting = None;
    }
}

/// The time to the next probe, `random` in 0..1: within 10 % of the interval, so that probes do not march in step.
fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}
