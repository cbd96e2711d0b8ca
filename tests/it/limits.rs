//! `listeners[].limits`: how many connections, and how fast, of an address and of all.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::client::{End, connect, connect_from, expect, read_to_end};
use crate::support::http::{Seen, address, observed, rest, seen_by_listener};
use crate::support::pgwire::{read_error, startup};
use crate::support::stats::{ADMIN, get, listener};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, read_all, terminate};
use crate::support::{DEADLINE, eventually};

const OF_ADDRESS: &str = "rejected: per-IP connection limit exceeded";
const ADDRESS_TOO_FAST: &str = "rejected: per-IP connection rate exceeded";
const TOO_FAST: &str = "rejected: connection rate exceeded";

fn source(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// Whether a client of this address gets to an echoing backend; the connection, if so.
fn enter(tidegate: &Tidegate, last: u8) -> Option<TcpStream> {
    let mut client = connect_from(source(last), tidegate.at("in").tcp());
    // What is refused is closed, and whether what it sends is met by that is chance.
    if client.write_all(b"in").is_ok() && expect_or_end(&mut client) { Some(client) } else { None }
}

fn expect_or_end(client: &mut TcpStream) -> bool {
    let mut first = [0];
    match client.peek(&mut first) {
        Ok(1) => {
            expect(client, b"in");
            true
        }
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
            false
        }
    }
}

/// Why a client of this address would be refused now: empty if it would not. A connection is counted as open before the limits count
/// it, and as ended before they give its room away.
fn refusal(tidegate: &Tidegate, client: &str) -> String {
    let answer = get(&tidegate.stats_port(), &format!("/explain?client={client}")).json();
    answer["listeners"][0]["rejected"].as_str().unwrap_or_default().to_owned()
}

fn ends(tidegate: &Tidegate, end: &str) -> usize {
    tidegate.access().iter().filter(|line| line.end() == end).count()
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), "limits: { connections_per_ip: 2 }", ""));
    let (first, _second) = (enter(&tidegate, 2).unwrap(), enter(&tidegate, 2).unwrap());
    let mut third = connect_from(source(2), tidegate.at("in").tcp());
    assert_eq!(read_to_end(&mut third), (Vec::new(), End::Fin), "closed at once, without a word");
    let line = tidegate.only_access();
    assert_eq!((line.end().as_str(), line.backend(), line.bytes()), (OF_ADDRESS, None, (0, 0)));
    let told = tidegate.wait_for_log("why", |line| {
        line.is("client rejected: it comes from an address that has 2 open, limits.connections_per_ip")
    });
    assert_eq!(told.field("listener"), "in");
    assert!(enter(&tidegate, 3).is_some(), "another address has its own");

    drop(first);
    eventually(DEADLINE, "there is room for another", || enter(&tidegate, 2).is_some());
}

#[test]
fn clients_that_come_at_once_never_exceed_the_limit() {
    const CLIENTS: usize = 60;
    let backend = Backend::echo();
    let yaml = format!("workers: 4\n{ADMIN}{}", forward(backend.place(), "limits: { connections_per_ip: 7 }", ""));
    let tidegate = Tidegate::start(&yaml);
    for round in 1..=3 {
        let inside: Vec<TcpStream> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| enter(&tidegate, 2))).collect();
            clients.into_iter().filter_map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(inside.len(), 7);
        drop(inside);
        eventually(DEADLINE, "all have ended", || tidegate.access().len() == round * CLIENTS);
        assert_eq!(ends(&tidegate, OF_ADDRESS), round * (CLIENTS - 7));
    }
    let view = tidegate.view();
    let shown = listener(&view, "in");
    let end = shown.terminations.iter().find(|ended| ended.termination.to_string() == OF_ADDRESS).unwrap();
    assert_eq!((shown.accepted, shown.rejected, end.count), (180, 159, 159));
    assert_eq!((end.termination.code(), end.termination.cause().name()), ("PR", "tidegate"));
    assert_eq!(backend.accepted(), 21);
}

#[test]
fn rates_of_an_address_and_of_all() {
    let backend = Backend::echo();
    let limits = "limits: { connection_rate_per_ip: 3/h, connection_rate: 5/h }";
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), limits, "")));
    let entered = |last, tries| (0..tries).filter(|_| enter(&tidegate, last).is_some()).count();
    assert_eq!(entered(2, 20), 3);
    assert_eq!(entered(3, 1), 1, "those that were refused took nothing from the others");
    assert_eq!(entered(4, 20), 1, "the fifth of all");
    assert_eq!(entered(3, 1), 0);
    let seen = || [ADDRESS_TOO_FAST, TOO_FAST].map(|end| ends(&tidegate, end));
    eventually(DEADLINE, "all are logged", || seen() == [17, 20]);
    let table = get(&tidegate.stats_port(), "/stats;csv").text();
    let [names, row] = [0, 1].map(|line| table.lines().nth(line).unwrap().split(',').collect::<Vec<_>>());
    let shown = ["rate_lim", "dcon"].map(|column| row[names.iter().position(|name| *name == column).unwrap()]);
    assert_eq!(shown, ["1", "37"], "HAProxy's columns; a limit below one a second is one");
    tidegate.wait_for_log("why", |line| {
        line.is(
            "client rejected: it comes from an address that connects faster than 3/h, limits.connection_rate_per_ip",
        )
    });
}

