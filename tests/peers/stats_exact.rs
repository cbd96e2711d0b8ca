//! The counters equal the traffic: exactly, in every format, also while they are read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tidegate::admin::snapshot_model::Snapshot;
use tidegate::stats::latency::{Stage, Window};

use crate::haproxy_csv::{self, number};
use crate::metrics::Parsed;
use crate::support::backend::{Backend, Dead, HealthPage, echo, in_thread};
use crate::support::client::{connect, read_to_end, reset};
use crate::support::stats::{ADMIN, backend, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// What a format says of one listener or one backend.
type Numbers = BTreeMap<String, u64>;

/// What a format says, by `listener/name` and `backend/name`.
type Report = BTreeMap<String, Numbers>;

fn add(report: &mut Report, whose: String, what: &str, count: u64) {
    *report.entry(whose).or_default().entry(what.to_owned()).or_default() += count;
}

/// Sums of the access log.
fn of_access_log(tidegate: &Tidegate, listeners: &[&str], backends: &[&str]) -> Report {
    let mut report = Report::new();
    for (kind, names, zeros) in [
        ("listener", listeners, &["accepted", "bytes_in", "bytes_out", "retries"][..]),
        ("backend", backends, &["connections", "bytes_in", "bytes_out", "failures", "client_aborts"]),
    ] {
        for name in names {
            zeros.iter().for_each(|what| add(&mut report, format!("{kind}/{name}"), what, 0));
        }
    }
    for line in tidegate.access() {
        let whose = format!("listener/{}", line.field("listener"));
        let (bytes_in, bytes_out) = line.bytes();
        add(&mut report, whose.clone(), "accepted", 1);
        add(&mut report, whose.clone(), "bytes_in", bytes_in);
        add(&mut report, whose.clone(), "bytes_out", bytes_out);
        add(&mut report, whose.clone(), "retries", line.number("retries").unwrap() as u64);
        add(&mut report, whose, &line.end(), 1);
        if let Some(backend) = line.backend() {
            let whose = format!("backend/{backend}");
            add(&mut report, whose.clone(), "connections", 1);
            add(&mut report, whose.clone(), "bytes_in", bytes_in);
            add(&mut report, whose.clone(), "bytes_out", bytes_out);
            add(&mut report, whose.clone(), "failures", u64::from(line.end() == "backend reset"));
            add(&mut report, whose, "client_aborts", u64::from(line.end() == "client reset"));
        }
    }
    report
}

fn of_stats(view: &Snapshot) -> Report {
    let mut report = Report::new();
    for listener in &view.listeners {
        let whose = format!("listener/{}", listener.name);
        for (what, count) in [
            ("accepted", listener.accepted),
            ("bytes_in", listener.bytes_in),
            ("bytes_out", listener.bytes_out),
            ("retries", listener.retries),
        ] {
            add(&mut report, whose.clone(), what, count);
        }
        for ending in listener.terminations.iter().filter(|ending| ending.count > 0) {
            add(&mut report, whose.clone(), &ending.termination.to_string(), ending.count);
        }
        assert_eq!(listener.latency.get(Stage::Session, Window::All).unwrap().count, listener.ended, "{whose}");
    }
    for backend in view.pools.iter().flat_map(|pool| &pool.backends) {
        let whose = format!("backend/{}", backend.name);
        for (what, count) in [
            ("connections", backend.connections),
            ("bytes_in", backend.bytes_in),
            ("bytes_out", backend.bytes_out),
            ("failures", backend.failures),
            ("client_aborts", backend.client_aborts),
        ] {
            add(&mut report, whose.clone(), what, count);
        }
        let measured = |stage| backend.latency.get(stage, Window::All).map_or(0, |all| all.count);
        assert_eq!(
            (measured(Stage::Session), measured(Stage::Connect)),
            (backend.connections, backend.connections),
            "{whose}"
        );
    }
    report
}

fn of_metrics(tidegate: &Tidegate) -> Report {
    let (parsed, mut report) = (Parsed::of(&tidegate.stats_port()), Report::new());
    for (kind, what, name) in [
        ("listener", "accepted", "tidegate_listener_connections_total"),
        ("listener", "bytes_in", "tidegate_listener_bytes_in_total"),
        ("listener", "bytes_out", "tidegate_listener_bytes_out_total"),
        ("listener", "retries", "tidegate_listener_retries_total"),
        ("listener", "", "tidegate_listener_connections_ended_total"),
        ("backend", "connections", "tidegate_backend_connections_total"),
        ("backend", "bytes_in", "tidegate_backend_bytes_in_total"),
        ("backend", "bytes_out", "tidegate_backend_bytes_out_total"),
        ("backend", "failures", "tidegate_backend_failures_total"),
        ("backend", "client_aborts", "tidegate_backend_client_aborts_total"),
    ] {
        for (labels, value) in parsed.samples(name) {
            let whose = format!("{kind}/{}", labels[kind].as_str().expect("a name"));
            match labels["reason"].as_str() {
                None => add(&mut report, whose, what, value as u64),
                Some(end) if value > 0.0 => add(&mut report, whose, end, value as u64),
                Some(_) => {}
            }
        }
    }
    report
}

fn of_table(tidegate: &Tidegate) -> Report {
    let mut report = Report::new();
    for row in haproxy_csv::rows(&tidegate.stats_port()) {
        let (whose, counted) = match row["svname"].as_str() {
            "BACKEND" => continue,
            "FRONTEND" => (format!("listener/{}", row["pxname"]), vec![("accepted", "stot")]),
            server => {
                let counted = vec![("connections", "stot"), ("failures", "eresp"), ("client_aborts", "cli_abrt")];
                (format!("backend/{server}"), counted)
            }
        };
        for (what, column) in counted.into_iter().chain([("bytes_in", "bin"), ("bytes_out", "bout")]) {
            add(&mut report, whose.clone(), what, number(&row, column));
        }
    }
    report
}

const EACH: usize = 100;

#[test]
fn a_thousand_connections() {
    let (a, b) = (Backend::echo(), Backend::start(in_thread(echo)));
    let rude = Backend::start(in_thread(|mut stream: TcpStream| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() {
            _ = stream.write_all(b"no");
            // Once the bytes have left: what a reset overtakes is lost.
            eventually(DEADLINE, "they have left", || crate::support::proc::unacknowledged(&stream) == 0);
            reset(stream);
        }
    }));
    let (dead, gone) = (Dead::start(), Dead::start());
    let health = HealthPage::start();
    let yaml = format!(
        "workers: 2\n{ADMIN}\
         listeners:\n\
         - {{ name: echo, bind: \"127.0.0.1:0\", pool: echo }}\n\
         - {{ name: rude, bind: \"127.0.0.1:0\", pool: rude }}\n\
         - {{ name: dead, bind: \"127.0.0.1:0\", pool: dead }}\n\
         - {{ name: down, bind: \"127.0.0.1:0\", pool: down }}\n\
         pools:\n\
         - name: echo\n  backends:\n  - {{ name: a, address: \"{}\" }}\n  - {{ name: b, address: \"{}\" }}\n  \
         - {{ name: c, address: \"{}\", weight: 2 }}\n  \
         health: {{ http: {{}}, port: {}, interval: 50ms, fall: 1, rise: 1, initial: up }}\n\
         - {{ name: rude, backends: [{{ name: d, address: \"{}\" }}] }}\n\
         - {{ name: dead, retries: 0, backends: [{{ name: e, address: \"{}\" }}] }}\n\
         - {{ name: down, backends: [{{ name: f, address: \"{}\" }}], health: {{ tcp: {{}}, interval: 50ms }} }}\n",
        a.place(),
        b.place(),
        dead.address(),
        health.port(),
        rude.place(),
        gone.address(),
        gone.address(),
    );
    let tidegate = Tidegate::start(&yaml);
    tidegate.wait_for_down("f");
    let stop = AtomicBool::new(false);
    let scrapes = AtomicUsize::new(0);
    let at = |listener: &str| tidegate.at(listener);

    thread::scope(|scope| {
        let readers = Readers(&stop);
        for reader in 0..8 {
            let (tidegate, stop, scrapes) = (&tidegate, &stop, &scrapes);
            scope.spawn(move || {
                let place = tidegate.stats_port();
                let mut last = 0;
                while !stop.load(Ordering::SeqCst) {
                    let path = PATHS[reader % PATHS.len()];
                    let answer = get(&place, path);
                    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                    let view = tidegate.view();
                    let ended: u64 = view.listeners.iter().map(|listener| listener.ended).sum();
                    assert!(ended >= last, "counters never go back: {ended} after {last}");
                    last = ended;
                    scrapes.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        thread::scope(|scope| {
            // 600 that are answered, with lengths that are known; between them all backends go down and up again.
            scope.spawn(|| {
                for number in 0..6 * EACH {
                    if number == 3 * EACH {
                        health.answer(503);
                        eventually(DEADLINE, "all are down", || !view_has_up(&tidegate.view()));
                        health.answer(200);
                        eventually(DEADLINE, "all are up", || {
                            ["a", "b", "c"].iter().all(|name| backend(&tidegate.view(), name).up)
                        });
                    }
                    exchange(connect(&at("echo")), number);
                }
                for _ in 0..EACH {
                    let mut client = connect(&at("echo"));
                    client.write_all(b"12345").unwrap();
                    client.read_exact(&mut [0; 5]).unwrap();
                    reset(client);
                }
            });
            scope.spawn(|| {
                for _ in 0..EACH {
                    let mut client = connect(&at("rude"));
                    client.write_all(b"?").unwrap();
                    let (bytes, _) = read_to_end(&mut client);
                    assert_eq!(bytes, b"no");
                }
            });
            for listener in ["dead", "down"] {
                scope.spawn(move || {
                    for _ in 0..EACH {
                        assert_eq!(read_to_end(&mut connect(&at(listener))).0, b"");
                    }
                });
            }
        });
        drop(readers);
    });
    eventually(DEADLINE, "all have ended", || tidegate.access().len() == 10 * EACH);

    let listeners = ["echo", "rude", "dead", "down"];
    let backends = ["a", "b", "c", "d", "e", "f"];
    let (access, view) = (of_access_log(&tidegate, &listeners, &backends), tidegate.view());
    assert_eq!(of_stats(&view), access);
    assert_eq!(of_metrics(&tidegate), access);
    // HAProxy's table has no columns for retries of a listener and for ends.
    let mut in_table = access.clone();
    for numbers in in_table.values_mut() {
        numbers.retain(|what, _| {
            ["accepted", "connections", "bytes_in", "bytes_out", "failures", "client_aborts"].contains(&what.as_str())
        });
    }
    assert_eq!(of_table(&tidegate), in_table);
    assert!(scrapes.load(Ordering::SeqCst) > 20, "{scrapes:?}");

    // What the script did.
    let echoed: u64 = (0..6 * EACH).map(|number| length(number) as u64).sum::<u64>() + 5 * EACH as u64;
    let of = |whose: &str, what: &str| access[whose].get(what).copied().unwrap_or_default();
    assert_eq!((of("listener/echo", "bytes_in"), of("listener/echo", "bytes_out")), (echoed, echoed));
    assert_eq!((of("listener/echo", "client closed"), of("listener/echo", "client reset")), (600, 100));
    assert_eq!((of("listener/rude", "backend reset"), of("backend/d", "failures")), (100, 100));
    assert_eq!((of("listener/rude", "bytes_in"), of("listener/rude", "bytes_out")), (100, 200));
    assert_eq!(of("listener/dead", "rejected: connect failed"), 100);
    assert_eq!(of("listener/down", "rejected: no backend"), 100);
    // `c` refuses: who came to it was sent on.
    let c = backend(&view, "c");
    assert!(c.connect_failures >= 100, "{c:?}");
    assert_eq!((c.connections, c.connect_failures, c.retries), (0, of("listener/echo", "retries"), c.connect_failures));
    assert_eq!(backend(&view, "e").connect_failures, 100);
    assert_eq!((backend(&view, "f").connect_failures, backend(&view, "f").connections), (0, 0));
    let pools: Vec<(&str, u64)> = view.pools.iter().map(|pool| (&*pool.name, pool.rejected)).collect();
    assert_eq!(pools, [("echo", 0), ("rude", 0), ("dead", 100), ("down", 100)]);
    // All went down, and up again; "down" was never up.
    let outages: Vec<(u64, u64, bool)> =
        view.pools.iter().map(|pool| (pool.downs, pool.open, pool.downtime > 0.0)).collect();
    assert_eq!(outages, [(1, 0, true), (0, 0, false), (0, 0, false), (0, 0, true)]);
    for pool in &view.pools {
        let sessions = pool.rejected + pool.backends.iter().map(|backend| backend.connections).sum::<u64>();
        assert!((1..=sessions).contains(&pool.rate.max), "{pool:?}");
    }
    for name in ["a", "b"] {
        let backend = backend(&view, name);
        assert_eq!((backend.downs, backend.open), (1, 0), "{backend:?}");
        assert!(backend.checks.as_ref().unwrap().failed >= 1 && backend.downtime > 0.0, "{backend:?}");
    }
}

/// What is scraped meanwhile.
const PATHS: [&str; 5] = ["/stats", "/metrics", "/stats;csv", "/histograms", "/livez"];

/// Ends the readers also when a test fails.
struct Readers<'a>(&'a AtomicBool);

impl Drop for Readers<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn view_has_up(view: &Snapshot) -> bool {
    ["a", "b", "c"].iter().any(|name| backend(view, name).up)
}

fn length(number: usize) -> usize {
    1 + number * 37 % 20_000
}

/// Sends so many bytes, has them back, and closes.
fn exchange(mut client: TcpStream, number: usize) {
    let bytes = vec![number as u8; length(number)];
    client.write_all(&bytes).unwrap();
    client.read_exact(&mut vec![0; bytes.len()]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut client);
}
