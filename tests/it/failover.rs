//! Backends that die, come back, or say that they are unwell.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::backend::{Backend, Dead, HealthPage, Scripted, in_thread};
use crate::support::client::{connect, expect, read_to_end};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

#[test]
fn an_unwell_backend_gets_no_new_connection() {
    let (backend, health) = (Backend::echo(), HealthPage::start());
    let tidegate = Tidegate::start(&forward(backend.place(), "", &checked(&health, "keep")));
    tidegate.wait_for_up("b");
    let mut client = talking(&tidegate);

    health.answer(503);
    assert_eq!(tidegate.wait_for_down("b").field("reason"), "status 503");
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"", "refused");
    tidegate.wait_for_access("why it was refused", |line| line.end() == "rejected: no backend");

    // on_down: keep. The connection from before goes on, however long the backend is down.
    client.write_all(b"still here").unwrap();
    expect(&mut client, b"still here");

    health.answer(200);
    eventually(DEADLINE, "up again", || tidegate.count_logs(|line| line.is("backend up")) == 2);
    talking(&tidegate);
    assert_eq!(tidegate.count_logs(|line| line.is("backend down")), 1, "logged once");
}

#[test]
fn on_down_cut_closes_its_connections() {
    let (backend, health) = (Backend::echo(), HealthPage::start());
    let tidegate = Tidegate::start(&forward(backend.place(), "", &checked(&health, "cut")));
    tidegate.wait_for_up("b");
    let mut clients: Vec<TcpStream> = (0..5).map(|_| talking(&tidegate)).collect();
    health.answer(500);
    for client in &mut clients {
        assert_eq!(read_to_end(client).0, b"");
    }
    assert_eq!(tidegate.wait_for_down("b").field("reason"), "status 500");
    tidegate.wait_for_access("of the last", |_| tidegate.access().len() == 5);
    for line in tidegate.access() {
        assert_eq!(line.end(), "backend down");
        assert_eq!(line.backend(), Some("b"));
    }
}

fn checked(health: &HealthPage, on_down: &str) -> String {
    format!(
        "on_down: {on_down}, health: {{ http: {{ path: /health }}, port: {}, interval: 100ms, rise: 1, fall: 2 }}",
        health.port()
    )
}

/// A connection on which bytes went both ways.
fn talking(tidegate: &Tidegate) -> TcpStream {
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"hello").unwrap();
    expect(&mut client, b"hello");
    client
}

/// With `initial: probe` a backend is down until the first pass; with `up` it is used at once.
#[test]
fn the_state_before_the_first_verdict() {
    let dead = Dead::start();
    let tidegate = Tidegate::start(&forward(dead.address(), "", "health: { tcp: {}, interval: 1h }"));
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    assert_eq!(tidegate.only_access().end(), "rejected: no backend");

    let tidegate = Tidegate::start(&forward(dead.address(), "", "health: { tcp: {}, interval: 1h, initial: up }"));
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    assert_eq!(tidegate.only_access().end(), "rejected: connect failed");
}

/// A check that gets no answer in time says so.
#[test]
fn a_check_that_times_out() {
    let mute = Scripted::start(); // accepts, and never answers
    let tidegate = Tidegate::start(&forward(
        mute.place(),
        "",
        "health: { http: { path: / }, interval: 100ms, timeout: 200ms, fall: 1, initial: up }",
    ));
    assert_eq!(tidegate.wait_for_down("b").field("reason"), "timed out after 200ms");
}

/// An answer that never ends is bounded: the check decides, and the process does not grow.
#[test]
fn a_health_page_without_end() {
    let endless = Backend::start(in_thread(|mut stream| {
        let block = [b'x'; 64 * 1024];
        if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_ok() {
            while stream.write_all(&block).is_ok() {}
        }
    }));
    let tidegate = Tidegate::start(&forward(
        endless.place(),
        "",
        "health: { http: { path: /, body: \"not in there\" }, interval: 100ms, timeout: 2s, fall: 1, initial: up }",
    ));
    tidegate.wait_for_down("b");
    let before = tidegate.resident();
    eventually(DEADLINE, "20 more checks", || endless.accepted() >= 20);
    let grown = tidegate.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "it grew by {grown} bytes");
    assert_eq!(tidegate.count_logs(|line| line.is("backend up")), 0);
}

#[test]
fn http_answers_in_single_bytes() {
    let slow = Backend::start(in_thread(|mut stream| {
        _ = stream.set_nodelay(true);
        for byte in b"HTTP/1.1 204 No Content\r\nServer: slow\r\n\r\n" {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        read_to_end(&mut stream);
    }));
    let tidegate =
        Tidegate::start(&forward(slow.place(), "", "health: { http: { path: / }, interval: 100ms, timeout: 10s }"));
    tidegate.wait_for_up("b");
}
