//! `protocol: http`: interim responses (1xx) of a backend.

use std::io::Write;

use crate::support::backend::Scripted;
use crate::support::client::connect;
use crate::support::http1::{HTTP, OK, get, head, response};
use crate::support::tidegate::{Tidegate, forward};

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\
                       Connection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\n";
const FORWARDED: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n";

#[test]
fn interim_responses_reach_the_client_before_the_response_does() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/1");
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(HINTS).unwrap();
    assert_eq!(head(&mut client), FORWARDED);
    backend.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").unwrap();
    assert_eq!(head(&mut client), "HTTP/1.1 102 Processing\r\n\r\n");
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
    // At once with the response, on the same connections.
    get(&mut client, "/2");
    assert!(head(&mut backend).starts_with("GET /2"));
    backend.write_all(&[HINTS, OK].concat()).unwrap();
    assert_eq!(head(&mut client), FORWARDED);
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
}

#[test]
fn client_of_http_1_0_gets_no_interim_response() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(&[HINTS, OK].concat()).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
}

#[test]
fn continue_and_hints_each_go_their_way() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(HINTS).unwrap();
    assert_eq!(head(&mut client), FORWARDED);
    backend.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    assert_eq!(head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"abc").unwrap();
    crate::support::client::expect(&mut backend, b"abc");
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
}

#[test]
fn interim_responses_of_a_request_are_bounded() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(&HINTS.repeat(50)).unwrap();
    backend.write_all(OK).unwrap();
    for _ in 0..16 {
        assert_eq!(head(&mut client), FORWARDED);
    }
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
}
