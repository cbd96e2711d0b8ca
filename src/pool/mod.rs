//! Pools: backends, their live state, and the lease of one of them for a connection.
//!
//! Workers share a [`Pool`]. They read one immutable [`PoolSnapshot`] of which backends can be chosen, and
//! otherwise only touch atomics of the chosen [`Backend`]; they never wait for one another. Whatever
//! changes which backends there are, or which can be chosen, goes through [`update`]: configuration, DNS, health, slow start.

mod backend;
mod departed;
mod eject;
mod enqueue;
mod excluded;
mod lease;
mod member;
mod members;
mod outlier;
mod persist;
mod preview;
mod queue;
pub mod resolve;
mod runtime;
mod slow_start;
mod snapshot;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod update;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::sync::watch;

pub use self::backend::Backend;
pub use self::departed::Departed;
pub use self::enqueue::{NotQueued, QueueSlot};
pub use self::excluded::Excluded;
pub use self::lease::{Lease, NoBackend};
pub use self::member::Conflict;
use self::persist::PersistTable;
pub use self::preview::{Availability, BackendPreview, Choice, Preview};
use self::queue::Queue;
pub use self::queue::QueueStatus;
use self::runtime::Load;
use self::snapshot::PoolSnapshot;
pub use self::status::Status;
use self::update::Writer;
pub use self::update::{Changes, TICK};
use crate::balance::Draw;
use crate::config::model;
use crate::net::addr::Address;
use crate::stats::recent_events::RecentEvents;
use crate::stats::registry::{BackendId, PoolId, Registry};

/// A pool of backends, shared by all workers and the control thread.
pub struct Pool {
    id: PoolId,
    name: Arc<str>,
    snapshot: ArcSwap<PoolSnapshot>,
    writer: Mutex<Writer>,
    turn: CachePadded<AtomicU64>,
    source_turn: AtomicU64,
    cut: OnceLock<Box<dyn Fn(BackendId) + Send + Sync>>,
    /// Counts the changes of which backends there are.
    generation: watch::Sender<u64>,
    registry: Registry,
    workers: usize,
    load: Arc<Load>,
    status: Mutex<Status>,
    transitions: RecentEvents<Transition>,
    refused: AtomicU64,
    departed: Mutex<Departed>,
    /// How often it became unusable.
    downs: AtomicU64,
    primary_conflict: AtomicBool,
}

/// A backend has gone up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which one.
    pub backend: BackendId,
    /// Its name at that time.
    pub name: Arc<str>,
    /// Which way.
    pub up: bool,
    /// Why it is down.
    pub reason: Option<Arc<str>>,
}

/// Transitions that are remembered of one pool.
const TRANSITIONS: usize = 64;

impl Pool {
    /// A pool as configured. Backends whose health is not known before a first probe (`initial: probe`), and those
    /// whose host name is not resolved, are down until they are known to be well. Bytes are counted by each of `workers` for itself.
    pub fn new(config: model::PoolConfig, registry: &Registry, workers: usize) -> Arc<Pool> {
        let name = Arc::clone(&config.name);
        let writer = Writer::new(config);
        let pool = Pool {
            id: registry.pool(),
            name,
            snapshot: ArcSwap::from_pointee(writer.snapshot()),
            writer: Mutex::new(writer),
            turn: CachePadded::new(AtomicU64::new(0)),
            source_turn: AtomicU64::new(0),
            cut: OnceLock::new(),
            generation: watch::Sender::new(0),
            registry: registry.clone(),
            workers,
            load: Arc::default(),
            status: Mutex::new(Status::now(false, None)),
            transitions: RecentEvents::new(TRANSITIONS),
            refused: AtomicU64::new(0),
            departed: Mutex::default(),
            downs: AtomicU64::new(0),
            primary_conflict: AtomicBool::new(false),
        };
        pool.populate();
        Arc::new(pool)
    }

    /// Its id.
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is configured now: retries, connect timeout and so on.
    pub fn settings(&self) -> Arc<model::PoolConfig> {
        Arc::clone(&self.snapshot.load().settings)
    }

    /// All backends, in the order of the configuration, those that are down or have no weight included; then those that leave.
    pub fn backends(&self) -> Arc<[Arc<Backend>]> {
        Arc::clone(&self.snapshot.load().backends)
    }

    /// The backend with this id; `None` once it has left.
    pub fn backend(&self, id: BackendId) -> Option<Arc<Backend>> {
        self.snapshot.load().backends.iter().find(|backend| backend.id() == id).map(Arc::clone)
    }

    /// Whether more than one backend states that it is the primary, where one is wanted.
    pub fn has_primary_conflict(&self) -> bool {
        self.primary_conflict.load(Relaxed)
    }

    /// Changes whenever a backend comes, leaves, or is configured differently.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The number of changes so far.
    pub fn generation_now(&self) -> u64 {
        *self.generation.borrow()
    }

    /// The next of the configured local addresses that can connect to `remote`; `None` lets the kernel choose.
    pub fn source(&self, settings: &model::PoolConfig, remote: &Address) -> Option<IpAddr> {
        self.sources(settings, remote).next()
    }

