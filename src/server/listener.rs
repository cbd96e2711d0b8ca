//! A listener: what is configured of it, and what lives on when that changes.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use super::admission::{Admission, AdmissionControl};
use super::route::{Condition, RouteClient, RouteDecision, RouteKey, RouteMatch, Routes, affinity};
use crate::config::model::{self, ListenAddress, NO_ROUTE, RouteConfig, RouteTarget, Sniff};
use crate::geoip::GeoIp;
use crate::limits::Capacity;
use crate::log::throttle::{ReasonThrottle, Throttle};
use crate::net::addr::ClientAddr;
use crate::net::country::Country;
use crate::net::dial::Options;
use crate::pool::Pool;
use crate::stats::counters::ListenerCounters;
use crate::stats::recent_events::RecentEvents;
use crate::stats::registry::{ListenerId, Registry};
use crate::stats::requests::{RequestCounters, RouteCounters};
use crate::stats::termination::Termination;
use crate::stats::traffic::Traffic;
use crate::stats::udp::DatagramCounters;
use crate::tls::Acceptor;
use crate::worker;

/// A listener as configured.
///
/// Another configuration makes a new `Listener` with the same runtime state and id. A connection keeps the one with which it began.
pub struct Listener {
    config: model::ListenerConfig,
    pool: Arc<Pool>,
    routes: Routes,
    /// With `protocol: http`, those of each route, and of what matches none.
    route_counters: Box<[Arc<RouteCounters>]>,
    geoip: Arc<GeoIp>,
    tls: Option<Arc<Acceptor>>,
    /// Where it listens: what is configured, with the ports that the kernel chose.
    addresses: Vec<ListenAddress>,
    pub(super) admission: Arc<AdmissionControl>,
    runtime: Arc<ListenerRuntime>,
}

/// A listener's connections and statistics.
struct ListenerRuntime {
    id: ListenerId,
    registry: Registry,
    workers: usize,
    requests: RequestCounters,
    counters: ListenerCounters,
    traffic: Traffic,
    datagrams: DatagramCounters,
    refused: RecentEvents<RejectionEvent>,
    connections: Arc<Capacity>,
    handshakes: Arc<Capacity>,
    refused_clients: Throttle,
    refusals: ReasonThrottle,
}

impl ListenerRuntime {
    /// Those of the routes as configured now. A route with a label that was there before has the same ones.
    fn route_counters(
        &self,
        config: &model::ListenerConfig,
        before: &[Arc<RouteCounters>],
    ) -> Box<[Arc<RouteCounters>]> {
        if config.http.is_none() {
            return Box::default();
        }
        let mut known: HashMap<Arc<str>, Arc<RouteCounters>> =
            before.iter().map(|it| (Arc::clone(it.label()), Arc::clone(it))).collect();
        let labels = config.routes.iter().map(RouteConfig::label).chain([NO_ROUTE.into()]);
        let counters = labels.map(|label| {
            let new = || Arc::new(RouteCounters::new(self.registry.route(), Arc::clone(&label), self.workers));
            Arc::clone(known.entry(Arc::clone(&label)).or_insert_with(new))
        });
        counters.collect()
    }
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
    /// The pools of each of `routes`.
    pub routed: Vec<Vec<Arc<Pool>>>,
    /// Countries of clients.
    pub geoip: Arc<GeoIp>,
    /// TLS, if it ends here.
    pub tls: Option<Arc<Acceptor>>,
    /// Where it listens.
    pub addresses: Vec<ListenAddress>,
}

impl Listener {
    /// A listener that has not been there before. Bytes are counted by each of `workers` for itself.
    pub fn new(
        config: model::ListenerConfig,
        parts: ListenerParts,
        registry: &Registry,
        workers: usize,
    ) -> Arc<Listener> {
        let runtime = Arc::new(ListenerRuntime {
            id: registry.listener(),
            registry: registry.clone(),
            workers,
            requests: RequestCounters::new(workers),
            counters: ListenerCounters::default(),
            traffic: Traffic::new(workers),
            datagrams: DatagramCounters::new(workers),
            refused: RecentEvents::new(REFUSALS),
            connections: Capacity::new(usize::MAX),
            handshakes: Capacity::new(usize::MAX),
            refused_clients: Throttle::default(),
            refusals: ReasonThrottle::new(),
        });
        let admission = Arc::new(AdmissionControl::new(&config));
        Listener::with(config, parts, admission, runtime, &[])
    }

    /// The same one by another configuration: its counters, its connections and its limits' memory stay.
    pub fn reconfigured(&self, config: model::ListenerConfig, parts: ListenerParts) -> Arc<Listener> {
        let admission = match AdmissionControl::fits(&self.config, &config) {
            true => Arc::clone(&self.admission),
            false => Arc::new(self.admission.reconfigured(&config)),
        };
        Listener::with(config, parts, admission, Arc::clone(&self.runtime), &self.route_counters)
    }

    fn with(
        config: model::ListenerConfig,
        parts: ListenerParts,
        admission: Arc<AdmissionControl>,
        runtime: Arc<ListenerRuntime>,
        before: &[Arc<RouteCounters>],
    ) -> Arc<Listener> {
        let ListenerParts { pool, routed, geoip, tls, addresses } = parts;
        let routes = Routes::new(&config.routes, routed);
        let route_counters = runtime.route_counters(&config, before);
        Arc::new(Listener { config, pool, routes, route_counters, geoip, tls, addresses, admission, runtime })
    }

