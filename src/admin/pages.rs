//! Which path shows what.

use std::rc::Rc;

use hyper::{Request, Response, StatusCode};

use super::collector::Collector;
use super::gather::not_ready;
use super::http::{Body, plain, whole};
use super::{api, csv, dashboard, explain, histograms, metrics, simple};

const JSON: &str = "application/json";
/// As HAProxy names it, so that browsers show it.
const CSV: &str = "text/plain";

/// Whether an answer may be a moment late: not when somebody asks whether it lives, which costs next to nothing.
pub(super) fn may_wait(path: &str) -> bool {
    !matches!(path, "/livez" | "/readyz")
}

/// Answers a GET or HEAD.
pub(super) async fn answer<B>(request: &Request<B>, collector: &Rc<Collector>) -> Response<Body> {
    let path = request.uri().path();
    match path {
        "/stats" => json(&*collector.view().await),
        "/metrics" => {
            let view = collector.state().await;
            metrics::answer(request.headers(), &view, &collector.latencies())
        }
        "/histograms" => {
            let view = collector.view().await;
            histograms::answer(request.uri().query().unwrap_or_default(), &view, &collector.latencies())
        }
        path if csv::is_asked(path) => whole(StatusCode::OK, CSV, csv::encode(&*collector.view().await)),
        "/livez" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => ready(&not_ready(collector.sources())),
        "/lb/status" => json(&simple::status(&collector.state().await)),
        "/lb-metrics" => json(&simple::metrics(&*collector.view().await)),
        "/explain" => explained(request.uri().query().unwrap_or_default(), collector).await,
        _ if path.starts_with("/api/") => {
            let (status, value) = api::answer(path, &*collector.view().await, &collector.sources().config);
            with(status, json(&value))
        }
        "/events" => dashboard::feed::events(collector),
        "/series" => dashboard::series(request.uri().query().unwrap_or_default(), &collector.latencies()),
        _ => plain(StatusCode::NOT_FOUND, "there is no such page\n"),
    }
}

/// Any value as JSON.
fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(text) => whole(StatusCode::OK, JSON, text),
        // Views have no keys but strings.
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "this cannot be written as JSON\n"),
    }
}

async fn explained(query: &str, collector: &Collector) -> Response<Body> {
    let explanation = match explain::Question::parse(query) {
        Ok(question) => explain::explain(&question, &collector.sources().shared, &*collector.view().await),
        Err(error) => Err(error),
    };
    match explanation {
        Ok(explanation) => json(&explanation),
        Err(error) => with(StatusCode::BAD_REQUEST, json(&serde_json::json!({ "error": error }))),
    }
}

fn with(status: StatusCode, mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = status;
    response
}

fn ready(not_ready: &[String]) -> Response<Body> {
    match not_ready {
        [] => plain(StatusCode::OK, "ok\n"),
        reasons => whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", reasons.join("\n") + "\n"),
    }
}
