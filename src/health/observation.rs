//! What a check learns of a server, what it has to ask for that, and the judgement on it. Pure.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::failure::ProbeFailure;
use crate::config::model::{HealthCheck, MysqlCheck, OnConflict, PoolConfig, PostgresCheck, RequiredRole};
use crate::stats::database::{DatabaseState, ReplicationLag, ServerRole};

/// What a check asks a database. Pools that share a check may want to know different things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Questions {
    /// Whether it accepts writes.
    pub(super) is_writable: bool,
    /// Whether it follows a primary, and how far behind it is; of a primary, its position.
    pub(super) replication: bool,
    /// How often its line of succession saw a promotion.
    pub(super) timeline: bool,
    /// Whether it is a usable member of a cluster.
    pub(super) cluster: bool,
}

impl Questions {
    /// What a pool wants to know.
    pub(super) fn of(pool: &PoolConfig) -> Questions {
        let role = pool.health.as_ref().and_then(|health| health.check.role()).unwrap_or(RequiredRole::Any);
        let timeline = role == RequiredRole::Primary && pool.on_conflict == OnConflict::Newest;
        Questions { timeline, ..Questions::of_role(role) }
    }

    /// Whether a server has this role.
    pub(super) fn of_role(role: RequiredRole) -> Questions {
        Questions {
            is_writable: matches!(role, RequiredRole::Primary | RequiredRole::PreferReplica),
            replication: role.is_of_replicas(),
            timeline: false,
            cluster: role == RequiredRole::Synced,
        }
    }

    pub(super) fn and(self, other: Questions) -> Questions {
        Questions {
            is_writable: self.is_writable | other.is_writable,
            replication: self.replication | other.replication,
            timeline: self.timeline | other.timeline,
            cluster: self.cluster | other.cluster,
        }
    }

    /// Whether the answers to these answer the others too.
    pub(super) fn cover(self, other: Questions) -> bool {
        self.and(other) == self
    }
}

/// What a server that answers says of itself; nothing where no database is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observation {
    /// `None` if it was not asked, or states none.
    pub(super) role: Option<ServerRole>,
    /// It accepts writes, whatever else it is: MySQL's replicas may, and members of a cluster do.
    pub(super) is_writable: bool,
    /// Why it accepts no writes, if it says so.
    pub(super) read_only: Option<String>,
    /// Its position in the stream of changes: of a primary, what it has written; of a replica, what it has applied.
    pub(super) position: Option<u64>,
    /// PostgreSQL's timeline of a primary: each promotion begins a higher one.
    pub(super) timeline: Option<u32>,
    /// By its own account.
    pub(super) delay: Option<Duration>,
    /// Why it cannot serve in its role, although it has it.
    pub(super) fault: Option<String>,
}

/// The longest lag that a check allows.
pub(super) fn max_lag(check: &HealthCheck) -> Option<ReplicationLag> {
    match check {
        HealthCheck::Postgres(PostgresCheck { max_lag, .. }) => max_lag.map(|most| ReplicationLag::Bytes(most.get())),
        HealthCheck::Mysql(MysqlCheck { max_lag, .. }) => max_lag.map(ReplicationLag::Time),
        _ => None,
    }
}

impl Observation {
    /// Whether it serves as the primary.
    pub(super) fn is_primary(&self) -> bool {
        self.is_writable || self.role == Some(ServerRole::Primary)
    }

    /// What is shown in a pool that wants this role, given how far the pool's primary is.
    pub(super) fn state(&self, wanted: RequiredRole, primary: Option<u64>) -> DatabaseState {
        let role = match wanted {
            RequiredRole::Primary if self.is_primary() => Some(ServerRole::Primary),
            _ => self.role,
        };
        let lag = match (role, self.delay) {
            (Some(ServerRole::Replica), Some(delay)) => Some(ReplicationLag::Time(delay)),
            (Some(ServerRole::Replica), None) => {
                // A position of the primary from a moment ago may be behind the replica's.
                primary.zip(self.position).map(|(primary, own)| ReplicationLag::Bytes(primary.saturating_sub(own)))
            }
            _ => None,
        };
        DatabaseState { role, lag }
    }

