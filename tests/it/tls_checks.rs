//! Health checks by TLS: the handshake alone, and what goes over it.

use std::io::{Read, Write};

use crate::support::backend::Backend;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, tls_backend};
use crate::support::{DEADLINE, eventually};

/// Answers `PING` and requests of HTTP.
fn answering(authority: &Authority) -> Backend {
    tls_backend(authority.issue(&["db.example"]).server(), |tls: Tls| {
        let (mut tls, mut request, mut byte) = (&tls, Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"PING\r\n") {
            match tls.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        let answer: &[u8] = if request.starts_with(b"GET") { b"HTTP/1.1 204 No Content\r\n\r\n" } else { b"+PONG\r\n" };
        _ = tls.write_all(answer);
    })
}

fn checking(backend: &Backend, check: &str, tls: &str) -> Tidegate {
    Tidegate::start(&forward(backend.place(), "", &format!("health: {{ {check}, interval: 50ms, fall: 1 }}, {tls}")))
}

fn down_for(tidegate: &Tidegate, reason: &str) {
    let line = tidegate.wait_for_down("b");
    assert!(line.field("reason").starts_with(reason), "{}", line.text);
}

#[test]
fn handshake_goes_by_the_rules_of_the_pool() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let backend = answering(&authority);
    let rules = |authority: &Authority, name: &str| {
        format!("tls: {{ ca: {}, server_name: {name} }}", authority.file().display())
    };
    for kind in ["tls: {}", "http: { path: / }", "exchange: { send: \"PING\\r\\n\", expect: \"+PONG\" }"] {
        checking(&backend, kind, &rules(&authority, "db.example")).wait_for_up("b");
        let unknown = checking(&backend, kind, &rules(&stranger, "db.example"));
        down_for(&unknown, "TLS handshake failed: the certificate was issued by an unknown authority");
        let other = checking(&backend, kind, &rules(&authority, "other.example"));
        down_for(&other, "TLS handshake failed: the certificate is not for other.example");
    }
    let named = "tls: { server_name: db.example }";
    checking(&backend, named, &rules(&authority, "other.example")).wait_for_up("b");
}

#[test]
fn pool_without_tls_accepts_every_certificate() {
    let backend = answering(&Authority::new());
    for kind in ["tls: {}", "tls: { server_name: x.example }", "http: { path: /, tls: true }"] {
        checking(&backend, kind, "").wait_for_up("b");
    }
}

#[test]
fn server_without_tls_is_down() {
    let plain = Backend::echo();
    let tidegate = checking(&plain, "tls: {}", "");
    down_for(&tidegate, "TLS handshake failed: ");
    let authority = Authority::new();
    let backend = answering(&authority);
    let rules = format!("tls: {{ ca: {}, server_name: db.example }}", authority.file().display());
    let plain = checking(&backend, "http: { path: /, tls: false }", &rules);
    down_for(&plain, "");
    assert_eq!(plain.count_logs(|line| line.is("backend up")), 0);
}

/// A reload with other authorities applies to the checks of a pool that stays.
#[test]
fn reload_replaces_tls_of_checks() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let backend = answering(&authority);
    let yaml = |authority: &Authority| {
        let rules = format!("tls: {{ ca: {}, server_name: db.example }}", authority.file().display());
        forward(backend.place(), "", &format!("health: {{ tls: {{}}, interval: 50ms, rise: 1, fall: 1 }}, {rules}"))
    };
    let tidegate = Tidegate::start(&yaml(&stranger));
    tidegate.wait_for_down("b");
    tidegate.rewrite(&yaml(&authority).replace("127.0.0.1:0", &tidegate.at("in").to_string()));
    tidegate.signal(rustix::process::Signal::HUP);
    eventually(DEADLINE, "it is verified", || tidegate.count_logs(|line| line.is("backend up")) > 0);
}
