//! Backends that die, come back, or say that they are unwell.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::backend::{Backend, Dead, HealthPage, Scripted, in_thread};
use crate::support::client::{Place, connect, expect, read_to_end, try_connect};
use crate::support::redis::{Redis, ping_on};
use crate::support::tidegate::{Line, Tidegate, forward};
use crate::support::{DEADLINE, eventually, tell};

struct Attempt {
    client: SocketAddr,
    started: Instant,
    result: Result<(), String>,
}

#[test]
fn kill_one_of_three_under_load() {
    let mut servers = [Redis::start(), Redis::start(), Redis::start()];
    let mut yaml =
        String::from("workers: 2\nlisteners: [{ name: in, bind: \"127.0.0.1:0\", pool: p }]\npools:\n  - name: p\n");
    yaml += "    health: { tcp: {}, interval: 200ms, timeout: 1s, rise: 2, fall: 3 }\n    backends:\n";
    for (name, server) in ["a", "b", "c"].iter().zip(&servers) {
        yaml += &format!("      - {{ name: {name}, address: \"127.0.0.1:{}\" }}\n", server.port());
    }
    let tidegate = Tidegate::start(&yaml);
    for name in ["a", "b", "c"] {
        tidegate.wait_for_up(name);
    }

    let served_by_b = || tidegate.access().iter().filter(|line| line.backend() == Some("b")).count();
    let (attempts, killed, _again) = under_load(&tidegate.at("in"), |done| {
        let reach = |more: usize| {
            let goal = done.load(Ordering::SeqCst) + more;
            eventually(DEADLINE, "the load goes on", || done.load(Ordering::SeqCst) >= goal);
        };
        reach(200);
        servers[1].kill();
        let killed = Instant::now();
        assert_eq!(tidegate.wait_for_down("b").field("reason"), "connection refused");
        reach(200);

        let again = Redis::start_on(servers[1].port());
        eventually(DEADLINE, "b is up again", || tidegate.count_logs(|line| of("backend up", line, "b")) == 2);
        let then = served_by_b();
        eventually(DEADLINE, "b is back in rotation", || served_by_b() >= then + 20);
        reach(100);
        (killed, again)
    });

    let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.result.is_err()).collect();
    tell(&format!("{} connections, {} of them failed with the backend that was killed", attempts.len(), failed.len()));
    for attempt in failed {
        assert!(attempt.started < killed, "after the kill: {:?}", attempt.result);
        let line = tidegate.wait_for_access("of the failed", |line| line.field("client") == attempt.client.to_string());
        assert_eq!(line.backend(), Some("b"), "{:?}: {line:?}", attempt.result);
    }
    for (name, ups, downs) in [("a", 1, 0), ("b", 2, 1), ("c", 1, 0)] {
        assert_eq!(tidegate.count_logs(|line| of("backend up", line, name)), ups, "{name} came up");
        assert_eq!(tidegate.count_logs(|line| of("backend down", line, name)), downs, "{name} went down");
    }
}

fn of(message: &str, line: &Line, backend: &str) -> bool {
    line.is(message) && line.field("backend") == backend
}

/// 200 connections a second, a PING on each, while `act` runs.
fn under_load<T>(place: &Place, act: impl FnOnce(&AtomicUsize) -> (Instant, T)) -> (Vec<Attempt>, Instant, T) {
    const THREADS: u32 = 4;
    let pace = Duration::from_secs(1) * THREADS / 200;
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    /// Ends the load also when `act` panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread::scope(|scope| {
        let clients: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut attempts = Vec::new();
                    let mut next = Instant::now();
                    while !stop.load(Ordering::SeqCst) {
                        attempts.push(attempt(place));
                        done.fetch_add(1, Ordering::SeqCst);
                        next += pace;
                        thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                    attempts
                })
            })
            .collect();
        let stopping = Stop(&stop);
        let (when, what) = act(&done);
        drop(stopping);
        (clients.into_iter().flat_map(|client| client.join().unwrap()).collect(), when, what)
    })
}

fn attempt(place: &Place) -> Attempt {
    let started = Instant::now();
    let mut stream = try_connect(place).expect("the balancer itself accepts always");
    let client = stream.local_addr().unwrap();
    Attempt { client, started, result: ping_on(&mut stream) }
}

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