/// Behind another balancer all connections come from one address: whom it names counts.
#[test]
fn the_address_is_the_one_in_the_proxy_header() {
    let backend = Backend::echo();
    let keys = "proxy_protocol: { trusted: [127.0.0.1] }, limits: { connections_per_ip: 1 }";
    let tidegate = Tidegate::start(&forward(backend.place(), keys, ""));
    let come = |header: &str| {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(format!("{header}\r\nin").as_bytes()).unwrap();
        expect_or_end(&mut client).then_some(client)
    };
    let _first = come("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443").unwrap();
    assert!(come("PROXY TCP4 192.0.2.1 198.51.100.2 56325 443").is_none());
    let _second = come("PROXY TCP4 192.0.2.2 198.51.100.2 56324 443").unwrap();
    let _third = come("PROXY TCP6 2001:db8::1 2001:db8::2 1 2").unwrap();
    assert!(come("PROXY TCP6 2001:db8::ffff 2001:db8::2 1 2").is_none(), "an IPv6 host has its /64");
    let line = tidegate.wait_for_access("refused", |line| line.end() == OF_ADDRESS);
    assert!(line.field("client").starts_with("192.0.2.1:"), "{line:?}");
}

/// Its address is known at once: also while it may still say something it counts.
#[test]
fn a_stranger_counts_while_it_is_silent() {
    let backend = Backend::echo();
    let limits = "limits: { connections_per_ip: 2, connection_rate_per_ip: 3/h }, timeouts: { sniff: 1h }";
    let keys = format!("proxy_protocol: {{ trusted: [127.0.0.1] }}, {limits}");
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), &keys, "")));
    let come = |last| connect_from(source(last), tidegate.at("in").tcp());
    let (first, _second) = (come(2), come(2));
    eventually(DEADLINE, "both count", || refusal(&tidegate, "127.0.0.2").contains("2 open"));
    assert_eq!(read_to_end(&mut come(2)), (Vec::new(), End::Fin));
    eventually(DEADLINE, "it was one too many", || ends(&tidegate, OF_ADDRESS) == 1);
    drop(first);
    eventually(DEADLINE, "the first has left", || ends(&tidegate, "client closed") == 1);
    eventually(DEADLINE, "its room is free", || refusal(&tidegate, "127.0.0.2").is_empty());
    let third = come(2);
    eventually(DEADLINE, "the third counts", || refusal(&tidegate, "127.0.0.2").contains("2 open"));
    drop(third);
    eventually(DEADLINE, "it has left", || ends(&tidegate, "client closed") == 2);
    eventually(DEADLINE, "its room is free", || !refusal(&tidegate, "127.0.0.2").contains("open"));
    assert_eq!(read_to_end(&mut come(2)), (Vec::new(), End::Fin));
    eventually(DEADLINE, "it came too fast", || ends(&tidegate, ADDRESS_TOO_FAST) == 1);

    // A trusted peer's connections count for those that it names, and it may have many that are silent.
    let _silent: Vec<TcpStream> = (0..5).map(|_| come(1)).collect();
    let mut named = come(1);
    named.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nin").unwrap();
    assert!(expect_or_end(&mut named));
    assert_eq!(backend.accepted(), 3, "the silent ones have none");
}

