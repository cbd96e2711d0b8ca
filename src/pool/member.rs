//! A backend in its pool, and what its state follows from.

use std::sync::Arc;
use std::time::Instant;

use super::backend::Backend;
use super::members::{Identity, Resolutions, Target};
use super::outlier::Ejections;
use super::status::Status;
use crate::config::model::{self, AdminState, ForcedHealth};

/// A backend, and why it can be chosen or not.
pub(super) struct Member {
    pub(super) backend: Arc<Backend>,
    /// The configuration and DNS still have it.
    pub(super) wanted: bool,
    pub(super) causes: Causes,
    pub(super) ejections: Ejections,
    pub(super) slow_since: Option<Instant>,
}

/// What a backend's state follows from; it is up when all of them are good.
#[derive(Clone)]
pub(super) struct Causes {
    pub(super) health: CauseState,
    pub(super) resolution: CauseState,
    /// Overrides `health`.
    pub(super) forced: Option<ForcedHealth>,
    /// Why it is ejected, if it is.
    pub(super) ejection: Option<Arc<str>>,
    /// Another backend claims its role too.
    pub(super) conflict: Option<Conflict>,
}

/// Why a backend gets no connections although its checks pass: more than one is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As it is shown.
    pub reason: Arc<str>,
    /// Another one is the primary in its place: its sessions go the way of those of a backend that goes down.
    pub is_lost: bool,
}

const FORCED_DOWN: &str = "forced down by an administrator";

#[derive(Clone, PartialEq)]
pub(super) enum CauseState {
    /// Not known yet; counts as bad, but its end is not a recovery.
    Unknown,
    Good,
    Bad(Arc<str>),
}

impl Causes {
    pub(super) fn of(target: &Target, config: &model::PoolConfig, resolutions: &Resolutions) -> Causes {
        let resolution = resolution(target, resolutions);
        Causes { health: unchecked(target, config), resolution, forced: target.forced, ejection: None, conflict: None }
    }

    pub(super) fn status(&self) -> Status {
        // Without an address there is nothing to check.
        let health = self.health();
        let causes = [&self.resolution, &health];
        let reason = causes.into_iter().find_map(|cause| match cause {
            CauseState::Bad(reason) => Some(Arc::clone(reason)),
            CauseState::Unknown | CauseState::Good => None,
        });
        let (ejection, conflict) = (self.ejection(), self.conflict().map(|conflict| &conflict.reason));
        let up = causes.into_iter().all(|cause| *cause == CauseState::Good) && ejection.is_none() && conflict.is_none();
        let reason = reason.or_else(|| conflict.cloned());
        let ejected = reason.is_none() && !up && ejection.is_some() && self.is_known();
        Status { ejected, ..Status::now(up, reason.or_else(|| ejection.cloned())) }
    }

    /// Whether connections that it has, or that are about to begin, go on: also while it is ejected, and as long as it is open
    /// which of several primaries is the right one.
    pub(super) fn keeps_sessions(&self) -> bool {
        self.health() == CauseState::Good
            && self.resolution == CauseState::Good
            && !self.conflict().is_some_and(|conflict| conflict.is_lost)
    }

    fn is_known(&self) -> bool {
        self.resolution != CauseState::Unknown && self.health() != CauseState::Unknown
    }

    pub(super) fn is_bad(&self) -> bool {
        matches!(self.health(), CauseState::Bad(_))
            || matches!(self.resolution, CauseState::Bad(_))
            || self.ejection().is_some()
            || self.conflict().is_some()
    }

    /// An administrator's word overrides outlier detection, as it does health checks.
    fn ejection(&self) -> Option<&Arc<str>> {
        self.ejection.as_ref().filter(|_| self.forced != Some(ForcedHealth::Up))
    }

    /// An administrator may know which primary is the right one.
    fn conflict(&self) -> Option<&Conflict> {
        self.conflict.as_ref().filter(|_| self.forced != Some(ForcedHealth::Up))
    }

    fn health(&self) -> CauseState {
        match self.forced {
            Some(ForcedHealth::Up) => CauseState::Good,
            Some(ForcedHealth::Down) => CauseState::Bad(FORCED_DOWN.into()),
            None => self.health.clone(),
        }
    }
}

/// Health before the first check.
pub(super) fn unchecked(target: &Target, config: &model::PoolConfig) -> CauseState {
    match &config.health {
        // Nothing checks it in maintenance, and nothing is sent to it.
        _ if target.state == AdminState::Maintenance => CauseState::Good,
        Some(health) if health.initial == model::Initial::Probe => CauseState::Unknown,
        _ => CauseState::Good,
    }
}

pub(super) fn resolution(target: &Target, resolutions: &Resolutions) -> CauseState {
    match (&target.address, resolutions.failure(&target.entry)) {
        (Some(_), _) => CauseState::Good,
        (None, Some(reason)) => CauseState::Bad(Arc::clone(reason)),
        (None, None) => CauseState::Unknown,
    }
}

impl Member {
    pub(super) fn identity(&self) -> Identity {
        self.backend.target().identity()
    }
}
