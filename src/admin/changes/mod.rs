//! Calls that change something: each becomes a [`Change`] that the control thread carries out, or ends connections.
//!
//! An answer comes after the change is in effect on every worker. Errors are problems by RFC 9457.

mod body;
mod call;
mod intent;
mod seeds;

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use self::call::UnderstoodCall;
use self::intent::{Action, AnswerForm, NoCall};
use super::collector::Collector;
use super::compat::api;
use super::connections::ConnectionsEnded;
use super::predecessors::{self, backend_ids};
use super::query::pairs;
use super::resources;
use super::response::{ResponseBody, whole};
use super::sources::Sources;
use crate::config::LocatedError;
use crate::control::outcome::{Applied, Refusal};
use crate::control::request::{Actor, Change};
use crate::pool::Backend;
use crate::server::DataPlane;
use crate::stats::registry::BackendId;

/// The largest body, in bytes: a whole configuration.
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;
/// Larger bodies are carried out one at a time: read, parsed and applied, one takes several times its size.
pub(super) const MAX_SMALL_BODY: usize = 256 * 1024;
/// The longest `wait`.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// Between two looks whether a backend is gone.
const GONE_POLL: Duration = Duration::from_millis(50);

/// A request for a change.
pub(super) struct ChangeCall<'r> {
    pub(super) method: &'r Method,
    pub(super) path: &'r str,
    pub(super) query: &'r str,
    pub(super) headers: &'r HeaderMap,
    pub(super) body: Bytes,
    /// Room for a large body, until it is not needed any more.
    pub(super) room: Option<OwnedSemaphorePermit>,
    pub(super) actor: Actor,
}

/// Whether there is such a path, and the methods it knows.
pub(super) fn methods(path: &str) -> Option<&'static str> {
    call::methods(path)
}

/// Whether a call waits for its effect.
pub(super) fn waits(query: &str) -> bool {
    pairs(query).is_some_and(|pairs| pairs.iter().any(|(key, _)| key == "wait"))
}

/// Carries a request out, and answers it.
pub(super) async fn answer(request: ChangeCall<'_>, collector: &Collector) -> Response<ResponseBody> {
    let if_match = match if_match(request.headers) {
        Ok(if_match) => if_match,
        Err(why) => return problem(StatusCode::BAD_REQUEST, why, None),
    };
    let plane = &collector.sources().plane;
    let file = collector.sources().status.get().file;
    let ChangeCall { method, path, query, body, .. } = &request;
    let call = match UnderstoodCall::parse(method, path, query, body, plane, file.as_deref()) {
        Ok(call) => call,
        Err(NoCall { status, why }) => return problem(status, &why, None),
    };
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let action = format!("{} {}{query}", request.method, request.path);
    // The control thread looks itself, in the order in which it carries changes out.
    if !matches!(call.action, Action::Apply(_))
        && let Err(refusal) = collector.sources().status.unless_stale(if_match.as_deref())
    {
        return refused(&refusal);
    }
    match call.action {
        Action::Apply(change) => {
            let Some(changes) = &collector.sources().changes else {
                return problem(StatusCode::CONFLICT, "this process cannot be changed while it runs", None);
            };
            // Before it is carried out: afterwards it is not there any more.
            let leaving = match &call.form {
                AnswerForm::Removed { pool, name, .. } | AnswerForm::ServerRemoved { pool, name } => {
                    backend_ids(plane, pool, name, |it| !it.is_leaving())
                }
                _ => Vec::new(),
            };
            let ends = matches!(change, Change::Drain);
            match changes.ask(change, request.actor, action, call.dry_run, if_match, request.room).await {
                Ok(applied) if call.dry_run => {
                    let mut more = json!({ "dry_run": true });
                    if call.form == AnswerForm::Reload {
                        more["file"] = json!(collector.sources().status.get().path);
                    }
                    done(StatusCode::OK, &applied, more)
                }
                Ok(applied) if ends => done(StatusCode::ACCEPTED, &applied, json!({ "draining": true })),
                Ok(applied) => outcome(&call.form, &applied, &leaving, collector).await,
                Err(refusal) => refused(&refusal),
            }
        }
        Action::Cut { pool, name } => {
            let sources = collector.sources();
            let outcome = match call.dry_run {
                true => predecessors::preview_cut(&pool, &name, sources).await.map(previewed),
                false => predecessors::cut(&pool, &name, |_| true, sources).await.map(|answer| {
                    log_end(&request.actor, &action, answer.ended);
                    with_json(StatusCode::OK, &json!(answer))
                }),
            };
            let missing = || format!("there is no backend `{name}` in pool {pool}");
            outcome.unwrap_or_else(|| problem(StatusCode::NOT_FOUND, &missing(), None))
        }
        Action::End { id, query } => {
            let sources = collector.sources();
            let outcome = match call.dry_run {
                true => predecessors::preview_end(&query, id.as_deref(), sources).await.map(previewed),
                false => predecessors::end(&query, id.as_deref(), sources).await.map(|answer| {
                    log_end(&request.actor, &action, answer.ended);
                    with_json(StatusCode::OK, &json!(answer))
                }),
            };
            outcome.unwrap_or_else(|error| problem(error.status(), &error.to_string(), None))
        }
    }
}

