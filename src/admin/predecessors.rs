//! Connections of all processes: those of this one, and those that processes have left which upgrades have replaced.
//!
//! Each of these is asked by the channel of its upgrade. One that cannot be asked is named in the answer.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::connections::{self, ConnectionsAnswer, ConnectionsEnded, NotEnded, UnreachedProcess};
use super::sources::Sources;
use crate::config::model::{AdminState, PoolConfig};
use crate::control::predecessor::{self, DrainCall, FollowedBackend, Predecessor};
use crate::pool::Backend;
use crate::server::{ConnectionFilter, DataPlane};
use crate::stats::registry::BackendId;

/// Connections of a replaced process to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeftBackend {
    pool: String,
    /// The entry in `pools[].backends`.
    entry: String,
    pub(super) name: String,
    pub(super) connections: usize,
}

/// What a replaced process has left.
pub(super) struct LeftConnections {
    pub(super) pid: u32,
    pub(super) connections: usize,
    /// By backend; the error is why that is not known.
    pub(super) backends: Result<Vec<LeftBackend>, String>,
}

impl LeftBackend {
    fn is(&self, pool: &str, name: &str) -> bool {
        self.pool == pool && (self.entry == name || self.name == name)
    }

    pub(super) fn is_of(&self, pool: &str) -> bool {
        self.pool == pool
    }
}

impl LeftConnections {
    /// Connections to a backend; where that is not known, all of them.
    fn to(&self, pool: &str, name: &str) -> usize {
        match &self.backends {
            Ok(backends) => backends.iter().filter(|it| it.is(pool, name)).map(|it| it.connections).sum(),
            Err(_) => self.connections,
        }
    }
}

async fn ask_all<T: DeserializeOwned + Send + 'static>(
    sources: &Sources,
    call: &DrainCall,
) -> Vec<(Predecessor, Result<T, String>)> {
    predecessor::ask_all(sources.status.get().predecessors, call).await
}

/// The answers, and those from which there is none.
fn parted<T>(answers: Vec<(Predecessor, Result<T, String>)>) -> (Vec<T>, Vec<UnreachedProcess>) {
    let (mut parts, mut unreached) = (Vec::new(), Vec::new());
    for (Predecessor { pid, connections, .. }, answer) in answers {
        match answer {
            Ok(part) => parts.push(part),
            Err(reason) if connections > 0 => unreached.push(UnreachedProcess { pid, connections, reason }),
            Err(_) => {}
        }
    }
    (parts, unreached)
}

/// Lists the connections that fit a query.
///
/// # Errors
/// What is wrong with the query.
pub(super) async fn list(query: &str, sources: &Sources) -> Result<ConnectionsAnswer, String> {
    let own = connections::list(query, &sources.plane).await?;
    let (others, unreached) = parted(ask_all(sources, &DrainCall::Connections { query: query.to_owned() }).await);
    Ok(ConnectionsAnswer { unreached, ..connections::merged(query, own, others)? })
}

/// Ends the connection with this id, or those that fit a query.
///
/// # Errors
/// The query is wrong, empty, or beside an id; or there is no connection with this id.
pub(super) async fn end(query: &str, id: Option<&str>, sources: &Sources) -> Result<ConnectionsEnded, NotEnded> {
    let own = connections::end(query, id, &sources.plane).await;
    let mut ended = match (own, id) {
        // There is no other one.
        (Ok(ended), Some(_)) => return Ok(ended),
        (Ok(ended), None) => ended,
        (Err(NotEnded::NotFound { .. }), _) => ConnectionsEnded::default(),
        (Err(invalid), _) => return Err(invalid),
    };
    let call = DrainCall::End { query: query.to_owned(), id: id.map(str::to_owned) };
    let (others, unreached) = parted(ask_all::<ConnectionsEnded>(sources, &call).await);
    ended.ended += others.iter().map(|it| it.ended).sum::<usize>();
    match connections::asked_id(query, id) {
        Some(id) if ended.ended == 0 => Err(NotEnded::NotFound { id, unreached }),
        _ => Ok(ConnectionsEnded { unreached, ..ended }),
    }
}

/// How many connections [`end`] would end.
///
/// # Errors
/// As [`end`].
pub(super) async fn preview_end(query: &str, id: Option<&str>, sources: &Sources) -> Result<usize, NotEnded> {
    let filter = connections::ending(query, id).map_err(NotEnded::Invalid)?;
    let asked = filter.id;
    let own = sources.plane.connections(filter, 0).await.matched;
    // Of a list, the number is what counts.
    let query = id.map_or_else(|| format!("{query}&limit=1"), |id| format!("id={id}&limit=1"));
    let (others, unreached) = parted(ask_all::<ConnectionsAnswer>(sources, &DrainCall::Connections { query }).await);
    match (own + others.iter().map(|it| it.matched).sum::<usize>(), asked) {
        (0, Some(id)) => Err(NotEnded::NotFound { id, unreached }),
        (count, _) => Ok(count),
    }
}

/// Ends the connections of a backend, of those here that fit. `None` if no process knows it.
pub(super) async fn cut(
    pool: &str,
    name: &str,
    fits: impl Fn(&Backend) -> bool,
    sources: &Sources,
) -> Option<ConnectionsEnded> {
    let own = cut_here(pool, name, fits, &sources.plane).await;
    let call = DrainCall::Cut { pool: pool.to_owned(), name: name.to_owned() };
    let (others, unreached) = parted(ask_all::<Option<usize>>(sources, &call).await);
    let known: Vec<usize> = others.into_iter().flatten().chain(own).collect();
    (!known.is_empty()).then(|| ConnectionsEnded { ended: known.iter().sum(), unreached })
}

