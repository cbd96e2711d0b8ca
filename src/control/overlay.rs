//! What was changed at run time, kept apart from the file: each value with the one that was configured when it was changed.
//!
//! A configured value that has changed since wins, and its entry is dropped. Otherwise a restart or a reload would undo what an
//! operator has done, or an old change would hide a new configuration.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::config::backend_address;
use crate::config::model::{
    AdminState, BackendConfig, Balance, Config, ForcedHealth, ListenerConfig, ListenerState, PoolConfig,
};

/// The largest weight.
pub const MAX_WEIGHT: u32 = 1000;

/// Changes made at run time, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pools: BTreeMap<String, PoolOverlay>,
    /// An upgrade takes them over; a state file has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    listeners: BTreeMap<String, ListenerOverlay>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PoolOverlay {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    balance: Option<Changed<Balance>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    backends: BTreeMap<String, BackendOverlay>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ListenerOverlay {
    state: Option<Changed<ListenerState>>,
    max_connections: Option<Changed<Option<NonZeroU32>>>,
}

/// What goes back to what the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetScope {
    All,
    /// A pool with its backends.
    Pool(String),
    Backend {
        pool: String,
        name: String,
    },
    Listener(String),
}

/// A value, and the one that was configured when it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Changed<T> {
    configured: T,
    current: T,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BackendOverlay {
    /// It is not in the file.
    Added(AddedBackend),
    /// The file has it with this address.
    Removed(String),
    Changed(ChangedBackend),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct AddedBackend {
    address: String,
    weight: u32,
    max_connections: Option<NonZeroU32>,
    backup: bool,
    state: AdminState,
    forced: Option<ForcedHealth>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ChangedBackend {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Changed<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<Changed<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<Changed<Option<NonZeroU32>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<Changed<bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Changed<AdminState>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forced: Option<ForcedHealth>,
}

impl<T: PartialEq + Clone> Changed<T> {
    /// `None` where the value is as configured.
    fn from(configured: &T, current: &T) -> Option<Changed<T>> {
        (configured != current).then(|| Changed { configured: configured.clone(), current: current.clone() })
    }
}

impl Overlay {
    /// The configuration with the changes, the overlay without the entries that no longer apply, and a line for each of these.
    pub fn apply(&self, file: &Config) -> (Config, Overlay, Vec<String>) {
        let (mut config, mut kept, mut dropped) = (file.clone(), Overlay::default(), Vec::new());
        for (name, overlay) in &self.pools {
            match config.pools.iter_mut().find(|pool| *pool.name == **name) {
                Some(pool) => {
                    let overlay = overlay.apply(pool, &mut dropped);
                    if overlay != PoolOverlay::default() {
                        kept.pools.insert(name.clone(), overlay);
                    }
                }
                None => dropped.push(format!("pools.{name}: changed at run time; the file no longer has this pool")),
            }
        }
        for (name, overlay) in &self.listeners {
            let path = format!("listeners.{name}");
            let Some(listener) = config.listeners.iter_mut().find(|listener| *listener.name == **name) else {
                dropped.push(format!("{path}: changed at run time; the file no longer has this listener"));
                continue;
            };
            let state = take(&overlay.state, &mut listener.state, &path, "state", &mut dropped);
            let max = &mut listener.max_connections;
            let max_connections = take(&overlay.max_connections, max, &path, "max_connections", &mut dropped);
            let overlay = ListenerOverlay { state, max_connections };
            if overlay != ListenerOverlay::default() {
                kept.listeners.insert(name.clone(), overlay);
            }
        }
        (config, kept, dropped)
    }

    /// Changes: values of what the file has, and backends that were added or removed.
    pub fn count(&self) -> usize {
        let of_listener = |it: &ListenerOverlay| {
            let ListenerOverlay { state, max_connections } = it;
            usize::from(state.is_some()) + usize::from(max_connections.is_some())
        };
        let listeners: usize = self.listeners.values().map(of_listener).sum();
        listeners + self.pools.values().map(PoolOverlay::count).sum::<usize>()
    }

    /// Without the changes of what is meant.
    pub(super) fn reset(&mut self, scope: &ResetScope) {
        match scope {
            ResetScope::All => *self = Overlay::default(),
            ResetScope::Pool(pool) => drop(self.pools.remove(pool)),
            ResetScope::Backend { pool, name } => {
                self.pools.get_mut(pool).into_iter().for_each(|pool| drop(pool.backends.remove(name)));
                self.pools.retain(|_, pool| *pool != PoolOverlay::default());
            }
            ResetScope::Listener(listener) => drop(self.listeners.remove(listener)),
        }
    }

    /// Whether it adds or removes this backend, or changes it.
    pub(super) fn has_backend(&self, pool: &str, name: &str) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.backends.contains_key(name))
    }

    /// What outlives a restart.
    pub(super) fn lasting(&self) -> Overlay {
        Overlay { listeners: BTreeMap::new(), ..self.clone() }
    }

    /// With a backend as it is to be; `None` removes it.
    pub(super) fn set_backend(&mut self, file: &PoolConfig, name: &str, wanted: Option<&BackendConfig>) {
        let configured = file.backends.iter().find(|backend| *backend.name == *name);
        let overlay = match (configured, wanted) {
            (None, None) => None,
            (Some(configured), None) => Some(BackendOverlay::Removed(configured.address.to_string())),
            (None, Some(wanted)) => Some(BackendOverlay::Added(AddedBackend::of(wanted))),
            (Some(configured), Some(wanted)) => {
                let changed = ChangedBackend::between(configured, wanted);
                (changed != ChangedBackend::default()).then_some(BackendOverlay::Changed(changed))
            }
        };
        let pool = self.pools.entry(file.name.to_string()).or_default();
        match overlay {
            Some(overlay) => drop(pool.backends.insert(name.to_owned(), overlay)),
            None => drop(pool.backends.remove(name)),
        }
        self.pools.retain(|_, pool| *pool != PoolOverlay::default());
    }

    /// With another algorithm.
    pub(super) fn set_balance(&mut self, file: &PoolConfig, balance: Balance) {
        self.pools.entry(file.name.to_string()).or_default().balance = Changed::from(&file.balance, &balance);
        self.pools.retain(|_, pool| *pool != PoolOverlay::default());
    }

    /// With a listener as it is to be.
    pub(super) fn set_listener(&mut self, file: &ListenerConfig, wanted: &ListenerConfig) {
        let overlay = ListenerOverlay {
            state: Changed::from(&file.state, &wanted.state),
            max_connections: Changed::from(&file.max_connections, &wanted.max_connections),
        };
        self.listeners.insert(file.name.to_string(), overlay);
        self.listeners.retain(|_, overlay| *overlay != ListenerOverlay::default());
    }
}

