//! `protocol: http`: what becomes of requests when a side fails, is late, or says too much.

use std::io::Write;
use std::net::TcpStream;

use crate::support::backend::{Backend, Dead, Scripted};
use crate::support::client::{End, Place, connect, expect, read_to_end, reset};
use crate::support::http1::{HTTP, OK, get, head, kept, response, start};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually, proc};

#[test]
fn answer_that_is_cut_is_a_reset_and_never_looks_whole() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let heads: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
    ];
    for part in heads {
        for resets in [false, true] {
            let mut client = connect(&tidegate.at("in"));
            get(&mut client, "/");
            let mut backend = scripted.accept();
            head(&mut backend);
            backend.write_all(part).unwrap();
            head(&mut client);
            if resets {
                reset(backend);
            } else {
                drop(backend);
            }
            let (bytes, end) = read_to_end(&mut client);
            assert_eq!(end, End::Reset, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn kept_connection_that_has_closed_costs_a_get_nothing_and_a_post_a_502() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let mut client = connect(&tidegate.at("in"));
    let first = |client: &mut TcpStream| {
        get(client, "/");
        let mut backend = scripted.accept();
        head(&mut backend);
        backend.write_all(OK).unwrap();
        assert_eq!(response(client).0, 200);
        backend
    };
    // It closes when the next request has reached it.
    let mut backend = first(&mut client);
    get(&mut client, "/again");
    assert!(head(&mut backend).starts_with("GET /again"));
    reset(backend);
    let mut backend = scripted.accept();
    assert!(head(&mut backend).starts_with("GET /again"));
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
    // A body may have had an effect.
    client.write_all(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    head(&mut backend);
    expect(&mut backend, b"abc");
    reset(backend);
    let (status, body) = response(&mut client);
    assert_eq!(status, 502);
    assert!(body.starts_with("{\"error\":\"the backend ended the connection"), "{body}");
    // One that closed before is not used at all.
    let backend = first(&mut client);
    drop(backend);
    let mut backend = first(&mut client);
    client.write_all(b"POST /q HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    assert!(head(&mut backend).starts_with("POST /q"));
    expect(&mut backend, b"abc");
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client).0, 200);
}

/// The request that found it closed has no second place at its backend.
#[test]
fn retry_needs_no_more_room_than_the_request() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!(
        "workers: 1\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\n\
         pools: [{{ name: p, backends: [{{ address: \"{}\", max_connections: 1 }}] }}]\n",
        scripted.place()
    ));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client).0, 200);
    get(&mut client, "/");
    head(&mut backend);
    drop(backend);
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client).0, 200);
}

/// A reset would overtake the answer.
#[test]
fn client_that_sends_a_long_body_reads_why_nobody_takes_it() {
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\npools: [{{ name: p, backends: [] }}]\n"
    ));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n").unwrap();
    client.write_all(&vec![b'a'; 20_000_000]).unwrap();
    assert_eq!(response(&mut client).0, 503);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Fin));
}

#[test]
fn backend_that_cannot_be_reached_is_passed_over_and_none_is_a_502() {
    let (dead, live) = (Dead::start(), kept("live"));
    let yaml = |backends: &str| {
        format!(
            "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\npools: [{{ name: p, backends: [{backends}] }}]\n"
        )
    };
    let both = format!("{{ address: \"{}\" }}, {{ address: \"{}\" }}", dead.place(), live.place());
    let tidegate = Tidegate::start(&yaml(&both));
    let mut client = connect(&tidegate.at("in"));
    for _ in 0..4 {
        // Also with a body: nothing was sent.
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(response(&mut client), (200, "live".to_owned()));
    }
    let tidegate = Tidegate::start(&yaml(&format!("{{ address: \"{}\" }}", dead.place())));
    let mut client = connect(&tidegate.at("in"));
    for _ in 0..2 {
        get(&mut client, "/");
        assert_eq!(response(&mut client), (502, "{\"error\":\"no backend could be reached\"}".to_owned()));
    }
}

