//! Changes of single values. Each is checked against the configuration in effect and becomes part of the [`Overlay`].

use std::num::NonZeroU32;

use super::outcome::Refusal;
pub use super::overlay::MAX_WEIGHT;
use super::overlay::{Overlay, ResetScope};
use crate::config::model::{
    AdminState, BackendAddress, BackendConfig, Balance, Config, ForcedHealth, ListenerConfig, ListenerState, PoolConfig,
};
use crate::config::{Diagnostic, name_fault};

/// Backends of one pool that can be added at run time: a script that goes wrong must not grow the process without a bound.
pub const MAX_BACKENDS: usize = 10_000;

/// A change of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Adds a backend, or replaces what is given of it.
    PutBackend { pool: String, name: String, address: BackendAddress, values: BackendValues },
    /// Changes what is given of a backend.
    PatchBackend { pool: String, name: String, values: BackendValues },
    /// Removes a backend: it drains.
    RemoveBackend { pool: String, name: String },
    /// Another algorithm.
    SetBalance { pool: String, balance: Balance },
    /// Changes what is given of a listener.
    PatchListener { listener: String, state: Option<ListenerState>, max_connections: Option<Option<NonZeroU32>> },
    /// Goes back to what the file says.
    Reset(ResetScope),
}

/// Values of a backend; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendValues {
    pub weight: Option<u32>,
    pub max_connections: Option<Option<NonZeroU32>>,
    pub backup: Option<bool>,
    pub state: Option<AdminState>,
    pub forced: Option<Option<ForcedHealth>>,
}

impl BackendValues {
    fn apply(&self, backend: &mut BackendConfig) {
        let BackendValues { weight, max_connections, backup, state, forced } = self;
        backend.weight = weight.unwrap_or(backend.weight);
        backend.max_connections = max_connections.unwrap_or(backend.max_connections);
        backend.backup = backup.unwrap_or(backend.backup);
        backend.state = state.unwrap_or(backend.state);
        backend.forced = forced.unwrap_or(backend.forced);
    }
}

/// A new overlay, and whether something is new that was not there.
pub type Edited = (Overlay, bool);

impl Overlay {
    /// With an edit. `file` is the configuration of the file. Whether values go together is for the checks of a file
    /// ([`recheck`](crate::config::recheck)).
    ///
    /// # Errors
    /// There is nothing of that name, or the value cannot be.
    pub fn edited(&self, file: &Config, edit: &Edit) -> Result<Edited, Refusal> {
        let (effective, mut overlay, _) = self.apply(file);
        let created = match edit {
            Edit::PutBackend { pool, name, address, values } => {
                let (pool_of_file, pool) = pools(file, &effective, pool)?;
                name_fault(name).map_or(Ok(()), |fault| Err(Refusal::Unusable(in_words(fault))))?;
                let known = pool.backends.iter().find(|backend| *backend.name == **name);
                if known.is_none() && pool.backends.len() >= MAX_BACKENDS {
                    let why = format!("pool {} has {MAX_BACKENDS} backends, which is the limit", pool.name);
                    return Err(Refusal::Conflict(why));
                }
                // One that was removed comes back as the file has it.
                let of_file = pool_of_file.backends.iter().find(|backend| *backend.name == **name);
                let mut backend = known.or(of_file).cloned().unwrap_or_else(|| added(name, address));
                backend.address = address.clone();
                values.apply(&mut backend);
                overlay.set_backend(pool_of_file, name, Some(&backend));
                known.is_none()
            }
            Edit::PatchBackend { pool, name, values } => {
                let (of_file, pool) = pools(file, &effective, pool)?;
                let mut backend = backend(pool, name)?.clone();
                values.apply(&mut backend);
                overlay.set_backend(of_file, name, Some(&backend));
                false
            }
            Edit::RemoveBackend { pool, name } => {
                let (of_file, pool) = pools(file, &effective, pool)?;
                backend(pool, name)?;
                overlay.set_backend(of_file, name, None);
                false
            }
            Edit::SetBalance { pool, balance } => {
                let (of_file, _) = pools(file, &effective, pool)?;
                overlay.set_balance(of_file, *balance);
                false
            }
            Edit::PatchListener { listener, state, max_connections } => {
                let of_file = self::listener(file, listener)?;
                let mut wanted = self::listener(&effective, listener)?.clone();
                wanted.state = state.unwrap_or(wanted.state);
                wanted.max_connections = max_connections.unwrap_or(wanted.max_connections);
                overlay.set_listener(of_file, &wanted);
                false
            }
            Edit::Reset(scope) => {
                match scope {
                    ResetScope::All => {}
                    ResetScope::Pool(pool) => drop(pools(file, &effective, pool)?),
                    ResetScope::Backend { pool, name } => {
                        let (of_file, _) = pools(file, &effective, pool)?;
                        if !overlay.has_backend(pool, name) {
                            backend(of_file, name)?;
                        }
                    }
                    ResetScope::Listener(name) => drop(listener(file, name)?),
                }
                overlay.reset(scope);
                false
            }
        };
        Ok((overlay, created))
    }
}

fn added(name: &str, address: &BackendAddress) -> BackendConfig {
    BackendConfig {
        name: name.into(),
        address: address.clone(),
        weight: 1,
        max_connections: None,
        backup: false,
        state: AdminState::Ready,
        forced: None,
    }
}

/// A pool as in the file, and as in effect.
fn pools<'c>(file: &'c Config, effective: &'c Config, name: &str) -> Result<(&'c PoolConfig, &'c PoolConfig), Refusal> {
    let of = |config: &'c Config| config.pools.iter().find(|pool| *pool.name == *name);
    of(file).zip(of(effective)).ok_or_else(|| {
        let names = listed(effective.pools.iter().map(|pool| &*pool.name));
        Refusal::NotFound(format!("there is no pool `{name}`: {names}"))
    })
}

fn listener<'c>(config: &'c Config, name: &str) -> Result<&'c ListenerConfig, Refusal> {
    config.listeners.iter().find(|listener| *listener.name == *name).ok_or_else(|| {
        let names = listed(config.listeners.iter().map(|listener| &*listener.name));
        Refusal::NotFound(format!("there is no listener `{name}`: {names}"))
    })
}

fn backend<'c>(pool: &'c PoolConfig, name: &str) -> Result<&'c BackendConfig, Refusal> {
    let found = pool.backends.iter().find(|backend| *backend.name == *name);
    found.ok_or_else(|| {
        let pool_name = &pool.name;
        match pool.backends.iter().find(|it| name.strip_prefix(&*it.name).is_some_and(|rest| rest.starts_with('@'))) {
            Some(entry) => Refusal::Conflict(format!(
                "`{name}` is one of the addresses of `{}`, which changes as a whole: {pool_name}/{}",
                entry.name, entry.name
            )),
            None => {
                let names = listed(pool.backends.iter().map(|backend| &*backend.name));
                Refusal::NotFound(format!("there is no backend `{name}` in pool {pool_name}: {names}"))
            }
        }
    })
}

/// The names that there are; not all of a long list.
fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const MAX: usize = 10;
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(MAX);
    let shown = names.iter().take(MAX).copied().collect::<Vec<_>>().join(", ");
    match (names.is_empty(), more) {
        (true, _) => "there is none at all".to_owned(),
        (false, 0) => format!("there is {shown}"),
        (false, more) => format!("there is {shown}, and {more} more"),
    }
}

fn in_words(Diagnostic { message, hint, .. }: Diagnostic) -> String {
    match hint {
        Some(hint) => format!("{message}: {hint}"),
        None => message,
    }
}
