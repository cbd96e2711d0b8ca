//! What changes a pool: its configuration, DNS, health, time.
//!
//! [`Pool::update`] and [`Pool::resolve`] change which backends there are; [`Pool::set_up`], [`Pool::set_down`] and
//! [`Pool::tick`] which of them can be chosen. All of it happens under the writer's lock, which no pick takes, and ends in a
//! new [`PoolSnapshot`].

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockResult};
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::member::{CauseState, Causes, Conflict, Member, resolution, unchecked};
use super::members::{Identity, Resolutions, Target, targets};
use super::outlier::Ejections;
use super::runtime::Runtime;
use super::snapshot::{PoolSnapshot, is_usable};
use super::status::Status;
use super::{Pool, Transition, slow_start};
use crate::config::model::{self, AdminState, OnDown};
use crate::net::addr::Address;
use crate::stats::registry::BackendId;

/// How often [`Pool::tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(100);

/// How often a latency that nothing confirms gets smaller.
const DECAY: Duration = Duration::from_secs(1);

/// Snapshots made at once between two ticks; what changes further is seen at the next tick. Some algorithms prepare for
/// milliseconds, and a large pool's first verdicts all come in the same moment.
const REBUILDS_PER_TICK: u32 = 16;

/// What an update has changed, by the backends' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New backends.
    pub added: Vec<Arc<str>>,
    /// Backends that leave: they get no new connections.
    pub removed: Vec<Arc<str>>,
    /// Backends whose name, weight or limits are others.
    pub changed: Vec<Arc<str>>,
}

impl Changes {
    /// Whether nothing was added, removed or changed.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// What only those who change the pool need.
pub(super) struct Writer {
    pub(super) config: Arc<model::PoolConfig>,
    resolutions: Resolutions,
    /// In the order of the configuration, then those that leave.
    pub(super) members: Vec<Member>,
    /// Snapshots made since the last tick.
    rebuilt: u32,
    /// The snapshot is older than the members.
    pub(super) stale: bool,
    decayed: Option<Instant>,
}

impl Writer {
    pub(super) fn new(config: model::PoolConfig) -> Writer {
        Writer {
            config: Arc::new(config),
            resolutions: Resolutions::default(),
            members: Vec::new(),
            rebuilt: 0,
            stale: false,
            decayed: None,
        }
    }

    pub(super) fn snapshot(&self) -> PoolSnapshot {
        PoolSnapshot::new(&self.config, &self.members)
    }
}

impl Pool {
    /// The first members.
    pub(super) fn populate(&self) {
        let mut writer = self.writer();
        self.reconcile(&mut writer);
        self.rebuild(&mut writer);
        // The first status is no change of it.
        let usable = self.is_usable();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Status::now(usable, None);
        self.downs.store(0, Relaxed);
    }

    /// Takes over another configuration. Backends that are still there keep their connections, health and statistics; new ones
    /// come, and others leave once their last connection has ended.
    pub fn update(&self, config: model::PoolConfig) -> Changes {
        let mut writer = self.writer();
        writer.config = Arc::new(config);
        let config = Arc::clone(&writer.config);
        writer.resolutions.keep_those_of(&config);
        let downs = |writer: &Writer| {
            let of = |member: &Member| (Arc::clone(&member.backend), member.backend.downs());
            writer.members.iter().map(of).collect::<Vec<_>>()
        };
        let before = downs(&writer);
        let changes = self.reconcile(&mut writer);
        self.end_ejections(&mut writer, Instant::now());
        self.rebuild(&mut writer);
        drop(writer); // what is called may ask
        // Forced down, perhaps.
        let down = before.iter().filter(|(backend, downs)| backend.downs() != *downs);
        down.for_each(|(backend, _)| self.cut_if_configured(backend));
        changes
    }

    /// Takes in what DNS says of the host name of an entry in `pools[].backends`: its addresses, or why it has none. An empty or
    /// failed answer keeps the last addresses.
    pub fn resolve(&self, entry: &str, answer: Result<Vec<Address>, &str>) -> Changes {
        let mut writer = self.writer();
        let config = Arc::clone(&writer.config);
        let Some(configured) = config.backends.iter().find(|configured| *configured.name == *entry) else {
            return Changes::default();
        };
        writer.resolutions.answer(configured, answer.map_err(Arc::from));
        let changes = self.reconcile(&mut writer);
        self.publish(&mut writer);
        changes
    }

