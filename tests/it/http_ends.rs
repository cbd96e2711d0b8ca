//! `protocol: http`: what must come whole, and whose fault it is where it does not.

use std::io::{Read, Write};

use crate::support::backend::Scripted;
use crate::support::client::{End, connect, read_to_end, reset};
use crate::support::http1::{HTTP, OK, get, head, response};
use crate::support::stats::{ADMIN_SOCKET, counters};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

#[test]
fn body_of_a_get_without_a_length_reaches_the_backend() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    for method in ["GET", "HEAD", "OPTIONS", "POST"] {
        let mut client = connect(&tidegate.at("in"));
        let request =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let mut backend = scripted.accept();
        let head = head(&mut backend);
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        let mut body = vec![0; "5\r\nhello\r\n0\r\n\r\n".len()];
        backend.read_exact(&mut body).unwrap();
        assert_eq!(body, b"5\r\nhello\r\n0\r\n\r\n");
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(response(&mut client).0, 200);
    }
}

#[test]
fn request_that_its_client_cuts_is_no_failure_of_the_backend() {
    let scripted = Scripted::start();
    let outlier = "outlier: { failures: 1, window: 10s, max_ejected: 100% }";
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}workers: 1\n{}", forward(scripted.place(), HTTP, outlier)));
    for resets in [false, true] {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        let mut backend = scripted.accept();
        head(&mut backend);
        crate::support::client::expect(&mut backend, b"abc");
        if resets {
            reset(client);
        } else {
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
        }
        read_to_end(&mut backend);
    }
    eventually(DEADLINE, "both have ended", || tidegate.view().listeners[0].open == 0);
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
    assert_eq!(counters(&tidegate.stats_port())["tidegate_backend_failures_total{pool=\"p\",backend=\"b\"}"], 0.0);
}

#[test]
fn target_without_a_path_keeps_its_query_and_http_1_0_needs_no_host() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    for (request, line) in [
        ("GET http://a?q=1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?q=1 HTTP/1.1"),
        ("GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1"),
    ] {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(request.as_bytes()).unwrap();
        let mut backend = scripted.accept();
        let head = head(&mut backend);
        assert!(head.starts_with(line), "{head}");
        assert_eq!(head.matches("\r\nhost:").count(), 1, "{head}");
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(response(&mut client).0, 200);
    }
}

#[test]
fn request_that_is_killed_without_a_response_is_reset() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    assert_eq!(tidegate.call("DELETE", "/api/connections?listener=in", "").status, 200);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
}
