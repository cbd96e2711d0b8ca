//! Carrying out a [`Plan`]: [`Running::prepare`] does all that can fail and changes nothing, [`Running::commit`] switches
//! and cannot fail. A start is the plan from nothing to the configuration.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::capacity::{self, InUse};
use super::geoip::GeoIpChange;
use super::plan::{Plan, Step};
use super::sockets::{AddressChange, ListenSockets, OpenedAddress, log_ranges};
use super::upgrade::inheritance::{SocketInfo, Verdict};
use crate::config::model::{self, Config, ListenAddress};
use crate::geoip::GeoIp;
use crate::health;
use crate::log::Logging;
use crate::log::access::Access;
use crate::net::addr::Address;
use crate::net::inherited::InheritedSockets;
use crate::pool::Pool;
use crate::pool::resolve::Resolver;
use crate::server::{DataPlane, Listener, ListenerParts, Members, PreparedCrew};
use crate::stats::registry::{ListenerId, PoolId, Registry};
use crate::tls::{self, Acceptor, Connector};

/// How long new names may take to be resolved before the switch. Those that take longer have no address yet.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// How long the first verdicts of new health checks may take before the switch, so that the first connections find
/// backends.
const FIRST_VERDICTS_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks whether a removed pool still has connections.
const LEAVE_POLL: Duration = Duration::from_millis(200);

/// What runs, as the last plan left it.
pub(super) struct Running {
    plane: Arc<DataPlane>,
    geoip: Arc<GeoIp>,
    registry: Registry,
    config: Arc<Config>,
    logging: Logging,
    access: Access,
    sockets: ListenSockets,
    /// Descriptors of `sockets`.
    pub(super) listening: Arc<AtomicUsize>,
    /// At a start.
    inherited: Arc<InheritedSockets>,
    /// At a start: what the replaced process knows of backends.
    verdicts: Mutex<Vec<Verdict>>,
    pools: HashMap<Arc<str>, PoolTasks>,
    probes: health::SharedProbes,
    tasks: JoinSet<()>,
    resolver: Option<AbortHandle>,
    tls_watch: Option<AbortHandle>,
    geoip_watch: Option<AbortHandle>,
}

/// A pool, and what runs for it.
struct PoolTasks {
    pool: Arc<Pool>,
    connector: Option<Arc<Connector>>,
    checks: health::HealthChecks,
}

impl PoolTasks {
    /// Goes on with the health checks of a removed pool until nothing has a connection to it, or can still get one: `listeners`
    /// are those from before, which the connections keep that began with them.
    fn leave(self, listeners: &[Arc<Listener>]) -> impl Future<Output = ()> + Send + use<> {
        let leads_here = |listener: &&Arc<Listener>| listener.pools().any(|pool| Arc::ptr_eq(pool, &self.pool));
        let listeners: Vec<_> = listeners.iter().filter(leads_here).map(Arc::downgrade).collect();
        // A removed one is kept until the next change, with or without connections.
        let may_lead_here = |it: &Weak<Listener>| it.upgrade().is_some_and(|it| it.counters().open() > 0);
        let tasks = self;
        async move {
            while tasks.pool.connections() > 0 || listeners.iter().any(may_lead_here) {
                sleep(LEAVE_POLL).await;
            }
            drop(tasks);
        }
    }
}

/// A plan that cannot fail any more.
pub(super) struct Prepared {
    config: Config,
    access: Access,
    members: Members,
    new_pools: Vec<PoolTasks>,
    connectors: HashMap<Arc<str>, Arc<Connector>>,
    changed_pools: Vec<model::PoolConfig>,
    removed_pools: Vec<Arc<str>>,
    crew: PreparedCrew,
    opened: Vec<OpenedAddress>,
    address_changes: Vec<AddressChange>,
    closed: Vec<(ListenerId, Arc<str>, Vec<Address>)>,
    resolver: Option<Resolver>,
    tls_watch: TlsWatch,
    geoip: GeoIpChange,
}

/// What watches the files of TLS after the switch.
enum TlsWatch {
    Same,
    Other(Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>),
}

