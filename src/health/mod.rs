//! Health checks: periodic probes of backends, on the control thread.
//!
//! One task a backend of a pool, one file a kind of probe; pools that have the same server share its probes ([`shared`]).
//! [`rise_fall`] turns outcomes into transitions, and [`claims`] finds several primaries, both without I/O; this module passes
//! what they say to the pool and the log.

mod claims;
mod database;
mod exchange;
mod failure;
mod http;
mod observation;
mod probe;
mod rise_fall;
mod roles;
mod shared;
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
use self::observation::Questions;
use self::probe::{CheckContext, Probe};
use self::rise_fall::{ProbeResult, RiseFall, StateChange};
use self::roles::Judgement;
pub use self::shared::SharedProbes;
use self::shared::{ProbeOutcome, SharedProbe};
use crate::config::model::{AdminState, Health, PoolConfig};
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
/// to them. Checks of `shared` serve this pool too.
///
/// Transitions go to [`Pool::set_up`], [`Pool::set_down`] and the log.
///
/// # Panics
///
/// Outside of a tokio runtime with I/O and time enabled.
pub fn spawn(pool: Arc<Pool>, connector: Option<Arc<Connector>>, shared: SharedProbes) -> HealthChecks {
    let (waiting, first) = mpsc::channel(1);
    let generation = pool.generation();
    let (read, readings) = watch::channel(PasswordReading::default());
    let context = Arc::new(CheckContext::new(connector, DatabaseShared::new(readings), shared));
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
                let checker = HealthChecker { pool, context, id, rise_fall, probe: None, waiting: waiting.cloned() };
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
    /// Its probes, with what they follow from.
    probe: Option<(Arc<PoolConfig>, Arc<Backend>, Arc<SharedProbe>)>,
    /// Dropped with the first outcome.
    waiting: Option<mpsc::Sender<Infallible>>,
}

impl HealthChecker {
    /// Ends when the backend is gone, or its pool has no checks any more.
    async fn run(mut self) {
        let mut generation = self.pool.generation();
        let mut outdated = None;
        loop {
            generation.mark_unchanged();
            let settings = self.pool.settings();
            let Some(backend) = self.pool.backend(self.id) else {
                self.context.roles.forget_gone(&self.pool);
                return;
            };
            let Some(health) = &settings.health else {
                self.context.roles.forget(&self.pool, &settings, &backend);
                return;
            };
            if backend.state() == AdminState::Maintenance {
                self.waiting = None;
                // Its last verdict is stale by the time it is back.
                self.rise_fall = RiseFall::new(health);
                self.context.roles.forget(&self.pool, &settings, &backend);
                if generation.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // Another pool's check half an interval ago is as good as one now.
            let recent = || Instant::now().checked_sub(health.interval / 2).unwrap_or_else(Instant::now);
            let outcome = self.outcome(&settings, health, &backend, outdated.take().unwrap_or_else(recent)).await;
            self.rise_fall.adjust(health);
            let judgement =
                self.context.roles.judge(&self.pool, &settings, &backend, &outcome, self.rise_fall.is_down());
            self.settle(&backend, &judgement, outcome.ended.duration_since(outcome.began));
            self.context.roles.conclude(&self.pool, &judgement);
            // From start to start. After a probe longer than the interval, the next one starts at once; missed ones are skipped.
            let next = outcome.began + jittered(health.interval, fastrand::f64());
            tokio::select! {
                () = time::sleep_until(next) => {}
                // A changed check probes at once.
                () = self.changed(&settings, &mut generation) => {}
                since = self.context.roles.outdated(outcome.began) => outdated = Some(since),
            }
        }
    }

    /// What a probe that began at `since` or later has found: its own, or that of another pool with the same server.
    async fn outcome(
        &mut self,
        settings: &Arc<PoolConfig>,
        health: &Health,
        backend: &Arc<Backend>,
        since: Instant,
    ) -> ProbeOutcome {
        let at_once = |failure| {
            let now = Instant::now();
            ProbeOutcome { began: now, ended: now, result: Err(failure) }
        };
        let Some(address) = backend.address() else { return at_once(no_address(backend)) };
        let probe = Probe { pool: &self.pool, context: &self.context, settings, health, backend };
        let is_same = |known: &(Arc<PoolConfig>, Arc<Backend>, _)| {
            Arc::ptr_eq(&known.0, settings) && Arc::ptr_eq(&known.1, backend)
        };
        let shared = match self.probe.as_ref().filter(|known| is_same(known)) {
            Some((_, _, shared)) => Arc::clone(shared),
            None => {
                let key = match probe.key(address) {
                    Ok(key) => key,
                    Err(failure) => return at_once(failure),
                };
                let shared = self.context.shared.get(key);
                self.probe = Some((Arc::clone(settings), Arc::clone(backend), Arc::clone(&shared)));
                shared
            }
        };
        shared.outcome(Questions::of(settings), since, |questions| probe.run(address, questions)).await
    }

    /// Until what is checked, or whether, is configured differently.
    async fn changed(&self, settings: &PoolConfig, generation: &mut watch::Receiver<u64>) {
        while generation.changed().await.is_ok() {
            let now = self.pool.settings();
            let same = now.health == settings.health && now.on_conflict == settings.on_conflict;
            let is_checked = self.pool.backend(self.id).is_some_and(|it| it.state() != AdminState::Maintenance);
            if !same || !is_checked {
                return;
            }
        }
    }
}

impl HealthChecker {
    /// Counts and logs a verdict, and passes a transition to the pool.
    fn settle(&mut self, checked: &Backend, judgement: &Judgement, took: Duration) {
        let (pool, backend) = (self.pool.name(), checked.name());
        let (result, reason) = match &judgement.verdict {
            Ok(()) => (ProbeResult::Passed, None),
            Err(ProbeFailure::Backend(reason)) => (ProbeResult::Failed, Some(reason)),
            Err(ProbeFailure::WrongRole(reason)) => (ProbeResult::WrongRole, Some(reason)),
            Err(ProbeFailure::Unfit(reason)) => (ProbeResult::Unfit, Some(reason)),
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
                let failure = Some(Arc::from(reason.as_str()));
                checked.counters().checked(CheckRecord { at: SystemTime::now(), took, failure });
                self.waiting = None;
                return;
            }
        };
        let failure = reason.map(|reason| Arc::from(reason.as_str()));
        checked.counters().checked(CheckRecord { at: SystemTime::now(), took, failure });
        let settings = checked.settings();
        if let (Some(health), Some(_)) = (&settings.health, &settings.outlier) {
            self.pool.record_check(self.id, reason.is_none(), health.rise.get());
        }
        match (self.rise_fall.observe(result), reason) {
            (Some(StateChange::Up), _) => {
                self.pool.set_up(self.id);
                info!(%pool, %backend, "backend up");
            }
            (Some(StateChange::Down), reason) => {
                let reason = reason.map(String::as_str).unwrap_or_default();
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

fn no_address(backend: &Backend) -> ProbeFailure {
    match backend.status().reason {
        Some(why) => ProbeFailure::backend(&*why),
        None => ProbeFailure::backend("name is not resolved yet"),
    }
}

/// The time to the next probe, `random` in 0..1: within 10 % of the interval, so that probes do not march in step.
fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}
