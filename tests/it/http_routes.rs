//! Routes by host and path of a connection's first request, in plain text and over TLS.

use std::io::Write;
use std::net::Shutdown;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::client::{connect, expect, read_to_end};
use crate::support::http::{Seen, observed, rest, seen_by_listener};
use crate::support::tidegate::Tidegate;
use crate::support::tls::{Authority, Tls, read_all};

const ROUTES: &str = "routes: [
    { match: { host: [\"*.admin.example\", 10.1.2.3], path_prefix: [/a/, /b] }, pool: both },
    { match: { host: [shop.example] }, pool: host },
    { match: { path_prefix: [/static] }, pool: path }]";

struct Routed {
    tidegate: Tidegate,
    _servers: Vec<Backend>,
}

fn routed(listener: &str, rest: Backend) -> Routed {
    let servers: Vec<Backend> = ["both", "host", "path"].into_iter().map(Backend::web).chain([rest]).collect();
    let pools: String = ["both", "host", "path", "rest"]
        .into_iter()
        .zip(&servers)
        .map(|(name, server)| format!("  - {{ name: {name}, backends: [{{ address: {} }}] }}\n", server.address()))
        .collect();
    let yaml = format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: rest, sniff: http, {listener}, {ROUTES} }}]\npools:\n{pools}"
    );
    Routed { tidegate: observed(&yaml), _servers: servers }
}

/// Requests, and which pool each goes to.
const REQUESTS: [(&str, &str); 11] = [
    ("GET /a/x HTTP/1.1\r\nHost: www.admin.example\r\n\r\n", "both"),
    ("GET /b?/a/ HTTP/1.1\r\nhost: WWW.Admin.Example.:8080\r\n\r\n", "both"),
    ("POST /bc HTTP/1.1\r\nHost: 10.1.2.3\r\nContent-Length: 0\r\n\r\n", "both"),
    ("GET /a HTTP/1.1\r\nHost: www.admin.example\r\n\r\n", "rest"),
    ("GET /a/ HTTP/1.1\r\nHost: admin.example\r\n\r\n", "rest"),
    ("GET /a/ HTTP/1.1\r\nHost: shop.example\r\n\r\n", "host"),
    ("\r\nGET http://shop.example/static HTTP/1.1\r\nHost: other.example\r\n\r\n", "host"),
    ("GET /static/logo.png HTTP/1.0\r\n\r\n", "path"),
    ("GET /staticky HTTP/1.1\r\nHost: [::1]\r\n\r\n", "path"),
    ("GET /Static HTTP/1.1\r\nHost: other.example\r\n\r\n", "rest"),
    ("GET /%73tatic HTTP/1.1\r\nHost: other.example\r\n\r\n", "rest"),
];

/// What was read for the route is counted as all else is.
fn counted() -> Seen {
    let requests = REQUESTS.len() as u64;
    let responses = vec![("GET 2xx".to_owned(), requests - 1), ("POST 2xx".to_owned(), 1)];
    Seen { requests, responses, ..Seen::default() }
}

#[test]
fn the_first_request_decides() {
    let Routed { tidegate, _servers } = routed("timeouts: { sniff: 30s }", Backend::web("rest"));
    for (request, pool) in REQUESTS {
        let mut client = connect(&tidegate.at("in"));
        // In two pieces, of which the first is not enough.
        let (head, tail) = request.as_bytes().split_at(request.len() - 3);
        client.write_all(head).unwrap();
        client.write_all(tail).unwrap();
        let answer = rest(client);
        assert!(answer.ends_with(&format!("\r\n\r\n{pool}")), "{request:?} gets {answer:?}");
    }
    assert_eq!(seen_by_listener(&tidegate), counted());
}

#[test]
fn the_first_request_decides_over_tls_too() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let tls = format!("tls: {{ certificates: [{}] }}", issued.yaml());
    let Routed { tidegate, _servers } = routed(&tls, Backend::web("rest"));
    for (request, pool) in REQUESTS {
        let client = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
        (&client).write_all(request.as_bytes()).unwrap();
        let answer = read_all(&client);
        assert!(answer.ends_with(&format!("\r\n\r\n{pool}")), "{request:?} gets {answer:?}");
    }
    assert_eq!(seen_by_listener(&tidegate), counted());
}

#[test]
fn what_is_no_http_goes_to_the_listeners_pool_as_it_came() {
    let Routed { tidegate, _servers } = routed("timeouts: { sniff: 30s }", Backend::echo());
    for words in [&b"EHLO shop.example\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(words).unwrap();
        expect(&mut client, words);
    }
    // Nothing more comes of it, which is no HTTP either.
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).0, b"GET / HTTP/1.1\r\nHost: shop.example\r\n");
}

/// Heads of which cannot be told what they ask for, their status, and why.
fn unreadable() -> Vec<(String, u16, &'static str)> {
    vec![
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(16 << 10)), 431, "has an HTTP head longer than 16 KiB"),
        (
            format!("PUT /a HTTP/1.1\r\nHost: shop.example\r\n{}\r\n", "A: b\r\n".repeat(100)),
            431,
            "has an HTTP head with more than 100 fields",
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example\r\nHost: a.example\r\n\r\n".to_owned(),
            400,
            "has an HTTP head with more than one Host",
        ),
        (
            "GET / HTTP/1.1\r\nHost : shop.example\r\n\r\n".to_owned(),
            400,
            "has a malformed HTTP head: invalid header name",
        ),
    ]
}

#[track_caller]
fn is_refused(answer: &str, status: u16, why: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.lines().any(|line| line == "Connection: close"), "{head}");
    let error = json!({ "error": format!("the request {why}") });
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), error);
}

/// The listener's pool is not for them.
#[test]
fn a_head_that_cannot_be_read_is_answered_and_goes_nowhere() {
    for (request, status, why) in unreadable() {
        let Routed { tidegate, _servers } = routed("timeouts: { sniff: 30s }", Backend::echo());
        let mut client = connect(&tidegate.at("in"));
        // A client that writes all of it before it reads.
        client.write_all(request.as_bytes()).unwrap();
        client.write_all(&vec![b'x'; 1 << 20]).unwrap();
        is_refused(&rest(client), status, why);
        assert_eq!(tidegate.only_access().end(), "rejected: bad HTTP request");
        let wanted = format!("client rejected: it {why}");
        assert_eq!(tidegate.wait_for_log(&wanted, |line| line.is(&wanted)).level(), "INFO");
        let method = request.split(' ').next().unwrap();
        let seen = Seen { requests: 1, responses: vec![(format!("{method} 4xx"), 1)], ..Seen::default() };
        assert_eq!(seen_by_listener(&tidegate), seen);
        assert!(_servers.iter().all(|server| server.accepted() == 0), "{why}");
    }
}

#[test]
fn a_head_that_cannot_be_read_is_answered_over_tls_too() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let tls = format!("tls: {{ certificates: [{}] }}", issued.yaml());
    let Routed { tidegate, _servers } = routed(&tls, Backend::echo());
    for (request, status, why) in unreadable() {
        let client = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
        (&client).write_all(request.as_bytes()).unwrap();
        is_refused(&read_all(&client), status, why);
    }
    assert!(_servers.iter().all(|server| server.accepted() == 0));
}

#[test]
fn a_head_that_does_not_end_is_waited_for_no_longer_than_allowed() {
    let Routed { tidegate, _servers } = routed("timeouts: { sniff: 50ms }", Backend::echo());
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(read_to_end(&mut client).0, b"");
    assert_eq!(tidegate.only_access().end(), "preamble timeout");
}
