//! Backends of a pool that state that they are the primary, and which of them gets connections. Pure: no clock, no I/O.
//!
//! After a failover the old primary may go on for a while, or for good if nothing fences it. A statement that is older than
//! another's first one says nothing: the server may have been demoted since. So neither is used until it is renewed.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::config::model::OnConflict;
use crate::stats::registry::BackendId;

/// The primaries of one pool, as its checks see them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claims: BTreeMap<BackendId, PrimaryClaim>,
    /// Those that stated another role last.
    followers: BTreeSet<BackendId>,
    /// Several were the primary at one time, and still are as far as anybody knows.
    is_confirmed: bool,
}

/// A backend that states that it is the primary.
#[derive(Clone, Debug)]
struct PrimaryClaim {
    /// When the first statement of the row was received.
    since: Instant,
    /// When the last check began that got one.
    renewed: Instant,
    timeline: Option<u32>,
    /// When the checks saw it become the primary, after another role.
    promoted: Option<Instant>,
    /// Its last check failed: it says nothing now, and may say it again.
    has_failed: bool,
}

/// What a check has found of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleStatement {
    Primary {
        timeline: Option<u32>,
    },
    Other,
    /// It is alive and too busy to be asked.
    Full,
    /// The check failed; `is_down` after `fall` of them.
    Failed {
        is_down: bool,
    },
    /// The backend is not checked any more, or not asked for its role.
    None,
}

/// Which of several primaries are not to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dispute {
    /// There is one primary, or none.
    None,
    /// One states it, or did so last; the others fail their checks.
    Superseded { held: Vec<BackendId> },
    /// All but the one of the last claim are to be checked again, at `since` or later.
    Unconfirmed { held: Vec<BackendId>, since: Instant },
    /// At one time, all of them were the primary.
    Confirmed { held: Vec<BackendId>, newest: Option<BackendId> },
}

impl Claims {
    /// Takes the outcome of a check that ran from `began` until `ended`.
    pub(super) fn state(&mut self, backend: BackendId, statement: RoleStatement, began: Instant, ended: Instant) {
        match statement {
            RoleStatement::Primary { timeline } => {
                let promoted = self.followers.remove(&backend).then_some(ended);
                let new = || PrimaryClaim { since: ended, renewed: began, timeline, promoted, has_failed: false };
                let claim = self.claims.entry(backend).or_insert_with(new);
                if std::mem::take(&mut claim.has_failed) {
                    claim.since = ended;
                }
                (claim.renewed, claim.timeline) = (began, timeline.or(claim.timeline));
            }
            RoleStatement::Full => {
                if let Some(claim) = self.claims.get_mut(&backend).filter(|claim| !claim.has_failed) {
                    claim.renewed = began;
                }
            }
            // One failed check does not end a conflict: the server may go on as the primary.
            RoleStatement::Failed { is_down } => {
                let stays = self.is_confirmed && !is_down;
                self.claims.entry(backend).and_modify(|claim| claim.has_failed |= !stays);
            }
            RoleStatement::Other => {
                self.claims.remove(&backend);
                self.followers.insert(backend);
            }
            RoleStatement::None => {
                self.claims.remove(&backend);
            }
        }
    }