#[test]
fn statuses_that_may_be_repeated_are_asked_of_another_backend() {
    let (bad, worse, good) = (Backend::web_with(503, "bad"), Backend::web_with(503, "worse"), kept("good"));
    let tidegate = start(&[&bad, &worse, &good], "", "http: { retry: [connect, closed, 503] }");
    let mut client = connect(&tidegate.at("in"));
    for _ in 0..6 {
        get(&mut client, "/");
        assert_eq!(response(&mut client), (200, "good".to_owned()));
    }
    let mut statuses = Vec::new();
    for _ in 0..6 {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        statuses.push(response(&mut client).0);
    }
    assert!(statuses.contains(&503), "a POST is not repeated: {statuses:?}");
    // All bad: the client gets what they say.
    let tidegate = start(&[&bad], "", "http: { retry: [503] }");
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    assert_eq!(response(&mut client), (503, "bad".to_owned()));
}

#[test]
fn clients_reset_ends_the_request_at_the_backend() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    reset(client);
    assert_eq!(read_to_end(&mut backend).0, b"");
}

#[test]
fn sound_requests_before_a_bad_one_are_answered_first() {
    let backend = kept("ok");
    let tidegate = start(&[&backend], "", "");
    let mut client = connect(&tidegate.at("in"));
    let bad = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(format!("{good}{good}{bad}{good}").as_bytes()).unwrap();
    for _ in 0..2 {
        assert_eq!(response(&mut client), (200, "ok".to_owned()));
    }
    assert_eq!(response(&mut client).0, 400);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Fin));
    let refused = tidegate.wait_for_log("why", |line| line.text.contains("client rejected"));
    assert!(refused.text.contains("Transfer-Encoding"), "{}", refused.text);
}

