//! Which backends can be chosen, at one moment.

use std::sync::Arc;

use super::backend::Backend;
use super::excluded::Excluded;
use super::member::Member;
use super::slow_start;
use crate::balance::{Balancer, Candidate};
use crate::config::model::{self, AdminState, ForcedHealth};
use crate::stats::registry::BackendId;

/// What a pick reads. It never changes: the pool's writer replaces it whole.
pub(super) struct PoolSnapshot {
    pub(super) settings: Arc<model::PoolConfig>,
    /// All members in the order of the configuration, then those that leave.
    pub(super) backends: Arc<[Arc<Backend>]>,
    pub(super) primary: Tier,
    pub(super) backup: Tier,
    /// Fewer backends are up than `fail_open` wants: all are used as if they were.
    pub(super) fails_open: bool,
}

/// Backends among which an algorithm chooses; its indices are places in `members`.
pub(super) struct Tier {
    pub(super) members: Box<[Arc<Backend>]>,
    pub(super) balancer: Balancer,
}

impl PoolSnapshot {
    pub(super) fn new(settings: &Arc<model::PoolConfig>, members: &[Member]) -> PoolSnapshot {
        // Parts only while a backend is in slow start: small numbers make short schedules.
        let slow = members.iter().any(|member| member.backend.runtime().parts() != slow_start::PARTS);
        let fails_open = fails_open(settings, members);
        let can_be_chosen = |backend: &Backend| match fails_open {
            true => backend.may_be_tried(),
            false => backend.takes_connections(),
        };
        let tier = |backup: bool| {
            let (members, candidates) = members
                .iter()
                .filter(|member| can_be_chosen(&member.backend) && member.backend.is_backup() == backup)
                .map(|member| {
                    let weight = member.backend.weight() * if slow { member.backend.runtime().parts() } else { 1 };
                    (Arc::clone(&member.backend), Candidate { identity: member.backend.hash(), weight })
                })
                .unzip::<_, _, Vec<_>, Vec<_>>();
            Tier { members: members.into(), balancer: Balancer::new(settings.balance, &candidates) }
        };
        PoolSnapshot {
            settings: Arc::clone(settings),
            backends: members.iter().map(|member| Arc::clone(&member.backend)).collect(),
            primary: tier(false),
            backup: tier(true),
            fails_open,
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.primary.members.is_empty() || !self.backup.members.is_empty()
    }

    /// The backend that a client had last, if it can take a connection: also while it is drained or has no weight.
    pub(super) fn persistent(&self, id: BackendId, excluded: &Excluded) -> Option<&Arc<Backend>> {
        let backend = self.backends.iter().find(|backend| backend.id() == id)?;
        let may_take = !backend.is_leaving()
            && backend.state() != AdminState::Maintenance
            && !excluded.contains(id)
            && !backend.is_full()
            && (backend.is_up() || self.fails_open && backend.address().is_some());
        may_take.then_some(backend)
    }
}

/// Whether a connection can be served: a backend is up and has a weight, or is used as if it were up.
pub(super) fn is_usable(settings: &model::PoolConfig, members: &[Member]) -> bool {
    let fails_open = fails_open(settings, members);
    let backends = || members.iter().map(|member| &member.backend);
    backends().any(|backend| backend.takes_connections() || fails_open && backend.may_be_tried())
}

/// Whether so few backends are up that all are to be used: those that are drained, without weight or forced down do not count.
fn fails_open(settings: &model::PoolConfig, members: &[Member]) -> bool {
    let counts = |backend: &Backend| backend.is_offered() && backend.forced() != Some(ForcedHealth::Down);
    let offered = || members.iter().filter(|member| counts(&member.backend));
    let (all, up) = (offered().count(), offered().filter(|member| member.backend.is_up()).count());
    up * 100 < all * usize::from(settings.fail_open)
}
