//! Several protocols on one port: routes by the protocol of the client's first bytes.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::json;
use tidegate::admin::explain::{AtListener, Explanation};

use crate::support::backend::{Backend, echo, in_thread};
use crate::support::client::{connect, expect, read_to_end};
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::Tidegate;
use crate::support::tls::{Authority, Tls, client_hello};

const PROTOCOLS: [&str; 5] = ["tls", "http", "ssh", "postgres", "redis"];

/// What clients begin with, and the pool that they get.
const BEGINNINGS: [(&[u8], &str); 12] = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "tls"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "ssh"),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "postgres"),
    (b"\x00\x00\x00\x10\x04\xd2\x16\x2eabcdefgh", "postgres"),
    (b"\x00\x00\x00\x13\x00\x03\x00\x00user\0me\0\0\0\0", "postgres"),
    (b"*1\r\n$4\r\nPING\r\n", "redis"),
    (b"PING\r\n", "rest"),
    (b"EHLO example.com\r\n", "rest"),
    (b"GET key\r\n", "rest"),
    (b"\xff\xfb\x01", "rest"),
];

/// A pool of one backend for each protocol, and `rest`: they say their name, and then what they hear.
struct Shared {
    tidegate: Tidegate,
    _backends: Vec<Backend>,
}

fn shared(listener: &str, routes: &str) -> Shared {
    let mut pools = String::from("pools:\n");
    let mut backends = Vec::new();
    for name in PROTOCOLS.into_iter().chain(["rest"]) {
        let backend = Backend::start(in_thread(move |mut stream: TcpStream| {
            if stream.write_all(format!("{name}:").as_bytes()).is_ok() {
                echo(stream);
            }
        }));
        writeln!(pools, "- {{ name: {name}, backends: [{{ name: {name}, address: \"{}\" }}] }}", backend.place())
            .unwrap();
        backends.push(backend);
    }
    let yaml = format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: rest, routes: [{routes}], {listener} }}]\n{pools}"
    );
    Shared { tidegate: Tidegate::start(&yaml), _backends: backends }
}

/// A route to the pool of each protocol.
fn by_protocol() -> String {
    PROTOCOLS.map(|protocol| format!("{{ match: {{ protocol: [{protocol}] }}, pool: {protocol} }}")).join(", ")
}

/// What a client that sends these bytes in two pieces, the first of one byte, gets back.
fn answered(mut client: impl Read + Write, bytes: &[u8], pool: &str) {
    let (first, rest) = bytes.split_at(1);
    client.write_all(first).unwrap();
    client.write_all(rest).unwrap();
    let wanted = [pool.as_bytes(), b":", bytes].concat();
    let mut got = vec![0; wanted.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got.escape_ascii().to_string(), wanted.escape_ascii().to_string());
}

fn explained(tidegate: &Tidegate, query: &str) -> AtListener {
    let answer = get(&tidegate.stats_port(), &format!("/explain?client=127.0.0.1{query}"));
    let explanation: Explanation = serde_json::from_value(answer.json()).unwrap();
    let [at]: [AtListener; 1] = explanation.listeners.try_into().unwrap();
    at
}

#[test]
fn first_bytes_decide_and_arrive_unchanged() {
    let Shared { tidegate, _backends } = shared("timeouts: { sniff: 30s }", &by_protocol());
    for (bytes, pool) in BEGINNINGS {
        answered(connect(&tidegate.at("in")), bytes, pool);
        let line = tidegate.wait_for_access("of this client", |line| line.field("pool") == pool);
        let protocol = PROTOCOLS.contains(&pool).then_some(pool);
        assert_eq!(line.json("protocol"), json!(protocol));
    }
    for protocol in PROTOCOLS {
        let at = explained(&tidegate, &format!("&protocol={protocol}"));
        assert_eq!((&*at.pool, at.notes.len()), (protocol, 0), "{at:?}");
        assert!(at.route.ends_with(&format!("matches: protocol: [{protocol}]")), "{at:?}");
    }
    let silent = explained(&tidegate, "");
    assert_eq!(silent.pool, "rest");
    assert!(silent.notes.iter().any(|note| note.contains("--protocol tls|http|ssh|postgres|redis")), "{silent:?}");
    assert_eq!(explained(&tidegate, "&sni=a.example").pool, "tls");
    assert_eq!(explained(&tidegate, "&path=/").pool, "http");
}

#[test]
fn clients_that_wait_for_the_server_get_the_listeners_pool() {
    let Shared { tidegate, _backends } = shared("timeouts: { sniff: 300ms }", &by_protocol());
    let mut client = connect(&tidegate.at("in"));
    expect(&mut client, b"rest:");
    client.write_all(b"SSH-2.0-later\r\n").unwrap();
    expect(&mut client, b"SSH-2.0-later\r\n");
    // So does one that has nothing to say at all.
    let mut finished = connect(&tidegate.at("in"));
    finished.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut finished).0, b"rest:");
    // What has begun may be of any protocol.
    let mut begun = connect(&tidegate.at("in"));
    begun.write_all(b"SS").unwrap();
    assert_eq!(read_to_end(&mut begun).0, b"");
    tidegate.wait_for_access("its end", |line| line.end() == "preamble timeout");
}

