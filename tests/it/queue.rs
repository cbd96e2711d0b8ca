//! Connections that wait for a backend.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::backend::{Backend, Dead, Scripted};
use crate::support::client::{connect, echoes, expect, read_to_end, reset, talking};
use crate::support::stats::{ADMIN, ADMIN_SOCKET, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

fn waiting(tidegate: &Tidegate) -> u32 {
    tidegate.view().pools[0].queue.waiting
}

fn wait_for(tidegate: &Tidegate, count: u32) {
    eventually(DEADLINE, &format!("{count} wait"), || waiting(tidegate) == count);
}

fn one_at_a_time(backend: &Backend, queue: &str) -> String {
    format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\", max_connections: 1 }}], queue: {queue} }}]\n",
        backend.place()
    )
}

#[test]
fn those_who_wait_are_served_in_order_and_the_wait_is_measured() {
    let backend = Backend::named_and_open("x");
    let tidegate = Tidegate::start(&one_at_a_time(&backend, "{ size: 3, timeout: 1m }"));
    let mut served = connect(&tidegate.at("in"));
    expect(&mut served, b"x");
    let mut clients: Vec<TcpStream> = Vec::new();
    for count in 1..=3 {
        clients.push(connect(&tidegate.at("in")));
        wait_for(&tidegate, count);
    }
    // A fourth is one too many.
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    tidegate.wait_for_access("why", |line| line.end() == "rejected: queue full");
    let why = get(&tidegate.stats_port(), "/explain?client=10.0.0.7").json()["listeners"][0]["why"].to_string();
    assert!(why.contains("waits in the queue for at most 60s, behind 3 others"), "{why}");
    for (left, client) in (0..3).rev().zip(clients) {
        drop(std::mem::replace(&mut served, client));
        expect(&mut served, b"x");
        assert_eq!(waiting(&tidegate), left, "one at a time, in order");
    }
    drop(served);
    tidegate.wait_for_access("of all", |_| tidegate.access().len() == 5);
    let waited = |line: &&crate::support::tidegate::Access| line.number("queue_ms").is_some_and(|waited| waited > 0.0);
    assert_eq!(tidegate.access().iter().filter(waited).count(), 3);
    let metrics = get(&tidegate.stats_port(), "/metrics").text();
    for sample in [
        "tidegate_pool_queue_size{pool=\"p\"} 3",
        "tidegate_pool_queue_connections{pool=\"p\"} 0",
        "tidegate_pool_queue_connections_max{pool=\"p\"} 3",
        "tidegate_pool_queued_total{pool=\"p\"} 3",
        "tidegate_pool_queue_overflows_total{pool=\"p\"} 1",
        "tidegate_pool_queue_timeouts_total{pool=\"p\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample} is not in\n{metrics}");
    }
}

#[test]
fn a_failover_is_held_through() {
    let health = "health: { tcp: {}, interval: 50ms, fall: 1, rise: 1 }, queue: { size: 100, timeout: 1m }";
    let backend = Backend::echo();
    let address = backend.address();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), "", health)));
    tidegate.wait_for_up("b");
    echoes(&mut talking(&tidegate.at("in")));
    drop(backend);
    let place = tidegate.at("in");
    // Some come while connects are refused and no check has said so, the others once it is down.
    let early: Vec<_> = (0..10).map(|_| connect(&place)).collect();
    tidegate.wait_for_down("b");
    let late: Vec<_> = (0..10).map(|_| connect(&place)).collect();
    wait_for(&tidegate, 20);
    let _again = Backend::bind(address, crate::support::backend::in_thread(crate::support::backend::echo));
    let clients = early.into_iter().chain(late).map(|mut client| thread::spawn(move || echoes(&mut client)));
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
    wait_for(&tidegate, 0);
}

#[test]
fn without_checks_a_dead_backend_is_tried_again() {
    let dead = Dead::start();
    let queue = "queue: { size: 10, timeout: 1m }";
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(dead.place(), "", queue)));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"on").unwrap();
    wait_for(&tidegate, 1);
    let _back = dead.revive(crate::support::backend::in_thread(crate::support::backend::echo));
    expect(&mut client, b"on");
    drop(client);
    let line = tidegate.only_access();
    assert!(line.number("queue_ms").unwrap() > 0.0, "{line:?}");
}

#[test]
fn the_wait_ends_after_its_timeout() {
    let queue = "queue: { size: 10, timeout: 300ms }, health: { tcp: {}, interval: 50ms, fall: 1 }";
    let dead = Dead::start();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(dead.place(), "", queue)));
    tidegate.wait_for_down("b");
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    let line = tidegate.only_access();
    assert_eq!(line.end(), "rejected: queue timeout");
    assert!(line.number("queue_ms").unwrap() >= 300.0, "{line:?}");
    let log = tidegate.wait_for_log("why", |line| line.is("no backend for a connection: closed"));
    assert_eq!(log.field("reason"), "the only backend is down; waited for 300ms (queue.timeout)");
    assert_eq!(tidegate.view().pools[0].queue.timed_out, 1);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let backend = Backend::named_and_open("x");
    let tidegate = Tidegate::start(&one_at_a_time(&backend, "{ size: 2, timeout: 1m }"));
    let mut served = connect(&tidegate.at("in"));
    expect(&mut served, b"x");
    let mut fin = connect(&tidegate.at("in"));
    fin.write_all(b"a request").unwrap();
    let gone = connect(&tidegate.at("in"));
    wait_for(&tidegate, 2);
    drop(fin);
    wait_for(&tidegate, 1);
    reset(gone);
    wait_for(&tidegate, 0);
    assert_eq!(tidegate.access().iter().filter(|line| line.end() == "client left").count(), 2);
    let mut last = connect(&tidegate.at("in"));
    wait_for(&tidegate, 1);
    drop(served);
    expect(&mut last, b"x");
    assert_eq!(backend.accepted(), 2, "those who have left got no backend");
}

#[test]
fn drain_and_reload_hold_those_who_wait() {
    let scripted = Scripted::start();
    let yaml = |size: u32| {
        let keys = format!("queue: {{ size: {size}, timeout: 1m }}");
        format!("{ADMIN_SOCKET}{}", forward(scripted.place(), "", &keys))
    };
    let tidegate = Tidegate::start(&yaml(5));
    let patch = |state: &str| {
        let body = format!("{{\"state\": \"{state}\"}}");
        assert_eq!(tidegate.call("PATCH", "/api/pools/p/backends/b", &body).status, 200);
    };
    patch("drain");
    let mut client = connect(&tidegate.at("in"));
    wait_for(&tidegate, 1);
    let text = std::fs::read_to_string(tidegate.config_file()).unwrap();
    std::fs::write(tidegate.config_file(), text.replace("size: 5", "size: 1")).unwrap();
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    assert_eq!((waiting(&tidegate), tidegate.view().pools[0].queue.size), (1, 1));
    assert!(!scripted.accepts_within(Duration::ZERO));
    patch("ready");
    let mut backend = scripted.accept();
    client.write_all(b"hello").unwrap();
    expect(&mut backend, b"hello");
}