impl PoolOverlay {
    fn count(&self) -> usize {
        let of_backend = |it: &BackendOverlay| match it {
            BackendOverlay::Added(_) | BackendOverlay::Removed(_) => 1,
            BackendOverlay::Changed(changed) => changed.count(),
        };
        usize::from(self.balance.is_some()) + self.backends.values().map(of_backend).sum::<usize>()
    }

    fn apply(&self, pool: &mut PoolConfig, dropped: &mut Vec<String>) -> PoolOverlay {
        let path = format!("pools.{}", pool.name);
        let balance = take(&self.balance, &mut pool.balance, &path, "balance", dropped);
        let mut kept = PoolOverlay { balance, backends: BTreeMap::new() };
        for (name, overlay) in &self.backends {
            let path = format!("{path}.backends.{name}");
            let place = pool.backends.iter().position(|backend| *backend.name == **name);
            let overlay = match (overlay, place.and_then(|place| pool.backends.get_mut(place))) {
                (BackendOverlay::Added(added), None) => match added.config(name) {
                    Some(config) => {
                        pool.backends.push(config);
                        Ok(overlay.clone())
                    }
                    None => Err(format!("added at run time; `{}` is no address", added.address)),
                },
                // The file has caught up, here and below.
                (BackendOverlay::Added(added), Some(configured)) if *added == AddedBackend::of(configured) => continue,
                (BackendOverlay::Added(_), Some(_)) => {
                    Err("added at run time; the file has it now, and its settings are in effect".to_owned())
                }
                (BackendOverlay::Removed(_), None) => continue,
                (BackendOverlay::Removed(address), Some(configured)) if configured.address.to_string() == *address => {
                    pool.backends.retain(|backend| *backend.name != **name);
                    Ok(overlay.clone())
                }
                (BackendOverlay::Removed(address), Some(configured)) => Err(format!(
                    "removed at run time as {address}; the file now says {}, which is in effect",
                    configured.address
                )),
                (BackendOverlay::Changed(_), None) => {
                    Err("changed at run time; the file no longer has this backend".to_owned())
                }
                (BackendOverlay::Changed(changed), Some(backend)) => {
                    let changed = changed.apply(backend, &path, dropped);
                    if changed == ChangedBackend::default() {
                        continue;
                    }
                    Ok(BackendOverlay::Changed(changed))
                }
            };
            match overlay {
                Ok(overlay) => drop(kept.backends.insert(name.clone(), overlay)),
                Err(why) => dropped.push(format!("{path}: {why}")),
            }
        }
        kept
    }
}