    /// It is in service from now on.
    pub(super) fn take_effect(&self) {
        let max = |max: Option<NonZeroU32>| max.map_or(usize::MAX, |max| max.get() as usize);
        let sessions = self.config.udp.as_ref().map(|udp| udp.max_sessions);
        self.runtime.connections.resize(max(sessions.or(self.config.max_connections)));
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
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Where its connections go that match a route, and those that match none.
    pub fn pool(&self, route: Option<RouteMatch>) -> &Arc<Pool> {
        route.and_then(|route| self.routes.pool(route)).unwrap_or(&self.pool)
    }

    /// The first route that a connection matches, once everything is known of it.
    pub fn route(&self, key: &RouteKey<'_>) -> Option<RouteMatch> {
        match self.routes.decide(&self.config.routes, key, Condition::ALL) {
            RouteDecision::Match(found) => Some(found),
            RouteDecision::NoMatch | RouteDecision::Undecided => None,
        }
    }

    /// The keys of a route's `match` that do not match.
    pub fn unmet(&self, route: usize, key: &RouteKey<'_>) -> Vec<&'static str> {
        self.routes.unmet(&self.config.routes, route, key)
    }

    /// The first route that a connection matches, as far as that can be said by what is known. With `protocol: http`, each request
    /// has a route of its own.
    pub(super) fn decide(&self, key: &RouteKey<'_>, known: &[Condition]) -> RouteDecision {
        if self.config.http.is_some() {
            return RouteDecision::NoMatch;
        }
        self.routes.decide(&self.config.routes, key, known)
    }

    /// Whether routes tell protocols apart: then a client that waits for the server to speak first is one that matches none of
    /// them.
    pub(super) fn routes_by_protocol(&self) -> bool {
        self.config.routes.iter().any(RouteConfig::needs_protocol)
    }

    /// Whether a route refuses the connections that match it.
    pub fn refuses(&self, found: RouteMatch) -> bool {
        self.config.routes.get(found.route).is_some_and(|route| route.target == RouteTarget::Refuse)
    }

    /// What routes may ask for of a client. One without an address has the share of a split that `otherwise` decides.
    pub fn route_client(&self, ip: Option<IpAddr>, otherwise: u64) -> RouteClient {
        RouteClient { ip, country: self.country(ip), affinity: ip.map_or(otherwise, affinity) }
    }

    /// Whether anything depends on the countries of clients.
    pub fn needs_country(&self) -> bool {
        self.admission.needs_country() || self.config.routes.iter().any(|route| !route.country.is_empty())
    }

    /// The country of a client, if it is known and anything depends on it.
    pub fn country(&self, ip: Option<IpAddr>) -> Option<Country> {
        ip.filter(|_| self.needs_country()).and_then(|ip| self.geoip.country(ip))
    }

    /// Why a client of this address would be refused if it came now: by `access` or a limit; `None` when it may come in.
    pub fn would_refuse(&self, client: Option<IpAddr>) -> Option<String> {
        self.admission.would_refuse(client, self.country(client))
    }

    /// Lets `client` in by `access`, and counts one more connection of it against the limits.
    ///
    /// # Errors
    /// It may not come in, or is over a limit, and is to be closed at once.
    pub(super) fn admit(&self, client: ClientAddr) -> Result<Admission, Termination> {
        self.admission.admit(client, self.country(client.ip()), |why| self.log_refusal(client, why))
    }

    /// Every pool that its connections may go to: the one for what matches no route first.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.pool).chain(self.routes.pools())
    }

    /// The pools of the route at a place of [`Listener::route_counters`].
    pub fn pools_at(&self, place: usize) -> impl Iterator<Item = &Arc<Pool>> {
        let own = (place == self.config.routes.len()).then_some(&self.pool);
        own.into_iter().chain(self.routes.pools_of(place))
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

    /// With `protocol: http`, requests that are under way.
    pub fn requests(&self) -> &RequestCounters {
        &self.runtime.requests
    }

    /// With `protocol: http`, the place in [`Listener::route_counters`] of requests with this route.
    pub(super) fn route_place(&self, route: Option<RouteMatch>) -> usize {
        route.map_or(self.config.routes.len(), |found| found.route)
    }

    /// With `protocol: http`, the counters of each route, and last those of what matches none; otherwise none.
    pub fn route_counters(&self) -> &[Arc<RouteCounters>] {
        &self.route_counters
    }

    /// Datagrams, with `protocol: udp`.
    pub fn datagrams(&self) -> &DatagramCounters {
        &self.runtime.datagrams
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
        self.admission.may_refuse()
            || self.config.limits.bandwidth.is_some()
            || self.tls.is_some()
            || self.config.proxy_protocol.is_some()
            || !self.config.routes.is_empty()
    }

    /// Says in the log why a client is refused. `why` is what it does wrong.
    pub(super) fn log_refusal(&self, client: ClientAddr, why: &dyn fmt::Display) {
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