/// How many connections [`cut`] would end. `None` if no process knows the backend.
pub(super) async fn preview_cut(pool: &str, name: &str, sources: &Sources) -> Option<usize> {
    let plane = &sources.plane;
    let ids = backend_ids(plane, pool, name, |_| true);
    let of_removed = match has_pool(plane, pool) {
        true => 0,
        false => plane.connections(by_names(pool, name), 0).await.matched,
    };
    let pools = plane.pools();
    let here = ids.iter().filter_map(|id| pools.iter().find_map(|pool| pool.backend(*id)));
    let here: usize = here.map(|backend| backend.connections() as usize).sum();
    let all = here + of_removed + left_to(pool, name, sources).await;
    (!ids.is_empty() || all > 0).then_some(all)
}

/// A pool that was removed is known to its connections alone.
fn by_names(pool: &str, backend: &str) -> ConnectionFilter {
    ConnectionFilter { pool: Some(pool.to_owned()), backend: Some(backend.to_owned()), ..ConnectionFilter::default() }
}

fn has_pool(plane: &DataPlane, pool: &str) -> bool {
    plane.pools().iter().any(|it| **it.name() == *pool)
}

/// Of this process.
async fn cut_here(pool: &str, name: &str, fits: impl Fn(&Backend) -> bool, plane: &DataPlane) -> Option<usize> {
    let ids = backend_ids(plane, pool, name, fits);
    let mut ended = 0;
    for id in &ids {
        let filter = ConnectionFilter { backend_id: Some(*id), ..ConnectionFilter::default() };
        ended += plane.end_connections(filter).await;
    }
    let of_removed = match has_pool(plane, pool) {
        true => 0,
        false => plane.end_connections(by_names(pool, name)).await,
    };
    (!ids.is_empty() || of_removed > 0).then_some(ended + of_removed)
}

/// The backends of an entry in `pools[].backends`, or the one of that name.
pub(super) fn backend_ids(
    plane: &DataPlane,
    pool: &str,
    name: &str,
    fits: impl Fn(&Backend) -> bool,
) -> Vec<BackendId> {
    let is_meant = |it: &Backend| fits(it) && (**it.entry() == *name || **it.name() == *name);
    let pools = plane.pools();
    let pool = pools.iter().find(|it| **it.name() == *pool);
    pool.map_or(Vec::new(), |pool| pool.backends().iter().filter(|it| is_meant(it)).map(|it| it.id()).collect())
}

/// What each replaced process has left, by backend.
pub(super) async fn left(sources: &Sources) -> Vec<LeftConnections> {
    let answers = ask_all(sources, &DrainCall::Backends).await;
    let left = |(Predecessor { pid, connections, .. }, backends)| LeftConnections { pid, connections, backends };
    answers.into_iter().map(left).collect()
}

/// Connections that replaced processes have left to a backend.
pub(super) async fn left_to(pool: &str, name: &str, sources: &Sources) -> usize {
    left(sources).await.iter().map(|it| it.to(pool, name)).sum()
}

fn left_backends(plane: &DataPlane) -> Vec<LeftBackend> {
    let mut left = Vec::new();
    for pool in plane.pools() {
        for backend in pool.backends().iter().filter(|backend| backend.connections() > 0) {
            left.push(LeftBackend {
                pool: pool.name().to_string(),
                entry: backend.entry().to_string(),
                name: backend.name().to_string(),
                connections: backend.connections() as usize,
            });
        }
    }
    left
}

/// Answers a call as a process that was replaced. Both are JSON, the answer that of a `Result`.
pub async fn answer_drain_call(call: &[u8], plane: &DataPlane) -> Vec<u8> {
    let call = match serde_json::from_slice(call) {
        Ok(call) => call,
        Err(error) => return json::<()>(&Err(format!("its version knows no such call: {error}"))),
    };
    match call {
        DrainCall::Connections { query } => json(&connections::list(&query, plane).await),
        DrainCall::End { query, id } => json(&match connections::end(&query, id.as_deref(), plane).await {
            Err(NotEnded::NotFound { .. }) => Ok(ConnectionsEnded::default()),
            outcome => outcome.map_err(|error| error.to_string()),
        }),
        DrainCall::Cut { pool, name } => json(&Ok::<_, String>(cut_here(&pool, &name, |_| true, plane).await)),
        DrainCall::Backends => json(&Ok::<_, String>(left_backends(plane))),
        DrainCall::Follow { pools } => {
            follow(plane, &pools);
            json(&Ok(()))
        }
    }
}

/// A pool that the process that serves does not have any more stays as it is.
fn follow(plane: &DataPlane, pools: &BTreeMap<String, Vec<FollowedBackend>>) {
    for pool in plane.pools() {
        let Some(served) = pools.get(&**pool.name()) else { continue };
        let served: HashMap<(&str, &str), &FollowedBackend> =
            served.iter().map(|it| ((it.name.as_str(), it.address.as_str()), it)).collect();
        let known = pool.settings();
        let mut settings = PoolConfig::clone(&known);
        for backend in &mut settings.backends {
            match served.get(&(&*backend.name, backend.address.to_string().as_str())) {
                Some(it) => (backend.weight, backend.state, backend.forced) = (it.weight, it.state, it.forced),
                None => backend.state = AdminState::Drain,
            }
        }
        if settings != *known {
            pool.update(settings);
        }
    }
}

fn json<T: Serialize>(answer: &Result<T, String>) -> Vec<u8> {
    // Rows have no keys but strings.
    serde_json::to_vec(answer).unwrap_or_default()
}