    /// The last addresses of an entry's host name; none before the first answer.
    pub fn resolved(&self, entry: &str) -> Vec<Address> {
        let writer = self.writer();
        let configured = writer.config.backends.iter().find(|configured| *configured.name == *entry);
        configured.map_or(Vec::new(), |configured| writer.resolutions.addresses(configured).to_vec())
    }

    /// Makes the members those that the configuration and DNS stand for.
    fn reconcile(&self, writer: &mut Writer) -> Changes {
        let config = Arc::clone(&writer.config);
        let mut old: BTreeMap<Identity, Member> =
            std::mem::take(&mut writer.members).into_iter().map(|member| (member.identity(), member)).collect();
        let mut changes = Changes::default();
        let wanted = targets(&config, &writer.resolutions);
        for target in wanted {
            // The first address of a name takes the place of the backend that had none.
            let known = old.remove(&target.identity()).or_else(|| old.remove(&(Arc::clone(&target.entry), None)));
            let member = match known {
                Some(known) => self.renew(known, target, writer, &mut changes),
                None => self.add(target, writer, &mut changes),
            };
            writer.members.push(member);
        }
        for (_, mut member) in old {
            member.wanted = false;
            if !stands_in(&member, &writer.members) && !member.backend.is_leaving() {
                changes.removed.push(Arc::clone(member.backend.name()));
                member.backend = Arc::new(member.backend.leave());
            }
            let is_taken = |other: &Member| other.wanted && other.backend.name() == member.backend.name();
            if writer.members.iter().any(is_taken) {
                // Its plain name is its successor's by now.
                member.backend = Arc::new(member.backend.with_full_name());
            }
            if !member.backend.is_leaving() || member.backend.connections() > 0 {
                writer.members.push(member);
            } else {
                self.departed().add(&member.backend);
            }
        }
        self.trim_ejections(writer);
        self.record_status(writer);
        changes
    }

    fn add(&self, target: Target, writer: &Writer, changes: &mut Changes) -> Member {
        changes.added.push(Arc::clone(&target.name));
        let causes = Causes::of(&target, &writer.config, &writer.resolutions);
        let runtime = Runtime::new(self.registry.backend(), causes.status(), self.workers, Arc::clone(&self.load));
        let backend = Arc::new(Backend::new(target, &writer.config, runtime));
        let ejections = Ejections::default();
        Member { backend, wanted: true, causes, ejections, slow_since: None }
    }

    /// The same backend by its new configuration.
    fn renew(&self, mut member: Member, target: Target, writer: &Writer, changes: &mut Changes) -> Member {
        let resolution = resolution(&target, &writer.resolutions);
        let (backend, leaves) = (&member.backend, member.backend.is_leaving());
        let forced = target.forced;
        if backend.state() == AdminState::Maintenance && target.state != AdminState::Maintenance {
            // What was known before is stale: the next check decides.
            member.causes.health = unchecked(&target, &writer.config);
        }
        if *backend.target() != target || leaves {
            changes.changed.push(Arc::clone(&target.name));
        }
        if *backend.target() != target || leaves || !Arc::ptr_eq(backend.settings(), &writer.config) {
            let runtime = Arc::clone(backend.runtime());
            member.backend = Arc::new(Backend::new(target, &writer.config, runtime));
        }
        member.wanted = true;
        if writer.config.health.is_none() {
            member.causes.health = CauseState::Good;
        }
        self.settle(&mut member, Instant::now(), |causes| {
            (causes.resolution, causes.forced) = (resolution, forced);
        });
        member
    }

    /// What health checks have found of a backend: whether it is healthy, or `None` if nothing is known yet.
    pub fn verdict(&self, backend: BackendId) -> Option<bool> {
        let writer = self.writer();
        let member = writer.members.iter().find(|member| member.backend.id() == backend)?;
        match member.causes.health {
            CauseState::Unknown => None,
            CauseState::Good => Some(true),
            CauseState::Bad(_) => Some(false),
        }
    }