/// What a call would end.
fn previewed(connections: usize) -> Response<ResponseBody> {
    with_json(StatusCode::OK, &json!({ "dry_run": true, "connections": connections }))
}

fn log_end(actor: &Actor, action: &str, connections: usize) {
    tracing::info!(target: "audit", actor = actor.0, action, connections, result = "ended", "audit");
}

/// The generations of `If-Match`; `*` is any.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<u64>>, &'static str> {
    const WRONG: &str = "If-Match: expected entity tags as in ETag, such as \"7\"";
    let mut generations = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        let tags = value.to_str().map_err(|_| WRONG)?.split(',').map(str::trim);
        for tag in tags.filter(|tag| !tag.is_empty()) {
            if tag == "*" {
                return Ok(None);
            }
            // A weak one never matches (RFC 9110, 13.1.1).
            let (is_strong, tag) = tag.strip_prefix("W/").map_or((true, tag), |tag| (false, tag));
            let text = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or(WRONG)?;
            // One that no generation has is a tag all the same.
            let number = text.parse().ok().filter(|number: &u64| is_strong && number.to_string() == text);
            generations.push(number.unwrap_or(u64::MAX));
        }
    }
    Ok((!generations.is_empty()).then_some(generations))
}

async fn outcome(
    form: &AnswerForm,
    applied: &Applied,
    leaving: &[BackendId],
    collector: &Collector,
) -> Response<ResponseBody> {
    let plane = &collector.sources().plane;
    let status = if applied.created { StatusCode::CREATED } else { StatusCode::OK };
    match form {
        AnswerForm::Changes => done(StatusCode::OK, applied, json!({})),
        AnswerForm::Reload => done(StatusCode::OK, applied, json!({ "file": collector.sources().status.get().path })),
        AnswerForm::Backend { pool, name } => {
            let backend =
                resources::backend(&*collector.snapshot().await, &collector.sources().status.get(), pool, name);
            done(status, applied, json!({ "backend": backend }))
        }
        AnswerForm::Pool { pool } => {
            let pool = resources::pool(&*collector.snapshot().await, &collector.sources().status.get(), pool);
            done(status, applied, json!({ "pool": pool }))
        }
        AnswerForm::Listener { listener } => {
            let listener =
                resources::listener(&*collector.snapshot().await, &collector.sources().status.get(), listener);
            done(status, applied, json!({ "listener": listener }))
        }
        AnswerForm::Removed { pool, name, cut, wait } => {
            let sources = collector.sources();
            let ended = if *cut { predecessors::cut(pool, name, Backend::is_leaving, sources).await } else { None };
            let ConnectionsEnded { ended, unreached } = ended.unwrap_or_default();
            let left = left_after(sources, (pool, name), leaving, (*wait).min(MAX_WAIT)).await;
            let (state, status) = match left {
                None => ("gone", StatusCode::OK),
                Some(_) => ("leaving", StatusCode::ACCEPTED),
            };
            let open = left.unwrap_or_default();
            done(
                status,
                applied,
                json!({ "state": state, "connections": open, "ended": ended, "unreached": unreached }),
            )
        }
        AnswerForm::Server { pool, name } => {
            succeeded(status, applied, &json!(api::server(&*collector.snapshot().await, pool, name)))
        }
        AnswerForm::ServerRemoved { pool, name } => {
            let data = json!({ "id": format!("{pool}/{name}"), "activeConnections": open(plane, leaving) });
            succeeded(StatusCode::OK, applied, &data)
        }
        AnswerForm::Algorithm { pools, algorithm } => {
            succeeded(StatusCode::OK, applied, &json!({ "algorithm": algorithm, "pools": pools }))
        }
    }
}