    /// All configured local addresses that can connect to `remote`, each once, beginning with the one whose turn it is.
    pub fn sources<'s>(
        &self,
        settings: &'s model::PoolConfig,
        remote: &Address,
    ) -> impl Iterator<Item = IpAddr> + use<'s> {
        let is_ipv4 = match remote {
            Address::Tcp(remote) => Some(remote.is_ipv4()),
            Address::Unix(_) => None,
        };
        let fitting = || settings.source.iter().copied().filter(move |local| Some(local.is_ipv4()) == is_ipv4);
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

    /// Whether there is a backend that is up and has a weight, or is used as if it were up; it may be full.
    pub fn is_usable(&self) -> bool {
        self.snapshot.load().is_usable()
    }

    /// Whether too few backends are up (`fail_open`), so that all are used as if they were.
    pub fn fails_open(&self) -> bool {
        self.snapshot.load().fails_open
    }

    /// Clients that `persist` remembers.
    pub fn persistent_clients(&self) -> usize {
        self.persist().len()
    }

    /// Whether it is usable, since when, and how long it was not.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// What backends that have left have counted.
    pub fn departed(&self) -> MutexGuard<'_, Departed> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses a backend for a new connection and counts the connection against it until the lease is dropped.
    /// The `backup` backends are only considered when no other can take the connection.
    ///
    /// `client` is the client's address, if it has one; `excluded` are the backends that it has tried in vain.
    ///
    /// # Errors
    ///
    /// Why no backend can be chosen; [`NoBackend::Queued`] while others wait for one.
    pub fn lease(&self, client: Option<IpAddr>, excluded: &Excluded) -> Result<Lease, NoBackend> {
        let snapshot = self.snapshot.load();
        if self.queue().has_waiting() && excluded.is_empty() && snapshot.settings.queue.size > 0 {
            // Those who wait get no drained backend: a client that persists there takes nothing from them.
            let lease = self
                .persistent_lease(&snapshot, client, excluded, |backend| backend.state() == model::AdminState::Drain);
            return lease.ok_or(NoBackend::Queued);
        }
        drop(snapshot);
        self.take_lease(client, excluded)
    }

    /// [`Pool::lease`], past those who wait.
    fn take_lease(&self, client: Option<IpAddr>, excluded: &Excluded) -> Result<Lease, NoBackend> {
        let snapshot = self.snapshot.load();
        if let Some(lease) = self.persistent_lease(&snapshot, client, excluded, |_| true) {
            return Ok(lease);
        }
        let mut lease = self.pick(&snapshot, client, excluded)?;
        if let Some((rules, ip)) = snapshot.settings.persistence().zip(client) {
            let client_key = lease::client_key(ip, snapshot.settings.hash);
            lease.hold(self.persist().hold(client_key, lease.backend().id(), rules, Instant::now()));
        }
        Ok(lease)
    }

    /// The backend that the client persists on, if that fits and may take it.
    fn persistent_lease(
        &self,
        snapshot: &PoolSnapshot,
        client: Option<IpAddr>,
        excluded: &Excluded,
        fits: impl Fn(&Backend) -> bool,
    ) -> Option<Lease> {
        let (rules, ip) = snapshot.settings.persistence().zip(client)?;
        let (client_key, now) = (lease::client_key(ip, snapshot.settings.hash), Instant::now());
        let last = self.persist().get(client_key, rules, now)?;
        let backend = snapshot.persistent(last, excluded).filter(|backend| fits(backend))?;
        let mut lease = Lease::new(backend, snapshot.fails_open)?;
        lease.hold(self.persist().hold(client_key, lease.backend().id(), rules, now));
        Some(lease)
    }

    /// A backend that a client was with before, also a drained one.
    pub fn lease_kept(&self, backend: BackendId) -> Option<Lease> {
        let snapshot = self.snapshot.load();
        Lease::new(snapshot.persistent(backend, &Excluded::new())?, snapshot.fails_open)
    }

    /// A connection of `client` to `backend` ends.
    pub fn record_end(&self, client: Option<IpAddr>, backend: &Backend) {
        let settings = &self.snapshot.load().settings;
        if let Some((rules, ip)) = settings.persistence().zip(client)
            && !backend.is_leaving()
        {
            self.persist().ended(lease::client_key(ip, settings.hash), backend.id(), rules, Instant::now());
        }
    }

    fn persist(&self) -> &PersistTable {
        &self.load.persist
    }

    fn queue(&self) -> &Queue {
        &self.load.queue
    }

    /// How far the weight has grown of the backend with room that has most of it, in [`slow_start::PARTS`]; all of it where none has room.
    fn parts_with_room(&self) -> u32 {
        let snapshot = self.snapshot.load();
        let members = || [&snapshot.primary, &snapshot.backup].into_iter().flat_map(|tier| &tier.members);
        let parts = members().filter(|backend| !backend.is_full() && (snapshot.fails_open || backend.is_up()));
        parts.map(|backend| backend.runtime().parts()).max().unwrap_or(slow_start::PARTS)
    }

    fn pick(&self, snapshot: &PoolSnapshot, client: Option<IpAddr>, excluded: &Excluded) -> Result<Lease, NoBackend> {
        let balancer = &snapshot.primary.balancer; // both tiers have the same algorithm
        let draw = Draw {
            key: match client {
                Some(ip) if balancer.needs_key() => lease::client_key(ip, snapshot.settings.hash),
                _ => 0,
            },
            turn: match balancer.needs_turn() {
                // A retry takes no turn from others: with a dead backend among two, every client would meet it first.
                true if !excluded.is_empty() => fastrand::u64(..),
                true => self.turn.fetch_add(1, Relaxed),
                false => 0,
            },
            random: if balancer.needs_random() { fastrand::u64(..) } else { 0 },
        };
        [&snapshot.primary, &snapshot.backup]
            .into_iter()
            .find_map(|tier| lease::take(tier, snapshot.fails_open, &draw, excluded))
            .ok_or_else(|| NoBackend::explain(&snapshot.backends, excluded))
    }

    /// Sets what is called when a backend goes down and the pool's `on_down` is `cut`: on the thread that has noticed, after the
    /// backend stopped taking connections. Only the first call has an effect.
    pub fn on_cut(&self, cut: Box<dyn Fn(BackendId) + Send + Sync>) {
        let _already_set = self.cut.set(cut);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", self.name()).finish_non_exhaustive()
    }
}
