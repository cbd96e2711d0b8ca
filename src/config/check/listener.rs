//! `listeners`.

use std::collections::HashMap;
use std::time::Duration;

use super::{Checker, copied, optional_period, value};
use crate::config::de::Located;
use crate::config::model::{Listener, ListenerSocket, ListenerTimeouts, PoolIndex, ReusePort};
use crate::config::raw;
use crate::config::report::{Fault, shown, similar};
use crate::config::tree::NodeId;
use crate::config::units::{BindAddress, Period};
use crate::config::words::Switch;
use crate::net::addr::Address;

/// TCP_KEEPIDLE's largest value, in seconds (tcp(7)).
const MAX_KEEPALIVE: u64 = 32_767;

const EXAMPLE: &str = "for example: listeners: [{ name: web, bind: 0.0.0.0:8080, pool: web }]";

impl Checker<'_> {
    /// All listeners; their pools are places in the list of pools as typed.
    pub(super) fn listeners(
        &mut self,
        key: Option<&Located<Vec<Located<raw::Listener>>>>,
        pools: Option<&Located<Vec<Located<raw::Pool>>>>,
    ) -> Option<Vec<Listener>> {
        let raw = self.elements(key, "listeners", self.tree.root(), EXAMPLE);
        let pools = Pools::new(pools);
        let mut names: HashMap<&str, NodeId> = HashMap::new();
        let mut binds: HashMap<&Address, NodeId> = HashMap::new();
        let mut used = vec![false; pools.count];
        let mut listeners = Vec::with_capacity(raw.len());
        for listener in raw {
            let Some((raw, at)) = value(Some(listener)) else {
                continue;
            };
            let name = self.required(raw.name.as_ref(), "name", at, "name: web");
            if let Some((name, at)) = name {
                self.name(name, at);
                match names.get(name.as_str()) {
                    Some(first) => {
                        self.twice(
                            at,
                            *first,
                            format!("a second listener `{}`", shown(name)),
                            "names of listeners are unique",
                        );
                    }
                    None => drop(names.insert(name, at)),
                }
            }
            let bind = self.bind(raw, at, &mut binds);
            let pool = self.pool_of(raw, at, &pools);
            if let Some(PoolIndex(index)) = pool
                && let Some(used) = used.get_mut(index)
            {
                *used = true;
            }
            let timeouts = timeouts(raw.timeouts.as_ref());
            let socket = self.socket(raw.socket.as_ref());
            let max_connections = self.limit(raw.max_connections.as_ref());
            if let (Some((name, _)), Some(pool)) = (name, pool) {
                listeners.push(Listener {
                    name: name.as_str().into(),
                    bind,
                    pool,
                    routes: Vec::new(),
                    tls: None,
                    proxy_protocol: None,
                    max_handshakes: None,
                    max_connections,
                    timeouts,
                    socket,
                });
            }
        }
        // While a reference is wrong, every pool may be the one that was meant.
        if !raw.is_empty() && listeners.len() == raw.len() {
            self.unused(&pools, &used);
        }
        (!listeners.is_empty()).then_some(listeners)
    }

    fn bind<'r>(
        &mut self,
        raw: &'r raw::Listener,
        owner: NodeId,
        binds: &mut HashMap<&'r Address, NodeId>,
    ) -> Vec<Address> {
        let hint = "bind: 127.0.0.1:8080 for this machine only, 0.0.0.0:8080 for every IPv4 address";
        let Some((list, at)) = self.required(raw.bind.as_ref(), "bind", owner, hint) else {
            return Vec::new();
        };
        if list.0.is_empty() {
            self.error(at, Fault::new("no address").hint(hint));
        }
        let mut addresses = Vec::new();
        for element in &list.0 {
            let Some((BindAddress(address), at)) = value(Some(element)) else {
                continue;
            };
            // With port 0 each gets a port of its own.
            let chosen = matches!(address, Address::Tcp(address) if address.port() == 0);
            match binds.get(address) {
                Some(first) if !chosen => {
                    self.twice(
                        at,
                        *first,
                        format!("`{address}` is bound twice"),
                        "one address belongs to one listener",
                    );
                }
                _ => drop(binds.insert(address, at)),
            }
            addresses.push(address.clone());
        }
        addresses
    }

    fn pool_of(&mut self, raw: &raw::Listener, owner: NodeId, pools: &Pools<'_>) -> Option<PoolIndex> {
        let hint = "pool: the name of one of `pools`";
        let (name, at) = self.required(raw.pool.as_ref(), "pool", owner, hint)?;
        if let Some(index) = pools.index.get(name.as_str()) {
            return Some(PoolIndex(*index));
        }
        if pools.names.is_empty() {
            // That there are none, or that they have no names, is an error of its own.
            return None;
        }
        let fault = Fault::new(format!("there is no pool `{}`", shown(name)));
        let names = || pools.names.iter().map(|(name, _)| *name);
        let fault = match similar(name, names()) {
            Some(meant) => fault.hint(format!("did you mean `{}`?", shown(meant))),
            None => {
                let names: Vec<&str> = names().take(10).collect();
                fault.hint(format!("the pools are: {}", names.join(", ")))
            }
        };
        self.error(at, fault);
        None
    }

    fn unused(&mut self, pools: &Pools<'_>, used: &[bool]) {
        for (name, at) in &pools.names {
            let index = pools.index.get(name).copied().unwrap_or_default();
            if used.get(index) == Some(&false) {
                let fault = Fault::new(format!("no listener uses pool `{}`", shown(name)))
                    .hint("name it as the `pool` of a listener, or take it out");
                self.warning(*at, fault);
            }
        }
    }

    fn socket(&mut self, key: Option<&Located<raw::Socket>>) -> ListenerSocket {
        let absent = raw::Socket::default();
        let raw = value(key).map_or(&absent, |(socket, _)| socket);
        if let Some((Period(length), at)) = value(raw.keepalive.as_ref()) {
            self.whole_seconds(*length, at);
            if length.as_secs() > MAX_KEEPALIVE {
                let fault = Fault::new("longer than the kernel can count")
                    .hint(format!("at most {MAX_KEEPALIVE}s; 0s turns keepalive off"));
                self.error(at, fault);
            }
        }
        if let Some((Period(length), at)) = value(raw.defer_accept.as_ref()) {
            self.whole_seconds(*length, at);
        }
        ListenerSocket {
            backlog: self.number(raw.backlog.as_ref(), 1..=i64::from(i32::MAX), 4096) as i32,
            nodelay: copied(raw.nodelay.as_ref()).unwrap_or(true),
            keepalive: optional_period(raw.keepalive.as_ref(), Duration::from_secs(60)),
            fast_open: self.number(raw.fast_open.as_ref(), 0..=65_535, 0) as u32,
            defer_accept: optional_period(raw.defer_accept.as_ref(), Duration::ZERO),
            mptcp: copied(raw.mptcp.as_ref()).unwrap_or(false),
            reuse_port: match copied(raw.reuse_port.as_ref()).unwrap_or(Switch::Auto) {
                Switch::Auto => ReusePort::Auto,
                Switch::On => ReusePort::On,
                Switch::Off => ReusePort::Off,
            },
            transparent: copied(raw.transparent.as_ref()).unwrap_or(false),
        }
    }

    fn whole_seconds(&mut self, length: Duration, at: NodeId) {
        if length.subsec_nanos() != 0 {
            let fault = Fault::new(format!("{} is not a whole number of seconds", Period(length)))
                .hint(format!("the kernel counts seconds: {}s", length.as_secs() + 1));
            self.error(at, fault);
        }
    }
}