    /// Forgets backends that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(BackendId) -> bool) {
        self.claims.retain(|&backend, _| is_there(backend));
        self.followers.retain(|&backend| is_there(backend));
    }

    /// How many backends it knows of.
    pub(super) fn len(&self) -> usize {
        self.claims.len() + self.followers.len()
    }

    /// All that state it.
    pub(super) fn backends(&self) -> impl Iterator<Item = BackendId> {
        self.current().map(|(backend, _)| backend)
    }

    fn current(&self) -> impl Iterator<Item = (BackendId, &PrimaryClaim)> {
        self.claims.iter().filter(|(_, claim)| !claim.has_failed).map(|(&backend, claim)| (backend, claim))
    }

    pub(super) fn timeline(&self, backend: BackendId) -> Option<u32> {
        self.claims.get(&backend)?.timeline
    }

    /// Which are not to be used.
    pub(super) fn dispute(&mut self, on_conflict: OnConflict) -> Dispute {
        let failed: Vec<BackendId> =
            self.claims.iter().filter(|(_, claim)| claim.has_failed).map(|(&backend, _)| backend).collect();
        let last = self.current().max_by_key(|(_, claim)| claim.since).map(|(backend, claim)| (backend, claim.since));
        let Some((last, since)) = last else {
            self.is_confirmed = false;
            // The last one goes on being used until it is down.
            let newest = self.claims.iter().max_by_key(|(_, claim)| claim.since).map(|(&backend, _)| backend);
            let held: Vec<BackendId> = failed.into_iter().filter(|&backend| Some(backend) != newest).collect();
            return if held.is_empty() { Dispute::None } else { Dispute::Superseded { held } };
        };
        if self.current().nth(1).is_none() {
            self.is_confirmed = false;
            return if failed.is_empty() { Dispute::None } else { Dispute::Superseded { held: failed } };
        }
        let newest = match on_conflict {
            OnConflict::Refuse => None,
            OnConflict::Newest => self.newest(),
        };
        let held = self.backends().filter(|&backend| Some(backend) != newest).chain(failed).collect();
        let mut others = self.current().filter(|(backend, _)| *backend != last);
        let is_confirmed = self.is_confirmed || others.all(|(_, other)| other.renewed >= since);
        drop(others);
        self.is_confirmed = is_confirmed;
        match is_confirmed {
            true => Dispute::Confirmed { held, newest },
            false => Dispute::Unconfirmed { held, since },
        }
    }

    /// The one that was promoted last, if that is known.
    fn newest(&self) -> Option<BackendId> {
        let timelines: Option<Vec<(u32, BackendId)>> =
            self.current().map(|(backend, claim)| Some((claim.timeline?, backend))).collect();
        match timelines {
            Some(timelines) => {
                let (highest, backend) = *timelines.iter().max()?;
                let is_alone = timelines.iter().filter(|(timeline, _)| *timeline == highest).count() == 1;
                is_alone.then_some(backend)
            }
            None => {
                let promoted = self.current().filter_map(|(backend, claim)| Some((claim.promoted?, backend)));
                promoted.max().map(|(_, backend)| backend)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::stats::registry::Registry;

    const PRIMARY: RoleStatement = RoleStatement::Primary { timeline: None };

    fn ids<const N: usize>() -> [BackendId; N] {
        let registry = Registry::default();
        std::array::from_fn(|_| registry.backend())
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn two_primaries_are_both_held_once_the_first_has_said_it_again() {
        let ([one, other], start) = (ids(), Instant::now());
        let mut claims = Claims::default();
        let policy = OnConflict::Refuse;
        claims.state(one, PRIMARY, at(start, 0), at(start, 1));
        assert_eq!(claims.dispute(policy), Dispute::None);
        claims.state(other, PRIMARY, at(start, 10), at(start, 12));
        let (held, since) = (vec![one, other], at(start, 12));
        assert_eq!(claims.dispute(policy), Dispute::Unconfirmed { held: held.clone(), since });
        // Began before the other's statement was received.
        claims.state(one, PRIMARY, at(start, 11), at(start, 13));
        assert_eq!(claims.dispute(policy), Dispute::Unconfirmed { held: held.clone(), since });
        claims.state(one, PRIMARY, at(start, 12), at(start, 14));
        assert_eq!(claims.dispute(policy), Dispute::Confirmed { held, newest: None });
        claims.state(one, RoleStatement::Other, at(start, 20), at(start, 21));
        assert_eq!(claims.dispute(policy), Dispute::None);
    }

    #[test]
    fn a_primary_that_was_demoted_or_fails_is_no_conflict() {
        let failed = RoleStatement::Failed { is_down: false };
        for (end, held) in [(RoleStatement::Other, 0), (RoleStatement::None, 0), (failed, 1)] {
            let ([old, new], start) = (ids(), Instant::now());
            let mut claims = Claims::default();
            claims.state(old, PRIMARY, at(start, 0), at(start, 1));
            claims.state(new, PRIMARY, at(start, 10), at(start, 11));
            claims.state(old, end, at(start, 11), at(start, 12));
            let superseded = Dispute::Superseded { held: vec![old] };
            assert_eq!(claims.dispute(OnConflict::Refuse), if held == 0 { Dispute::None } else { superseded });
        }
    }

    #[test]
    fn a_failed_check_ends_no_conflict() {
        for policy in [OnConflict::Refuse, OnConflict::Newest] {
            let ([old, new], start) = (ids(), Instant::now());
            let mut claims = Claims::default();
            claims.state(old, PRIMARY, at(start, 0), at(start, 1));
            claims.state(new, RoleStatement::Other, at(start, 2), at(start, 3));
            claims.state(new, PRIMARY, at(start, 10), at(start, 11));
            claims.state(old, PRIMARY, at(start, 12), at(start, 13));
            let conflict = claims.dispute(policy);
            assert!(matches!(conflict, Dispute::Confirmed { .. }), "{conflict:?}");
            for backend in [old, new] {
                claims.state(backend, RoleStatement::Failed { is_down: false }, at(start, 20), at(start, 21));
                assert_eq!(claims.dispute(policy), conflict, "it may go on as the primary");
                claims.state(backend, PRIMARY, at(start, 22), at(start, 23));
                assert_eq!(claims.dispute(policy), conflict, "its promotion is still known");
            }
            claims.state(new, RoleStatement::Full, at(start, 30), at(start, 31));
            assert_eq!(claims.dispute(policy), conflict);
            claims.state(old, RoleStatement::Failed { is_down: true }, at(start, 40), at(start, 41));
            assert_eq!(claims.dispute(policy), Dispute::Superseded { held: vec![old] });
        }
    }

    #[test]
    fn newest_is_the_higher_timeline_or_the_later_promotion() {
        let ([one, other], start) = (ids(), Instant::now());
        let of = |first: RoleStatement, was_follower: bool, second: RoleStatement| {
            let mut claims = Claims::default();
            claims.state(one, first, at(start, 0), at(start, 1));
            if was_follower {
                claims.state(other, RoleStatement::Other, at(start, 2), at(start, 3));
            }
            claims.state(other, second, at(start, 10), at(start, 11));
            claims.state(one, first, at(start, 12), at(start, 13));
            match claims.dispute(OnConflict::Newest) {
                Dispute::Confirmed { held, newest } => {
                    assert_eq!(held.len(), if newest.is_some() { 1 } else { 2 });
                    newest
                }
                other => panic!("{other:?}"),
            }
        };
        let on = |timeline| RoleStatement::Primary { timeline: Some(timeline) };
        assert_eq!(of(on(1), false, on(2)), Some(other));
        assert_eq!(of(on(2), true, on(1)), Some(one), "the timeline decides, not what was seen");
        assert_eq!(of(on(2), true, on(2)), None, "it is not known");
        assert_eq!(of(PRIMARY, true, PRIMARY), Some(other), "its promotion was seen");
        assert_eq!(of(PRIMARY, false, PRIMARY), None, "both were primaries from the start");
        assert_eq!(of(on(1), false, PRIMARY), None);
    }

    proptest! {
        /// Whatever the checks see, of several that say it at most one is used; one that is alone always is.
        #[test]
        fn never_two(
            steps in prop::collection::vec((0..4_usize, 0..5_u8, 0..3_u64, 0..3_u64), 0..60), newest: bool,
        ) {
            let (backends, start) = (ids::<4>(), Instant::now());
            let (mut claims, mut now) = (Claims::default(), 0);
            let policy = if newest { OnConflict::Newest } else { OnConflict::Refuse };
            let mut stated = [RoleStatement::None; 4];
            for (place, what, waits, took) in steps {
                let began = now + waits;
                now = began + took;
                let statement = match what {
                    0 => RoleStatement::None,
                    1 => RoleStatement::Other,
                    4 => RoleStatement::Failed { is_down: waits == 0 },
                    number => RoleStatement::Primary { timeline: (number == 3).then_some(number.into()) },
                };
                if statement != (RoleStatement::Failed { is_down: false }) {
                    stated[place] = statement;
                }
                claims.state(backends[place], statement, at(start, began), at(start, now));
                let says: Vec<BackendId> = (0..4)
                    .filter(|&it| matches!(stated[it], RoleStatement::Primary { .. }))
                    .map(|it| backends[it])
                    .collect();
                let held = match claims.dispute(policy) {
                    Dispute::None => Vec::new(),
                    Dispute::Superseded { held }
                    | Dispute::Unconfirmed { held, .. }
                    | Dispute::Confirmed { held, .. } => held,
                };
                // Also of those that said it before one failed check.
                let used = says.iter().filter(|it| !held.contains(it)).count();
                prop_assert!(used <= 1, "{:?} say it, {:?} are held", says, held);
            }
        }
    }
}
