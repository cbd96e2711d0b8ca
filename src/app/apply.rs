//! Carrying out a [`Plan`]: [`Running::prepare`] does all that can fail and changes nothing, [`Running::commit`] switches
//! and cannot fail. A start is the plan from nothing to the configuration.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::plan::{Plan, Step};
use super::sockets::{BindKey, BoundAddress, ListenSockets};
use crate::config::model::{self, Config};
use crate::health;
use crate::net::addr::Address;
use crate::pool::Pool;
use crate::pool::resolve::Resolver;
use crate::server::{DataPlane, Listener, ListenerParts, Members};
use crate::stats::registry::{ListenerId, PoolId, Registry};
use crate::tls::{self, Acceptor, Connector};

/// How long new names may take to be resolved before the switch. Those that take longer have no address yet.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// How long the first verdicts of new health checks may take before the switch, so that the first connections find
/// backends.
const FIRST_VERDICTS_LIMIT: Duration = Duration::from_secs(1);

/// What runs, as the last plan left it.
pub(super) struct Running {
    plane: Arc<DataPlane>,
    registry: Registry,
    config: Arc<Config>,
    sockets: ListenSockets,
    pools: HashMap<Arc<str>, PoolTasks>,
    /// Removed pools that still have connections: their health checks go on.
    leaving: Vec<PoolTasks>,
    tasks: JoinSet<()>,
    resolver: Option<AbortHandle>,
    tls_watch: Option<AbortHandle>,
}

/// A pool, and what runs for it.
struct PoolTasks {
    pool: Arc<Pool>,
    connector: Option<Arc<Connector>>,
    _checks: health::HealthChecks,
}

/// A plan that cannot fail any more.
pub(super) struct Prepared {
    config: Config,
    members: Members,
    new_pools: Vec<PoolTasks>,
    connectors: HashMap<Arc<str>, Arc<Connector>>,
    changed_pools: Vec<model::PoolConfig>,
    removed_pools: Vec<Arc<str>>,
    opened: Vec<Opened>,
    closed: Vec<(ListenerId, BindKey)>,
    resolver: Option<Resolver>,
    tls_watch: TlsWatch,
}

/// An address, its sockets, and a duplicate of each for its worker.
type Opened = (BindKey, BoundAddress, Vec<OwnedFd>);

/// What watches the files of TLS after the switch.
enum TlsWatch {
    Same,
    Other(Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>),
}

impl Running {
    /// Nothing yet.
    pub(super) fn new(plane: Arc<DataPlane>) -> Running {
        Running {
            plane,
            registry: Registry::default(),
            config: Arc::new(Config::empty()),
            sockets: ListenSockets::default(),
            pools: HashMap::new(),
            leaving: Vec::new(),
            tasks: JoinSet::new(),
            resolver: None,
            tls_watch: None,
        }
    }

    /// The configuration that is in effect.
    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
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
        let mut errors: Vec<String> = plan
            .needs_restart
            .iter()
            .map(|key| format!("{key} cannot change while tidegate runs: restart it"))
            .collect();
        let acceptors = self.acceptors(plan, &config).map_err(|more| errors.extend(more)).unwrap_or_default();
        let connectors = self.connectors(plan, &config).map_err(|more| errors.extend(more)).unwrap_or_default();
        let opened = self.bind(plan, &config).map_err(|more| errors.extend(more)).unwrap_or_default();
        if !errors.is_empty() {
            return Err(errors);
        }

        let (pools, new) = self.pools(&config);
        let connectors_by_pool = by_pool(&config, &pools, &connectors)?;
        let resolver = resolve(&new, pools.len()).await;
        let new_pools = self.check(new, &connectors).await;

