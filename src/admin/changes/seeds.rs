//! Calls as plain HTTP balancers have them, by host and port: `POST /api/servers` and so on.

use hyper::StatusCode;

use super::body::{AlgorithmBody, ServerBody, WeightBody};
use super::intent::{Action, AnswerForm, NoCall};
use crate::config::backend_address;
use crate::config::model::{BackendConfig, Balance, Config};
use crate::control::edit::{BackendValues, Edit, MAX_WEIGHT};
use crate::control::request::Change;
use crate::server::DataPlane;

type Understood = Result<(Action, AnswerForm), NoCall>;

/// `POST /api/servers`: the same server twice is no error, and one that the file has comes back as the file has it.
pub(super) fn add(given: &ServerBody, plane: &DataPlane, file: Option<&Config>) -> Understood {
    let ServerBody { host, port, weight, pool } = given;
    let pool = pool_of(pool.as_deref(), plane)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let address = backend_address(&text)
        .map_err(|fault| NoCall::new(StatusCode::UNPROCESSABLE_ENTITY, format!("host: {}", fault.message)))?;
    let in_effect: Vec<BackendConfig> =
        servers(plane).into_iter().filter(|(of, _)| *of == pool).map(|(_, server)| server).collect();
    let known = in_effect.iter().find(|known| known.address == address);
    let of_file = || {
        let pool = file?.pools.iter().find(|it| *it.name == *pool)?;
        let removed = pool.backends.iter().filter(|it| in_effect.iter().all(|known| known.name != it.name));
        removed.into_iter().find(|it| it.address == address)
    };
    let name = known.or_else(of_file).map_or(text, |known| known.name.to_string());
    let values = BackendValues { weight: checked(*weight)?, ..BackendValues::default() };
    let form = AnswerForm::Server { pool: pool.clone(), name: name.clone() };
    Ok((Action::Apply(Change::Edit(Edit::PutBackend { pool, name, address, values })), form))
}

/// `DELETE /api/servers/ID`.
pub(super) fn remove(id: &str, plane: &DataPlane) -> Understood {
    let (pool, name) = find(id, plane)?;
    let form = AnswerForm::ServerRemoved { pool: pool.clone(), name: name.clone() };
    Ok((Action::Apply(Change::Edit(Edit::RemoveBackend { pool, name })), form))
}

/// `PUT /api/servers/ID/weight`.
pub(super) fn weight(id: &str, given: &WeightBody, plane: &DataPlane) -> Understood {
    let (pool, name) = find(id, plane)?;
    let form = AnswerForm::Server { pool: pool.clone(), name: name.clone() };
    let values = BackendValues { weight: checked(Some(given.weight))?, ..BackendValues::default() };
    Ok((Action::Apply(Change::Edit(Edit::PatchBackend { pool, name, values })), form))
}

/// `PUT /api/algorithm`.
pub(super) fn algorithm(given: &AlgorithmBody, plane: &DataPlane) -> Understood {
    let Some(algorithm) = Balance::from_word(&given.algorithm) else {
        let names = "round-robin, weighted, least-connections, ip-hash, power_of_two, least_latency, random";
        let why = format!("algorithm: `{}` is not known; there is {names}", given.algorithm);
        return Err(NoCall::new(StatusCode::UNPROCESSABLE_ENTITY, why));
    };
    let pool = pool_of(given.pool.as_deref(), plane)?;
    let form = AnswerForm::Algorithm { pools: vec![pool.clone()], algorithm: algorithm.name() };
    Ok((Action::Apply(Change::Edit(Edit::SetBalance { pool, balance: algorithm })), form))
}

fn checked(weight: Option<u32>) -> Result<Option<u32>, NoCall> {
    match weight {
        Some(weight) if weight > MAX_WEIGHT => {
            let why = format!("weight: {weight} is more than {MAX_WEIGHT}");
            Err(NoCall::new(StatusCode::UNPROCESSABLE_ENTITY, why))
        }
        weight => Ok(weight),
    }
}

/// The pool of that name, or the only one that there is.
fn pool_of(given: Option<&str>, plane: &DataPlane) -> Result<String, NoCall> {
    let pools = plane.pools();
    match (given, pools.as_slice()) {
        (Some(given), _) => Ok(given.to_owned()),
        (None, [only]) => Ok(only.name().to_string()),
        (None, _) => {
            let names: Vec<&str> = pools.iter().map(|pool| &**pool.name()).collect();
            Err(NoCall::new(StatusCode::BAD_REQUEST, format!("pool is missing: there is {}", names.join(", "))))
        }
    }
}

/// All backends as configured, each with its pool.
fn servers(plane: &DataPlane) -> Vec<(String, BackendConfig)> {
    let of = |pool: &std::sync::Arc<crate::pool::Pool>| {
        let name = pool.name().to_string();
        pool.settings().backends.iter().map(|backend| (name.clone(), backend.clone())).collect::<Vec<_>>()
    };
    plane.pools().iter().flat_map(of).collect()
}

/// By `POOL/NAME`, or by the name or `HOST:PORT` where only one fits.
fn find(id: &str, plane: &DataPlane) -> Result<(String, String), NoCall> {
    let servers = servers(plane);
    if let Some((pool, server)) = servers.iter().find(|(pool, server)| format!("{pool}/{}", server.name) == id) {
        return Ok((pool.clone(), server.name.to_string()));
    }
    let fitting: Vec<&(String, BackendConfig)> =
        servers.iter().filter(|(_, server)| *server.name == *id || server.address.to_string() == id).collect();
    match fitting.as_slice() {
        [(pool, server)] => Ok((pool.clone(), server.name.to_string())),
        [] => {
            let why = format!("there is no server `{id}`: /api/servers lists them, by pool/name");
            Err(NoCall::new(StatusCode::NOT_FOUND, why))
        }
        several => {
            let ids: Vec<String> = several.iter().map(|(pool, server)| format!("{pool}/{}", server.name)).collect();
            let why = format!("several servers are called `{id}`: {}", ids.join(", "));
            Err(NoCall::new(StatusCode::CONFLICT, why))
        }
    }
}
