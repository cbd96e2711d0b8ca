//! A backend's health in the words of plain balancers.

use crate::admin::snapshot_model::{BackendStats, BackendStatus};
use crate::admin::unix_time::rfc3339;

/// `healthy`, `unhealthy`, or `unchecked` without health checks.
pub(super) fn health(backend: &BackendStats) -> &'static str {
    match backend.status() {
        BackendStatus::Up => "healthy",
        BackendStatus::Down => "unhealthy",
        BackendStatus::Unchecked => "unchecked",
        BackendStatus::Leaving | BackendStatus::Drain => "draining",
        BackendStatus::Maintenance => "maintenance",
    }
}

/// When the last health check ended.
pub(super) fn last_checked(backend: &BackendStats) -> Option<String> {
    backend.checks.as_ref()?.last.as_ref().map(|check| rfc3339(check.time))
}