        let before = self.plane.members();
        let (mut listeners, mut closed) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            let addresses = listener.bind.iter().filter_map(|address| {
                let key = (Arc::clone(&listener.name), address.clone());
                let new = opened.iter().find(|(opened, ..)| *opened == key).map(|(_, bound, _)| &bound.actual);
                new.or(self.sockets.actual(&key)).cloned()
            });
            let parts = parts(&config, listener, &pools, &acceptors, addresses.collect());
            let parts =
                parts.ok_or_else(|| vec![format!("listener {}: one of its pools is missing", listener.name)])?;
            listeners.push(match before.listeners.iter().find(|before| before.config().name == listener.name) {
                Some(before) => before.again(listener.clone(), parts),
                None => Listener::new(listener.clone(), parts, self.registry.listener(), self.plane.workers()),
            });
        }
        for step in &plan.listeners {
            let id = before.listeners.iter().find(|before| before.config().name == step.name).map(|before| before.id());
            let keys = step.close.iter().map(|address| (Arc::clone(&step.name), address.clone()));
            closed.extend(id.into_iter().flat_map(|id| keys.clone().map(move |key| (id, key))));
        }
        let removed = |listener: &&Arc<Listener>| !listeners.iter().any(|after| after.id() == listener.id());
        let leaving = before.leaving.iter().chain(before.listeners.iter().filter(removed));
        let leaving = leaving.filter(|listener| listener.counters().open() > 0).map(Arc::clone).collect();
        let tls_watch = self.tls_watch(plan, &acceptors, &connectors)?;
        let changed_pools = config.pools.iter().filter(|pool| plan_of(plan, &pool.name) == Some(Step::Change));
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
            opened,
            closed,
            resolver,
            tls_watch,
            config,
        })
    }

    /// Switches. Cannot fail.
    pub(super) fn commit(&mut self, prepared: Prepared) {
        let Prepared { config, members, new_pools, mut connectors, changed_pools, removed_pools, .. } = prepared;
        let names_changed = !new_pools.is_empty() || !changed_pools.is_empty() || !removed_pools.is_empty();
        for tasks in new_pools {
            self.pools.insert(Arc::clone(tasks.pool.name()), tasks);
        }
        for changed in changed_pools {
            if let Some(tasks) = self.pools.get_mut(&changed.name) {
                tasks.connector = connectors.remove(&changed.name);
                tasks.pool.update(changed);
            }
        }
        self.leaving.extend(removed_pools.iter().filter_map(|name| self.pools.remove(name)));
        self.leaving.retain(|tasks| tasks.pool.connections() > 0);
        self.plane.set_members(members.clone());
        for ((name, address), bound, sockets) in prepared.opened {
            if let Some(listener) = members.listeners.iter().find(|listener| listener.config().name == name) {
                tracing::info!(listener = %name, address = %bound.actual, "listening");
                self.plane.accept(listener, &address, sockets);
            }
            self.sockets.insert((name, address), bound);
        }
        for (listener, key) in prepared.closed {
            self.sockets.remove(&key);
            self.plane.stop_accepting_at(listener, &key.1);
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

    fn bind(&self, plan: &Plan, config: &Config) -> Result<Vec<Opened>, Vec<String>> {
        let of = |name: &Arc<str>| config.listeners.iter().find(|listener| listener.name == *name);
        let wanted: Vec<(&model::ListenerConfig, &Address)> = plan
            .listeners
            .iter()
            .filter_map(|step| Some((of(&step.name)?, &step.open)))
            .flat_map(|(listener, addresses)| addresses.iter().map(move |address| (listener, address)))
            .collect();
        let bound = self.sockets.bind(&wanted, config, self.plane.workers())?;
        let with_duplicates = bound.into_iter().map(|(key, bound)| match bound.duplicates() {
            Ok(sockets) => Ok((key, bound, sockets)),
            Err(error) => Err(format!("listener {}: cannot listen on {}: {error}", key.0, key.1)),
        });
        collect(with_duplicates)
    }

    /// The pools of a configuration, and those of them that are new.
    fn pools(&self, config: &Config) -> (Vec<Arc<Pool>>, Vec<Arc<Pool>>) {
        let mut new = Vec::new();
        let pools = config.pools.iter().map(|configured| match self.pools.get(&configured.name) {
            Some(tasks) => Arc::clone(&tasks.pool),
            None => {
                let pool = Pool::new(configured.clone(), &self.registry, self.plane.workers());
                pool.on_cut(self.plane.on_cut());
                new.push(Arc::clone(&pool));
                pool
            }
        });
        (pools.collect(), new)
    }

    /// Starts the checks of new pools, and waits for their first verdicts; too slow ones come in when they come in.
    async fn check(&self, new: Vec<Arc<Pool>>, connectors: &HashMap<Arc<str>, Arc<Connector>>) -> Vec<PoolTasks> {
        let mut checks: Vec<health::HealthChecks> = new.iter().map(|pool| health::spawn(Arc::clone(pool))).collect();
        let _ = timeout(FIRST_VERDICTS_LIMIT, health::first_outcomes(&mut checks)).await;
        let tasks = |(pool, checks): (Arc<Pool>, health::HealthChecks)| {
            let connector = connectors.get(pool.name()).map(Arc::clone);
            PoolTasks { pool, connector, _checks: checks }
        };
        new.into_iter().zip(checks).map(tasks).collect()
    }

    fn tls_watch(
        &self,
        plan: &Plan,
        acceptors: &BTreeMap<Arc<str>, Arc<Acceptor>>,
        connectors: &HashMap<Arc<str>, Arc<Connector>>,
    ) -> Result<TlsWatch, Vec<String>> {
        let listeners = plan.listeners.iter().map(|step| step.step);
        let mut steps = listeners.chain(plan.pools.iter().map(|step| step.step));
        if steps.all(|step| step == Step::Keep) {
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
    acceptors: &BTreeMap<Arc<str>, Arc<Acceptor>>,
    addresses: Vec<Address>,
) -> Option<ListenerParts> {
    let pool = |index| {
        let name = &config.pool(index)?.name;
        pools.iter().find(|pool| pool.name() == name).map(Arc::clone)
    };
    Some(ListenerParts {
        pool: pool(listener.pool)?,
        routed: listener.routes.iter().map(|route| pool(route.pool)).collect::<Option<_>>()?,
        tls: acceptors.get(&listener.name).map(Arc::clone),
        addresses,
    })
}

fn plan_of(plan: &Plan, pool: &str) -> Option<Step> {
    plan.pools.iter().find(|step| *step.name == *pool).map(|step| step.step)
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
    // What has ended is not kept.
    while tasks.try_join_next().is_some() {}
}
