//! Which backends can be chosen, at one moment.

use std::sync::Arc;

use super::backend::Backend;
use super::member::Member;
use super::slow_start;
use crate::balance::{Balancer, Candidate};
use crate::config::model;

/// What a pick reads. It never changes: the pool's writer replaces it whole.
pub(super) struct PoolSnapshot {
    pub(super) settings: Arc<model::PoolConfig>,
    /// All members in the order of the configuration, then those that leave.
    pub(super) backends: Arc<[Arc<Backend>]>,
    pub(super) primary: Tier,
    pub(super) backup: Tier,
}

/// Backends among which an algorithm chooses; its indices are places in `members`.
pub(super) struct Tier {
    pub(super) members: Box<[Arc<Backend>]>,
    pub(super) balancer: Balancer,
}

impl PoolSnapshot {
    pub(super) fn new(settings: &Arc<model::PoolConfig>, members: &[Member]) -> PoolSnapshot {
        // Parts only while a backend is in slow start: small numbers make short schedules.
        let slow = members.iter().any(|member| member.parts != slow_start::PARTS);
        let tier = |backup: bool| {
            let (members, candidates) = members
                .iter()
                .filter(|member| member.backend.takes_connections() && member.backend.is_backup() == backup)
                .map(|member| {
                    let weight = member.backend.weight() * if slow { member.parts } else { 1 };
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
        }
    }
}
