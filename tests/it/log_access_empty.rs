//! `log.access_empty: false`: connections without a byte leave no access line, and are counted.

use std::io::Write;
use std::net::TcpStream;

use crate::support::authority::Authority;
use crate::support::backend::{Backend, Dead};
use crate::support::client::{connect, expect, read_to_end, talking};
use crate::support::stats::{ADMIN_SOCKET, listener};
use crate::support::tidegate::Tidegate;
use crate::support::tls::Tls;
use crate::support::{DEADLINE, eventually};

/// One worker: the line of a connection comes before those of connections that begin later.
fn yaml(backend: &Backend, dead: &Dead, certificate: &str) -> String {
    let listener = |name: &str, pool: &str, keys: &str| {
        format!("  - {{ name: {name}, bind: \"127.0.0.1:0\", pool: {pool}, {keys} }}\n")
    };
    // Those that defer have the client's first bytes when they accept.
    let defers = "socket: { defer_accept: 60s }";
    let listeners = [
        listener("plain", "p", ""),
        listener("dead", "d", ""),
        listener("dead-deferred", "d", defers),
        listener("limited", "p", &format!("limits: {{ connections_per_ip: 1 }}, {defers}")),
        listener("proxied", "p", "proxy_protocol: { trusted: [127.0.0.0/8] }"),
        listener("tls", "p", &format!("tls: {{ certificates: [{certificate}] }}")),
    ];
    format!(
        "workers: 1\n{ADMIN_SOCKET}listeners:\n{}pools:\n  - {{ name: p, backends: [{{ address: \"{}\" }}] }}\n  \
         - {{ name: d, backends: [{{ address: \"{}\" }}] }}\n",
        listeners.concat(),
        backend.address(),
        dead.address()
    )
}

fn log(directory: &str, empty: bool) -> String {
    format!("{{ format: json, access: {directory}/access.log, access_empty: {empty} }}")
}

/// Waits until all connections of the listener have ended, `count` of them.
fn ended(tidegate: &Tidegate, name: &str, count: u64) {
    eventually(DEADLINE, &format!("{count} connections of {name} have ended"), || {
        listener(&tidegate.view(), name).ended == count
    });
}

fn send(tidegate: &Tidegate, name: &str, bytes: &[u8]) -> TcpStream {
    let mut client = connect(&tidegate.at(name));
    client.write_all(bytes).unwrap();
    client
}

#[test]
fn connections_without_a_byte_have_no_line_and_are_counted() {
    let (backend, dead, authority) = (Backend::echo(), Dead::start(), Authority::new());
    let (folder, issued) = (tempfile::tempdir().unwrap(), authority.issue(&["a.example"]));
    let yaml = yaml(&backend, &dead, &issued.yaml());
    let directory = folder.path().display().to_string();
    let mut tidegate = Tidegate::with(&yaml).log(&log(&directory, false)).start();
    let lines = || {
        let text = std::fs::read_to_string(format!("{directory}/access.log")).unwrap_or_default();
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a whole line");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_owned();
        whole.lines().map(parse).map(|line| (field(&line, "listener"), field(&line, "reason"))).collect::<Vec<_>>()
    };

    // Without a byte: also where there is no backend, after a PROXY header, and after a handshake.
    drop(connect(&tidegate.at("plain")));
    ended(&tidegate, "plain", 1);
    read_to_end(&mut connect(&tidegate.at("dead")));
    ended(&tidegate, "dead", 1);
    drop(send(&tidegate, "proxied", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"));
    drop(connect(&tidegate.at("proxied")));
    ended(&tidegate, "proxied", 2);
    drop(Tls::connect(&tidegate.at("tls"), &authority.client(), "a.example"));
    drop(connect(&tidegate.at("tls")));
    ended(&tidegate, "tls", 2);

    // With one, whether it reaches a backend or not.
    let mut expected = Vec::new();
    let mut has_line = |name: &str, reason: &str| {
        expected.push((name.to_owned(), reason.to_owned()));
        eventually(DEADLINE, &format!("{expected:?}"), || lines().len() >= expected.len());
        assert_eq!(lines(), expected);
    };
    read_to_end(&mut send(&tidegate, "dead-deferred", b"x"));
    has_line("dead-deferred", "rejected: connect failed");
    let mut held = send(&tidegate, "limited", b"x");
    expect(&mut held, b"x");
    read_to_end(&mut send(&tidegate, "limited", b"x"));
    has_line("limited", "rejected: per-IP connection limit exceeded");
    read_to_end(&mut send(&tidegate, "proxied", b"GET / HTTP/1.1\r\n\r\n"));
    has_line("proxied", "rejected: bad PROXY header");
    read_to_end(&mut send(&tidegate, "tls", b"GET / HTTP/1.1\r\n\r\n"));
    has_line("tls", "rejected: no TLS");
    drop(talking(&tidegate.at("plain")));
    has_line("plain", "client closed");

    // Applies on reload.
    tidegate.set_log(&log(&directory, true));
    tidegate.rewrite(&yaml);
    tidegate.command(&["reload", "--config", tidegate.config_file().to_str().unwrap()]).printed();
    drop(connect(&tidegate.at("plain")));
    has_line("plain", "client closed");
    ended(&tidegate, "plain", 3);
}
