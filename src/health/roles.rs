//! Roles of a pool's backends, as its checks see them: what is shown, what lag is measured against, and which of several
//! primaries gets connections.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::claims::{Claims, Dispute, RoleStatement};
use super::failure::ProbeFailure;
use super::observation::{Observation, max_lag};
use super::shared::ProbeOutcome;
use crate::config::model::{ForcedHealth, PoolConfig, RequiredRole};
use crate::net::addr::Address;
use crate::pool::{Backend, Conflict, Pool};
use crate::stats::database::ServerRole;
use crate::stats::registry::BackendId;

/// The roles in one pool.
#[derive(Debug)]
pub(super) struct PoolRoles {
    claims: Mutex<Claims>,
    /// What is in effect.
    effect: Mutex<ConflictEffect>,
    /// Position of the primary when it was last read, plus one; 0 before.
    position: AtomicU64,
    /// Checks that began before are to be repeated.
    outdated: watch::Sender<Option<Instant>>,
}

impl Default for PoolRoles {
    fn default() -> PoolRoles {
        PoolRoles {
            claims: Mutex::default(),
            effect: Mutex::default(),
            position: AtomicU64::new(0),
            outdated: watch::Sender::new(None),
        }
    }
}

#[derive(Debug, Default)]
struct ConflictEffect {
    /// Some backends are held.
    is_any: bool,
    /// The primaries of the conflict that the log knows of.
    reported: Vec<BackendId>,
}

/// What a check means for its backend.
pub(super) struct Judgement {
    pub(super) verdict: Result<(), ProbeFailure>,
    /// Of the pool: which are to be held once the verdict is in effect.
    dispute: Dispute,
}