#[test]
fn other_conditions_are_read_after_the_protocol() {
    let routes = "{ match: { sni: [a.example] }, pool: ssh }, { match: { path_prefix: [/redis] }, pool: redis }, \
                  { match: { protocol: [postgres], client: [10.0.0.0/8] }, pool: postgres }, \
                  { match: { protocol: [tls, http], client: [127.0.0.1] }, pool: http }, \
                  { match: { protocol: [ssh] }, refuse: true }";
    let Shared { tidegate, _backends } = shared("sniff: http, timeouts: { sniff: 500ms }", routes);
    let authority = Authority::new();
    for (name, pool) in [("a.example", "ssh"), ("b.example", "http")] {
        let mut connection =
            rustls::ClientConnection::new(authority.client().into(), name.to_owned().try_into().unwrap()).unwrap();
        answered(connect(&tidegate.at("in")), &client_hello(&mut connection), pool);
    }
    answered(connect(&tidegate.at("in")), b"GET /redis HTTP/1.1\r\nHost: a\r\n\r\n", "redis");
    answered(connect(&tidegate.at("in")), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http");
    answered(connect(&tidegate.at("in")), b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "rest");
    expect(&mut connect(&tidegate.at("in")), b"rest:");
    let mut refused = connect(&tidegate.at("in"));
    refused.write_all(b"SSH-2.0-x\r\n").unwrap();
    assert_eq!(read_to_end(&mut refused).0, b"");
    tidegate.wait_for_access("its refusal", |line| line.end() == "rejected: refused by a route");
    tidegate.wait_for_log("why", |line| line.text.contains("speaks ssh, which routes[4] refuses"));
    assert_eq!(explained(&tidegate, "&protocol=ssh").rejected.unwrap(), "routes[4] refuses it");
}

#[test]
fn inside_tls_it_is_the_protocol_of_what_is_encrypted() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let tls = format!("tls: {{ certificates: [{}] }}, timeouts: {{ sniff: 500ms }}", issued.yaml());
    let routes = by_protocol().replacen("{ match: { protocol: [tls] }, pool: tls }, ", "", 1);
    let Shared { tidegate, _backends } = shared(&tls, &routes);
    for (bytes, pool) in BEGINNINGS.into_iter().filter(|(_, pool)| *pool != "tls") {
        let client = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
        answered(&client, bytes, pool);
    }
    let client = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
    let mut silent = [0; 5];
    (&client).read_exact(&mut silent).unwrap();
    assert_eq!(&silent, b"rest:");
}

#[test]
fn behind_a_proxy_header_it_is_what_follows() {
    let listener = "proxy_protocol: { trusted: [127.0.0.1], required: false }, timeouts: { sniff: 300ms }";
    let Shared { tidegate, _backends } = shared(listener, &by_protocol());
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 22\r\n";
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&[&header[..], b"SSH-2.0-x\r\n"].concat()).unwrap();
    expect(&mut client, b"ssh:SSH-2.0-x\r\n");
    let mut silent = connect(&tidegate.at("in"));
    silent.write_all(header).unwrap();
    expect(&mut silent, b"rest:");
    // One that sends neither a header nor anything else.
    expect(&mut connect(&tidegate.at("in")), b"rest:");
}

#[test]
fn listener_that_answers_the_request_for_tls_knows_the_protocol() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let listener = format!(
        "tls: {{ certificates: [{}], starttls: postgres, plaintext: allow }}, timeouts: {{ sniff: 30s }}",
        issued.yaml()
    );
    let Shared { tidegate, _backends } = shared(&listener, "{ match: { protocol: [postgres] }, pool: postgres }");
    let startup = b"\x00\x00\x00\x13\x00\x03\x00\x00user\0me\0\0\0\0";
    let mut plain = connect(&tidegate.at("in"));
    plain.write_all(startup).unwrap();
    expect(&mut plain, &[b"postgres:", &startup[..]].concat());
    let mut asks = connect(&tidegate.at("in"));
    asks.write_all(b"\x00\x00\x00\x08\x04\xd2\x16\x2f").unwrap();
    expect(&mut asks, b"S");
    // Its first bytes are not waited for.
    let config = std::sync::Arc::new(authority.client());
    let connection = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let encrypted = Tls::on(asks, connection).unwrap();
    let mut name = [0; 9];
    (&encrypted).read_exact(&mut name).unwrap();
    assert_eq!(&name, b"postgres:");
}
