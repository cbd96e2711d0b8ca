//! What all workers share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use super::connection::ConnectionIds;
use super::crew::CurrentCrew;
use super::dial::retry_queue::DescriptorShortage;
use super::listener::Listener;
use crate::limits::{Capacity, PreambleMemory};
use crate::log::throttle::ReasonThrottle;
use crate::pool::Pool;
use crate::stats::registry::PoolId;
use crate::tls::Connector;

/// What all workers share.
pub struct PlaneState {
    members: ArcSwap<Members>,
    pub(super) crew: CurrentCrew,
    /// Listening sockets that still accept.
    accepting: AtomicUsize,
    /// Another process has the sockets of datagrams: nothing is read from them here.
    pub(super) datagrams_held: AtomicBool,
    /// Connections that there are descriptors for.
    capacity: Arc<Capacity>,
    pub(super) preamble_memory: Arc<PreambleMemory>,
    pub(super) descriptor_shortage: Arc<DescriptorShortage>,
    pub(super) accept_trouble: ReasonThrottle,
    pub(super) connection_ids: ConnectionIds,
}

/// Listeners and pools. Replaced whole when one is added, changed or removed.
#[derive(Clone, Default)]
pub struct Members {
    /// In the order of the configuration.
    pub listeners: Vec<Arc<Listener>>,
    /// Listeners that were removed and still have connections.
    pub leaving: Vec<Arc<Listener>>,
    /// In the order of the configuration.
    pub pools: Vec<Arc<Pool>>,
    /// TLS to the backends of pools.
    pub connectors: HashMap<PoolId, Arc<Connector>>,
    /// Counts the replacements.
    pub(super) generation: u64,
}

impl Members {
    /// Members to be put in service by [`DataPlane::set_members`].
    pub fn new(
        listeners: Vec<Arc<Listener>>,
        leaving: Vec<Arc<Listener>>,
        pools: Vec<Arc<Pool>>,
        connectors: HashMap<PoolId, Arc<Connector>>,
    ) -> Members {
        Members { listeners, leaving, pools, connectors, generation: 0 }
    }
}

impl PlaneState {
    /// Without workers, and with room for no connection yet.
    pub(super) fn new() -> Arc<PlaneState> {
        Arc::new(PlaneState {
            members: ArcSwap::default(),
            crew: CurrentCrew::default(),
            accepting: AtomicUsize::new(0),
            datagrams_held: AtomicBool::new(false),
            capacity: Capacity::new(0),
            preamble_memory: Arc::default(),
            descriptor_shortage: Arc::default(),
            accept_trouble: ReasonThrottle::new(),
            connection_ids: ConnectionIds::new(),
        })
    }

    /// What there is now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    pub(super) fn replace_members(&self, members: Members) -> Arc<Members> {
        let generation = self.members.load().generation + 1;
        let members = Arc::new(Members { generation, ..members });
        members.listeners.iter().for_each(|listener| listener.take_effect());
        self.members.store(Arc::clone(&members));
        members
    }

    /// Changes whenever a listener, pool or backend comes or leaves.
    pub fn generation(&self) -> (u64, u64) {
        let members = self.members.load();
        (members.generation, members.pools.iter().map(|pool| pool.generation_now()).sum())
    }

    /// The listeners, in the order of the configuration.
    pub fn listeners(&self) -> Vec<Arc<Listener>> {
        self.members.load().listeners.clone()
    }

    /// The pools, in the order of the configuration.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.members.load().pools.clone()
    }

    /// TLS to the backends of a pool.
    pub(super) fn connector(&self, pool: PoolId) -> Option<Arc<Connector>> {
        self.members.load().connectors.get(&pool).map(Arc::clone)
    }

    /// Connections open now, over all listeners.
    pub fn open(&self) -> usize {
        let members = self.members.load();
        members.listeners.iter().chain(&members.leaving).map(|listener| listener.counters().open()).sum()
    }

    /// Connections that may be open at once.
    pub fn size(&self) -> usize {
        self.capacity.max()
    }

    /// Changes how many connections may be open at once. Those that are open stay so.
    pub fn resize(&self, connections: usize) {
        self.capacity.resize(connections);
    }

    /// Workers that take new connections.
    pub fn workers(&self) -> usize {
        self.crew.load().active.len()
    }

    /// Workers, those included that end with their last connection.
    pub fn threads(&self) -> usize {
        self.crew.load().all().count()
    }

    pub(super) fn capacity(&self) -> &Arc<Capacity> {
        &self.capacity
    }

    pub(super) fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire) > 0
    }

    pub(super) fn accepts(self: &Arc<Self>) -> AcceptGuard {
        self.accepting.fetch_add(1, Ordering::Relaxed);
        AcceptGuard(Arc::clone(self))
    }
}

/// A listening socket that is open.
pub(super) struct AcceptGuard(Arc<PlaneState>);

impl Drop for AcceptGuard {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Release);
    }
}
