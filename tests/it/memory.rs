//! What an idle connection costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::support::authority::{Authority, client_connection, handshake};
use crate::support::backend::{Backend, Scripted};
use crate::support::client::{connect, expect, read_to_end};
use crate::support::data::send;
use crate::support::proc::allow_open_files;
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::{Access, Tidegate, forward};
use crate::support::tls::{client_hello, terminate};
use crate::support::{DEADLINE, eventually, tell};

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

/// A ClientHello in one record with a body of this many bytes, of which only the first `sent` of all are there.
fn unfinished_hello(body: u16, sent: usize) -> Vec<u8> {
    let [[a, b], [c, d]] = [(body + 4).to_be_bytes(), body.to_be_bytes()];
    let mut hello = [&[0x16, 3, 1, a, b, 1, 0, c, d, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let extensions = body - (2 + 32 + 1 + 4 + 2) - 2;
    hello.extend_from_slice(&extensions.to_be_bytes());
    hello.extend_from_slice(&[0xfa, 0xfa]);
    hello.extend_from_slice(&(extensions - 4).to_be_bytes());
    hello.resize(sent, 0);
    hello
}

/// Of one client no more than its ClientHello may be long, and of all together no more than docs/limits-on-clients.md says.
#[test]
fn unfinished_client_hellos_are_bounded() {
    const LONG: usize = 2_048;
    const OVER: usize = 100;
    allow_open_files(16_000);
    let (backend, authority) = (Backend::echo(), Authority::new());
    let issued = authority.issue(&["localhost"]);
    let tidegate =
        Tidegate::start(&format!("{ADMIN}{}", terminate(backend.place(), &[&issued], "", "timeouts: { sniff: 1h }")));
    let opened = |bytes: &[u8], count: usize| -> Vec<TcpStream> {
        let one = |_| {
            let mut client = connect(&tidegate.at("in"));
            client.write_all(bytes).unwrap();
            client
        };
        (0..count).map(one).collect()
    };
    drop(opened(b"\x16", 50));
    eventually(DEADLINE, "the first have left", || tidegate.access().len() == 50);
    let before = tidegate.resident();

    let long = unfinished_hello(16_300, 16_200);
    let some = opened(&long, 500);
    let refused = || tidegate.access().iter().filter(|line| line.end() == "rejected: out of resources").count();
    eventually(DEADLINE, "they are read", || tidegate.resident() - before > 500 * 16_200);
    let each = (tidegate.resident() - before) / 500;
    tell(&format!("{each} bytes of process memory an unfinished ClientHello of 16 KB"));
    assert!(each < 20 * 1024, "{each} bytes each");
    assert_eq!(refused(), 0);

    let _more = opened(&long, LONG + OVER - 500);
    eventually(DEADLINE, "those that are too many are refused", || refused() >= OVER);
    let reason = "client rejected: it comes while the first bytes of other clients fill the 64 MiB that are for them";
    assert_eq!(tidegate.wait_for_log("why", |line| line.is(reason)).level(), "INFO");
    let grown = tidegate.resident() - before;
    assert!(grown < 64 << 20, "{grown} bytes");

    // Those with little to say still come in.
    let short = opened(&unfinished_hello(4_000, 2_000), 50);
    let mut client = handshake(authority.client_for("localhost", &[]), connect(&tidegate.at("in"))).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    let admitted: Vec<String> = short.iter().map(|client| client.local_addr().unwrap().to_string()).collect();
    let lines = tidegate.access();
    assert!(lines.iter().all(|line| !admitted.contains(&line.field("client"))), "none of them was refused");

    // And who goes makes room.
    drop(some);
    eventually(DEADLINE, "they have left", || {
        tidegate.access().iter().filter(|line| line.end() == "client left").count() >= 450
    });
    let again = opened(&long, 100);
    eventually(DEADLINE, "they are there", || tidegate.view().listeners[0].open > (LONG - 500 + 100) as u64);
    let admitted: Vec<String> = again.iter().map(|client| client.local_addr().unwrap().to_string()).collect();
    let lines = tidegate.access();
    let is_refused =
        |line: &Access| line.end() == "rejected: out of resources" && admitted.contains(&line.field("client"));
    assert!(!lines.iter().any(is_refused), "nor is one now");
}

/// After its ClientHello, a client that shows no certificate has no long message to send.
#[test]
fn an_unfinished_handshake_message_is_bounded() {
    let (backend, authority) = (Backend::echo(), Authority::new());
    let issued = authority.issue(&["localhost"]);
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&issued], "", "timeouts: { handshake: 1h }"));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&client_hello(&mut client_connection(&authority.old_client(), "localhost"))).unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    // A ClientKeyExchange of 60,000 bytes, in records of 16 KiB.
    let first = [&[0x10, 0, 0xea, 0x60][..], &[0; 16_380]].concat();
    for fragment in [&first[..], &[0; 16_384], &[0; 16_384]] {
        _ = client.write_all(&[&[0x16, 3, 3, 0x40, 0][..], fragment].concat());
    }
    _ = read_to_end(&mut client);
    assert_eq!(tidegate.only_access().end(), "TLS handshake failed");
    let reason = "client rejected: it sends more than a record of an unfinished TLS handshake message";
    tidegate.wait_for_log("why", |line| line.is(reason));
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
    let turnarounds = |backend: &tidegate::admin::snapshot_model::BackendStats| {
        backend
            .latency
            .get(tidegate::stats::latency::Stage::Turnaround, tidegate::stats::latency::Window::All)
            .unwrap()
            .count
    };
    assert!(view.pools[0].backends.iter().all(|backend| turnarounds(backend) == 10 * ROUNDS as u64));
    for path in ["/metrics", "/stats;csv", "/histograms"] {
        assert_eq!(get(&tidegate.stats_port(), path).status, 200);
    }
    let resident = tidegate.resident();
    tell(&format!("{} MB with {BACKENDS} backends and 8 workers", resident / 1_000_000));
    assert!(resident < 200_000_000, "{resident} bytes");
}