fn timeouts(key: Option<&Located<raw::ListenerTimeouts>>) -> ListenerTimeouts {
    let absent = raw::ListenerTimeouts::default();
    let raw = value(key).map_or(&absent, |(timeouts, _)| timeouts);
    ListenerTimeouts {
        sniff: Some(Duration::from_secs(5)),
        handshake: Some(Duration::from_secs(10)),
        idle: optional_period(raw.idle.as_ref(), Duration::from_secs(3600)),
        half_close: optional_period(raw.half_close.as_ref(), Duration::from_secs(60)),
        lifetime: optional_period(raw.lifetime.as_ref(), Duration::ZERO),
    }
}

/// The pools' names, for references.
struct Pools<'r> {
    names: Vec<(&'r str, NodeId)>,
    index: HashMap<&'r str, usize>,
    count: usize,
}

impl<'r> Pools<'r> {
    fn new(key: Option<&'r Located<Vec<Located<raw::Pool>>>>) -> Pools<'r> {
        let raw = value(key).map_or(&[][..], |(pools, _)| pools);
        let mut pools = Pools { names: Vec::new(), index: HashMap::new(), count: raw.len() };
        for (index, pool) in raw.iter().enumerate() {
            let name = value(Some(pool)).and_then(|(pool, _)| value(pool.name.as_ref()));
            // A second pool of the same name is an error of its own.
            if let Some((name, at)) = name
                && !pools.index.contains_key(name.as_str())
            {
                pools.names.push((name, at));
                pools.index.insert(name, index);
            }
        }
        pools
    }
}