    /// The backend is healthy. It takes connections as soon as it has an address; with a share of its weight that grows
    /// over `slow_start`, if it was down before. True if that changed its health.
    pub fn set_up(&self, backend: BackendId) -> bool {
        self.set_health(backend, CauseState::Good)
    }

    /// The backend is not healthy, and why. It takes no new connection from now on; those it has are cut if the pool's `on_down` says so.
    /// True if that changed its health; the first verdict is a change.
    pub fn set_down(&self, backend: BackendId, reason: &str) -> bool {
        self.set_health(backend, CauseState::Bad(reason.into()))
    }

    fn set_health(&self, backend: BackendId, to: CauseState) -> bool {
        let mut writer = self.writer();
        let Some(place) = writer.members.iter().position(|member| member.backend.id() == backend) else {
            return false;
        };
        let member = &mut writer.members[place];
        // Another reason for being down is no change of state.
        let changed = std::mem::discriminant(&member.causes.health) != std::mem::discriminant(&to);
        let was_up = member.backend.is_up();
        let went_down = self.settle(member, Instant::now(), |causes| causes.health = to);
        let (backend, is_up) = (Arc::clone(&member.backend), member.backend.is_up());
        // A first verdict may let the backends leave that stood in for this one.
        if self.retire(&mut writer) || was_up != is_up {
            self.record_status(&writer);
            self.publish(&mut writer);
        }
        drop(writer); // what is called may ask
        if went_down {
            self.cut_if_configured(&backend);
        }
        changed
    }

    /// More than one backend is the primary: those in `held` get no new connections, all others are free of conflict.
    pub fn set_conflicts(&self, held: &[(BackendId, Conflict)]) {
        let mut writer = self.writer();
        let (mut cut, mut is_stale) = (Vec::new(), false);
        for member in &mut writer.members {
            let conflict = held.iter().find(|(id, _)| *id == member.backend.id()).map(|(_, conflict)| conflict.clone());
            if member.causes.conflict == conflict {
                continue;
            }
            is_stale = true;
            if self.settle(member, Instant::now(), |causes| causes.conflict = conflict) {
                cut.push(Arc::clone(&member.backend));
            }
        }
        if is_stale {
            self.record_status(&writer);
            self.publish(&mut writer);
        }
        drop(writer); // what is called may ask
        cut.iter().for_each(|backend| self.cut_if_configured(backend));
    }

    /// Whether more than one backend is the primary.
    pub fn set_primary_conflict(&self, is_in_conflict: bool) {
        self.primary_conflict.store(is_in_conflict, Relaxed);
    }

    /// Whether the backend is used only when no other can be, by its role.
    pub fn set_fallback(&self, backend: BackendId, fallback: bool) {
        let mut writer = self.writer();
        let is_it = |member: &&Member| member.backend.id() == backend;
        if writer.members.iter().find(is_it).is_some_and(|member| member.backend.runtime().set_fallback(fallback)) {
            self.publish(&mut writer);
        }
    }

    fn cut_if_configured(&self, backend: &Backend) {
        if backend.settings().on_down == OnDown::Cut
            && let Some(cut) = self.cut.get()
        {
            cut(backend.id());
        }
    }

    /// Changes the causes of a member's state, and what follows from them but the snapshot. True if it went down: its
    /// sessions go the way of `on_down`.
    pub(super) fn settle(&self, member: &mut Member, now: Instant, change: impl FnOnce(&mut Causes)) -> bool {
        let (was_bad, was_up, kept) = (member.causes.is_bad(), member.backend.is_up(), member.causes.keeps_sessions());
        change(&mut member.causes);
        let status = member.causes.status();
        let (is_up, reason) = (status.up, status.reason.clone());
        let went_down = kept && !member.causes.keeps_sessions();
        member.backend.runtime().set_status(status, went_down);
        // One that is found down at its first look has never been up.
        if was_up != is_up || !was_bad && member.causes.is_bad() {
            let (backend, name) = (member.backend.id(), Arc::clone(member.backend.name()));
            self.transitions.add(Transition { backend, name, up: is_up, reason });
        }
        let slow_start = member.backend.settings().slow_start;
        // A first verdict that is good is no recovery.
        if !was_up && is_up && was_bad && !slow_start.is_zero() {
            member.slow_since = Some(now);
        }
        if !is_up {
            member.slow_since = None;
        }
        member.backend.runtime().set_parts(slow_start::parts(member.slow_since, now, slow_start));
        went_down
    }

