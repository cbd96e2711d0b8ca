//! What turns one configuration into another. Pure: [`apply`](super::apply) carries it out.
//!
//! Listeners, pools and backends are the same if their names are; of a backend the address counts as well.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::config::model::{BackendConfig, Config, ListenAddress, ListenerConfig, ListenerState, PoolConfig};
use crate::net::addr::Address;

/// The way from one configuration to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In the order of the new configuration; those that are removed come last.
    pub listeners: Vec<ListenerStep>,
    /// As the listeners.
    pub pools: Vec<PoolStep>,
    /// Changed keys of the whole process, such as `log`.
    pub settings: Vec<&'static str>,
    /// Changed keys that a running process does not take over: it has to be restarted.
    pub needs_restart: Vec<String>,
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is new.
    Add,
    /// It is another one than before.
    Change,
    /// It stays as it is.
    Keep,
    /// It is no longer there.
    Remove,
}

/// What becomes of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerStep {
    /// Its name.
    pub name: Arc<str>,
    /// What becomes of it.
    pub step: Step,
    /// Addresses to bind.
    pub open: Vec<Address>,
    /// Addresses whose sockets are closed.
    pub close: Vec<Address>,
    /// Its certificates or other rules of TLS are to be loaded.
    pub loads_tls: bool,
}

/// What becomes of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStep {
    /// Its name.
    pub name: Arc<str>,
    /// What becomes of it.
    pub step: Step,
    /// What becomes of its backends, by name. One whose address changes is removed and added.
    pub backends: Vec<(Arc<str>, Step)>,
    /// Its certificates or other rules of TLS are to be loaded.
    pub loads_tls: bool,
}

impl Plan {
    /// What becomes of a pool; `None` if it is in neither configuration.
    pub(super) fn of_pool(&self, name: &str) -> Option<Step> {
        self.pools.iter().find(|step| *step.name == *name).map(|step| step.step)
    }

    /// The way from `old` to `new`.
    pub fn between(old: &Config, new: &Config) -> Plan {
        let mut plan =
            Plan { listeners: Vec::new(), pools: Vec::new(), settings: Vec::new(), needs_restart: Vec::new() };
        for (before, after) in matched(&old.listeners, &new.listeners, |listener| &listener.name) {
            if let (Some(before), Some(after)) = (before, after) {
                if before.udp.is_some() != after.udp.is_some() {
                    plan.needs_restart.push(format!("listeners.{}.protocol", after.name));
                } else if after.udp.is_some() && before.socket.reuse_port != after.socket.reuse_port {
                    // Another number of sockets would give clients to other workers.
                    plan.needs_restart.push(format!("listeners.{}.socket.reuse_port", after.name));
                }
            }
            plan.listeners.extend(listener_step(before.map(|it| (old, it)), after.map(|it| (new, it))));
            if let (Some(before), Some(after)) = (before, after)
                && before.socket.mptcp != after.socket.mptcp
                && before.addresses().any(|address| matches!(address, Address::Tcp(_)) && after.binds(&address))
            {
                plan.needs_restart.push(format!("listeners.{}.socket.mptcp", after.name));
            }
        }
        for (before, after) in matched(&old.pools, &new.pools, |pool| &pool.name) {
            plan.pools.extend(pool_step(before, after));
        }
        if !old.listeners.is_empty() {
            let settings = [
                ("workers", old.workers != new.workers),
                ("admin", old.admin != new.admin),
                ("geoip", old.geoip != new.geoip),
                ("log", old.log != new.log),
                ("shutdown", old.shutdown != new.shutdown),
            ];
            plan.settings.extend(settings.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key));
        }
        plan
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let kept = |step: Step| step == Step::Keep;
        self.needs_restart.is_empty()
            && self.settings.is_empty()
            && self.listeners.iter().all(|listener| kept(listener.step))
            && self.pools.iter().all(|pool| kept(pool.step))
    }
}

/// Entries with the same name, in the order of `new`; then those of `old` that have no counterpart.
fn matched<'c, T>(
    old: &'c [T],
    new: &'c [T],
    name: fn(&T) -> &Arc<str>,
) -> impl Iterator<Item = (Option<&'c T>, Option<&'c T>)> {
    let by_name = |entries: &'c [T]| entries.iter().map(move |entry| (name(entry), entry)).collect::<HashMap<_, _>>();
    let (before, after) = (by_name(old), by_name(new));
    let removed = old.iter().filter(move |entry| !after.contains_key(name(entry))).map(|entry| (Some(entry), None));
    new.iter().map(move |entry| (before.get(name(entry)).copied(), Some(entry))).chain(removed)
}

