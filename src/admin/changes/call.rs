//! What a call asks for, by its method, path, query and body.

use std::time::Duration;

use hyper::{Method, StatusCode};

use super::body::{self, BackendPatch, ListenerPatch, PoolPatch, UpgradeBody};
use super::intent::{Action, AnswerForm, NoCall, balance};
use super::seeds;
use crate::admin::query::{decode, pairs};
use crate::config::model::{Balance, Config};
use crate::config::{backend_address, parse_duration};
use crate::control::ResetScope;
use crate::control::edit::Edit;
use crate::control::request::Change;
use crate::server::DataPlane;

/// A call that is understood.
#[derive(Debug, PartialEq)]
pub(super) struct UnderstoodCall {
    pub(super) action: Action,
    pub(super) form: AnswerForm,
    pub(super) dry_run: bool,
}

/// The methods that change something under a path; `None` if nothing does.
pub(super) fn methods(path: &str) -> Option<&'static str> {
    let path = segments(path)?;
    Some(match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["reload" | "drain" | "upgrade" | "servers" | "reset"] | ["pools" | "listeners", _, "reset"] => "POST",
        ["config" | "algorithm"] | ["servers", _, "weight"] => "PUT",
        ["pools" | "listeners", _] => "PATCH",
        ["pools", _, "backends", _] => "PUT, PATCH, DELETE",
        ["pools", _, "backends", _, "cut" | "reset"] => "POST",
        ["connections"] | ["connections" | "servers", _] => "DELETE",
        _ => return None,
    })
}

