//! Routes by what a ClientHello says: unopened, or where TLS ends here.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::thread;

use crate::support::backend::{Backend, Scripted};
use crate::support::client::{End, connect, expect, read_to_end};
use crate::support::data::{receive, send};
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, client_connection, client_hello, read_all, send_name_over_tls, tls_backend};

/// Names, and the address of each.
fn pools(backends: &[(&str, String)]) -> String {
    let mut yaml = String::from("pools:\n");
    for (name, address) in backends {
        writeln!(yaml, "  - {{ name: {name}, backends: [{{ name: {name}, address: \"{address}\" }}] }}").unwrap();
    }
    yaml
}

/// The client sees the backends' certificate, which the balancer does not have: nobody has opened anything in between.
#[test]
fn the_right_backend_by_name_and_protocol() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example", "x.b.example", "other.example"]);
    let [by_name, by_wildcard, by_protocol, otherwise] = ["a", "b", "h2", "p"]
        .map(|name| tls_backend(certificate.server_for(&["h2", "http/1.1"]), send_name_over_tls(name)));
    let backends = [("a", by_name), ("b", by_wildcard), ("h2", by_protocol), ("p", otherwise)];
    let yaml = format!(
        "listeners:\n  - name: in\n    bind: 127.0.0.1:0\n    pool: p\n    routes:\n\
         \x20     - {{ match: {{ sni: [a.example] }}, pool: a }}\n\
         \x20     - {{ match: {{ sni: [\"*.b.example\"] }}, pool: b }}\n\
         \x20     - {{ match: {{ alpn: [h2] }}, pool: h2 }}\n{}",
        pools(&backends.each_ref().map(|(name, backend)| (*name, backend.place().to_string())))
    );
    let tidegate = Tidegate::start(&yaml);
    for (name, protocols, expected) in [
        ("a.example", &[][..], "a"),
        ("A.Example", &[], "a"),
        // The first route that matches, and not the best.
        ("a.example", &["h2"], "a"),
        ("x.b.example", &[], "b"),
        ("other.example", &["h2"], "h2"),
        ("other.example", &["http/1.1", "h2"], "h2"),
        ("other.example", &["http/1.1"], "p"),
        ("other.example", &[], "p"),
    ] {
        let client = Tls::connect(&tidegate.at("in"), &authority.client_offering(protocols), name);
        assert_eq!(client.peer(), Some(certificate.der.clone()));
        assert_eq!(read_all(&client), expected, "{name} {protocols:?}");
        client.finish();
    }
    tidegate.wait_for_access("all", |_| tidegate.access().len() == 8);
    let names: Vec<String> = tidegate.access().iter().map(|line| line.backend().unwrap_or("-").to_owned()).collect();
    assert_eq!(names, ["a", "a", "a", "b", "h2", "h2", "p", "p"]);
}

/// The bytes of a ClientHello, whole or in pieces, and whatever is none, arrive as they were sent.
#[test]
fn first_bytes_arrive_as_they_were_sent() {
    let (matched, otherwise, authority) = (Scripted::start(), Scripted::start(), Authority::new());
    let yaml = format!(
        "listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p, routes: [{{ match: {{ sni: [a.example] }}, pool: a }}] }}]\n{}",
        pools(&[("a", matched.place().to_string()), ("p", otherwise.place().to_string())])
    );
    let tidegate = Tidegate::start(&yaml);
    let hello = |name| client_hello(&mut client_connection(&authority.client(), name));
    for (bytes, backend) in [
        (hello("a.example"), &matched),
        (hello("b.example"), &otherwise),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec(), &otherwise),
        (vec![0x16; 10], &otherwise),
    ] {
        for pieces in [1, 3] {
            let mut client = connect(&tidegate.at("in"));
            client.set_nodelay(true).unwrap();
            for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                client.write_all(piece).unwrap();
            }
            let mut received = vec![0; bytes.len()];
            let mut backend = backend.accept();
            backend.read_exact(&mut received).unwrap();
            assert_eq!(received, bytes);
            // And both go on talking.
            backend.write_all(b"welcome").unwrap();
            expect(&mut client, b"welcome");
            client.write_all(b"thanks").unwrap();
            expect(&mut backend, b"thanks");
        }
    }
}

/// Less than a ClientHello, and then FIN: that is for the backend to judge.
#[test]
fn a_client_that_finishes_before_its_hello_is_complete() {
    let (matched, otherwise) = (Scripted::start(), Scripted::start());
    let yaml = format!(
        "listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p, routes: [{{ match: {{ sni: [a.example] }}, pool: a }}] }}]\n{}",
        pools(&[("a", matched.place().to_string()), ("p", otherwise.place().to_string())])
    );
    let tidegate = Tidegate::start(&yaml);
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"\x16\x03").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut backend = otherwise.accept();
    let mut received = Vec::new();
    backend.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"\x16\x03");
    backend.write_all(b"too short").unwrap();
    expect(&mut client, b"too short");
}

