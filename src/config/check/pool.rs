//! `pools`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::policy::is_by_cookie;
use super::{Checker, copied, period, value};
use crate::config::located::Located;
use crate::config::model::{
    BackendAddress, BackendConfig, Balance, HashPrefix, Health, OnConflict, OnDown, PoolConfig, PoolTls, SendProxy,
};
use crate::config::raw::{RawBalance, RawHash, RawPool, RawSendProxy};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{Percent, SourceAddress};
use crate::config::tree::NodeId;

const EXAMPLE: &str = "for example: pools: [{ name: web, backends: [{ address: 127.0.0.1:3001 }] }]";

const UNIQUE: &str = "backend names are unique within a pool; the default name is the address";

impl Checker<'_> {
    /// All pools, in the order typed, which a [`PoolIndex`](crate::config::model::PoolIndex) relies on.
    pub(super) fn pools(&mut self, key: Option<&Located<Vec<Located<RawPool>>>>) -> Option<Vec<PoolConfig>> {
        let raw = self.elements(key, "pools", self.tree.root(), EXAMPLE);
        let mut names: HashMap<&str, NodeId> = HashMap::new();
        let mut pools = Vec::with_capacity(raw.len());
        for pool in raw {
            let Some((raw, at)) = value(Some(pool)) else {
                continue;
            };
            let name = self.required(raw.name.as_ref(), "name", at, "name: web");
            if let Some((name, at)) = name {
                self.name(name, at);
                match names.get(name.as_str()) {
                    Some(first) => {
                        self.duplicate(
                            at,
                            *first,
                            format!("duplicate pool name `{}`", shown(name)),
                            "pool names are unique",
                        );
                    }
                    None => drop(names.insert(name, at)),
                }
            }
            let pool = self.pool(raw, at, name.map_or("", |(name, _)| name));
            pools.push(pool);
        }
        (!pools.is_empty()).then_some(pools)
    }

    fn pool(&mut self, raw: &RawPool, at: NodeId, name: &str) -> PoolConfig {
        let backends = self.backends(raw, at);
        let health = value(raw.health.as_ref()).and_then(|(health, at)| self.health(health, at, &backends));
        let tls = self.pool_tls(raw, at, &backends);
        self.plain_probes(raw, health.as_ref(), tls.as_ref());
        self.probes_by_starttls(raw, health.as_ref(), tls.as_ref(), &backends);
        if let Some(health) = &health {
            self.clear_password(raw, health, &backends);
        }
        self.primaries(raw, health.as_ref());
        PoolConfig {
            name: name.into(),
            balance: self.balance(raw),
            hash: self.hash(raw),
            health,
            send_proxy: match copied(raw.send_proxy.as_ref()).unwrap_or(RawSendProxy::Off) {
                RawSendProxy::Off => None,
                RawSendProxy::V1 => Some(SendProxy::V1),
                RawSendProxy::V2 => Some(SendProxy::V2),
            },
            tls,
            source: self.source(raw, &backends),
            backends,
            outlier: self.outlier(raw),
            fail_open: copied(raw.fail_open.as_ref()).map_or(0, |Percent(percent)| percent),
            on_down: copied(raw.on_down.as_ref()).unwrap_or(OnDown::Keep),
            on_conflict: copied(raw.on_conflict.as_ref()).unwrap_or(OnConflict::Refuse),
            slow_start: period(raw.slow_start.as_ref(), Duration::ZERO),
            retries: self.number(raw.retries.as_ref(), 0..=100, 2) as u32,
            persist: self.persist(raw),
            http: self.http_pool(raw),
            queue: self.queue(raw),
            connect_timeout: {
                let connect = value(raw.timeouts.as_ref()).and_then(|(timeouts, _)| timeouts.connect.as_ref());
                self.positive(connect, Duration::from_secs(5))
            },
        }
    }

    /// Warns of health checks in plain text to a port that speaks TLS, which always fail, and of headers to servers that are not verified.
    fn plain_probes(&mut self, raw: &RawPool, health: Option<&Health>, tls: Option<&PoolTls>) {
        let Some((http, at)) = value(raw.health.as_ref()).and_then(|(kinds, _)| value(kinds.http.as_ref())) else {
            return;
        };
        let is_elsewhere = health.is_none_or(|health| health.port.is_some());
        match (copied(http.tls.as_ref()), tls) {
            (Some(false), Some(PoolTls { starttls: None, .. })) if !is_elsewhere => {
                let diagnostic = Diagnostic::new("the health check sends plain text to backends that use TLS");
                self.warning(at, diagnostic.hint("remove `tls: false`, or set `port` to one that answers without TLS"));
            }
            (Some(true), None) if http.headers.is_some() && raw.tls.is_none() => {
                let diagnostic = Diagnostic::new("without `tls` in the pool, the check verifies no certificate");
                self.warning(at, diagnostic.hint("its headers may reach another server: leave secrets out of them"));
            }
            _ => {}
        }
    }

    /// That of the pool, or of the environment.
    fn balance(&self, raw: &RawPool) -> Balance {
        copied(raw.balance.as_ref()).map_or(self.environment.balance, balance)
    }

    fn hash(&mut self, raw: &RawPool) -> HashPrefix {
        let absent = RawHash::default();
        let given = value(raw.hash.as_ref());
        let hash = given.map_or(&absent, |(hash, _)| hash);
        let default = HashPrefix { ipv4: 32, ipv6: 64 };
        let prefix = HashPrefix {
            ipv4: self.number(hash.ipv4_prefix.as_ref(), 0..=32, default.ipv4.into()) as u8,
            ipv6: self.number(hash.ipv6_prefix.as_ref(), 0..=128, default.ipv6.into()) as u8,
        };
        if let Some((_, at)) = given
            && prefix != default
            && self.balance(raw) != Balance::IpHash
            && value(raw.persist.as_ref()).is_none_or(|(persist, _)| is_by_cookie(persist))
        {
            let diagnostic = Diagnostic::new("has no effect")
                .hint("it applies to `balance: ip_hash` and to `persist` by client_ip only");
            self.warning(at, diagnostic);
        }
        prefix
    }

    fn backends(&mut self, pool: &RawPool, owner: NodeId) -> Vec<BackendConfig> {
        let raw = value(pool.backends.as_ref()).map_or(&[][..], |(list, _)| list);
        let is_unread = pool.backends.as_ref().is_some_and(|key| key.value.is_none());
        if raw.is_empty() && !is_unread && !self.is_typo_of(owner, "backends") {
            let diagnostic = Diagnostic::new("no backends: connections are closed until some are added");
            let hint = "add them here, or at run time: `tidegate add`";
            self.warning(pool.backends.as_ref().map_or(owner, |key| key.at), diagnostic.hint(hint));
        }
        let mut names: HashMap<&str, NodeId> = HashMap::new();
        let mut backends = Vec::with_capacity(raw.len());
        for backend in raw {
            let Some((raw, at)) = value(Some(backend)) else {
                continue;
            };
            let hint = "address: 10.0.0.1:8080, a name and a port, or unix:/path";
            let address = self.required(raw.address.as_ref(), "address", at, hint);
            let given = value(raw.name.as_ref());
            if let Some((name, at)) = given {
                self.name(name, at);
            }
            let default = address.filter(|_| raw.name.is_none());
            let name =
                given.map(|(name, at)| (name.as_str(), at)).or(default.map(|(target, at)| (target.text.as_str(), at)));
            if let Some((name, at)) = name {
                match names.get(name) {
                    Some(first) => {
                        let what = format!("duplicate backend name `{}`", shown(name));
                        self.duplicate(at, *first, what, UNIQUE);
                    }
                    None => drop(names.insert(name, at)),
                }
            }
            let weight = self.number(raw.weight.as_ref(), 0..=1000, 1) as u32;
            let max_connections = self.limit(raw.max_connections.as_ref());
            let backup = copied(raw.backup.as_ref()).unwrap_or(false);
            if let (Some((name, _)), Some((target, _))) = (name, address) {
                backends.push(BackendConfig {
                    state: copied(raw.state.as_ref()).unwrap_or_default(),
                    forced: None,
                    name: name.into(),
                    address: target.address.clone(),
                    weight,
                    max_connections,
                    backup,
                });
            }
        }
        self.collisions(&names, &backends);
        self.share(pool, raw.len(), &backends);
        backends
    }

    /// Refuses names that an address of a host name could take: `NAME@ADDRESS`.
    fn collisions(&mut self, names: &HashMap<&str, NodeId>, backends: &[BackendConfig]) {
        let is_host = |backend: &&BackendConfig| matches!(backend.address, BackendAddress::Name { .. });
        let hosts: HashSet<&str> = backends.iter().filter(is_host).map(|backend| &*backend.name).collect();
        for (name, at) in names {
            let host = name.match_indices('@').find_map(|(end, _)| hosts.get(&name[..end]));
            let Some((host, first)) = host.and_then(|host| names.get_key_value(host)) else { continue };
            let (name, host) = (shown(name), shown(host));
            let diagnostic = Diagnostic::new(format!("`{name}` may collide with an address of backend `{host}`"));
            let hint = "a host name with several addresses becomes as many backends, named NAME@ADDRESS: rename one of the two";
            let diagnostic = self.located(*at, diagnostic.hint(hint));
            self.diagnostics
                .push(diagnostic.related(self.tree.span(*first), format!("may resolve to `{host}@ADDRESS`")));
        }
    }

    /// Warns of pools that as a whole are probably not what was meant. Needs every backend to be valid.
    fn share(&mut self, pool: &RawPool, written: usize, backends: &[BackendConfig]) {
        let Some(list) = &pool.backends else { return };
        if backends.is_empty() || backends.len() != written {
            return;
        }
        if backends.iter().all(|backend| backend.weight == 0) {
            let diagnostic = Diagnostic::new("every weight is 0: the pool takes no new connections")
                .hint("set the weight of at least one backend to 1 or more");
            self.warning(list.at, diagnostic);
        }
        if backends.iter().all(|backend| backend.backup) {
            let diagnostic = Diagnostic::new("every backend is a backup: they are used like primary backends")
                .hint("backups are for failover: they are used while no other backend is available");
            self.warning(list.at, diagnostic);
        }
    }

    fn source(&mut self, raw: &RawPool, backends: &[BackendConfig]) -> Vec<IpAddr> {
        let mut source: Vec<IpAddr> = Vec::new();
        let Some((list, _)) = value(raw.source.as_ref()) else {
            return source;
        };
        for element in list {
            let Some((SourceAddress(ip), at)) = value(Some(element)) else {
                continue;
            };
            if source.contains(ip) {
                self.error(at, Diagnostic::new(format!("`{ip}` is given twice")).hint("remove one of them"));
            } else {
                self.own_address(*ip, at, "connects from it would fail: see `ip address`");
            }
            let reaches = |backend: &BackendConfig| match &backend.address {
                BackendAddress::Ip(address) => address.is_ipv4() == ip.is_ipv4(),
                BackendAddress::Name { .. } => true,
                BackendAddress::Unix(_) => false,
            };
            if !backends.is_empty() && !backends.iter().any(reaches) {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                let diagnostic = Diagnostic::new(format!("no backend of this pool has an {family} address"))
                    .hint("this source address will not be used");
                self.warning(at, diagnostic);
            }
            source.push(*ip);
        }
        source
    }
}

fn balance(raw: RawBalance) -> Balance {
    match raw {
        RawBalance::RoundRobin | RawBalance::WeightedRoundRobin => Balance::RoundRobin,
        RawBalance::LeastConnections => Balance::LeastConnections,
        RawBalance::IpHash => Balance::IpHash,
        RawBalance::PowerOfTwo => Balance::PowerOfTwo,
        RawBalance::LeastLatency => Balance::LeastLatency,
        RawBalance::Random => Balance::Random,
    }
}
