//! Pools: backends, their live state, and the lease of one of them for a connection.
//!
//! Workers share a [`Pool`]. They read one immutable [`snapshot`](Snapshot) of who can be chosen, and
//! otherwise only touch atomics inside the chosen [`Backend`]; they never wait for one another. Whatever
//! changes who can be chosen (health, DNS, slow start) comes from the control thread, which replaces
//! the snapshot whole.

mod backend;
mod lease;
mod preview;
pub mod resolve;
mod slow_start;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tried;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use self::backend::Load;
pub use self::backend::{Backend, BackendIndex, Condition};
pub use self::lease::{Lease, NoBackend};
pub use self::preview::{Ability, BackendStanding, Choice, Preview};
pub use self::tried::Tried;
use crate::balance::{Balancer, Candidate, Draw};
use crate::config::model::{self, BackendAddress, OnDown};
use crate::net::addr::Address;
use crate::stats::recent_events::RecentEvents;
use crate::stats::registry::{BackendId, PoolId, Registry};

/// A pool of backends, shared by all workers and the control thread.
pub struct Pool {
    id: PoolId,
    config: model::Pool,
    backends: Box<[Arc<Backend>]>,
    snapshot: ArcSwap<Snapshot>,
    turn: CachePadded<AtomicU64>,
    source_turn: AtomicU64,
    writer: Mutex<Writer>,
    cut: OnceLock<Box<dyn Fn(BackendId) + Send + Sync>>,
    transitions: RecentEvents<Transition>,
    refused: AtomicU64,
    load: Arc<Load>,
    condition: Mutex<Condition>,
    /// How often it became unusable.
    downs: AtomicU64,
}

/// A backend has gone up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which one.
    pub backend: BackendIndex,
    /// Which way.
    pub up: bool,
    /// Why it is down.
    pub reason: Option<Arc<str>>,
}

/// Who can be chosen, at one moment.
struct Snapshot {
    primary: Tier,
    backup: Tier,
}

/// Backends among which an algorithm chooses; its indices are places in `members`.
struct Tier {
    members: Box<[Arc<Backend>]>,
    balancer: Balancer,
}

/// What only those who change the pool need; behind a lock that no pick takes.
struct Writer {
    backends: Box<[Standing]>,
    /// Snapshots made since the last tick.
    rebuilt: u32,
    /// The snapshot is older than the backends' standing.
    stale: bool,
    decayed: Option<Instant>,
}

/// How a backend stands; it can be chosen when both its health and its addresses are good.
struct Standing {
    health: Verdict,
    addresses: Verdict,
    slow_since: Option<Instant>,
    /// Share of its weight that it gets, in [`slow_start::PARTS`].
    parts: u32,
}

#[derive(Clone, PartialEq)]
enum Verdict {
    /// Not known yet; counts as bad, but its end is not a recovery.
    Unknown,
    Good,
    Bad(Arc<str>),
}

/// Snapshots made at once between two ticks; what changes further is seen at the next tick. Some algorithms prepare for
/// milliseconds, and a large pool's first verdicts all come in the same moment.
const REBUILDS_PER_TICK: u32 = 16;

/// Transitions that are remembered of one pool.
const TRANSITIONS: usize = 64;

impl Pool {
    /// A pool as configured. Backends whose health is not known before a first probe (`initial: probe`), and those
    /// whose name is not resolved, are down until they are known to be well. Bytes are counted by each of `workers` for itself.
    pub fn new(config: &model::Pool, registry: &Registry, workers: usize) -> Arc<Pool> {
        let id = registry.pool(&config.name);
        let health = match &config.health {
            Some(health) if health.initial == model::Initial::Probe => Verdict::Unknown,
            _ => Verdict::Good,
        };
        let standing = |backend: &model::Backend| Standing {
            health: health.clone(),
            addresses: match backend.address {
                BackendAddress::Name { .. } => Verdict::Unknown,
                BackendAddress::Ip(_) | BackendAddress::Unix(_) => Verdict::Good,
            },
            slow_since: None,
            parts: slow_start::PARTS,
        };
        let writer = Writer {
            backends: config.backends.iter().map(standing).collect(),
            rebuilt: 0,
            stale: false,
            decayed: None,
        };
        let load = Arc::<Load>::default();
        let backends: Box<[Arc<Backend>]> = config
            .backends
            .iter()
            .zip(&writer.backends)
            .enumerate()
            .map(|(index, (backend, standing))| {
                let id = registry.backend(id, &backend.name);
                Arc::new(Backend::new(
                    BackendIndex(index),
                    id,
                    backend,
                    standing.condition(),
                    workers,
                    Arc::clone(&load),
                ))
            })
            .collect();
        Arc::new(Pool {
            id,
            snapshot: ArcSwap::from_pointee(Snapshot::new(config, &backends, &writer)),
            config: config.clone(),
            condition: Mutex::new(Condition::now(is_usable(&backends), None)),
            backends,
            turn: CachePadded::new(AtomicU64::new(0)),
            source_turn: AtomicU64::new(0),
            writer: Mutex::new(writer),
            cut: OnceLock::new(),
            transitions: RecentEvents::new(TRANSITIONS),
            refused: AtomicU64::new(0),
            load,
            downs: AtomicU64::new(0),
        })
    }

