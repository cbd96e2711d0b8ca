//! Which path shows what.

use std::rc::Rc;

use hyper::{Request, Response, StatusCode};

use super::collector::Collector;
use super::dashboard;
use super::http::{Body, plain, whole};
use super::view::View;

const JSON: &str = "application/json";

/// Answers a GET or HEAD.
pub(super) async fn answer<B>(request: &Request<B>, collector: &Rc<Collector>) -> Response<Body> {
    let path = request.uri().path();
    match path {
        "/stats" => json(&*collector.view().await),
        "/livez" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => ready(&*collector.view().await),
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

fn ready(view: &View) -> Response<Body> {
    match view.not_ready.as_slice() {
        [] => plain(StatusCode::OK, "ok\n"),
        reasons => whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", reasons.join("\n") + "\n"),
    }
}