impl Running {
    /// Nothing yet. Addresses take `inherited` sockets before they are bound.
    pub(super) fn new(
        plane: Arc<DataPlane>,
        geoip: Arc<GeoIp>,
        logging: &Logging,
        inherited: Arc<InheritedSockets>,
        verdicts: Vec<Verdict>,
    ) -> Running {
        Running {
            plane,
            geoip,
            registry: Registry::default(),
            config: Arc::new(Config::empty()),
            logging: logging.clone(),
            access: Access::default(),
            sockets: ListenSockets::default(),
            listening: Arc::default(),
            inherited,
            verdicts: Mutex::new(verdicts),
            pools: HashMap::new(),
            probes: health::SharedProbes::default(),
            tasks: JoinSet::new(),
            resolver: None,
            tls_watch: None,
            geoip_watch: None,
        }
    }

    /// The configuration that is in effect.
    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The listening sockets, to be handed over.
    pub(super) fn listening_sockets(&self) -> impl Iterator<Item = (SocketInfo, BorrowedFd<'_>)> {
        self.sockets.all()
    }

    /// Closes the listening sockets but for the workers' duplicates, and removes the files of unix sockets.
    pub(super) fn close_sockets(&mut self) {
        self.sockets.clear();
    }

    /// Does all that can fail: reads keys and certificates, binds, resolves new names and waits for new checks.
    ///
    /// # Errors
    /// Everything that is wrong. Nothing has changed then.
    pub(super) async fn prepare(&self, plan: &Plan, config: Config) -> Result<Prepared, Vec<String>> {
        // Before sockets are opened: a range of ports may be more than the soft limit allows.
        capacity::raise_open_files();
        let mut errors: Vec<String> = plan
            .needs_restart
            .iter()
            .map(|key| format!("{key} cannot change while tidegate runs: restart it"))
            .collect();
        let acceptors = self.acceptors(plan, &config).map_err(|more| errors.extend(more)).unwrap_or_default();
        let connectors = self.connectors(plan, &config).map_err(|more| errors.extend(more)).unwrap_or_default();
        let crew = self.plane.prepare_crew(config.workers.get());
        let crew = crew.map_err(|error| errors.push(format!("workers: {error}")));
        // Without a crew, to find what else is wrong.
        let workers = crew.as_ref().map_or_else(|()| (0..config.workers.get()).collect(), PreparedCrew::workers);
        let opened = self.bind(plan, &config, &workers).map_err(|more| errors.extend(more)).unwrap_or_default();
        let address_changes = self.sockets.prepare(&self.config, &config, &workers);
        let address_changes = address_changes.map_err(|more| errors.extend(more)).unwrap_or_default();
        let access = self.access.change(&config.log, &self.logging).map_err(|error| errors.push(error.to_string()));
        let geoip = GeoIpChange::prepare(&self.config, &config).await.map_err(|error| errors.push(error));
        let (true, Ok(access), Ok(crew), Ok(geoip)) = (errors.is_empty(), access, crew, geoip) else {
            return Err(errors);
        };

        let (pools, new) = self.pools(&config);
        let connectors_by_pool = by_pool(&config, &pools, &connectors)?;
        let resolver = resolve(&new, pools.len()).await;
        let verdicts = std::mem::take(&mut *self.verdicts.lock().unwrap_or_else(PoisonError::into_inner));
        Verdict::take_over(&verdicts, &new);
        let new_pools = self.check(new, &connectors).await;

        let before = self.plane.members();
        let (mut listeners, mut closed) = (Vec::new(), Vec::new());
        let new_addresses: HashMap<_, _> = opened.iter().map(|new| (&new.key, &new.bound.actual)).collect();
        for listener in &config.listeners {
            let actual = |address: Address| {
                let key = (Arc::clone(&listener.name), address);
                new_addresses.get(&key).copied().or(self.sockets.actual(&key)).cloned()
            };
            let addresses = listener.bind.iter().filter_map(|bind| match bind {
                ListenAddress::One(address) => actual(address.clone()).map(ListenAddress::One),
                // All of its ports are bound, or none is.
                range => range.addresses().next().and_then(actual).map(|_| range.clone()),
            });
            let parts = parts(&config, listener, &pools, &self.geoip, &acceptors, addresses.collect());
            let parts =
                parts.ok_or_else(|| vec![format!("listener {}: one of its pools is missing", listener.name)])?;
            listeners.push(match before.listeners.iter().find(|before| before.config().name == listener.name) {
                Some(before) => before.reconfigured(listener.clone(), parts),
                None => Listener::new(listener.clone(), parts, &self.registry, config.workers.get()),
            });
        }
        for step in &plan.listeners {
            let id = before.listeners.iter().find(|before| before.config().name == step.name).map(|before| before.id());
            closed.extend(id.map(|id| (id, Arc::clone(&step.name), step.close.clone())));
        }
        let removed = |listener: &&Arc<Listener>| !listeners.iter().any(|after| after.id() == listener.id());
        // One that has no connections yet may still accept some before its sockets are closed.
        let leaving = before.leaving.iter().filter(|listener| listener.counters().open() > 0);
        let leaving = leaving.chain(before.listeners.iter().filter(removed)).map(Arc::clone).collect();
        let tls_watch = self.tls_watch(plan, &acceptors, &connectors)?;
        let changed_pools = config.pools.iter().filter(|pool| plan.of_pool(&pool.name) == Some(Step::Change));
        Ok(Prepared {
            changed_pools: changed_pools.cloned().collect(),
            removed_pools: plan
                .pools
                .iter()
                .filter(|it| it.step == Step::Remove)
                .map(|it| Arc::clone(&it.name))
                .collect(),
            members: Members::new(listeners, leaving, pools, connectors_by_pool),
            new_pools,
            connectors,
            crew,
            opened,
            address_changes,
            closed,
            resolver,
            tls_watch,
            geoip,
            access,
            config,
        })
    }

