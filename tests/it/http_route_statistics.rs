//! `protocol: http`: what is counted of each route, and of requests that are under way.

use std::io::Write;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::backend::Scripted;
use crate::support::client::{connect, expect};
use crate::support::http::stats;
use crate::support::http1::{HTTP, OK, get, head, kept, response};
use crate::support::stats::{ADMIN, counters};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// Name, requests and responses by class, those under way, retries.
fn routes(tidegate: &Tidegate) -> Vec<Value> {
    let listener = &stats(tidegate)["listeners"][0];
    let of = |route: &Value| {
        let classes: Vec<Value> = route["http"]["responses"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| json!([it["method"], it["class"], it["count"]]))
            .collect();
        let requests = route["http"]["requests"].as_u64().unwrap_or_default();
        json!([route["name"], requests, classes, route["requests_open"], route["retries"]])
    };
    listener["routes"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn requests_are_counted_by_route_and_survive_a_reload_under_the_same_name() {
    let (shop, api) = (kept("shop"), kept("api"));
    let yaml = |routes: &str| {
        format!(
            "{ADMIN}workers: 2\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: shop, {HTTP}, routes: [{routes}] }}]\npools:\n  \
             - {{ name: shop, backends: [{{ address: {} }}] }}\n  - {{ name: api, backends: [{{ address: {} }}] }}\n",
            shop.place(),
            api.place()
        )
    };
    let login = "{ name: login, match: { path: [/login] }, pool: api }";
    let by_path = "{ match: { path_prefix: [/api], method: [GET] }, pool: api }";
    let no = "{ name: no, match: { path: [/no] }, refuse: true }";
    let tidegate = Tidegate::start(&yaml(&format!("{login}, {by_path}, {no}")));
    let mut client = connect(&tidegate.at("in"));
    for (path, status) in [("/login", 200), ("/api/1", 200), ("/api/2", 200), ("/no", 403), ("/", 200)] {
        get(&mut client, path);
        assert_eq!(response(&mut client).0, status, "{path}");
    }
    let one = |name: &str, class: &str, count| json!([name, count, [["GET", class, count]], 0, 0]);
    let label = "path_prefix: [/api], method: [GET]";
    let counted = [one("login", "2xx", 1), one(label, "2xx", 2), one("no", "4xx", 1), one("default", "2xx", 1)];
    assert_eq!(routes(&tidegate), counted);

    // The order is another one, the conditions of a route with a name are others, and one route is gone.
    let login = "{ name: login, match: { path: [/signin] }, pool: shop }";
    tidegate.rewrite(&yaml(&format!("{by_path}, {login}, {{ match: {{ path: [/new] }}, pool: shop }}")));
    tidegate.signal(Signal::HUP);
    let none = |name: &str| json!([name, 0, [], 0, 0]);
    let kept = [one(label, "2xx", 2), one("login", "2xx", 1), none("path: [/new]"), one("default", "2xx", 1)];
    eventually(DEADLINE, "the reload is in effect", || routes(&tidegate) == kept);
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/signin");
    assert_eq!(response(&mut client).1, "shop");
    assert_eq!(routes(&tidegate)[1], one("login", "2xx", 2));

    let values = counters(&tidegate.stats_port());
    for (name, value) in [
        ("tidegate_route_http_requests_total{listener=\"in\",route=\"login\"}", 2.0),
        ("tidegate_route_http_responses_total{listener=\"in\",route=\"login\",class=\"2xx\"}", 2.0),
        ("tidegate_route_http_no_response_total{listener=\"in\",route=\"default\"}", 0.0),
        ("tidegate_route_retries_total{listener=\"in\",route=\"path: [/new]\"}", 0.0),
    ] {
        assert_eq!(values.get(name), Some(&value), "{name}: {values:?}");
    }
    let metrics = crate::support::stats::get(&tidegate.stats_port(), "/metrics").text();
    for stage in ["http_first_byte", "http_response"] {
        let count =
            format!("tidegate_route_latency_seconds_count{{listener=\"in\",route=\"login\",stage=\"{stage}\"}} 2");
        assert!(metrics.contains(&count), "{count}: {metrics}");
    }
}

#[test]
fn open_requests_are_counted_apart_from_connections() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}workers: 2\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\npools: [{{ name: p, backends: [{{ address: {} }}] }}]\n",
        scripted.place()
    ));
    let open = |tidegate: &Tidegate| {
        let view = stats(tidegate);
        let listener = &view["listeners"][0];
        let backend = &view["pools"][0]["backends"][0]["requests_open"];
        [&listener["open"], &listener["requests_open"], &listener["routes"][0]["requests_open"], backend]
            .map(|it| it.as_u64().unwrap())
    };
    let (mut first, mut second) = (connect(&tidegate.at("in")), connect(&tidegate.at("in")));
    get(&mut first, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    second.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    eventually(DEADLINE, "a request is under way", || open(&tidegate) == [2, 1, 1, 1]);
    let metrics = crate::support::stats::get(&tidegate.stats_port(), "/metrics").text();
    for gauge in [
        "tidegate_listener_http_requests_open{listener=\"in\"} 1",
        "tidegate_route_http_requests_open{listener=\"in\",route=\"default\"} 1",
        "tidegate_backend_http_requests_open{pool=\"p\",backend=",
    ] {
        assert!(metrics.contains(gauge), "{gauge}: {metrics}");
    }
    // The head alone does not end it.
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").unwrap();
    head(&mut first);
    expect(&mut first, b"o");
    assert_eq!(open(&tidegate), [2, 1, 1, 1]);
    backend.write_all(b"k").unwrap();
    expect(&mut first, b"k");
    eventually(DEADLINE, "none is", || open(&tidegate) == [2, 0, 0, 0]);
    // A request that is sent again, on a new connection.
    get(&mut first, "/");
    head(&mut backend);
    drop(backend);
    let mut backend = scripted.accept();
    head(&mut backend);
    eventually(DEADLINE, "one is", || open(&tidegate) == [2, 1, 1, 1]);
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut first).0, 200);
    eventually(DEADLINE, "none is again", || open(&tidegate) == [2, 0, 0, 0]);
    assert_eq!(stats(&tidegate)["listeners"][0]["routes"][0]["retries"], 1);
}
