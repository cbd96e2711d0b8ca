//! What a client of a `sniff: http` listener is told when no backend can take it.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::client::{End, connect, read_to_end};
use crate::support::http::{Seen, address, observed, rest, seen_by_listener};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::{Access, Tidegate, forward};
use crate::support::tls::{Authority, Tls, read_all, terminate};
use crate::support::{DEADLINE, eventually, own_address};

/// Where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    listener.local_addr().unwrap()
}

/// All that there is to be in such an answer.
#[track_caller]
fn is_unavailable(answer: &str, error: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    for field in ["Content-Type: application/json", "Retry-After: 1", "Connection: close"] {
        assert!(head.lines().any(|line| line == field), "{field} is not in {head}");
    }
    assert!(head.lines().any(|line| line == format!("Content-Length: {}", body.len())), "{head}: {body}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({ "error": error }));
}

#[test]
fn a_request_that_no_backend_can_take_is_answered_503() {
    let tidegate = observed(&forward(nobody(), "sniff: http", ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    is_unavailable(&rest(client), "no backend could be reached");
    assert_eq!(tidegate.only_access().end(), "rejected: connect failed");
    let seen = Seen { requests: 1, responses: vec![("GET 5xx".to_owned(), 1)], ..Seen::default() };
    assert_eq!(seen_by_listener(&tidegate), seen);
}

#[test]
fn curl_and_a_pool_whose_backends_are_down() {
    let tidegate = Tidegate::start(&forward(nobody(), "sniff: http", "health: { tcp: {} }"));
    tidegate.wait_for_down("b");
    let url = format!("http://{}/", address(&tidegate));
    let output = Command::new("curl").args(["-sS", "-i", &url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    is_unavailable(&String::from_utf8(output.stdout).unwrap(), "no backend can take the request now");
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = rest(client);
    assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "no body: {head}");
}

/// It writes all of its request before it reads: nothing may reset the connection meanwhile.
#[test]
fn a_client_that_is_still_sending_gets_its_answer() {
    let tidegate = Tidegate::start(&forward(nobody(), "sniff: http", ""));
    let mut client = connect(&tidegate.at("in"));
    let body = vec![b'x'; 16 << 20];
    write!(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    client.write_all(&body).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    is_unavailable(&rest(client), "no backend could be reached");
}

#[test]
fn it_is_said_over_tls_too() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let tidegate = Tidegate::start(&terminate(nobody(), &[&issued], "", "sniff: http"));
    let client = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
    (&client).write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let answer = read_all(&client);
    is_unavailable(&answer, "no backend could be reached");
}

#[test]
fn a_request_that_was_read_for_a_route_is_not_waited_for_again() {
    let routes = "sniff: http, routes: [{ match: { path_prefix: [/a] }, pool: p }]";
    let tidegate = Tidegate::start(&forward(nobody(), routes, ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    is_unavailable(&rest(client), "no backend could be reached");
}

#[test]
fn what_is_no_http_and_who_did_not_ask_for_it_are_told_nothing() {
    for (listener, words) in [("sniff: http", "EHLO example.com\r\n"), ("sniff: off", "GET / HTTP/1.1\r\n\r\n")] {
        let tidegate = Tidegate::start(&forward(nobody(), listener, ""));
        let mut client = connect(&tidegate.at("in"));
        _ = client.write_all(words.as_bytes());
        assert_eq!(read_to_end(&mut client).0, b"", "{listener}");
    }
    // One that only looks whether somebody listens is not kept waiting.
    let tidegate = Tidegate::start(&forward(nobody(), "sniff: http, timeouts: { sniff: 30s }", ""));
    let mut client = connect(&tidegate.at("in"));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Fin));
}

/// Waiting in vain is no client's fault: 503, not 429.
#[test]
fn a_request_that_the_queue_has_no_room_for_or_kept_too_long_is_answered_503() {
    let pool = "queue: { size: 1, timeout: 1s }, health: { tcp: {}, fall: 1 }";
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}{}", forward(nobody(), "sniff: http", pool)));
    tidegate.wait_for_down("b");
    let ask = || {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        client
    };
    let waits = ask();
    eventually(DEADLINE, "it waits", || tidegate.view().pools[0].queue.waiting == 1);
    is_unavailable(&rest(ask()), "too many requests wait for a backend");
    is_unavailable(&rest(waits), "no backend could take the request in time");
    eventually(DEADLINE, "both lines", || tidegate.access().len() == 2);
    let ends: Vec<String> = tidegate.access().iter().map(Access::end).collect();
    assert_eq!(ends, ["rejected: queue full", "rejected: queue timeout"]);
}
