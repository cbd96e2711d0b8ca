//! Outlier ejection and fail open.

use crate::support::backend::{Backend, Dead, in_thread};
use crate::support::client::{connect, read_to_end};
use crate::support::stats::{ADMIN, backend, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

fn two(first: &impl std::fmt::Display, second: &impl std::fmt::Display, listener: &str, pool: &str) -> String {
    format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {listener} }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: \"{first}\" }}, {{ name: b, address: \"{second}\" }}], {pool} }}]\n"
    )
}

#[test]
fn a_dead_backend_is_left_out_and_comes_back() {
    let (dead, well) = (Dead::start(), Backend::named("b"));
    let rules = "outlier: { failures: 3, ejection: 500ms }";
    let tidegate = Tidegate::start(&two(&dead.place(), well.place(), "", rules));
    let name = || String::from_utf8(read_to_end(&mut connect(&tidegate.at("in"))).0).unwrap();
    for _ in 0..20 {
        assert_eq!(name(), "b", "no client notices");
    }
    let line = tidegate.wait_for_log("its ejection", |line| line.is("backend ejected"));
    assert_eq!(
        (line.field("backend"), line.field("reason")),
        ("a".into(), "ejected for 500ms: 3 failed connects in a row".into())
    );
    let metrics = get(&tidegate.stats_port(), "/metrics").text();
    assert!(metrics.contains("tidegate_backend_ejections_total{pool=\"p\",backend=\"a\"} "), "{metrics}");
    let _back = dead.revive(in_thread(|mut stream| drop(std::io::Write::write_all(&mut stream, b"a"))));
    eventually(DEADLINE, "it is back", || name() == "a");
    tidegate.wait_for_log("its end", |line| line.is("ejection of a backend ends"));
    assert!(!backend(&tidegate.view(), "a").ejected);
}

#[test]
fn explain_and_the_stats_say_that_it_is_ejected() {
    let (dead, well) = (Dead::start(), Backend::named("b"));
    let tidegate = Tidegate::start(&two(&dead.place(), well.place(), "", "outlier: { failures: 2, ejection: 5m }"));
    eventually(DEADLINE, "its ejection", || {
        read_to_end(&mut connect(&tidegate.at("in")));
        backend(&tidegate.view(), "a").ejected
    });
    let view = tidegate.view();
    let stats = backend(&view, "a");
    assert_eq!((stats.up, stats.ejections, stats.downs), (false, 1, 0));
    assert_eq!(stats.reason.as_deref(), Some("ejected for 300s: 2 failed connects in a row"));
    let explained = get(&tidegate.stats_port(), "/explain?client=10.0.0.7").json();
    let why = explained["listeners"][0]["backends"][0]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("ejected for 300s: 2 failed connects in a row"), "{why}");
    let metrics = get(&tidegate.stats_port(), "/metrics").text();
    assert!(metrics.contains("tidegate_backend_ejected{pool=\"p\",backend=\"a\"} 1\n"), "{metrics}");
}

#[test]
fn responses_with_status_5xx_eject_where_http_is_watched() {
    let (ill, well) = (Backend::web_with(503, "a"), Backend::web("b"));
    let rules = "outlier: { failures: 3, ejection: 5m, http_5xx: true }";
    let tidegate = Tidegate::start(&two(ill.place(), well.place(), "sniff: http", rules));
    let status = || {
        let mut client = connect(&tidegate.at("in"));
        std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        String::from_utf8_lossy(&read_to_end(&mut client).0).split(' ').nth(1).map(str::to_owned)
    };
    let line = || tidegate.count_logs(|line| line.is("backend ejected")) == 1;
    eventually(DEADLINE, "its ejection", || status().is_some() && line());
    let log = tidegate.wait_for_log("its ejection", |line| line.is("backend ejected"));
    assert_eq!(log.field("reason"), "ejected for 300s: 3 responses with status 5xx in a row");
    assert!((0..10).all(|_| status().as_deref() == Some("200")));
}

#[test]
fn fail_open_uses_what_checks_call_down() {
    // Both serve; the checks ask a closed port.
    let (one, other, nobody) = (Backend::named("a"), Backend::named("b"), Dead::start());
    let port = nobody.place().tcp().port();
    let pool = format!("fail_open: 50%, health: {{ tcp: {{}}, port: {port}, interval: 50ms, fall: 1 }}");
    let tidegate = Tidegate::start(&two(one.place(), other.place(), "", &pool));
    tidegate.wait_for_down("a");
    tidegate.wait_for_down("b");
    let names: String =
        (0..4).map(|_| String::from_utf8(read_to_end(&mut connect(&tidegate.at("in"))).0).unwrap()).collect();
    assert_eq!((names.matches('a').count(), names.matches('b').count()), (2, 2), "{names}");
    let view = tidegate.view();
    assert!(view.pools[0].fails_open && view.pools[0].usable && view.ready);
    let why = get(&tidegate.stats_port(), "/explain?client=10.0.0.7").json()["listeners"][0]["why"].to_string();
    assert!(why.contains("fewer than 50% of the backends are up: all are used, fail_open"), "{why}");
}
