//! Which path shows what.

use std::time::Instant;

use hyper::{Request, Response, StatusCode, header};

use super::changes::{self, problem, tagged};
use super::collector::Collector;
use super::compat::{api, lb};
use super::readiness::{is_ready, not_ready};
use super::response::{ResponseBody, plain, whole};
use super::snapshot_model::Snapshot;

use super::{csv, dashboard, explain, histograms, metrics, predecessors, resources};
use crate::config::effective;

const JSON: &str = "application/json";
/// As HAProxy names it, so that browsers show it.
const CSV: &str = "text/plain";

/// What a path leads to, by what it costs and who may have it.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// `/livez`.
    Live,
    /// `/readyz`.
    Ready,
    /// A file of the page.
    Asset(Response<ResponseBody>),
    /// The page's event stream.
    Events,
    /// `/api/events`.
    ApiEvents,
    /// An answer that is made for the asking.
    Answer,
    /// No page.
    Unknown,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Endpoint {
        match path {
            "/livez" => Endpoint::Live,
            "/readyz" => Endpoint::Ready,
            "/events" => Endpoint::Events,
            "/api/events" => Endpoint::ApiEvents,
            "/stats" | "/metrics" | "/histograms" | "/lb/status" | "/lb-metrics" | "/explain" | "/series" => {
                Endpoint::Answer
            }
            _ if path.starts_with("/api/") || csv::is_asked(path) => Endpoint::Answer,
            _ => dashboard::asset(path).map_or(Endpoint::Unknown, Endpoint::Asset),
        }
    }
}

/// What an answer depends on: the path, and the query and headers that count for it.
pub(super) fn question<B>(request: &Request<B>) -> String {
    let path = request.uri().path();
    match path {
        "/histograms" | "/explain" | "/series" | "/api/connections" | "/api/config" => {
            format!("{path}?{}", request.uri().query().unwrap_or_default())
        }
        "/metrics" => {
            let forms = request.headers().get_all(header::ACCEPT).iter().filter_map(|form| form.to_str().ok());
            [path].into_iter().chain(forms).collect::<Vec<_>>().join("\n")
        }
        _ => path.to_owned(),
    }
}

/// Answers a GET or HEAD of a [`Endpoint::Answer`] with what was measured at `oldest` or later.
pub(super) async fn answer<B>(request: &Request<B>, collector: &Collector, oldest: Instant) -> Response<ResponseBody> {
    let path = request.uri().path();
    let snapshot = || collector.view_since(oldest);
    match path {
        "/stats" => json(&*snapshot().await),
        "/metrics" => {
            let snapshot = collector.state().await;
            metrics::answer(request.headers(), &snapshot, &collector.latencies())
        }
        "/histograms" => {
            let snapshot = snapshot().await;
            histograms::answer(request.uri().query().unwrap_or_default(), &snapshot, &collector.latencies())
        }
        path if csv::is_asked(path) => whole(StatusCode::OK, CSV, csv::encode(&*snapshot().await)),
        "/lb/status" => json(&lb::status(&*snapshot().await)),
        "/lb-metrics" => json(&lb::metrics(&*snapshot().await)),
        "/explain" => explained(request.uri().query().unwrap_or_default(), collector, &*snapshot().await),
        "/api/connections" => open_connections(request.uri().query().unwrap_or_default(), collector).await,
        "/series" => dashboard::series(request.uri().query().unwrap_or_default(), &collector.latencies()),
        "/api/config" => configuration(request.uri().query().unwrap_or_default(), collector),
        _ => {
            let (snapshot, in_effect) = (snapshot().await, collector.sources().status.get());
            let left = match resources::shows_left(path) {
                true => predecessors::left(collector.sources()).await,
                false => Vec::new(),
            };
            match resources::answer(path, &snapshot, &in_effect, &left) {
                Some(Ok(value)) => tagged(json(&value), in_effect.generation),
                Some(Err(error)) => problem(StatusCode::NOT_FOUND, &error, None),
                None => {
                    let (status, value) = api::answer(path, &snapshot);
                    match changes::methods(path) {
                        Some(methods) if status == StatusCode::NOT_FOUND => changes::only(methods, path),
                        _ => with(status, json(&value)),
                    }
                }
            }
        }
    }
}

/// The answer to `/livez`.
pub(super) fn live() -> Response<ResponseBody> {
    plain(StatusCode::OK, "ok\n")
}

/// The answer to `/readyz`. Reasons name listeners and pools: strangers get none.
pub(super) fn ready(collector: &Collector, with_reasons: bool) -> Response<ResponseBody> {
    if is_ready(collector.sources()) {
        return plain(StatusCode::OK, "ok\n");
    }
    match with_reasons {
        true => {
            let reasons = not_ready(collector.sources()).join("\n") + "\n";
            whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", reasons)
        }
        false => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready: send the token of admin.token_file to see why\n"),
    }
}

/// Any value as JSON.
fn json(value: &impl serde::Serialize) -> Response<ResponseBody> {
    match serde_json::to_vec(value) {
        Ok(text) => whole(StatusCode::OK, JSON, text),
        // Views have no keys but strings.
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "this cannot be written as JSON\n"),
    }
}

/// `/api/config`: what is in effect, or what the file says.
fn configuration(query: &str, collector: &Collector) -> Response<ResponseBody> {
    let (sources, in_effect) = (collector.sources(), collector.sources().status.get());
    let data = match (query, &in_effect.file) {
        ("" | "source=effective", _) | ("source=file", None) => effective::configuration(&sources.config.load()),
        ("source=file", Some(file)) => effective::configuration(file),
        _ => return problem(StatusCode::BAD_REQUEST, "source: expected file or effective", None),
    };
    tagged(json(&serde_json::json!({ "success": true, "data": data })), in_effect.generation)
}

fn explained(query: &str, collector: &Collector, snapshot: &Snapshot) -> Response<ResponseBody> {
    let explanation = match explain::ExplainQuery::parse(query) {
        Ok(question) => explain::explain(&question, &collector.sources().plane, snapshot),
        Err(error) => Err(error),
    };
    match explanation {
        Ok(explanation) => json(&explanation),
        Err(error) => with(StatusCode::BAD_REQUEST, json(&serde_json::json!({ "error": error }))),
    }
}

async fn open_connections(query: &str, collector: &Collector) -> Response<ResponseBody> {
    match predecessors::list(query, collector.sources()).await {
        Ok(list) => json(&list),
        Err(error) => with(StatusCode::BAD_REQUEST, json(&serde_json::json!({ "error": error }))),
    }
}

fn with(status: StatusCode, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    *response.status_mut() = status;
    response
}