/// A header without addresses leaves the peer, and its own address counts.
#[test]
fn a_local_header_is_no_way_around_the_limits() {
    let backend = Backend::echo();
    let keys = "proxy_protocol: { trusted: [127.0.0.0/8] }, limits: { connections_per_ip: 1 }";
    let tidegate = Tidegate::start(&forward(backend.place(), keys, ""));
    let headers = [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"];
    for (last, first) in (2..).zip(headers) {
        let come = |header: &[u8]| {
            let mut client = connect_from(source(last), tidegate.at("in").tcp());
            _ = client.write_all(&[header, b"in"].concat());
            expect_or_end(&mut client).then_some(client)
        };
        let _first = come(first).expect("the first");
        for header in headers {
            assert!(come(header).is_none());
        }
    }
}

#[track_caller]
fn is_too_many(answer: &str, error: &str) -> u64 {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{head}");
    assert!(head.lines().any(|line| line == format!("Content-Length: {}", body.len())), "{head}: {body}");
    assert!(head.lines().any(|line| line == "Connection: close"), "{head}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({ "error": error }));
    head.lines().find_map(|line| line.strip_prefix("Retry-After: ")).expect("Retry-After").parse().unwrap()
}

#[test]
fn http_over_a_limit_is_answered_429() {
    let backend = Backend::web("b");
    let limits = "sniff: http, limits: { connections_per_ip: 1, connection_rate: 2/h }";
    let tidegate = observed(&forward(backend.place(), limits, ""));
    let url = format!("http://{}/", address(&tidegate));
    let curl = |source: &str| {
        let output = Command::new("curl").args(["-sS", "-i", "--interface", source, &url]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let held = connect(&tidegate.at("in"));
    eventually(DEADLINE, "it counts", || !refusal(&tidegate, "127.0.0.1").is_empty());
    assert_eq!(is_too_many(&curl("127.0.0.1"), "too many connections from this address"), 1);
    let mut head = connect(&tidegate.at("in"));
    head.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = rest(head);
    assert!(head.starts_with("HTTP/1.1 429 ") && head.ends_with("\r\n\r\n"), "no body: {head}");

    assert!(curl("127.0.0.2").starts_with("HTTP/1.1 200 OK\r\n"));
    let wait = is_too_many(&curl("127.0.0.3"), "connections come too fast");
    assert!((1700..=1800).contains(&wait), "{wait}");
    // What speaks no HTTP is told nothing.
    let mut other = connect(&tidegate.at("in"));
    other.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    assert_eq!(read_to_end(&mut other).0, b"");

    drop(held);
    let responses = vec![("GET 2xx".to_owned(), 1), ("GET 4xx".to_owned(), 2), ("HEAD 4xx".to_owned(), 1)];
    assert_eq!(seen_by_listener(&tidegate), Seen { requests: 4, responses, ..Seen::default() });
    assert_eq!([OF_ADDRESS, TOO_FAST].map(|end| ends(&tidegate, end)), [3, 1]);
}

#[test]
fn it_is_said_over_tls_too() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let backend = Backend::web("b");
    let limits = "sniff: http, limits: { connection_rate_per_ip: 1/h }";
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&issued], "", limits));
    let ask = || {
        let client = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
        (&client).write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        read_all(&client)
    };
    assert!(ask().starts_with("HTTP/1.1 200 OK\r\n"));
    is_too_many(&ask(), "connections from this address come too fast");
}

/// Whoever is heard out has one of the listener's places: an eighth of them, and no more.
#[test]
fn few_are_heard_out_and_the_others_closed_at_once() {
    let backend = Backend::web("b");
    let keys = "sniff: http, max_connections: 16, timeouts: { sniff: 1h }, limits: { connection_rate: 1/h }";
    let tidegate = observed(&forward(backend.place(), keys, ""));
    let in_time = connect(&tidegate.at("in"));
    eventually(DEADLINE, "it is in", || !refusal(&tidegate, "127.0.0.1").is_empty());
    let mut heard: Vec<TcpStream> = (0..2).map(|_| connect(&tidegate.at("in"))).collect();
    eventually(DEADLINE, "they are heard", || tidegate.view().listeners[0].open == 3);
    for _ in 0..20 {
        assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))), (Vec::new(), End::Fin));
    }
    for client in &mut heard {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    for client in heard {
        is_too_many(&rest(client), "connections come too fast");
    }
    drop(in_time);
    eventually(DEADLINE, "all are logged", || ends(&tidegate, TOO_FAST) == 22);
}

#[test]
fn postgres_clients_read_why() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let backend = Backend::echo();
    let keys = "limits: { connections_per_ip: 1 }";
    let tls = "starttls: postgres, plaintext: allow";
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&issued], tls, keys));
    let begin = || {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&startup(3, 0)).unwrap();
        client
    };
    let mut first = begin();
    expect(&mut first, &startup(3, 0));
    let error = read_error(&mut begin());
    assert_eq!((error[&'C'].as_str(), error[&'S'].as_str()), ("53300", "FATAL"));
    assert_eq!(error[&'M'], "too many connections from this address");
}

#[test]
fn explain_says_that_a_client_would_be_refused() {
    let backend = Backend::echo();
    let keys = "limits: { connections_per_ip: 1 }";
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), keys, "")));
    let refused = |client: &str| {
        let answer = get(&tidegate.stats_port(), &format!("/explain?client={client}"));
        answer.json()["listeners"][0]["rejected"].clone()
    };
    let _held = enter(&tidegate, 2).unwrap();
    let why = "it comes from an address that has 1 open, limits.connections_per_ip";
    assert_eq!(refused("127.0.0.2"), why);
    assert_eq!(refused("127.0.0.3"), Value::Null);
    assert_eq!(refused("127.0.0.3"), Value::Null, "a question counts for nothing");
}
