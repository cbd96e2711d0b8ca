//! `sniff: postgres`, `mysql` and `redis`: what is watched passes unchanged, and is counted.

use std::io::Write;
use std::net::TcpStream;

use crate::support::backend::Scripted;
use crate::support::client::{connect, expect, read_to_end};
use crate::support::http::observed;
use crate::support::queries::{SeenQueries, numbers, queries_everywhere};
use crate::support::stats::get;
use crate::support::tidegate::{Tidegate, forward};

const PROTOCOLS: [&str; 3] = ["postgres", "mysql", "redis"];

fn watching(protocol: &str, scripted: &Scripted) -> Tidegate {
    observed(&forward(scripted.place(), &format!("sniff: {protocol}"), ""))
}

/// Sends these in pieces of odd lengths, and reads all of them at the other end.
fn passes(random: &mut fastrand::Rng, from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.set_nodelay(true).unwrap();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(random.usize(1..=rest.len().min(9000)));
        from.write_all(piece).unwrap();
        expect(to, piece);
        rest = behind;
    }
}

/// A query of PostgreSQL of this length, and rows for it.
fn postgres_exchange(length: usize) -> (Vec<u8>, Vec<u8>) {
    let text = format!("select '{}'\0", "Q".repeat(length));
    let query = [b"Q", &(text.len() as u32 + 4).to_be_bytes()[..], text.as_bytes()].concat();
    let row = [b"D", &(length as u32 + 4).to_be_bytes()[..], &vec![b'Z'; length]].concat();
    (query, [row.repeat(3), b"C\0\0\0\x0dSELECT 3\0Z\0\0\0\x05I".to_vec()].concat())
}

#[test]
fn what_is_watched_passes_unchanged_in_any_pieces() {
    let mut random = fastrand::Rng::with_seed(15);
    let scripted = Scripted::start();
    let tidegate = watching("postgres", &scripted);
    let mut client = connect(&tidegate.at("in"));
    let startup = b"\0\0\0\x16\0\x03\0\0user\0a\0database\0b\0\0";
    let startup = [&(startup.len() as u32).to_be_bytes()[..], &startup[4..]].concat();
    client.write_all(&startup).unwrap();
    let mut backend = scripted.accept();
    expect(&mut backend, &startup);
    passes(&mut random, &mut backend, &mut client, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    for length in [1, 100, 70_000, 300_000] {
        let (query, answer) = postgres_exchange(length);
        passes(&mut random, &mut client, &mut backend, &query);
        passes(&mut random, &mut backend, &mut client, &answer);
    }
    // Neither side is of the protocol any more.
    let noise: Vec<u8> = (0..300_000).map(|_| random.u8(..)).collect();
    passes(&mut random, &mut client, &mut backend, &[b"?", &noise[..]].concat());
    passes(&mut random, &mut backend, &mut client, &noise);
    let listed = get(&tidegate.stats_port(), "/api/connections").json();
    assert_eq!((&listed["connections"][0]["user"], &listed["connections"][0]["database"]), (&"a".into(), &"b".into()));
    drop(client);
    assert_eq!(read_to_end(&mut backend).0, b"");
    drop(backend);
    let expected = SeenQueries {
        statements: numbers(&[("SELECT", 4)]),
        opaque: numbers(&[("malformed", 1)]),
        ..SeenQueries::default()
    };
    assert_eq!(queries_everywhere(&tidegate), expected);
}

#[test]
fn noise_passes_unchanged_whatever_it_is_taken_for() {
    let mut random = fastrand::Rng::with_seed(6);
    for protocol in PROTOCOLS {
        let scripted = Scripted::start();
        let tidegate = watching(protocol, &scripted);
        for _ in 0..20 {
            let mut client = connect(&tidegate.at("in"));
            let noise: Vec<u8> = (0..random.usize(1..5000)).map(|_| random.u8(..)).collect();
            client.write_all(&noise).unwrap();
            let mut backend = scripted.accept();
            expect(&mut backend, &noise);
            passes(&mut random, &mut backend, &mut client, &noise);
            passes(&mut random, &mut client, &mut backend, &noise);
        }
        let seen = queries_everywhere(&tidegate);
        assert!(seen.statements.keys().all(|word| word == "other"), "{seen:?}");
        assert!(seen.opaque.values().sum::<u64>() <= 20, "{seen:?}");
    }
}

#[test]
fn reload_changes_what_is_watched_of_new_connections() {
    let scripted = Scripted::start();
    let yaml = |sniff: &str| format!("{}{}", crate::support::stats::ADMIN, forward(scripted.place(), sniff, ""));
    let tidegate = Tidegate::start(&yaml("sniff: off"));
    let converse = |expected: u64| {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"GET a\r\n").unwrap();
        let mut backend = scripted.accept();
        expect(&mut backend, b"GET a\r\n");
        backend.write_all(b"$-1\r\n").unwrap();
        expect(&mut client, b"$-1\r\n");
        drop((client, backend));
        let seen = queries_everywhere(&tidegate);
        assert_eq!(seen.statements.get("GET").copied().unwrap_or_default(), expected);
    };
    converse(0);
    tidegate.rewrite(&yaml("sniff: redis"));
    tidegate.signal(rustix::process::Signal::HUP);
    tidegate.wait_for_log("that it is applied", |line| line.field("result") == "applied");
    converse(1);
}

#[test]
fn clients_without_a_backend_read_why_in_the_protocol_that_is_watched() {
    let scripted = Scripted::start();
    for (protocol, begin, says) in [
        ("redis", &b""[..], &b"-ERR "[..]),
        ("mysql", b"", b"\xff"),
        ("postgres", b"\0\0\0\x0f\0\x03\0\0user\0\0\0", b"E\0\0\0"),
    ] {
        let keys = format!("sniff: {protocol}, access: {{ deny: [127.0.0.0/8] }}");
        let tidegate = observed(&forward(scripted.place(), &keys, ""));
        let mut client = connect(&tidegate.at("in"));
        client.write_all(begin).unwrap();
        let read = read_to_end(&mut client).0;
        assert!(read.windows(says.len()).any(|part| part == says), "{protocol}: {:?}", String::from_utf8_lossy(&read));
    }
}