impl UnderstoodCall {
    pub(super) fn parse(
        method: &Method,
        path: &str,
        query: &str,
        body: &[u8],
        plane: &DataPlane,
        file: Option<&Config>,
    ) -> Result<UnderstoodCall, NoCall> {
        let Some(segments) = segments(path) else {
            return Err(NoCall::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}")));
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let plain = |change: Change| (Action::Apply(change), AnswerForm::Changes);
        let edit = |edit: Edit, form: AnswerForm| (Action::Apply(Change::Edit(edit)), form);
        let mut filter = String::new();
        let options = match segments.as_slice() {
            ["connections", ..] => ChangeOptions::beside_filter(query, &mut filter)?,
            ["pools", _, "backends", _] if *method == Method::DELETE => ChangeOptions::parse(query, true)?,
            _ => ChangeOptions::parse(query, false)?,
        };
        let (action, form) = match (method, segments.as_slice()) {
            (&Method::POST, ["reload"]) => (Action::Apply(Change::Reload), AnswerForm::Reload),
            (&Method::POST, ["drain"]) => plain(Change::Drain),
            (&Method::POST, ["upgrade"]) => {
                let given = if body.is_empty() { UpgradeBody::default() } else { body::read(body)? };
                plain(Change::Upgrade(given.binary))
            }
            (&Method::PUT, ["config"]) => {
                let text = String::from_utf8(body.to_vec()).map_err(|_| "the body is not UTF-8 text".to_owned())?;
                plain(Change::Replace(text))
            }
            (&Method::PUT, ["pools", pool, "backends", name]) => {
                let given: BackendPatch = body::read(body)?;
                let (pool, name) = ((*pool).to_owned(), (*name).to_owned());
                let Some(text) = &given.address else {
                    return Err("address is missing: where the backend listens".to_owned().into());
                };
                let address = backend_address(text).map_err(|fault| match fault.hint {
                    Some(hint) => format!("address: {}: {hint}", fault.message),
                    None => format!("address: {}", fault.message),
                })?;
                let form = AnswerForm::Backend { pool: pool.clone(), name: name.clone() };
                edit(Edit::PutBackend { pool, name, address, values: given.values()? }, form)
            }
            (&Method::PATCH, ["pools", pool, "backends", name]) => {
                let given: BackendPatch = body::read(body)?;
                let (pool, name) = ((*pool).to_owned(), (*name).to_owned());
                if given.address.is_some() {
                    return Err("address: PUT changes it, by which it is another backend".to_owned().into());
                }
                let form = AnswerForm::Backend { pool: pool.clone(), name: name.clone() };
                edit(Edit::PatchBackend { pool, name, values: given.values()? }, form)
            }
            (&Method::DELETE, ["pools", pool, "backends", name]) => {
                let (pool, name) = ((*pool).to_owned(), (*name).to_owned());
                let ChangeOptions { cut, wait, .. } = options;
                let form = AnswerForm::Removed { pool: pool.clone(), name: name.clone(), cut, wait };
                edit(Edit::RemoveBackend { pool, name }, form)
            }
            (&Method::POST, ["pools", pool, "backends", name, "cut"]) => {
                (Action::Cut { pool: (*pool).to_owned(), name: (*name).to_owned() }, AnswerForm::Changes)
            }
            (&Method::PATCH, ["pools", pool]) => {
                let given: PoolPatch = body::read(body)?;
                let wanted = given.balance.as_deref();
                let Some(balance) = wanted.and_then(balance) else {
                    let names = Balance::ALL.map(Balance::name).join(", ");
                    return Err(format!("balance: expected one of {names}").into());
                };
                edit(
                    Edit::SetBalance { pool: (*pool).to_owned(), balance },
                    AnswerForm::Pool { pool: (*pool).to_owned() },
                )
            }
            (&Method::PATCH, ["listeners", listener]) => {
                let given: ListenerPatch = body::read(body)?;
                let max_connections = given.max_connections.map(|max| max.and_then(std::num::NonZeroU32::new));
                let (listener, state) = ((*listener).to_owned(), given.state);
                let form = AnswerForm::Listener { listener: listener.clone() };
                edit(Edit::PatchListener { listener, state, max_connections }, form)
            }
            (&Method::POST, ["reset"]) => edit(Edit::Reset(ResetScope::All), AnswerForm::Changes),
            (&Method::POST, ["pools", pool, "reset"]) => {
                edit(Edit::Reset(ResetScope::Pool((*pool).to_owned())), AnswerForm::Changes)
            }
            (&Method::POST, ["pools", pool, "backends", name, "reset"]) => {
                let scope = ResetScope::Backend { pool: (*pool).to_owned(), name: (*name).to_owned() };
                edit(Edit::Reset(scope), AnswerForm::Changes)
            }
            (&Method::POST, ["listeners", listener, "reset"]) => {
                edit(Edit::Reset(ResetScope::Listener((*listener).to_owned())), AnswerForm::Changes)
            }
            (&Method::DELETE, ["connections"]) => (Action::End { id: None, query: filter }, AnswerForm::Changes),
            (&Method::DELETE, ["connections", id]) => {
                (Action::End { id: Some((*id).to_owned()), query: filter }, AnswerForm::Changes)
            }
            (&Method::POST, ["servers"]) => seeds::add(&body::read(body)?, plane, file)?,
            (&Method::DELETE, ["servers", id]) => seeds::remove(id, plane)?,
            (&Method::PUT, ["servers", id, "weight"]) => seeds::weight(id, &body::read(body)?, plane)?,
            (&Method::PUT, ["algorithm"]) => seeds::algorithm(&body::read(body)?, plane)?,
            _ => {
                return Err(match methods(path) {
                    Some(methods) => {
                        NoCall::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {methods}, not {method}"))
                    }
                    None => NoCall::new(StatusCode::NOT_FOUND, format!("there is nothing to change at {path}")),
                });
            }
        };
        Ok(UnderstoodCall { action, form, dry_run: options.dry_run })
    }
}

/// What a query says of how a change is made.
#[derive(Debug, Default)]
struct ChangeOptions {
    dry_run: bool,
    cut: bool,
    wait: Duration,
}

impl ChangeOptions {
    fn parse(query: &str, removes: bool) -> Result<ChangeOptions, String> {
        let mut options = ChangeOptions::default();
        let pairs = pairs(query).ok_or_else(|| "the query is not percent-encoded UTF-8".to_owned())?;
        for (place, (key, value)) in pairs.iter().enumerate() {
            if pairs[..place].iter().any(|(known, _)| known == key) {
                return Err(format!("{key}: is given twice"));
            }
            match key.as_str() {
                "dry_run" => options.dry_run = switch(key, value)?,
                "cut" if removes => options.cut = switch(key, value)?,
                "wait" if removes => {
                    options.wait = parse_duration(value).map_err(|why| format!("wait: {why}"))?;
                }
                _ => return Err(format!("`{key}` is not known in the query of this call")),
            }
        }
        Ok(options)
    }
}

impl ChangeOptions {
    /// Of a query that also says which connections are meant: that part goes into `filter` as it is.
    fn beside_filter(query: &str, filter: &mut String) -> Result<ChangeOptions, String> {
        let is_option = |part: &&str| part.split('=').next().and_then(decode).as_deref() == Some("dry_run");
        let (options, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_option);
        *filter = rest.join("&");
        ChangeOptions::parse(&options.join("&"), false)
    }
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{key}: expected true or false, found `{value}`")),
    }
}

/// The parts of a path below `/api/`, decoded each by itself: a name may have a slash in it.
fn segments(path: &str) -> Option<Vec<String>> {
    path.strip_prefix("/api/")?.split('/').map(decode).collect()
}

#[cfg(test)]
mod tests;
