//! What an idle connection costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::support::backend::{Backend, Scripted};
use crate::support::client::{connect, expect};
use crate::support::data::send;
use crate::support::proc::allow_open_files;
use crate::support::stats::{ADMIN, get};
use crate::support::tell;
use crate::support::tidegate::{Tidegate, forward};

#[test]
fn idle_connections_cost_less_than_2_kib_each() {
    const CONNECTIONS: usize = 4_000;
    allow_open_files(16_000);
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 2\n{}", forward(scripted.place(), "", "")));
    // Warm: code that was never run and buffers that every worker has once are not what a connection costs.
    let warm = open(&tidegate, &scripted, 50);
    drop(warm);
    tidegate.wait_for_access("all of them left", |_| tidegate.access().len() == 50);
    let before = (tidegate.resident(), tidegate.open_files());

    let connections = open(&tidegate, &scripted, CONNECTIONS);
    let grown = tidegate.resident().saturating_sub(before.0);
    assert_eq!(tidegate.open_files(), before.1 + 2 * CONNECTIONS, "two sockets each, no pipe");
    let each = grown / CONNECTIONS as u64;
    tell(&format!("{each} bytes of process memory an idle connection"));
    assert!(each < 2048, "{each} bytes each");
    drop(connections);
}

/// Those that have moved a bulk before they fell silent keep nothing of it either, but for the few pipes of each worker.
#[test]
fn idle_connections_hold_no_pipe() {
    const CONNECTIONS: usize = 100;
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("workers: 2\n{}", forward(backend.place(), "", "")));
    let at_start = tidegate.open_files();
    let connections: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|seed| {
            let client = connect(&tidegate.at("in"));
            thread::scope(|scope| {
                scope.spawn(|| send(&mut &client, seed as u64, 4 << 20).unwrap());
                (&client).read_exact(&mut vec![0; 4 << 20]).unwrap();
            });
            client
        })
        .collect();
    let more = tidegate.open_files() - at_start - 2 * CONNECTIONS;
    assert!(more < CONNECTIONS / 2, "{more} files besides the sockets");
    drop(connections);
}

/// Connections that have seen bytes in both directions, as those of a database pool have.
fn open(tidegate: &Tidegate, scripted: &Scripted, count: usize) -> Vec<(TcpStream, TcpStream)> {
    (0..count)
        .map(|_| {
            let mut client = connect(&tidegate.at("in"));
            let mut backend = scripted.accept();
            client.write_all(b"question").unwrap();
            expect(&mut backend, b"question");
            backend.write_all(b"answer").unwrap();
            expect(&mut client, b"answer");
            (client, backend)
        })
        .collect()
}

/// Everything that is measured, of many backends by many workers.
#[test]
fn a_thousand_backends_and_eight_workers_stay_below_200_mb() {
    const BACKENDS: usize = 1_000;
    const ROUNDS: usize = 8;
    let backend = Backend::echo();
    let backends: String =
        (0..BACKENDS).map(|number| format!("  - {{ name: b{number}, address: \"{}\" }}\n", backend.place())).collect();
    let tidegate = Tidegate::start(&format!(
        "workers: 8\n{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools:\n- name: p\n  backends:\n{backends}"
    ));
    let at = tidegate.at("in");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..BACKENDS * ROUNDS / 4 {
                    let mut client = connect(&at);
                    for turn in 0..10 {
                        let bytes = vec![turn; 1 + number % 100];
                        client.write_all(&bytes).unwrap();
                        expect(&mut client, &bytes);
                    }
                }
            });
        }
    });
    let view = tidegate.view();
    let turnarounds = |backend: &tidegate::admin::view::Backend| backend.latency["turnaround"]["all"].count;
    assert!(view.pools[0].backends.iter().all(|backend| turnarounds(backend) == 10 * ROUNDS as u64));
    for path in ["/metrics", "/stats;csv", "/histograms"] {
        assert_eq!(get(&tidegate.stats_port(), path).status, 200);
    }
    let resident = tidegate.resident();
    tell(&format!("{} MB with {BACKENDS} backends and 8 workers", resident / 1_000_000));
    assert!(resident < 200_000_000, "{resident} bytes");
}
