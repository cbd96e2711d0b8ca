//! Who may read the stats port, and what a client cannot do to it.

use std::fs;
use std::io::{Read, Write};

use tidegate::stats::latency::{Stage, Window};

use crate::support::backend::{Backend, Dead};
use crate::support::client::{Place, connect, expect, read_to_end};
use crate::support::stats::{ADMIN, Answer, ask, get, get_with, listener};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

fn with_admin(admin: &str) -> (Backend, Tidegate) {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("admin: {admin}\n{}", forward(backend.place(), "", "")));
    (backend, tidegate)
}

#[test]
fn names_of_others_are_refused() {
    let (_backend, tidegate) = with_admin("{ bind: \"127.0.0.1:0\" }");
    let place = tidegate.stats_port();
    let port = place.tcp().port();
    let status = |host: &str| {
        let request = format!("GET /stats HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        ask(&place, &request).status
    };
    for near in [
        format!("Host: 127.0.0.1:{port}\r\n"),
        "Host: localhost\r\n".to_owned(),
        format!("Host: LOCALHOST.:{port}\r\n"),
        "Host: dash.localhost\r\n".to_owned(),
        "Host: [::1]:9900\r\n".to_owned(),
        "Host: 10.1.2.3\r\n".to_owned(),
    ] {
        assert_eq!(status(&near), 200, "{near}");
    }
    for far in
        ["Host: evil.example\r\n", "Host: 127.0.0.1.evil.example\r\n", "Host: localhost.evil.example\r\n", "Host:\r\n"]
    {
        assert_eq!(status(far), 403, "{far}");
    }
    assert_ne!(status("Host: localhost\r\nHost: evil.example\r\n"), 200);
    assert_ne!(status(""), 200, "HTTP/1.1 without a Host");
    assert_eq!(ask(&place, "GET /stats HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn it_is_read_only_and_says_how_to_be_read() {
    let (_backend, tidegate) = with_admin("{ bind: \"127.0.0.1:0\" }");
    let place = tidegate.stats_port();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let request =
            format!("{method} /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = ask(&place, &request);
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.headers.contains("allow: get, head"), "{}", answer.headers);
    }
    let head = ask(&place, "HEAD /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let missing = get(&place, "/nothing");
    assert_eq!(missing.status, 404);
    let stats = get(&place, "/stats");
    for header in ["x-content-type-options: nosniff", "cache-control: no-store", "x-frame-options: deny"] {
        assert!(stats.headers.contains(header), "{}", stats.headers);
    }
}

#[test]
fn with_a_token_nobody_reads_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "correct horse\n").unwrap();
    let (_backend, tidegate) = with_admin(&format!("{{ bind: \"0.0.0.0:0\", token_file: {} }}", token.display()));
    let port = tidegate.stats_port().tcp().port();
    let place = Place::Tcp(([127, 0, 0, 1], port).into());
    let status = |headers: &str| {
        let Answer { status, headers, .. } = get_with(&place, "/stats", headers);
        assert_eq!(status == 401, headers.contains("www-authenticate: bearer"), "{headers}");
        status
    };
    assert_eq!(status("Authorization: Bearer correct horse\r\n"), 200);
    assert_eq!(status("Authorization: bearer correct horse\r\n"), 200);
    for wrong in ["", "Authorization: Bearer \r\n", "Authorization: Bearer correct\r\n", "Authorization: Basic x\r\n"] {
        assert_eq!(status(wrong), 401, "{wrong}");
    }
    assert_eq!(status("Authorization: Bearer correct horsE\r\n"), 401);
    // Known by a name, as from elsewhere.
    let request =
        "GET /livez HTTP/1.1\r\nHost: lb.example\r\nAuthorization: Bearer correct horse\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&place, request).status, 200);
}

#[test]
fn a_token_that_cannot_be_read_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, missing) = (folder.path().join("empty"), folder.path().join("missing"));
    fs::write(&empty, " \n").unwrap();
    for (path, wanted) in [(&empty, "is empty"), (&missing, "cannot read")] {
        let yaml = format!("admin: {{ token_file: {} }}\n{}", path.display(), forward("127.0.0.1:9", "", ""));
        let (status, text) = Tidegate::with(&yaml).run_to_end();
        assert_eq!(status.code(), Some(2), "{text}");
        assert!(text.contains("admin.token_file") && text.contains(wanted), "{text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let yaml = format!("admin: {{ bind: \"{address}\" }}\n{}", forward("127.0.0.1:9", "", ""));
    let (status, text) = Tidegate::with(&yaml).run_to_end();
    assert_eq!(status.code(), Some(1));
    assert!(text.contains(&format!("admin: cannot listen on {address}: it is in use")), "{text}");
}

#[test]
fn over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.sock");
    let (_backend, mut tidegate) = with_admin(&format!("{{ bind: \"unix:{}\" }}", path.display()));
    let place = tidegate.stats_port();
    assert_eq!(get(&place, "/livez").text(), "ok\n");
    let request = "GET /livez HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&place, request).status, 200, "no browser gets here");
    tidegate.terminate();
    assert!(tidegate.wait().success());
    assert!(!path.exists());
}

#[test]
fn huge_requests_are_refused() {
    let (_backend, tidegate) = with_admin("{ bind: \"127.0.0.1:0\" }");
    let mut huge = connect(&tidegate.stats_port());
    // Whether all of it is taken does not matter.
    _ = huge.write_all(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).as_bytes());
    let mut answer = Vec::new();
    _ = huge.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
}

