//! A Redis that dies under load, and comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Place, try_connect};
use crate::support::redis::{Redis, ping_on};
use crate::support::tidegate::{Line, Tidegate};
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
