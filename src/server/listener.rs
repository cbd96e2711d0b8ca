//! A listener: what is configured of it, and what lives on when that changes.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use super::admission::{Admission, AdmissionControl};
use super::route::RouteKey;
use crate::config::model::{self, Sniff};
use crate::limits::Capacity;
use crate::log::throttle::{ReasonThrottle, Throttle};
use crate::net::addr::{Address, ClientAddr};
use crate::net::dial::Options;
use crate::pool::Pool;
use crate::stats::counters::ListenerCounters;
use crate::stats::recent_events::RecentEvents;
use crate::stats::registry::ListenerId;
use crate::stats::termination::Termination;
use crate::stats::traffic::Traffic;
use crate::tls::Acceptor;
use crate::worker;

/// A listener as configured.
///
/// Another configuration makes a new `Listener` with the same runtime state and id. A connection keeps the one with which it began.
pub struct Listener {
    config: model::ListenerConfig,
    pool: Arc<Pool>,
    /// The pools of `routes`.
    routed: Vec<Arc<Pool>>,
    tls: Option<Arc<Acceptor>>,
    /// Where it listens: what is configured, with the ports that the kernel chose.
    addresses: Vec<Address>,
    pub(super) admission: Arc<AdmissionControl>,
    runtime: Arc<ListenerRuntime>,
}

/// A listener's connections and statistics.
struct ListenerRuntime {
    id: ListenerId,
    counters: ListenerCounters,
    traffic: Traffic,
    refused: RecentEvents<RejectionEvent>,
    connections: Arc<Capacity>,
    handshakes: Arc<Capacity>,
    refused_clients: Throttle,
    refusals: ReasonThrottle,
}

/// A client that was refused.
#[derive(Clone, Debug)]
pub struct RejectionEvent {
    /// Its address.
    pub client: ClientAddr,
    /// Why.
    pub reason: String,
    /// Refusals since the one before that are not kept.
    pub more: u64,
}

/// Refusals that are remembered of one listener.
const REFUSALS: usize = 32;

/// What a listener's configuration refers to.
pub struct ListenerParts {
    /// Where connections go that match no route.
    pub pool: Arc<Pool>,
    /// The pools of `routes`, in their order.
    pub routed: Vec<Arc<Pool>>,
    /// TLS, if it ends here.
    pub tls: Option<Arc<Acceptor>>,
    /// Where it listens.
    pub addresses: Vec<Address>,
}

impl Listener {
    /// A listener that has not been there before. Bytes are counted by each of `workers` for itself.
    pub fn new(config: model::ListenerConfig, parts: ListenerParts, id: ListenerId, workers: usize) -> Arc<Listener> {
        let runtime = Arc::new(ListenerRuntime {
            id,
            counters: ListenerCounters::default(),
            traffic: Traffic::new(workers),
            refused: RecentEvents::new(REFUSALS),
            connections: Capacity::new(usize::MAX),
            handshakes: Capacity::new(usize::MAX),
            refused_clients: Throttle::default(),
            refusals: ReasonThrottle::new(),
        });
        let admission = Arc::new(AdmissionControl::new(&config));
        Listener::with(config, parts, admission, runtime)
    }

    /// The same one by another configuration: its counters, its connections and, unless they are others, its limits' memory stay.
    pub fn again(&self, config: model::ListenerConfig, parts: ListenerParts) -> Arc<Listener> {
        let admission = match AdmissionControl::fits(&self.config, &config) {
            true => Arc::clone(&self.admission),
            false => Arc::new(AdmissionControl::new(&config)),
        };
        Listener::with(config, parts, admission, Arc::clone(&self.runtime))
    }

    fn with(
        config: model::ListenerConfig,
        parts: ListenerParts,
        admission: Arc<AdmissionControl>,
        runtime: Arc<ListenerRuntime>,
    ) -> Arc<Listener> {
        let ListenerParts { pool, routed, tls, addresses } = parts;
        Arc::new(Listener { config, pool, routed, tls, addresses, admission, runtime })
    }