#[test]
fn ready_is_who_can_serve() {
    let (backend, dead) = (Backend::echo(), Dead::start());
    let check = "health: { tcp: {}, interval: 50ms }";
    let yaml = format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}], {check} }}]\n",
        dead.address()
    );
    let mut tidegate = Tidegate::start(&yaml);
    let place = tidegate.stats_port();
    assert_eq!(get(&place, "/livez").text(), "ok\n");
    let answer = get(&place, "/readyz");
    assert_eq!((answer.status, &*answer.text()), (503, "listener in: no backend of pool p is up\n"));
    tidegate.terminate();
    assert!(tidegate.wait().success());

    let mut tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), "", check)));
    tidegate.wait_for_up("b");
    let place = tidegate.stats_port();
    assert_eq!(get(&place, "/readyz").text(), "ok\n");
    // A connection that is open lets it drain for as long as it takes to look.
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"hello").unwrap();
    expect(&mut client, b"hello");
    tidegate.terminate();
    tidegate.wait_for_log("draining", |line| line.is("draining"));
    let answer = get(&place, "/readyz");
    assert_eq!((answer.status, &*answer.text()), (503, "draining: tidegate is shutting down\n"));
    assert_eq!(get(&place, "/livez").status, 200);
    drop(client);
    assert!(tidegate.wait().success());
}

/// Bytes of a connection that goes on for days are there before it ends.
#[test]
fn bytes_are_counted_while_they_move() {
    let (_backend, tidegate) = with_admin("{ bind: \"127.0.0.1:0\" }");
    let mut client = connect(&tidegate.at("in"));
    for round in 1..=3_u64 {
        client.write_all(&[7; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        let view = tidegate.view();
        let seen = listener(&view, "in");
        assert_eq!((seen.open, seen.ended, seen.bytes_in, seen.bytes_out), (1, 0, 1000 * round, 1000 * round));
        assert_eq!(seen.latency.get(Stage::Turnaround, Window::TenSeconds).unwrap().count, round);
    }
    drop(client);
    eventually(DEADLINE, "it has ended", || listener(&tidegate.view(), "in").ended == 1);
}

/// What a refused client did wrong is kept for who asks later.
#[test]
fn refusals_and_transitions_are_shown_with_their_reasons() {
    let dead = Dead::start();
    let yaml = format!("{ADMIN}{}", forward(dead.address(), "", "health: { tcp: {}, interval: 50ms, fall: 1 }"));
    let tidegate = Tidegate::start(&yaml);
    tidegate.wait_for_down("b");
    let client = connect(&tidegate.at("in"));
    let address = client.local_addr().unwrap().to_string();
    read_to_end(&mut { client });
    let view = tidegate.view();
    let [refusal] = view.rejections.as_slice() else { panic!("{:?}", view.rejections) };
    assert_eq!((&*refusal.listener, &refusal.client), ("in", &address));
    assert_eq!(refusal.reason, "pool p: the only backend is down");
    let [transition] = view.transitions.as_slice() else { panic!("{:?}", view.transitions) };
    assert_eq!(
        (&*transition.backend, transition.up, transition.reason.as_deref()),
        ("b", false, Some("connection refused"))
    );
}
