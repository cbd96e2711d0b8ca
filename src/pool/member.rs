//! A backend in its pool, and what its state follows from.

use std::sync::Arc;
use std::time::Instant;

use super::backend::Backend;
use super::members::{Identity, Resolutions, Target};
use super::status::Status;
use crate::config::model;

/// A backend, and why it can be chosen or not.
pub(super) struct Member {
    pub(super) backend: Arc<Backend>,
    /// The configuration and DNS still have it.
    pub(super) wanted: bool,
    pub(super) causes: Causes,
    pub(super) slow_since: Option<Instant>,
    /// Share of its weight that it gets, in [`slow_start::PARTS`].
    pub(super) parts: u32,
}

/// What a backend's state follows from; it is up when all of them are good.
#[derive(Clone)]
pub(super) struct Causes {
    pub(super) health: CauseState,
    pub(super) resolution: CauseState,
}

#[derive(Clone, PartialEq)]
pub(super) enum CauseState {
    /// Not known yet; counts as bad, but its end is not a recovery.
    Unknown,
    Good,
    Bad(Arc<str>),
}

impl Causes {
    pub(super) fn of(target: &Target, config: &model::PoolConfig, resolutions: &Resolutions) -> Causes {
        let health = match &config.health {
            Some(health) if health.initial == model::Initial::Probe => CauseState::Unknown,
            _ => CauseState::Good,
        };
        Causes { health, resolution: resolution(target, resolutions) }
    }

    pub(super) fn status(&self) -> Status {
        // Without an address there is nothing to check.
        let causes = [&self.resolution, &self.health];
        let reason = causes.into_iter().find_map(|cause| match cause {
            CauseState::Bad(reason) => Some(Arc::clone(reason)),
            CauseState::Unknown | CauseState::Good => None,
        });
        Status::now(causes.into_iter().all(|cause| *cause == CauseState::Good), reason)
    }

    pub(super) fn is_bad(&self) -> bool {
        matches!(self.health, CauseState::Bad(_)) || matches!(self.resolution, CauseState::Bad(_))
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