fn open(plane: &DataPlane, backends: &[BackendId]) -> u32 {
    let pools = plane.pools();
    let all = backends.iter().filter_map(|id| pools.iter().find_map(|pool| pool.backend(*id)));
    all.map(|backend| backend.connections()).sum()
}

/// Connections that a removed backend has left at the end of `wait`; `None` once it is gone from every process.
async fn left_after(
    sources: &Sources,
    (pool, name): (&str, &str),
    backends: &[BackendId],
    wait: Duration,
) -> Option<usize> {
    let end = Instant::now() + wait;
    loop {
        let pools = sources.plane.pools();
        let is_gone_here = backends.iter().all(|id| pools.iter().all(|pool| pool.backend(*id).is_none()));
        let is_over = Instant::now() >= end;
        if is_gone_here || is_over {
            let elsewhere = predecessors::left_to(pool, name, sources).await;
            if is_gone_here && elsewhere == 0 {
                return None;
            }
            if is_over {
                return Some(open(&sources.plane, backends) as usize + elsewhere);
            }
        }
        sleep(GONE_POLL).await;
    }
}

/// The outcome of a change, with what else there is to say.
fn done(status: StatusCode, applied: &Applied, more: Value) -> Response<ResponseBody> {
    let Applied { generation, changes, created: _, warnings } = applied;
    let mut value = json!({ "generation": generation, "changes": changes, "warnings": warnings });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    tagged(with_json(status, &value), *generation)
}

/// The same, as plain balancers' clients expect it.
fn succeeded(status: StatusCode, applied: &Applied, data: &Value) -> Response<ResponseBody> {
    with_json(status, &json!({ "success": true, "data": data, "warnings": applied.warnings }))
}

/// With the generation as its entity tag.
pub(super) fn tagged(mut response: Response<ResponseBody>, generation: u64) -> Response<ResponseBody> {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{generation}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn refused(refusal: &Refusal) -> Response<ResponseBody> {
    let status = match refusal {
        Refusal::Stale { .. } => StatusCode::PRECONDITION_FAILED,
        Refusal::NotFound(_) => StatusCode::NOT_FOUND,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::Unusable(_) | Refusal::Rejected { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Ending => StatusCode::SERVICE_UNAVAILABLE,
    };
    match refusal {
        Refusal::Rejected { report, errors } => problem(status, &refusal.summary(), Some((report, errors))),
        other => problem(status, &other.to_string(), None),
    }
}

/// A problem by RFC 9457, with the member `error` that plain balancers' clients look for.
pub(super) fn problem(
    status: StatusCode,
    detail: &str,
    configuration: Option<(&str, &[LocatedError])>,
) -> Response<ResponseBody> {
    let mut value = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "success": false,
        "error": detail,
    });
    if let (Value::Object(value), Some((report, errors))) = (&mut value, configuration) {
        value.insert("report".to_owned(), json!(report));
        value.insert("errors".to_owned(), json!(errors));
    }
    whole(status, "application/problem+json", value.to_string())
}

/// The answer to a read of what can only be changed.
pub(super) fn only(methods: &'static str, path: &str) -> Response<ResponseBody> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} takes {methods}"), None);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

fn with_json(status: StatusCode, value: &Value) -> Response<ResponseBody> {
    whole(status, "application/json", value.to_string())
}