    /// Switches. Cannot fail.
    pub(super) fn commit(&mut self, prepared: Prepared) {
        let Prepared { config, members, new_pools, mut connectors, changed_pools, removed_pools, .. } = prepared;
        self.logging.change(&config.log);
        self.plane.set_crew(prepared.crew);
        // Of new workers too.
        self.plane.set_access(prepared.access.writer());
        self.access.replace(prepared.access, &self.logging);
        let names_changed = host_names(&self.config) != host_names(&config);
        for tasks in new_pools {
            self.pools.insert(Arc::clone(tasks.pool.name()), tasks);
        }
        for changed in changed_pools {
            if let Some(tasks) = self.pools.get_mut(&changed.name) {
                tasks.connector = connectors.remove(&changed.name);
                tasks.checks.set_connector(tasks.connector.clone());
                tasks.pool.update(changed);
            }
        }
        // What has ended is not kept.
        while self.tasks.try_join_next().is_some() {}
        let before = self.plane.members();
        for tasks in removed_pools.iter().filter_map(|name| self.pools.remove(name)) {
            self.tasks.spawn(tasks.leave(&before.listeners));
        }
        // Before the listeners that ask for it.
        if let Some(watch) = prepared.geoip.commit(&self.geoip) {
            replace(&mut self.tasks, &mut self.geoip_watch, watch);
        }
        self.plane.set_members(members.clone());
        for listener in
            before.listeners.iter().filter(|before| members.listeners.iter().all(|after| after.id() != before.id()))
        {
            let (plane, id, limit) = (Arc::clone(&self.plane), listener.id(), config.shutdown.drain);
            self.tasks.spawn(async move {
                sleep(limit).await;
                plane.abort_listener(id);
            });
        }
        drop(before);
        let listener = |name: &str| members.listeners.iter().find(|listener| *listener.config().name == *name);
        let mut moved = Vec::new();
        log_ranges(&config, &prepared.opened);
        for OpenedAddress { key, bound, duplicates } in prepared.opened {
            if listener(&key.0).is_none_or(|listener| !listener.config().is_of_range(&key.1)) {
                tracing::info!(listener = %key.0, address = %bound.actual, "listening");
            }
            self.sockets.insert(key.clone(), bound);
            moved.push((key, duplicates, Vec::new()));
        }
        for mut change in prepared.address_changes {
            self.sockets.commit(&mut change);
            moved.push((change.key, change.added, change.removed));
        }
        self.listening.store(self.sockets.open_files(), Ordering::Relaxed);
        let used = InUse { workers: self.plane.threads(), listening: self.sockets.open_files() };
        capacity::establish(&config, used, &self.plane);
        for ((name, address), added, removed) in moved {
            let Some(listener) = listener(&name) else { continue };
            self.plane.change_sockets(listener, &address, added, &removed);
        }
        for (listener, name, addresses) in prepared.closed {
            for address in &addresses {
                self.sockets.remove(&(Arc::clone(&name), address.clone()));
            }
            self.plane.stop_accepting_at(listener, addresses);
        }
        if names_changed {
            let resolver = prepared.resolver.unwrap_or_else(|| Resolver::new(&members.pools));
            replace(&mut self.tasks, &mut self.resolver, Some(resolver.run()));
        }
        if let TlsWatch::Other(watch) = prepared.tls_watch {
            replace(&mut self.tasks, &mut self.tls_watch, watch);
        }
        self.config = Arc::new(config);
    }

