//! `pools`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{Checker, copied, period, value};
use crate::config::de::Located;
use crate::config::model::{
    BackendAddress, BackendConfig, Balance, HashPrefix, Health, OnDown, PoolConfig, PoolTls, SendProxy,
};
use crate::config::raw;
use crate::config::report::{Fault, shown};
use crate::config::tree::NodeId;
use crate::config::units::SourceAddress;

const EXAMPLE: &str = "for example: pools: [{ name: web, backends: [{ address: 127.0.0.1:3001 }] }]";

const UNIQUE: &str = "names of backends are unique in their pool; without a name it is the address";

impl Checker<'_> {
    /// All pools, in the order typed: a [`PoolIndex`](crate::config::model::PoolIndex) counts both.
    pub(super) fn pools(&mut self, key: Option<&Located<Vec<Located<raw::Pool>>>>) -> Option<Vec<PoolConfig>> {
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
                        self.twice(at, *first, format!("a second pool `{}`", shown(name)), "names of pools are unique");
                    }
                    None => drop(names.insert(name, at)),
                }
            }
            let pool = self.pool(raw, at, name.map_or("", |(name, _)| name));
            pools.push(pool);
        }
        (!pools.is_empty()).then_some(pools)
    }

    fn pool(&mut self, raw: &raw::Pool, at: NodeId, name: &str) -> PoolConfig {
        let backends = self.backends(raw, at);
        let health = value(raw.health.as_ref()).and_then(|(health, at)| self.health(health, at, &backends));
        let tls = self.pool_tls(raw, at, &backends);
        self.plain_probes(raw, health.as_ref(), tls.as_ref());
        PoolConfig {
            name: name.into(),
            balance: balance(raw),
            hash: self.hash(raw),
            health,
            send_proxy: match copied(raw.send_proxy.as_ref()).unwrap_or(raw::SendProxy::Off) {
                raw::SendProxy::Off => None,
                raw::SendProxy::V1 => Some(SendProxy::V1),
                raw::SendProxy::V2 => Some(SendProxy::V2),
            },
            tls,
            source: self.source(raw, &backends),
            backends,
            on_down: match copied(raw.on_down.as_ref()).unwrap_or(raw::OnDown::Keep) {
                raw::OnDown::Keep => OnDown::Keep,
                raw::OnDown::Cut => OnDown::Cut,
            },
            slow_start: period(raw.slow_start.as_ref(), Duration::ZERO),
            retries: self.number(raw.retries.as_ref(), 0..=100, 2) as u32,
            connect_timeout: {
                let connect = value(raw.timeouts.as_ref()).and_then(|(timeouts, _)| timeouts.connect.as_ref());
                self.positive(connect, Duration::from_secs(5))
            },
        }
    }

    /// Says when probes would talk in plain to a port that speaks TLS, and never pass.
    fn plain_probes(&mut self, raw: &raw::Pool, health: Option<&Health>, tls: Option<&PoolTls>) {
        let (Some(health), Some(PoolTls { starttls: None, .. })) = (health, tls) else {
            return;
        };
        let Some((kinds, _)) = value(raw.health.as_ref()) else {
            return;
        };
        let talks = kinds.http.as_ref().map(|key| key.at).or(kinds.exchange.as_ref().map(|key| key.at));
        if let (Some(at), None) = (talks, health.port) {
            let fault = Fault::new("the probe speaks without TLS to backends that are reached by TLS");
            self.warning(at, fault.hint("give the `port` on which they answer without TLS, or check with `tcp: {}`"));
        }
    }

    fn hash(&mut self, raw: &raw::Pool) -> HashPrefix {
        let absent = raw::Hash::default();
        let given = value(raw.hash.as_ref());
        let hash = given.map_or(&absent, |(hash, _)| hash);
        let default = HashPrefix { ipv4: 32, ipv6: 64 };
        let prefix = HashPrefix {
            ipv4: self.number(hash.ipv4_prefix.as_ref(), 0..=32, default.ipv4.into()) as u8,
            ipv6: self.number(hash.ipv6_prefix.as_ref(), 0..=128, default.ipv6.into()) as u8,
        };
        if let Some((_, at)) = given
            && prefix != default
            && balance(raw) != Balance::IpHash
        {
            let fault = Fault::new("has no effect").hint("only `balance: ip_hash` looks at it");
            self.warning(at, fault);
        }
        prefix
    }

    fn backends(&mut self, pool: &raw::Pool, owner: NodeId) -> Vec<BackendConfig> {
        let hint = "for example: backends: [{ address: 127.0.0.1:3001 }]";
        let raw = self.elements(pool.backends.as_ref(), "backends", Some(owner), hint);
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
                        let what = format!("a second backend `{}`", shown(name));
                        self.twice(at, *first, what, UNIQUE);
                    }
                    None => drop(names.insert(name, at)),
                }
            }
            let weight = self.number(raw.weight.as_ref(), 0..=1000, 1) as u32;
            let max_connections = self.limit(raw.max_connections.as_ref());
            let backup = copied(raw.backup.as_ref()).unwrap_or(false);
            if let (Some((name, _)), Some((target, _))) = (name, address) {
                backends.push(BackendConfig {
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
            let fault = Fault::new(format!("`{name}` may collide with an address of backend `{host}`"));
            let hint =
                "a host name with several addresses is as many backends, named NAME@ADDRESS: rename one of the two";
            let problem = self.problem(*at, fault.hint(hint));
            self.problems.push(problem.other(self.tree.span(*first), format!("may resolve to `{host}@ADDRESS`")));
        }
    }

    /// Says when the pool as a whole cannot be what was meant. Backends that could not be read
    /// would make this guesswork.
    fn share(&mut self, pool: &raw::Pool, written: usize, backends: &[BackendConfig]) {
        let Some(list) = &pool.backends else { return };
        if backends.is_empty() || backends.len() != written {
            return;
        }
        if backends.iter().all(|backend| backend.weight == 0) {
            let fault = Fault::new("every weight is 0: the pool takes no new connections")
                .hint("give at least one backend a weight of 1 or more");
            self.warning(list.at, fault);
        }
        if backends.iter().all(|backend| backend.backup) {
            let fault = Fault::new("every backend is a backup, so they are used like any others")
                .hint("a backup is used only when no other backend can be");
            self.warning(list.at, fault);
        }
    }

    fn source(&mut self, raw: &raw::Pool, backends: &[BackendConfig]) -> Vec<IpAddr> {
        let mut source: Vec<IpAddr> = Vec::new();
        let Some((list, _)) = value(raw.source.as_ref()) else {
            return source;
        };
        for element in list {
            let Some((SourceAddress(ip), at)) = value(Some(element)) else {
                continue;
            };
            if source.contains(ip) {
                self.error(at, Fault::new(format!("`{ip}` is given twice")).hint("once is enough"));
            } else {
                self.own_address(*ip, at, "connects from it would fail; `ip address` lists them");
            }
            let reaches = |backend: &BackendConfig| match &backend.address {
                BackendAddress::Ip(address) => address.is_ipv4() == ip.is_ipv4(),
                BackendAddress::Name { .. } => true,
                BackendAddress::Unix(_) => false,
            };
            if !backends.is_empty() && !backends.iter().any(reaches) {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                let fault = Fault::new(format!("no backend of this pool has an {family} address"))
                    .hint("this source address will not be used");
                self.warning(at, fault);
            }
            source.push(*ip);
        }
        source
    }
}

fn balance(raw: &raw::Pool) -> Balance {
    match copied(raw.balance.as_ref()).unwrap_or(raw::Balance::RoundRobin) {
        raw::Balance::RoundRobin | raw::Balance::WeightedRoundRobin => Balance::RoundRobin,
        raw::Balance::LeastConnections => Balance::LeastConnections,
        raw::Balance::IpHash => Balance::IpHash,
        raw::Balance::PowerOfTwo => Balance::PowerOfTwo,
        raw::Balance::LeastLatency => Balance::LeastLatency,
        raw::Balance::Random => Balance::Random,
    }
}