    /// The pool as a whole may have become usable, or unusable.
    pub(super) fn record_status(&self, writer: &Writer) {
        let usable = is_usable(&writer.config, &writer.members);
        if self.status.lock().unwrap_or_else(PoisonError::into_inner).change(Status::now(usable, None)) {
            self.downs.fetch_add(1, Relaxed);
        }
    }

    /// Lets members leave that need not stand in for others any more, and forgets those that have left. True if there were any.
    fn retire(&self, writer: &mut Writer) -> bool {
        let is_due = |it: &Member| match it.backend.is_leaving() {
            true => it.backend.connections() == 0,
            false => !it.wanted && !stands_in(it, &writer.members),
        };
        let any = writer.members.iter().any(is_due);
        if any {
            self.reconcile(writer);
        }
        any
    }

    /// What time changes: growing weights, latencies that grow old, backends that leave. To be called every [`TICK`] by the
    /// control thread; costs nothing when there is nothing to do.
    pub fn tick(&self, now: Instant) {
        let mut writer = self.writer();
        self.persist().expire(writer.config.persistence(), now);
        let mut stale = std::mem::take(&mut writer.stale) | self.end_ejections(&mut writer, now);
        for member in &mut writer.members {
            let slow_start = member.backend.settings().slow_start;
            let parts = slow_start::parts(member.slow_since, now, slow_start);
            stale |= parts != member.backend.runtime().parts();
            member.backend.runtime().set_parts(parts);
            if parts == slow_start::PARTS {
                member.slow_since = None;
            }
        }
        writer.rebuilt = 0;
        stale |= self.retire(&mut writer);
        if stale {
            self.rebuild(&mut writer);
        }
        let last = *writer.decayed.get_or_insert(now);
        if now.saturating_duration_since(last) >= DECAY {
            writer.decayed = Some(now);
            writer.members.iter().for_each(|member| member.backend.runtime().decay());
        }
    }

    /// Makes a new snapshot: now, or with the next tick where there were many of late. Until then no pick takes a backend that is
    /// down, whatever the snapshot says.
    pub(super) fn publish(&self, writer: &mut Writer) {
        if writer.rebuilt < REBUILDS_PER_TICK {
            writer.rebuilt += 1;
            self.rebuild(writer);
        } else {
            writer.stale = true;
        }
    }

    fn rebuild(&self, writer: &mut Writer) {
        writer.stale = false;
        let new = writer.snapshot();
        let old = self.snapshot.load();
        let same = old.backends.len() == new.backends.len()
            && old.backends.iter().zip(&*new.backends).all(|(old, new)| Arc::ptr_eq(old, new));
        self.snapshot.store(Arc::new(new));
        self.queue().wake_first();
        if !same {
            self.generation.send_modify(|generation| *generation += 1);
        }
    }

    pub(super) fn try_writer(&self) -> TryLockResult<MutexGuard<'_, Writer>> {
        self.writer.try_lock()
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        // Nothing in there is left half done by a panic in between.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far each backend's weight has grown, by its id, in 0..=1.
    pub(super) fn shares(&self) -> BTreeMap<BackendId, f64> {
        let share =
            |it: &Member| (it.backend.id(), f64::from(it.backend.runtime().parts()) / f64::from(slow_start::PARTS));
        self.writer().members.iter().map(share).collect()
    }
}

/// Whether a member that the configuration no longer has goes on for a while: until another address of the same host name is up,
/// or until backends that were never checked have a verdict. Otherwise a change of all backends at once would leave the pool
/// without one.
fn stands_in(member: &Member, members: &[Member]) -> bool {
    let entry = &member.backend.target().entry;
    let successors = || members.iter().filter(|other| other.wanted && other.backend.target().entry == *entry);
    let is_awaited = successors().next().is_some() && !successors().any(|other| other.backend.is_up());
    let wanted = || members.iter().filter(|other| other.wanted);
    let is_unverified = wanted().any(|other| other.causes.health == CauseState::Unknown)
        && !wanted().any(|other| other.backend.takes_connections());
    member.backend.takes_connections() && (is_awaited || is_unverified)
}