    /// TLS of the listeners, loaded where its rules have changed.
    fn acceptors(&self, plan: &Plan, config: &Config) -> Result<BTreeMap<Arc<str>, Arc<Acceptor>>, Vec<String>> {
        let running = self.plane.members();
        collect(config.listeners.iter().filter_map(|listener| {
            let rules = listener.tls.as_ref()?;
            let loads = plan.listeners.iter().any(|step| step.name == listener.name && step.loads_tls);
            let same = running.listeners.iter().find(|running| running.config().name == listener.name && !loads);
            let acceptor = match same.and_then(|running| running.tls()) {
                Some((_, acceptor)) => Ok(Arc::clone(acceptor)),
                None => Acceptor::new(&listener.name, rules)
                    .map(Arc::new)
                    .map_err(|error| format!("listener {}: {error}", listener.name)),
            };
            Some(acceptor.map(|acceptor| (Arc::clone(&listener.name), acceptor)))
        }))
    }

    /// TLS to the backends of pools, loaded where its rules have changed.
    fn connectors(&self, plan: &Plan, config: &Config) -> Result<HashMap<Arc<str>, Arc<Connector>>, Vec<String>> {
        collect(config.pools.iter().filter_map(|pool| {
            let rules = pool.tls.as_ref()?;
            let loads = plan.pools.iter().any(|step| step.name == pool.name && step.loads_tls);
            let same = self.pools.get(&pool.name).filter(|_| !loads).and_then(|tasks| tasks.connector.as_ref());
            let connector = match same {
                Some(connector) => Ok(Arc::clone(connector)),
                None => Connector::new(&pool.name, rules)
                    .map(Arc::new)
                    .map_err(|error| format!("pool {}: {error}", pool.name)),
            };
            Some(connector.map(|connector| (Arc::clone(&pool.name), connector)))
        }))
    }

    fn bind(&self, plan: &Plan, config: &Config, workers: &[usize]) -> Result<Vec<OpenedAddress>, Vec<String>> {
        let of = |name: &Arc<str>| config.listeners.iter().find(|listener| listener.name == *name);
        let wanted: Vec<(&model::ListenerConfig, &Address)> = plan
            .listeners
            .iter()
            .filter_map(|step| Some((of(&step.name)?, &step.open)))
            .flat_map(|(listener, addresses)| addresses.iter().map(move |address| (listener, address)))
            .collect();
        self.sockets.bind(&wanted, config, workers, &self.inherited, &self.config)
    }

    /// The pools of a configuration, and those of them that are new.
    fn pools(&self, config: &Config) -> (Vec<Arc<Pool>>, Vec<Arc<Pool>>) {
        let mut new = Vec::new();
        let pools = config.pools.iter().map(|configured| match self.pools.get(&configured.name) {
            Some(tasks) => Arc::clone(&tasks.pool),
            None => {
                let pool = Pool::new(configured.clone(), &self.registry, config.workers.get());
                pool.on_cut(self.plane.on_cut());
                new.push(Arc::clone(&pool));
                pool
            }
        });
        (pools.collect(), new)
    }

    /// Starts the checks of new pools, and waits for their first verdicts; too slow ones come in when they come in.
    async fn check(&self, new: Vec<Arc<Pool>>, connectors: &HashMap<Arc<str>, Arc<Connector>>) -> Vec<PoolTasks> {
        let connector = |pool: &Arc<Pool>| connectors.get(pool.name()).map(Arc::clone);
        let start = |pool: &Arc<Pool>| health::spawn(Arc::clone(pool), connector(pool), self.probes.clone());
        let mut checks: Vec<health::HealthChecks> = new.iter().map(start).collect();
        let _ = timeout(FIRST_VERDICTS_LIMIT, health::first_outcomes(&mut checks)).await;
        let tasks = |(pool, checks)| PoolTasks { connector: connector(&pool), pool, checks };
        new.into_iter().zip(checks).map(tasks).collect()
    }

    /// Whether something no longer has TLS that had.
    fn has_dropped_tls(
        &self,
        acceptors: &BTreeMap<Arc<str>, Arc<Acceptor>>,
        connectors: &HashMap<Arc<str>, Arc<Connector>>,
    ) -> bool {
        let listeners = self.config.listeners.iter().filter(|it| it.tls.is_some()).count();
        let pools = self.config.pools.iter().filter(|it| it.tls.is_some()).count();
        listeners != acceptors.len() || pools != connectors.len()
    }