impl PoolRoles {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes once checks that began at `began` are too old, with the time since when they have to begin.
    pub(super) async fn outdated(&self, began: Instant) -> Instant {
        let mut outdated = self.outdated.subscribe();
        let since = outdated.wait_for(|since| since.is_some_and(|since| began < since)).await.ok().and_then(|it| *it);
        match since {
            Some(since) => since,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Takes the outcome of a check into account; `is_down`: the checks before it had the backend down. Backends that it puts in
    /// doubt get no connections from now on; those that it clears get them with [`PoolRoles::conclude`].
    pub(super) fn judge(
        &self,
        pool: &Pool,
        settings: &PoolConfig,
        backend: &Backend,
        outcome: &ProbeOutcome,
        is_down: bool,
    ) -> Judgement {
        let wanted = settings.health.as_ref().and_then(|health| health.check.role());
        let Some(wanted) = wanted else {
            self.forget(pool, settings, backend);
            return Judgement { verdict: outcome.result.clone().map(drop), dispute: Dispute::None };
        };
        let statement = match &outcome.result {
            // Several primaries are a conflict where one is wanted.
            _ if wanted != RequiredRole::Primary || backend.forced() == Some(ForcedHealth::Down) => {
                Some(RoleStatement::None)
            }
            Ok(seen) if seen.is_primary() && self.is_known(pool, backend) => Some(RoleStatement::None),
            Ok(seen) if seen.is_primary() => Some(RoleStatement::Primary { timeline: seen.timeline }),
            Ok(_) => Some(RoleStatement::Other),
            Err(ProbeFailure::Full(_)) => Some(RoleStatement::Full),
            // Not asked: what it said last stands.
            Err(ProbeFailure::Local(_)) => None,
            Err(_) => Some(RoleStatement::Failed { is_down }),
        };
        let dispute = {
            let mut claims = self.claims();
            if let Some(statement) = statement {
                claims.state(backend.id(), statement, outcome.began, outcome.ended);
            }
            let backends = pool.backends();
            if claims.len() > backends.len() || claims.backends().nth(1).is_some() {
                claims.retain(|id| backends.iter().any(|backend| backend.id() == id && !backend.is_leaving()));
            }
            claims.dispute(settings.on_conflict)
        };
        let verdict = match &outcome.result {
            Ok(seen) => self.learn(pool, settings, wanted, backend, seen, &dispute),
            Err(failure) => {
                if !matches!(failure, ProbeFailure::Full(_) | ProbeFailure::Local(_)) {
                    // Not its role any more, as far as anybody knows.
                    backend.set_database(None);
                }
                Err(failure.clone())
            }
        };
        // Before the verdict brings the backend up.
        if dispute != Dispute::None {
            self.apply(pool, &dispute);
        }
        Judgement { verdict, dispute }
    }

    /// Lets backends go that are in doubt no more: after the verdict, which may take another one down.
    pub(super) fn conclude(&self, pool: &Pool, judgement: &Judgement) {
        if judgement.dispute == Dispute::None {
            self.apply(pool, &Dispute::None);
        }
    }

    /// The backend is not checked for now.
    pub(super) fn forget(&self, pool: &Pool, settings: &PoolConfig, backend: &Backend) {
        backend.set_database(None);
        if backend.is_fallback() {
            pool.set_fallback(backend.id(), false);
        }
        let dispute = {
            let (mut claims, now) = (self.claims(), Instant::now());
            claims.state(backend.id(), RoleStatement::None, now, now);
            claims.dispute(settings.on_conflict)
        };
        self.apply(pool, &dispute);
    }

    /// A backend has left the pool.
    pub(super) fn forget_gone(&self, pool: &Pool) {
        let dispute = {
            let (mut claims, backends) = (self.claims(), pool.backends());
            claims.retain(|id| backends.iter().any(|backend| backend.id() == id && !backend.is_leaving()));
            claims.dispute(pool.settings().on_conflict)
        };
        self.apply(pool, &dispute);
    }

    /// Whether the backend is a primary that is known by another address.
    fn is_known(&self, pool: &Pool, backend: &Backend) -> bool {
        let claims = self.claims();
        let mut others = claims.backends().filter(|id| *id != backend.id()).filter_map(|id| pool.backend(id));
        others.any(|other| is_same_server(&other, backend))
    }

    /// What the backend says of itself is shown, and judged.
    fn learn(
        &self,
        pool: &Pool,
        settings: &PoolConfig,
        wanted: RequiredRole,
        backend: &Backend,
        seen: &Observation,
        dispute: &Dispute,
    ) -> Result<(), ProbeFailure> {
        let is_held = match dispute {
            Dispute::None => false,
            Dispute::Superseded { held } | Dispute::Unconfirmed { held, .. } | Dispute::Confirmed { held, .. } => {
                held.contains(&backend.id())
            }
        };
        if let (true, Some(position), false) = (seen.is_primary(), seen.position, is_held) {
            self.position.store(position.saturating_add(1), Relaxed);
        }
        let state = seen.state(wanted, self.position.load(Relaxed).checked_sub(1));
        let before = backend.set_database(Some(state)).and_then(|before| before.role);
        if let (Some(before), Some(role)) = (before, state.role)
            && before != role
        {
            let (pool, backend, role) = (pool.name(), backend.name(), role.name());
            info!(%pool, %backend, role, before = before.name(), "role of the backend has changed");
        }
        let limit = settings.health.as_ref().and_then(|health| max_lag(&health.check));
        let verdict = seen.judge(wanted, limit, state);
        let is_fallback = wanted == RequiredRole::PreferReplica && state.role != Some(ServerRole::Replica);
        if backend.is_fallback() != is_fallback {
            pool.set_fallback(backend.id(), is_fallback);
        }
        verdict
    }

    fn apply(&self, pool: &Pool, dispute: &Dispute) {
        let mut effect = self.effect.lock().unwrap_or_else(PoisonError::into_inner);
        if *dispute == Dispute::None && !effect.is_any {
            return;
        }
        effect.is_any = *dispute != Dispute::None;
        let name = |id: &BackendId| pool.backend(*id).map_or_else(String::new, |backend| backend.name().to_string());
        let all: Vec<BackendId> = self.claims().backends().collect();
        let names = || all.iter().map(name).collect::<Vec<_>>().join(", ");
        let (held, reason, is_lost): (&[BackendId], String, bool) = match dispute {
            Dispute::None => (&[], String::new(), false),
            Dispute::Superseded { held } => {
                (held, "another backend is the primary, and checks of this one fail".to_owned(), false)
            }
            Dispute::Unconfirmed { held, since } => {
                self.outdated.send_if_modified(|outdated| {
                    let is_later = outdated.is_none_or(|before| before < *since);
                    if is_later {
                        *outdated = Some(*since);
                    }
                    is_later
                });
                (held, format!("more than one primary ({}): each is checked again", names()), false)
            }
            Dispute::Confirmed { held, newest: None } => {
                (held, format!("more than one primary: {} state that they are", names()), false)
            }
            Dispute::Confirmed { held, newest: Some(newest) } => {
                let timeline = self.claims().timeline(*newest);
                let timeline = timeline.map(|timeline| format!(" (timeline {timeline})")).unwrap_or_default();
                (held, format!("is no primary any more: {}{timeline} was promoted later", name(newest)), true)
            }
        };
        let conflict = Conflict { reason: Arc::from(reason), is_lost };
        let (backends, mut all_held) = (pool.backends(), Vec::new());
        for backend in backends.iter().filter(|backend| held.contains(&backend.id())) {
            let addresses = backends.iter().filter(|other| *other == backend || is_same_server(other, backend));
            all_held.extend(addresses.map(|other| (other.id(), conflict.clone())));
        }
        pool.set_conflicts(&all_held);
        effect.report(pool, dispute, &all, &names());
    }
}

/// Whether two backends are one server: `localhost` is 127.0.0.1 and ::1.
fn is_same_server(one: &Backend, other: &Backend) -> bool {
    let is_loopback = |backend: &Backend| match backend.address() {
        Some(Address::Tcp(address)) => address.ip().to_canonical().is_loopback(),
        Some(Address::Unix(_)) | None => false,
    };
    one.entry() == other.entry() && is_loopback(one) && is_loopback(other)
}

impl ConflictEffect {
    /// Logs the begin and the end of a conflict, once each.
    fn report(&mut self, pool: &Pool, dispute: &Dispute, all: &[BackendId], names: &str) {
        let (reported, name) = (&mut self.reported, pool.name());
        match dispute {
            Dispute::Unconfirmed { .. } => {}
            Dispute::None | Dispute::Superseded { .. } if reported.is_empty() => {}
            Dispute::None | Dispute::Superseded { .. } => {
                reported.clear();
                pool.set_primary_conflict(false);
                info!(pool = %name, "more than one primary: no more");
            }
            Dispute::Confirmed { .. } if *reported == all => {}
            Dispute::Confirmed { newest, .. } => {
                *reported = all.to_vec();
                pool.set_primary_conflict(true);
                match newest.and_then(|id| pool.backend(id)).map(|backend| Arc::clone(backend.name())) {
                    Some(used) => {
                        let text = "more than one primary: the one that was promoted last gets the connections";
                        warn!(pool = %name, backends = names, %used, "{text}");
                    }
                    None => {
                        let text = "more than one primary: none of them gets new connections";
                        warn!(pool = %name, backends = names, "{text}");
                    }
                }
            }
        }
    }
}
