//! Whether a backend, or a pool as a whole, is up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Whether a backend, or a pool as a whole, takes connections, why not, and since when.
#[derive(Clone, Debug)]
pub struct Status {
    /// It takes new connections, as far as its weight and limit go.
    pub up: bool,
    /// Why it is down. `None` while it is up, before the first verdict, and of a pool, whose backends say it.
    pub reason: Option<Arc<str>>,
    /// It is down for nothing but an ejection.
    pub ejected: bool,
    /// When `up` last changed.
    pub since: SystemTime,
    /// How long it was down before, all in all.
    pub downtime: Duration,
}

impl Status {
    pub(super) fn now(up: bool, reason: Option<Arc<str>>) -> Status {
        Status { up, reason, ejected: false, since: SystemTime::now(), downtime: Duration::ZERO }
    }

    /// What comes after it. True if it went down by that.
    pub(super) fn change(&mut self, new: Status) -> bool {
        let went_down = self.up && !new.up;
        let since = if self.up == new.up { self.since } else { new.since };
        let was_down = match new.up && !self.up {
            true => new.since.duration_since(self.since).unwrap_or_default(),
            false => Duration::ZERO,
        };
        *self = Status { since, downtime: self.downtime + was_down, ..new };
        went_down
    }

    /// How long it was down, all in all, until now.
    pub fn downtime_so_far(&self) -> Duration {
        let now_down = if self.up { Duration::ZERO } else { self.since.elapsed().unwrap_or_default() };
        self.downtime + now_down
    }
}
