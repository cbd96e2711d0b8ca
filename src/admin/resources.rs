//! `/api/pools`, `/api/listeners` and what lies below them: state, with what was configured.

use serde_json::{Value, json};

use super::predecessors::{LeftBackend, LeftConnections};
use super::snapshot_model::{BackendStats, ListenerStats, PoolStats, Snapshot};
use super::unix_time::rfc3339;
use crate::admin::query::decode;
use crate::config::model::BackendConfig;
use crate::control::status::ConfigStatus;

/// What a path shows; `None` if it is none of these, an error if there is nothing of that name.
pub(super) fn answer(
    path: &str,
    snapshot: &Snapshot,
    status: &ConfigStatus,
    left: &[LeftConnections],
) -> Option<Result<Value, String>> {
    if let Some(segments) = segments(path, "/api/listeners") {
        return listeners(&segments, snapshot, status);
    }
    let segments = segments(path, "/api/pools")?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let pools = || Value::from_iter(snapshot.pools.iter().map(|pool| shown_pool(pool, status)));
    let missing = |what: &str, name: &str| Err(format!("there is no {what} `{name}`"));
    Some(match segments.as_slice() {
        [""] => Ok(json!({ "pools": pools() })),
        ["", name] => pool(snapshot, status, name).map_or_else(|| missing("pool", name), Ok),
        ["", name, "backends"] => match pool(snapshot, status, name) {
            Some(mut pool) => Ok(json!({
                "backends": pool["backends"].take(),
                "predecessors": Value::from_iter(left.iter().map(|process| shown_left(name, process))),
            })),
            None => missing("pool", name),
        },
        ["", pool, "backends", name] => match backend(snapshot, status, pool, name) {
            Some(backend) => Ok(backend),
            None => missing("backend", &format!("{pool}/{name}")),
        },
        _ => return None,
    })
}

/// What comes after `root`, decoded each by itself; the first is empty.
fn segments(path: &str, root: &str) -> Option<Vec<String>> {
    path.strip_prefix(root)?.split('/').map(decode).collect()
}

fn listeners(segments: &[String], snapshot: &Snapshot, status: &ConfigStatus) -> Option<Result<Value, String>> {
    let shown = |it: &ListenerStats| shown_listener(it, status);
    match segments {
        [root] if root.is_empty() => {
            Some(Ok(json!({ "listeners": Value::from_iter(snapshot.listeners.iter().map(shown)) })))
        }
        [root, name] if root.is_empty() => {
            let found = listener(snapshot, status, name);
            Some(found.ok_or_else(|| format!("there is no listener `{name}`")))
        }
        _ => None,
    }
}

/// A listener.
pub(super) fn listener(snapshot: &Snapshot, status: &ConfigStatus, name: &str) -> Option<Value> {
    snapshot.listeners.iter().find(|listener| listener.name == name).map(|it| shown_listener(it, status))
}

fn shown_listener(listener: &ListenerStats, status: &ConfigStatus) -> Value {
    let configured = status.file.as_ref().and_then(|file| file.listeners.iter().find(|it| *it.name == *listener.name));
    json!({
        "name": listener.name,
        "bind": configured.map(|it| it.bind.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "addresses": listener.addresses,
        "state": listener.state,
        "configured_state": configured.map(|it| it.state),
        "pool": listener.pool,
        "pools": listener.pools,
        "tls": listener.tls,
        "connections": listener.open,
        "max_connections": listener.max_connections,
        "configured_max_connections": configured.and_then(|it| it.max_connections),
        "accepted": listener.accepted,
        "rejected": listener.rejected,
    })
}

/// Whether a path shows what replaced processes have left.
pub(super) fn shows_left(path: &str) -> bool {
    segments(path, "/api/pools")
        .is_some_and(|segments| matches!(segments.as_slice(), [_, _, last] if last == "backends"))
}

/// Connections of a replaced process to the backends of a pool, which are not in theirs. Where these are not known, there is the
/// reason, and the number to any backend.
fn shown_left(pool: &str, LeftConnections { pid, connections, backends }: &LeftConnections) -> Value {
    let of_pool = |backends: &Vec<LeftBackend>| {
        let of_pool = backends.iter().filter(|backend| backend.is_of(pool));
        Value::from_iter(of_pool.map(|it| json!({ "name": it.name, "connections": it.connections })))
    };
    json!({
        "pid": pid,
        "connections": connections,
        "backends": backends.as_ref().ok().map(of_pool),
        "reason": backends.as_ref().err(),
    })
}

/// A pool.
pub(super) fn pool(snapshot: &Snapshot, status: &ConfigStatus, name: &str) -> Option<Value> {
    snapshot.pools.iter().find(|pool| pool.name == name).map(|pool| shown_pool(pool, status))
}

/// A backend, or one of the addresses of a host name.
pub(super) fn backend(snapshot: &Snapshot, status: &ConfigStatus, pool: &str, name: &str) -> Option<Value> {
    let pool = snapshot.pools.iter().find(|it| it.name == pool)?;
    let exact = pool.backends.iter().find(|backend| backend.name == name);
    // A host name with several addresses is shown by the first of them.
    let within =
        || pool.backends.iter().find(|it| it.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('@')));
    exact.or_else(within).map(|backend| shown_backend(&pool.name, backend, status))
}

fn shown_pool(pool: &PoolStats, status: &ConfigStatus) -> Value {
    let configured = status.file.as_ref().and_then(|file| file.pools.iter().find(|it| *it.name == *pool.name));
    json!({
        "name": pool.name,
        "balance": pool.balance,
        "configured_balance": configured.map(|configured| configured.balance),
        "usable": pool.usable,
        "connections": pool.backends.iter().map(|backend| backend.open).sum::<u64>(),
        "backends": Value::from_iter(pool.backends.iter().map(|it| shown_backend(&pool.name, it, status))),
    })
}

fn shown_backend(pool: &str, backend: &BackendStats, status: &ConfigStatus) -> Value {
    let configured = configured(pool, &backend.name, status);
    json!({
        "id": format!("{pool}/{}", backend.name),
        "pool": pool,
        "name": backend.name,
        "address": backend.address,
        "weight": backend.weight,
        "configured_weight": configured.map(|configured| configured.weight),
        "configured": configured.is_some(),
        "state": backend.admin_state,
        "forced": backend.forced,
        "status": backend.status(),
        "health": {
            "up": backend.up,
            "reason": backend.reason,
            "since": rfc3339(backend.since),
        },
        "role": backend.role,
        "lag_bytes": backend.lag_bytes,
        "lag_seconds": backend.lag_seconds,
        "connections": backend.open,
        "max_connections": backend.max_connections,
        "backup": backend.backup,
    })
}

/// The entry of the file; a name with several addresses is `NAME@ADDRESS` each.
fn configured<'s>(pool: &str, name: &str, status: &'s ConfigStatus) -> Option<&'s BackendConfig> {
    let pool = status.file.as_ref()?.pools.iter().find(|it| *it.name == *pool)?;
    let entry =
        |it: &&BackendConfig| name.strip_prefix(&*it.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'));
    pool.backends.iter().find(entry)
}