    fn tls_watch(
        &self,
        plan: &Plan,
        acceptors: &BTreeMap<Arc<str>, Arc<Acceptor>>,
        connectors: &HashMap<Arc<str>, Arc<Connector>>,
    ) -> Result<TlsWatch, Vec<String>> {
        let listeners = plan.listeners.iter().map(|it| (it.step, it.loads_tls));
        let steps = listeners.chain(plan.pools.iter().map(|it| (it.step, it.loads_tls)));
        // Otherwise the same files are watched as before.
        let is_other = |(step, loads)| loads || step == Step::Remove;
        if !steps.into_iter().any(is_other) && !self.has_dropped_tls(acceptors, connectors) {
            return Ok(TlsWatch::Same);
        }
        if acceptors.is_empty() && connectors.is_empty() {
            return Ok(TlsWatch::Other(None));
        }
        let servers = acceptors.values().map(Arc::clone).collect();
        let watch = tls::watch::run(servers, connectors.values().map(Arc::clone).collect());
        let watch = watch.map_err(|error| vec![format!("cannot watch the files of TLS: {error}")])?;
        Ok(TlsWatch::Other(Some(Box::pin(watch))))
    }
}

/// The host names that are to be resolved, each with its pool and entry.
fn host_names(config: &Config) -> Vec<(&str, &str, &model::BackendAddress)> {
    let pools = config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |it| (&*pool.name, it)));
    let named = pools.filter(|(_, it)| matches!(it.address, model::BackendAddress::Name { .. }));
    named.map(|(pool, it)| (pool, &*it.name, &it.address)).collect()
}

/// All values, or all errors.
fn collect<T, C: FromIterator<T>>(results: impl Iterator<Item = Result<T, String>>) -> Result<C, Vec<String>> {
    let (good, bad): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
    match bad.is_empty() {
        true => Ok(good.into_iter().filter_map(Result::ok).collect()),
        false => Err(bad.into_iter().filter_map(Result::err).collect()),
    }
}

/// The connectors by pool, once each backend has a name that can be verified.
fn by_pool(
    config: &Config,
    pools: &[Arc<Pool>],
    connectors: &HashMap<Arc<str>, Arc<Connector>>,
) -> Result<HashMap<PoolId, Arc<Connector>>, Vec<String>> {
    collect(config.pools.iter().zip(pools).filter_map(|(configured, pool)| {
        let connector = connectors.get(&configured.name)?;
        let unnamed = |backend: &model::BackendConfig| match connector.backend_name(&backend.address) {
            Err(why) if !connector.takes_clients_name() => Some(why),
            _ => None,
        };
        Some(match configured.backends.iter().find_map(unnamed) {
            None => Ok((pool.id(), Arc::clone(connector))),
            Some(why) => Err(format!("pool {}: {why}", configured.name)),
        })
    }))
}

/// Resolves the names of new pools. The resolver goes on with them when there are no other pools.
async fn resolve(new: &[Arc<Pool>], all: usize) -> Option<Resolver> {
    let mut resolver = Resolver::new(new);
    resolver.resolve_all(RESOLVE_LIMIT).await;
    (new.len() == all).then_some(resolver)
}

fn parts(
    config: &Config,
    listener: &model::ListenerConfig,
    pools: &[Arc<Pool>],
    geoip: &Arc<GeoIp>,
    acceptors: &BTreeMap<Arc<str>, Arc<Acceptor>>,
    addresses: Vec<ListenAddress>,
) -> Option<ListenerParts> {
    let pool = |index| {
        let name = &config.pool(index)?.name;
        pools.iter().find(|pool| pool.name() == name).map(Arc::clone)
    };
    Some(ListenerParts {
        pool: pool(listener.pool)?,
        routed: listener.routes.iter().map(|it| it.target.pools().map(pool).collect()).collect::<Option<_>>()?,
        geoip: Arc::clone(geoip),
        tls: acceptors.get(&listener.name).map(Arc::clone),
        addresses,
    })
}

/// Ends a task, and starts another in its place.
fn replace(
    tasks: &mut JoinSet<()>,
    running: &mut Option<AbortHandle>,
    with: Option<impl Future<Output = ()> + Send + 'static>,
) {
    if let Some(before) = running.take() {
        before.abort();
    }
    *running = with.map(|task| tasks.spawn(task));
}