fn listener_step(
    old: Option<(&Config, &ListenerConfig)>,
    new: Option<(&Config, &ListenerConfig)>,
) -> Option<ListenerStep> {
    let (_, any) = new.or(old)?;
    let (before, after) = (old.map(|(_, listener)| listener), new.map(|(_, listener)| listener));
    fn binds(listener: Option<&ListenerConfig>) -> &[ListenAddress] {
        match listener {
            Some(listener) if listener.state != ListenerState::Drain => &listener.bind,
            _ => &[],
        }
    }
    let without = |all: &[ListenAddress], others: &[ListenAddress]| {
        let all = all.iter().flat_map(ListenAddress::addresses);
        all.filter(|it| !others.iter().any(|other| other.contains(it))).collect()
    };
    let step = match (old, new) {
        (None, _) => Step::Add,
        (_, None) => Step::Remove,
        (Some((old, before)), Some((new, after))) if old.by_names(before) == new.by_names(after) => Step::Keep,
        _ => Step::Change,
    };
    let tls = |listener: Option<&ListenerConfig>| listener.and_then(|listener| listener.tls.clone());
    Some(ListenerStep {
        name: Arc::clone(&any.name),
        step,
        open: without(binds(after), binds(before)),
        close: without(binds(before), binds(after)),
        loads_tls: tls(after).is_some() && tls(after) != tls(before),
    })
}

fn pool_step(old: Option<&PoolConfig>, new: Option<&PoolConfig>) -> Option<PoolStep> {
    let any = new.or(old)?;
    let step = match (old, new) {
        (None, _) => Step::Add,
        (_, None) => Step::Remove,
        (Some(old), Some(new)) if old == new => Step::Keep,
        _ => Step::Change,
    };
    let backends = |pool: Option<&'_ PoolConfig>| pool.map_or(Vec::new(), |pool| pool.backends.clone());
    let (before, after) = (backends(old), backends(new));
    let steps = matched(&before, &after, |backend: &BackendConfig| &backend.name).flat_map(|pair| match pair {
        (None, Some(new)) => vec![(Arc::clone(&new.name), Step::Add)],
        (Some(old), None) => vec![(Arc::clone(&old.name), Step::Remove)],
        (Some(old), Some(new)) if old.address != new.address => {
            vec![(Arc::clone(&old.name), Step::Remove), (Arc::clone(&new.name), Step::Add)]
        }
        (Some(old), Some(new)) if old != new => vec![(Arc::clone(&new.name), Step::Change)],
        (Some(old), Some(_)) => vec![(Arc::clone(&old.name), Step::Keep)],
        (None, None) => Vec::new(),
    });
    let tls = |pool: Option<&PoolConfig>| pool.and_then(|pool| pool.tls.clone());
    Some(PoolStep {
        name: Arc::clone(&any.name),
        step,
        backends: steps.collect(),
        loads_tls: tls(new).is_some() && tls(new) != tls(old),
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Add => "+",
            Step::Change => "~",
            Step::Keep => "=",
            Step::Remove => "-",
        })
    }
}

/// What changes, a line each: `~ pool db: + db-3, - db-1`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> = self.settings.iter().map(|key| format!("~ {key}")).collect();
        for listener in self.listeners.iter().filter(|listener| listener.step != Step::Keep) {
            let opened = listener.open.iter().map(|address| format!("+ {address}"));
            let closed = listener.close.iter().map(|address| format!("- {address}"));
            lines.push(line(listener.step, "listener", &listener.name, opened.chain(closed)));
        }
        for pool in self.pools.iter().filter(|pool| pool.step != Step::Keep) {
            let backends = pool.backends.iter().filter(|(_, step)| *step != Step::Keep);
            let backends = backends.map(|(name, step)| format!("{step} {name}"));
            lines.push(line(pool.step, "pool", &pool.name, backends));
        }
        lines.extend(self.needs_restart.iter().map(|key| format!("! {key}: needs a restart")));
        f.write_str(&lines.join("\n"))
    }
}

fn line(step: Step, kind: &str, name: &str, parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    let colon = if parts.is_empty() { "" } else { ": " };
    format!("{step} {kind} {name}{colon}{}", parts.join(", "))
}

#[cfg(test)]
mod tests;