    /// Its id.
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// What was configured: retries, connect timeout and so on.
    pub fn config(&self) -> &model::Pool {
        &self.config
    }

    /// All backends, in the order of the configuration: also those that are down or have no weight.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// The next of the configured local addresses that can connect to `remote`; `None` lets the kernel choose.
    pub fn source(&self, remote: &Address) -> Option<IpAddr> {
        self.sources(remote).next()
    }

    /// All configured local addresses that can connect to `remote`, each once, beginning with the one whose turn it is.
    pub fn sources(&self, remote: &Address) -> impl Iterator<Item = IpAddr> + '_ {
        let is_ipv4 = match remote {
            Address::Tcp(remote) => Some(remote.is_ipv4()),
            Address::Unix(_) => None,
        };
        let fitting = || self.config.source.iter().copied().filter(move |local| Some(local.is_ipv4()) == is_ipv4);
        let count = fitting().count();
        let turn = match count {
            0 | 1 => 0,
            // What is left of a division by `count` fits.
            _ => (self.source_turn.fetch_add(1, Relaxed) % count as u64) as usize,
        };
        fitting().cycle().skip(turn).take(count)
    }

    /// The last times that a backend went up or down, the oldest first.
    pub fn transitions(&self) -> Vec<(SystemTime, Transition)> {
        self.transitions.entries()
    }

    /// Whether there is a backend that is up and has a weight; it may be full.
    pub fn is_usable(&self) -> bool {
        is_usable(&self.backends)
    }

    /// Whether it is usable, since when, and how long it was not.
    pub fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it became unusable as a whole.
    pub fn downs(&self) -> u64 {
        self.downs.load(Relaxed)
    }

    /// Connections leased at this moment, over all backends.
    pub fn connections(&self) -> u32 {
        self.load.open()
    }

    /// The most connections that were leased at once.
    pub fn peak(&self) -> u32 {
        self.load.peak()
    }

    /// A connection that was for this pool got no backend.
    pub fn record_refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Connections that got no backend.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Chooses a backend for a new connection and counts the connection against it until the lease is dropped.
    /// The `backup` backends are only considered when no other can take the connection.
    ///
    /// `client` is the client's address, if it has one; `tried` are the backends that this connection has tried in vain.
    ///
    /// # Errors
    ///
    /// Why there is nobody to choose.
    pub fn lease(&self, client: Option<IpAddr>, tried: &Tried) -> Result<Lease, NoBackend> {
        let snapshot = self.snapshot.load();
        let balancer = &snapshot.primary.balancer; // both tiers have the same algorithm
        let draw = Draw {
            key: match client {
                Some(ip) if balancer.needs_key() => lease::client_key(ip, self.config.hash),
                _ => 0,
            },
            turn: match balancer.needs_turn() {
                // A retry takes no turn from others: with a dead backend among two, every client would meet it first.
                true if !tried.is_empty() => fastrand::u64(..),
                true => self.turn.fetch_add(1, Relaxed),
                false => 0,
            },
            random: if balancer.needs_random() { fastrand::u64(..) } else { 0 },
        };
        [&snapshot.primary, &snapshot.backup]
            .into_iter()
            .find_map(|tier| lease::take(&tier.members, &tier.balancer, &draw, tried))
            .ok_or_else(|| NoBackend::explain(&self.backends, tried))
    }

    /// Names who is told when a backend goes down and the pool's `on_down` is `cut`. Called on the thread that has noticed,
    /// after the backend stopped taking connections. Only the first call has an effect.
    pub fn on_cut(&self, cut: Box<dyn Fn(BackendId) + Send + Sync>) {
        let _already_set = self.cut.set(cut);
    }

    /// The backend is healthy. It takes connections as soon as it has an address; with a share of its weight that grows
    /// over `slow_start`, if it was down before. True if that changed its health.
    pub fn set_up(&self, index: BackendIndex) -> bool {
        self.change(index, Instant::now(), |standing| &mut standing.health, Verdict::Good)
    }

    /// The backend is not healthy, and why. It takes no new connection from now on; those it has are cut if the pool's `on_down` says so.
    /// True if that changed its health; the first verdict is a change.
    pub fn set_down(&self, index: BackendIndex, reason: &str) -> bool {
        let verdict = Verdict::Bad(reason.into());
        self.change(index, Instant::now(), |standing| &mut standing.health, verdict)
    }

    /// The addresses that the backend's name has; not empty.
    fn set_addresses(&self, index: BackendIndex, addresses: Vec<Address>) {
        let Some(backend) = self.backends.get(index.0) else {
            return;
        };
        backend.set_addresses(addresses);
        self.change(index, Instant::now(), |standing| &mut standing.addresses, Verdict::Good);
    }

    /// The backend's name has never had an address, and why.
    fn set_unresolved(&self, index: BackendIndex, reason: &str) {
        let verdict = Verdict::Bad(reason.into());
        self.change(index, Instant::now(), |standing| &mut standing.addresses, verdict);
    }

    fn change(&self, index: BackendIndex, now: Instant, which: fn(&mut Standing) -> &mut Verdict, to: Verdict) -> bool {
        let Some(backend) = self.backends.get(index.0) else {
            return false;
        };
        let mut writer = self.writer();
        let standing = &mut writer.backends[index.0];
        let verdict = which(standing);
        // Another reason for being down is no change of state.
        let changed = std::mem::discriminant(verdict) != std::mem::discriminant(&to);
        let was_down = standing.is_down();
        *which(standing) = to;

        let was_up = backend.is_up();
        let condition = standing.condition();
        let reason = condition.reason.clone();
        backend.set_condition(condition);
        let is_up = backend.is_up();
        // One that is found down at its first look has never been up.
        if was_up != is_up || changed && !is_up {
            self.transitions.add(Transition { backend: index, up: is_up, reason });
        }
        if was_up == is_up {
            return changed;
        }
        let whole = Condition::now(self.is_usable(), None);
        if self.condition.lock().unwrap_or_else(PoisonError::into_inner).change(whole) {
            self.downs.fetch_add(1, Relaxed);
        }
        // A first verdict that is good is no recovery.
        if is_up && was_down && !self.config.slow_start.is_zero() {
            standing.slow_since = Some(now);
        }
        if !is_up {
            standing.slow_since = None;
        }
        standing.parts = slow_start::parts(standing.slow_since, now, self.config.slow_start);
        if writer.rebuilt < REBUILDS_PER_TICK {
            writer.rebuilt += 1;
            self.rebuild(&mut writer);
        } else {
            writer.stale = true; // no pick takes one that is down, whatever the snapshot says
        }
        drop(writer); // what is told may ask
        if !is_up
            && self.config.on_down == OnDown::Cut
            && let Some(cut) = self.cut.get()
        {
            cut(backend.id());
        }
        changed
    }

    /// What time changes: growing weights, latencies that grow old. To be called every [`TICK`] by the control thread;
    /// costs nothing when there is nothing to do.
    pub fn tick(&self, now: Instant) {
        let mut writer = self.writer();
        let mut stale = std::mem::take(&mut writer.stale);
        for standing in &mut writer.backends {
            let parts = slow_start::parts(standing.slow_since, now, self.config.slow_start);
            stale |= parts != standing.parts;
            standing.parts = parts;
            if parts == slow_start::PARTS {
                standing.slow_since = None;
            }
        }
        writer.rebuilt = 0;
        if stale {
            self.rebuild(&mut writer);
        }
        let last = *writer.decayed.get_or_insert(now);
        if now.saturating_duration_since(last) >= DECAY {
            writer.decayed = Some(now);
            self.backends.iter().for_each(|backend| backend.decay());
        }
    }

    fn rebuild(&self, writer: &mut Writer) {
        writer.stale = false;
        self.snapshot.store(Arc::new(Snapshot::new(&self.config, &self.backends, writer)));
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // Nothing in there is left half done by a panic in between.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", self.name()).finish_non_exhaustive()
    }
}

