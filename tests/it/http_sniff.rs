//! `sniff: http`: what is counted of requests that real clients make to real servers, and that no byte of them changes.

use std::io::Write;

use crate::support::backend::Scripted;
use crate::support::client::{connect, expect, read_to_end};
use crate::support::http::{Seen, WATCHED, observed, responses, seen_everywhere};
use crate::support::tidegate::forward;

#[test]
fn what_goes_on_as_something_else_passes_unchanged_and_is_counted_as_opaque() {
    let scripted = Scripted::start();
    let tidegate = observed(&forward(scripted.place(), WATCHED, ""));
    let converse = |request: &str, response: &str| {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(request.as_bytes()).unwrap();
        let mut backend = scripted.accept();
        expect(&mut backend, request.as_bytes());
        backend.write_all(response.as_bytes()).unwrap();
        expect(&mut client, response.as_bytes());
        for round in 0..3_u8 {
            let frame = [0x82, 2, round, 0xff];
            client.write_all(&frame).unwrap();
            expect(&mut backend, &frame);
            backend.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            expect(&mut client, b"HTTP/1.1 200 OK\r\n\r\n");
        }
    };
    converse(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    converse("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "HTTP/1.1 200 Connection established\r\n\r\n");
    converse("EHLO example.com\r\n", "250-example.com\r\n250 HELP\r\n");
    let wanted =
        Seen { requests: 2, opaque: 3, responses: responses(&[("GET 1xx", 1), ("CONNECT 2xx", 1)]), ..Seen::default() };
    assert_eq!(seen_everywhere(&tidegate), wanted);
}

#[test]
fn requests_that_get_no_answer_are_counted_as_that() {
    let scripted = Scripted::start();
    let tidegate = observed(&forward(scripted.place(), WATCHED, ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT").unwrap();
    let mut backend = scripted.accept();
    expect(&mut backend, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT");
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    drop(backend);
    assert!(read_to_end(&mut client).0.ends_with(b"01234"));
    drop(client);
    let wanted = Seen { requests: 2, unanswered: 2, ..Seen::default() };
    assert_eq!(seen_everywhere(&tidegate), wanted);
}