impl AddedBackend {
    fn of(config: &BackendConfig) -> AddedBackend {
        let BackendConfig { name: _, address, weight, max_connections, backup, state, forced } = config;
        AddedBackend {
            address: address.to_string(),
            weight: *weight,
            max_connections: *max_connections,
            backup: *backup,
            state: *state,
            forced: *forced,
        }
    }

    /// `None` if the address of a state file is none.
    fn config(&self, name: &str) -> Option<BackendConfig> {
        let AddedBackend { address, weight, max_connections, backup, state, forced } = self;
        Some(BackendConfig {
            name: name.into(),
            address: backend_address(address).ok()?,
            weight: (*weight).min(MAX_WEIGHT),
            max_connections: *max_connections,
            backup: *backup,
            state: *state,
            forced: *forced,
        })
    }
}

impl ChangedBackend {
    fn count(&self) -> usize {
        let ChangedBackend { address, weight, max_connections, backup, state, forced } = self;
        [
            address.is_some(),
            weight.is_some(),
            max_connections.is_some(),
            backup.is_some(),
            state.is_some(),
            forced.is_some(),
        ]
        .into_iter()
        .filter(|is_changed| *is_changed)
        .count()
    }

    fn between(configured: &BackendConfig, wanted: &BackendConfig) -> ChangedBackend {
        ChangedBackend {
            address: Changed::from(&configured.address.to_string(), &wanted.address.to_string()),
            weight: Changed::from(&configured.weight, &wanted.weight),
            max_connections: Changed::from(&configured.max_connections, &wanted.max_connections),
            backup: Changed::from(&configured.backup, &wanted.backup),
            state: Changed::from(&configured.state, &wanted.state),
            forced: wanted.forced,
        }
    }

    fn apply(&self, backend: &mut BackendConfig, path: &str, dropped: &mut Vec<String>) -> ChangedBackend {
        let mut text = backend.address.to_string();
        let mut address = take(&self.address, &mut text, path, "address", dropped);
        match (address.is_some(), backend_address(&text)) {
            (true, Ok(current)) => backend.address = current,
            (true, Err(_)) => address = None,
            (false, _) => {}
        }
        backend.forced = self.forced;
        ChangedBackend {
            address,
            weight: take(&self.weight, &mut backend.weight, path, "weight", dropped),
            max_connections: take(
                &self.max_connections,
                &mut backend.max_connections,
                path,
                "max_connections",
                dropped,
            ),
            backup: take(&self.backup, &mut backend.backup, path, "backup", dropped),
            state: take(&self.state, &mut backend.state, path, "state", dropped),
            forced: self.forced,
        }
    }
}

/// Puts a changed value in the place of the configured one, unless that has changed since. Returns what is kept.
fn take<T: PartialEq + Clone + AsWritten>(
    changed: &Option<Changed<T>>,
    value: &mut T,
    path: &str,
    key: &str,
    dropped: &mut Vec<String>,
) -> Option<Changed<T>> {
    let Changed { configured, current } = changed.as_ref()?;
    if value != configured {
        if value != current {
            let [value, configured, current] = [&*value, configured, current].map(AsWritten::as_written);
            let was = format!("changed at run time from {configured} to {current}");
            dropped.push(format!("{path}.{key}: {was}; the file now says {value}, which is in effect"));
        }
        return None;
    }
    *value = current.clone();
    changed.clone()
}

/// A value as a file has it.
trait AsWritten {
    fn as_written(&self) -> String;
}

impl AsWritten for Option<NonZeroU32> {
    fn as_written(&self) -> String {
        self.map_or(0, NonZeroU32::get).to_string()
    }
}

/// By a function of the type that gives its text.
macro_rules! as_written {
    ($($type:ty => $text:expr),*) => {
        $(impl AsWritten for $type {
            fn as_written(&self) -> String {
                $text(self).to_string()
            }
        })*
    };
}

as_written!(
    u32 => u32::to_string,
    bool => bool::to_string,
    String => String::as_str,
    Balance => |it: &Balance| it.name(),
    AdminState => |it: &AdminState| it.name(),
    ListenerState => |it: &ListenerState| it.name()
);

#[cfg(test)]
mod tests;