    /// Whether the server may serve as `wanted`.
    ///
    /// An unknown lag passes: without a primary there is no position to compare with, and the replicas are all that is left.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge(
        &self,
        wanted: RequiredRole,
        limit: Option<ReplicationLag>,
        state: DatabaseState,
    ) -> Result<(), ProbeFailure> {
        let has_role = match wanted {
            RequiredRole::Any => return Ok(()),
            RequiredRole::Primary if self.is_primary() => return Ok(()),
            RequiredRole::PreferReplica if self.is_primary() && self.role != Some(ServerRole::Replica) => return Ok(()),
            RequiredRole::Primary => false,
            RequiredRole::Replica | RequiredRole::PreferReplica => self.role == Some(ServerRole::Replica),
            RequiredRole::Synced => self.role == Some(ServerRole::Synced),
        };
        if !has_role {
            let read_only = self.read_only.as_ref().filter(|_| wanted == RequiredRole::Primary);
            let is = match (read_only.or(self.fault.as_ref()), self.role) {
                (Some(why), _) => why.clone(),
                (None, Some(role)) => format!("is a {}", role.name()),
                (None, None) => "states no role".to_owned(),
            };
            return Err(ProbeFailure::WrongRole(format!("{is}, role: {} is wanted", wanted.name())));
        }
        if let Some(fault) = &self.fault {
            return Err(ProbeFailure::Unfit(fault.clone()));
        }
        let is_beyond = match (limit, state.lag) {
            (Some(ReplicationLag::Bytes(most)), Some(ReplicationLag::Bytes(bytes))) => bytes > most,
            (Some(ReplicationLag::Time(most)), Some(ReplicationLag::Time(time))) => time > most,
            _ => false,
        };
        match (is_beyond, limit, state.lag) {
            (true, Some(most), Some(lag)) => {
                Err(ProbeFailure::Unfit(format!("is {lag} behind the primary, max_lag is {most}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::reason;
    use super::*;

    fn replica(position: Option<u64>, delay: Option<u64>) -> Observation {
        let delay = delay.map(Duration::from_secs);
        Observation { role: Some(ServerRole::Replica), position, delay, ..Observation::default() }
    }

    #[test]
    fn role_is_wanted_or_not() {
        let is = |role| Observation { role, ..Observation::default() };
        let (primary, synced) = (is(Some(ServerRole::Primary)), is(Some(ServerRole::Synced)));
        let stopped = Observation { fault: Some("replication is stopped".to_owned()), ..replica(None, None) };
        for (seen, wanted, expected) in [
            (&primary, RequiredRole::Any, ""),
            (&is(None), RequiredRole::Any, ""),
            (&primary, RequiredRole::Primary, ""),
            (&primary, RequiredRole::Replica, "is a primary, role: replica is wanted"),
            (&primary, RequiredRole::PreferReplica, ""),
            (&replica(None, None), RequiredRole::Primary, "is a replica, role: primary is wanted"),
            (&replica(None, None), RequiredRole::PreferReplica, ""),
            (&is(None), RequiredRole::Primary, "states no role, role: primary is wanted"),
            (&is(None), RequiredRole::PreferReplica, "states no role, role: prefer_replica is wanted"),
            (&synced, RequiredRole::Synced, ""),
            (
                &Observation { fault: Some("is a donor".to_owned()), ..is(None) },
                RequiredRole::Synced,
                "is a donor, role: synced is wanted",
            ),
            (&stopped, RequiredRole::Replica, "replication is stopped"),
            (&stopped, RequiredRole::PreferReplica, "replication is stopped"),
            // A replica that accepts writes may be wanted as either.
            (&Observation { is_writable: true, ..stopped.clone() }, RequiredRole::Primary, ""),
            (&Observation { is_writable: true, ..stopped.clone() }, RequiredRole::Replica, "replication is stopped"),
            (&Observation { is_writable: true, ..synced.clone() }, RequiredRole::Primary, ""),
            (&Observation { is_writable: true, ..synced.clone() }, RequiredRole::Synced, ""),
        ] {
            let judged = seen.judge(wanted, None, seen.state(wanted, None)).err().map(reason).unwrap_or_default();
            assert_eq!(judged, expected, "{seen:?} as {wanted:?}");
        }
    }

    #[test]
    fn lag_is_the_primarys_position_minus_the_replicas() {
        let limit = Some(ReplicationLag::Bytes(1024));
        for (primary, own, lag, expected) in [
            (None, Some(5), None, ""),
            (Some(5), None, None, ""),
            (Some(2000), Some(976), Some(1024), ""),
            (Some(2001), Some(976), Some(1025), "is 1.0 KiB behind the primary, max_lag is 1.0 KiB"),
            (Some(5), Some(9), Some(0), ""),
        ] {
            for wanted in [RequiredRole::Replica, RequiredRole::PreferReplica] {
                let seen = replica(own, None);
                let state = seen.state(wanted, primary);
                assert_eq!(state.lag, lag.map(ReplicationLag::Bytes));
                let judged = seen.judge(wanted, limit, state).err().map(reason).unwrap_or_default();
                assert_eq!(judged, expected, "{primary:?} {own:?}");
            }
        }
        let late = replica(None, Some(31));
        let limit = Some(ReplicationLag::Time(Duration::from_secs(30)));
        let wanted = RequiredRole::Replica;
        let judged = late.judge(wanted, limit, late.state(wanted, None)).err().map(reason);
        assert_eq!(judged.as_deref(), Some("is 31 s behind the primary, max_lag is 30 s"));
    }

    #[test]
    fn questions_of_several_pools_are_asked_at_once() {
        let all = (0..16_u8).map(|bits| Questions {
            is_writable: bits & 1 != 0,
            replication: bits & 2 != 0,
            timeline: bits & 4 != 0,
            cluster: bits & 8 != 0,
        });
        for (one, other) in all.clone().flat_map(|one| all.clone().map(move |other| (one, other))) {
            let both = one.and(other);
            assert!(both.cover(one) && both.cover(other));
            assert_eq!(one.cover(other), both == one, "{one:?} {other:?}");
        }
    }
}