#[test]
fn slow_heads_slow_backends_and_idle_clients_are_ended() {
    let scripted = Scripted::start();
    let keys = "protocol: http, http: { head_timeout: 300ms, keep_alive: 300ms, request_timeout: 300ms }";
    let tidegate = Tidegate::start(&forward(scripted.place(), keys, ""));
    let place = tidegate.at("in");
    let mut silent = connect(&place);
    let mut slow = connect(&place);
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    let mut unanswered = connect(&place);
    get(&mut unanswered, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    assert_eq!(read_to_end(&mut silent).0, b"");
    assert_eq!(response(&mut slow).0, 408);
    assert_eq!(read_to_end(&mut slow).1, End::Fin);
    assert_eq!(response(&mut unanswered).0, 504);
    assert_eq!(read_to_end(&mut backend).0, b"", "a request that is given up ends at the backend");
    // Between requests.
    assert_eq!(read_to_end(&mut unanswered), (Vec::new(), End::Fin));
}

#[test]
fn unavailable_backends_limits_and_routes_are_answered_in_json() {
    let backend = kept("ok");
    let tidegate = start(&[&backend], "limits: { request_rate_per_ip: 2/m }", "");
    let mut client = connect(&tidegate.at("in"));
    for _ in 0..2 {
        get(&mut client, "/");
        assert_eq!(response(&mut client).0, 200);
    }
    get(&mut client, "/");
    let got = head(&mut client).to_lowercase();
    assert!(got.starts_with("http/1.1 429 ") && got.contains("retry-after: "), "{got}");
    assert!(got.contains("content-type: application/json\r\n"), "{got}");
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\npools: [{{ name: p, backends: [{{ address: \"{}\", \
         weight: 0 }}] }}]\n",
        backend.place()
    ));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let got = head(&mut client).to_lowercase();
    assert!(got.starts_with("http/1.1 503 ") && got.contains("retry-after: 1\r\n"), "{got}");
}

#[test]
fn drain_lets_requests_end_and_closes_idle_connections() {
    let scripted = Scripted::start();
    let mut tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let place = tidegate.at("in");
    let mut fresh = connect(&place);
    let mut busy = connect(&place);
    get(&mut busy, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    let mut idle = connect(&place);
    get(&mut idle, "/");
    let mut other = scripted.accept();
    head(&mut other);
    other.write_all(OK).unwrap();
    assert_eq!(response(&mut idle).0, 200);
    tidegate.signal(rustix::process::Signal::TERM);
    assert_eq!(read_to_end(&mut idle), (Vec::new(), End::Fin));
    drop(idle);
    // One that has not asked yet has no reason to ask again elsewhere.
    get(&mut fresh, "/");
    head(&mut other);
    other.write_all(OK).unwrap();
    assert_eq!(response(&mut fresh).0, 200);
    assert_eq!(read_to_end(&mut fresh), (Vec::new(), End::Fin));
    drop(fresh);
    backend.write_all(OK).unwrap();
    assert_eq!(head(&mut busy).to_lowercase(), "http/1.1 200 ok\r\ncontent-length: 2\r\nconnection: close\r\n\r\n");
    expect(&mut busy, b"ok");
    drop(busy);
    assert!(tidegate.wait().success());
}

/// What a backend sends unasked is no answer to the next request, which may be another client's.
#[test]
fn unrequested_response_on_an_idle_connection_reaches_no_client() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(&[OK, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"].concat()).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
    // And one that comes later.
    for _ in 0..2 {
        let mut other = connect(&tidegate.at("in"));
        other.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut backend = scripted.accept();
        head(&mut backend);
        backend.write_all(OK).unwrap();
        assert_eq!(response(&mut other), (200, "ok".to_owned()));
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen").unwrap();
        eventually(DEADLINE, "it has come", || proc::unacknowledged(&backend) == 0);
    }
}

#[test]
fn idle_connections_are_closed_after_their_timeout_and_with_their_backend() {
    let (scripted, other) = (Scripted::start(), kept("other"));
    let yaml = |place: &Place, idle: &str| {
        format!("workers: 1\n{}", forward(place, HTTP, &format!("http: {{ idle_timeout: {idle} }}")))
    };
    let keeps = |tidegate: &Tidegate| {
        let mut client = connect(&tidegate.at("in"));
        get(&mut client, "/");
        let mut backend = scripted.accept();
        head(&mut backend);
        backend.write_all(OK).unwrap();
        assert_eq!(response(&mut client).0, 200);
        backend
    };
    let tidegate = Tidegate::start(&yaml(scripted.place(), "100ms"));
    assert_eq!(read_to_end(&mut keeps(&tidegate)).0, b"");
    let tidegate = Tidegate::start(&yaml(scripted.place(), "0s"));
    let mut backend = keeps(&tidegate);
    tidegate.rewrite(&yaml(other.place(), "0s"));
    tidegate.signal(rustix::process::Signal::HUP);
    assert_eq!(read_to_end(&mut backend).0, b"", "a backend that has left");
}

/// Where its body ends would depend on the reader.
#[test]
fn ambiguous_response_is_a_502_and_its_connection_is_not_used_again() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let cases = [
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", "5\r\nlonge\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", "5\r\nlonge\r\n0\r\n\r\n"),
        ("Content-Length: 2\r\nContent-Length: 2", "ok"),
        ("Content-Length: 2\r\nContent-Length: 3", "ok"),
        ("Content-Length: 2, 2", "ok"),
        ("Transfer-Encoding: gzip, chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("Content-Length: -2", "ok"),
        ("Content-Length : 2", "ok"),
        ("X: a\r\n b", "ok"),
    ];
    for (fields, body) in cases {
        let mut client = connect(&tidegate.at("in"));
        get(&mut client, "/");
        let mut backend = scripted.accept();
        head(&mut backend);
        backend.write_all(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}").as_bytes()).unwrap();
        assert_eq!(response(&mut client).0, 502, "{fields}");
        drop(read_to_end(&mut backend));
    }
}