fn is_usable(backends: &[Arc<Backend>]) -> bool {
    backends.iter().any(|backend| backend.is_up() && backend.weight() > 0)
}

/// How often [`Pool::tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(100);

/// How often a latency that nothing confirms gets smaller.
const DECAY: Duration = Duration::from_secs(1);

impl Snapshot {
    fn new(config: &model::Pool, backends: &[Arc<Backend>], writer: &Writer) -> Snapshot {
        let slow = writer.backends.iter().any(|s| s.parts != slow_start::PARTS);
        let tier = |backup: bool| {
            let (members, candidates) = backends
                .iter()
                .zip(&writer.backends)
                .filter(|(b, _)| b.is_backup() == backup && b.is_up() && b.weight() > 0)
                .map(|(backend, standing)| {
                    // Parts only while somebody is in slow start: small numbers make short schedules.
                    let parts = if slow { standing.parts } else { 1 };
                    let weight = backend.weight() * parts;
                    (Arc::clone(backend), Candidate { identity: backend.identity(), weight })
                })
                .unzip::<_, _, Vec<_>, Vec<_>>();
            let balancer = Balancer::new(config.balance, &candidates);
            Tier { members: members.into(), balancer }
        };
        Snapshot { primary: tier(false), backup: tier(true) }
    }
}

impl Standing {
    fn condition(&self) -> Condition {
        let verdicts = [&self.addresses, &self.health];
        let reason = verdicts.into_iter().find_map(|verdict| match verdict {
            Verdict::Bad(reason) => Some(Arc::clone(reason)),
            Verdict::Unknown | Verdict::Good => None,
        });
        Condition::now(verdicts.into_iter().all(|v| *v == Verdict::Good), reason)
    }

    fn is_down(&self) -> bool {
        matches!(self.health, Verdict::Bad(_)) || matches!(self.addresses, Verdict::Bad(_))
    }
}