    /// It is in service from now on.
    pub(super) fn take_effect(&self) {
        let max = |max: Option<NonZeroU32>| max.map_or(usize::MAX, |max| max.get() as usize);
        self.runtime.connections.resize(max(self.config.max_connections));
        self.runtime.handshakes.resize(max(self.config.limits.handshakes));
    }

    /// Its id, for statistics.
    pub fn id(&self) -> ListenerId {
        self.runtime.id
    }

    /// What was configured.
    pub fn config(&self) -> &model::ListenerConfig {
        &self.config
    }

    /// Where it listens; port 0 is replaced by the port that the kernel chose.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where its connections go that match a route, and those that match none.
    pub fn pool(&self, route: Option<usize>) -> &Arc<Pool> {
        route.and_then(|route| self.routed.get(route)).unwrap_or(&self.pool)
    }

    /// The first route that a connection matches.
    pub fn route(&self, key: &RouteKey<'_>) -> Option<usize> {
        key.route(&self.config.routes)
    }

    /// Whether the route depends on the first request, which is not known yet.
    pub(super) fn needs_request(&self, key: &RouteKey<'_>) -> bool {
        key.needs_request(&self.config.routes)
    }

    /// The limit that a client of this address would be over if it came now; `None` when it may come in.
    pub fn would_refuse(&self, client: Option<IpAddr>) -> Option<String> {
        self.admission.would_refuse(client)
    }

    /// Counts one more connection of `client` against the limits.
    ///
    /// # Errors
    /// It is over one, and is to be closed at once.
    pub(super) fn admit(&self, client: ClientAddr) -> Result<Admission, Termination> {
        self.admission.admit(client, |why| self.refuse(client, why))
    }

    /// Every pool that its connections may go to: the one for what matches no route first.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.pool).chain(&self.routed)
    }

    /// TLS, if it ends here.
    pub fn tls(&self) -> Option<(&model::ListenerTls, &Arc<Acceptor>)> {
        self.config.tls.as_ref().zip(self.tls.as_ref())
    }

    /// The last clients that were refused, the oldest first: of many in the same second, one.
    pub fn refused_clients(&self) -> Vec<(SystemTime, RejectionEvent)> {
        self.runtime.refused.entries()
    }

    /// Bytes, those of open connections included.
    pub fn traffic(&self) -> &Traffic {
        &self.runtime.traffic
    }

    /// What its connections have left behind so far.
    pub fn counters(&self) -> &ListenerCounters {
        &self.runtime.counters
    }

    /// Room for its connections.
    pub(super) fn connections(&self) -> &Arc<Capacity> {
        &self.runtime.connections
    }

    /// Room for TLS handshakes under way.
    pub(super) fn handshakes(&self) -> &Arc<Capacity> {
        &self.runtime.handshakes
    }

    /// Which log lines about connections without a backend may be written.
    pub(super) fn refusals(&self) -> &ReasonThrottle {
        &self.runtime.refusals
    }

    /// Options of its connections' sockets.
    pub(super) fn options(&self) -> Options {
        Options { nodelay: self.config.socket.nodelay, keepalive: self.config.socket.keepalive }
    }

    /// Whether HTTP is watched as it goes by.
    pub(super) fn sniffs_http(&self) -> bool {
        self.config.sniff == Sniff::Http
    }

    /// Whether a connection is looked at before it gets a backend: its address or its first bytes.
    pub(super) fn looks_first(&self) -> bool {
        self.admission.has_limits()
            || self.tls.is_some()
            || self.config.proxy_protocol.is_some()
            || !self.config.routes.is_empty()
    }

    /// Says in the log why a client is refused. `why` is what it does wrong.
    pub(super) fn refuse(&self, client: ClientAddr, why: &dyn fmt::Display) {
        if let Some(more) = self.runtime.refused_clients.admit(worker::now()) {
            let listener = &self.config.name;
            tracing::info!(%listener, %client, more, "client rejected: it {why}");
            self.remember(client, format!("it {why}"), more);
        }
    }

    /// Keeps a refusal for the stats port.
    pub(super) fn remember(&self, client: ClientAddr, reason: String, more: u64) {
        self.runtime.refused.add(RejectionEvent { client, reason, more });
    }
}