/// What it would have asked for cannot be told: the listener's pool is not for it.
#[test]
fn a_client_hello_that_cannot_be_read_is_refused_by_an_alert() {
    let (backend, authority) = (Backend::echo(), Authority::new());
    let issued = authority.issue(&["a.example"]);
    let good = client_hello(&mut client_connection(&authority.client(), "a.example"));
    let mut damaged = good.clone();
    damaged[9 + 2 + 32] = 33; // the length of its session id
    let mut long = good.clone();
    long[6..9].copy_from_slice(&[0, 0x40, 1]);
    let cases = [
        (damaged, 50, "it has a malformed ClientHello: its session id is longer than 32 bytes"),
        (long, 50, "it has a ClientHello longer than 16 KiB"),
        (b"\x16\x03\x01\x40\x01".to_vec(), 22, "it has a TLS record of 16385 bytes; 1 to 16,384 are allowed"),
        (b"\x16\x03\x01\x00\x00".to_vec(), 10, "it has a TLS record of 0 bytes; 1 to 16,384 are allowed"),
    ];
    let routes = "routes: [{ match: { sni: [a.example] }, pool: p }]";
    let tls = format!("tls: {{ certificates: [{}] }}", issued.yaml());
    for listener in [routes, &tls, &format!("{tls}, {routes}")] {
        for (bytes, alert, why) in &cases {
            let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), listener, "")));
            let mut client = connect(&tidegate.at("in"));
            client.write_all(bytes).unwrap();
            assert_eq!(read_to_end(&mut client), (vec![0x15, 3, 3, 0, 2, 2, *alert], End::Fin), "{why}");
            drop(client);
            assert_eq!(tidegate.only_access().end(), "rejected: bad ClientHello", "{why}");
            let wanted = format!("client rejected: {why}");
            assert_eq!(tidegate.wait_for_log(&wanted, |line| line.is(&wanted)).level(), "INFO");
            let metrics = get(&tidegate.stats_port(), "/metrics").text();
            let counted = |line: &str| line.contains("bad ClientHello") && line.ends_with(" 1");
            assert!(metrics.lines().any(counted), "{metrics}");
            let table = get(&tidegate.stats_port(), "/stats;csv").text();
            let [names, row] = [0, 1].map(|line| table.lines().nth(line).unwrap().split(',').collect::<Vec<_>>());
            let shown = ["ereq", "ssl_failed_handshake"]
                .map(|column| row[names.iter().position(|name| *name == column).unwrap()]);
            assert_eq!(shown, ["1", if listener.contains("tls:") { "1" } else { "0" }], "HAProxy's columns");
        }
    }
    assert_eq!(backend.accepted(), 0);
}

/// Once the first bytes are through, a bulk goes past this process as that of any plain connection does.
#[test]
fn a_bulk_is_spliced() {
    const BULK: u64 = 100 << 20;
    let (matched, authority) = (Scripted::start(), Authority::new());
    let certificate = authority.issue(&["a.example"]);
    let yaml = format!(
        "listeners: [{{ name: in, bind: 127.0.0.1:0, pool: a, routes: [{{ match: {{ sni: [a.example] }}, pool: a }}] }}]\n{}",
        pools(&[("a", matched.place().to_string())])
    );
    let tidegate = Tidegate::start(&yaml);
    let pipes = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", tidegate.pid())).unwrap().flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .filter(|to| to.as_os_str().as_bytes().starts_with(b"pipe:"))
            .count()
    };
    let before = pipes();
    let server = thread::spawn({
        let config = std::sync::Arc::new(certificate.server());
        let socket = matched;
        move || Tls::accept(socket.accept(), &config).unwrap()
    });
    let client = Tls::connect(&tidegate.at("in"), &authority.client(), "a.example");
    let server = server.join().unwrap();
    assert_eq!(pipes(), before, "for a handshake there is no need of one");
    thread::scope(|scope| {
        for (from, to) in [(&client, &server), (&server, &client)] {
            let sent = scope.spawn(move || {
                let sum = send(&mut &*from, 41, BULK).unwrap();
                from.finish();
                sum
            });
            assert_eq!(receive(&mut &*to).unwrap(), sent.join().unwrap());
        }
    });
    assert!(pipes() > before, "a bulk goes through pipes");
    let line = tidegate.only_access();
    assert_eq!(line.end(), "client closed");
}

/// With termination the backends are plain, and it is the negotiated protocol that counts, not what was offered.
#[test]
fn routes_where_tls_ends() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example", "b.example"]);
    let backends = ["a", "h2", "p"].map(|name| (name, Backend::named(name)));
    let yaml = format!(
        "listeners:\n  - name: in\n    bind: 127.0.0.1:0\n    pool: p\n\
         \x20   tls: {{ certificates: [{}], alpn: [http/1.1, h2] }}\n    routes:\n\
         \x20     - {{ match: {{ sni: [a.example] }}, pool: a }}\n\
         \x20     - {{ match: {{ alpn: [h2] }}, pool: h2 }}\n{}",
        certificate.yaml(),
        pools(&backends.each_ref().map(|(name, backend)| (*name, backend.place().to_string())))
    );
    let tidegate = Tidegate::start(&yaml);
    for (name, protocols, negotiated, expected) in [
        ("a.example", &["h2"][..], Some("h2"), "a"),
        ("b.example", &["h2"], Some("h2"), "h2"),
        ("b.example", &["h2", "http/1.1"], Some("http/1.1"), "p"),
        ("b.example", &[], None, "p"),
    ] {
        let client = Tls::connect(&tidegate.at("in"), &authority.client_offering(protocols), name);
        let protocol =
            client.look(|tls| tls.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned()));
        assert_eq!(protocol.as_deref(), negotiated, "{name} {protocols:?}");
        assert_eq!(read_all(&client), expected, "{name} {protocols:?}");
    }
}
