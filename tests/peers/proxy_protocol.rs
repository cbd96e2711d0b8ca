//! PROXY headers from and to programs that are not ours: nginx and HAProxy.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::support::authority::Authority;
use crate::support::backend::Backend;
use crate::support::client::{connect, connect_from, expect, read_to_end};
use crate::support::peer::Peer;
use crate::support::postgres::Postgres;
use crate::support::tidegate::{Tidegate, forward};

const REQUIRED: &str = "proxy_protocol: { trusted: [127.0.0.0/8] }";
const VERSIONS: [&str; 2] = ["v1", "v2"];

/// nginx sends version 1 only.
fn nginx_in_front_of(tidegate: &Tidegate) -> Peer {
    let to = tidegate.at("in");
    Peer::nginx(|at| format!("stream {{ server {{ listen {at}; proxy_pass {to}; proxy_protocol on; }} }}"))
}

fn haproxy_in_front_of(tidegate: &Tidegate, version: &str) -> Peer {
    let (to, option) = (tidegate.at("in"), if version == "v1" { "send-proxy" } else { "send-proxy-v2" });
    Peer::haproxy(|at| format!("listen l\n mode tcp\n bind {at}\n server s {to} {option}\n"))
}

/// The client's address comes through, and each byte behind the header.
#[test]
fn headers_of_nginx_and_haproxy_are_taken() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), REQUIRED, ""));
    let senders =
        [nginx_in_front_of(&tidegate), haproxy_in_front_of(&tidegate, "v1"), haproxy_in_front_of(&tidegate, "v2")];
    for (last, sender) in (1..).zip(&senders) {
        for _ in 0..10 {
            let mut client = connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 7, last)), sender.address);
            let own = client.local_addr().unwrap().to_string();
            client.write_all(b"hello").unwrap();
            expect(&mut client, b"hello");
            drop(client);
            let line = tidegate.wait_for_access("of the client", |line| line.field("client") == own);
            assert_eq!(line.bytes(), (5, 5));
        }
    }
}

/// A page that tells who has asked for it.
fn tells_the_client(receiver: &Peer, version: &str) {
    let tidegate = Tidegate::start(&forward(receiver.place(), "", &format!("send_proxy: {version}")));
    for last in 1..=10 {
        let mut client = connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 8, last)), tidegate.at("in").tcp());
        let own = client.local_addr().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let page = String::from_utf8(read_to_end(&mut client).0).unwrap();
        drop(client);
        let told = page.lines().last().unwrap_or_default();
        let mut words = told.split(' ');
        assert_eq!(words.next(), Some(own.to_string().as_str()), "{page}");
        if let Some(id) = words.next() {
            let line = tidegate.wait_for_access("of the client", |line| line.field("client") == own.to_string());
            assert_eq!(id, line.field("id"), "{page}");
        }
    }
}

#[test]
fn nginx_takes_our_headers() {
    let receiver = Peer::nginx(|at| {
        let page = "default_type text/plain; return 200 \"$proxy_protocol_addr:$proxy_protocol_port\\n\";";
        format!("http {{ server {{ listen {at} proxy_protocol; location / {{ {page} }} }} }}")
    });
    VERSIONS.iter().for_each(|version| tells_the_client(&receiver, version));
}

#[test]
fn haproxy_takes_our_headers() {
    for (version, told) in [("v1", "%ci:%cp"), ("v2", "%ci:%cp %[fc_pp_unique_id]")] {
        let receiver = Peer::haproxy(|at| {
            format!(
                "frontend f\n mode http\n bind {at} accept-proxy\n \
                 http-request return status 200 content-type text/plain lf-string \"{told}\\n\"\n"
            )
        });
        tells_the_client(&receiver, version);
    }
}

/// Both ways at once: from one program by tidegate to another.
#[test]
fn the_address_is_passed_on_from_haproxy_to_nginx() {
    let receiver = Peer::nginx(|at| {
        let page = "default_type text/plain; return 200 \"$proxy_protocol_addr:$proxy_protocol_port\\n\";";
        format!("http {{ server {{ listen {at} proxy_protocol; location / {{ {page} }} }} }}")
    });
    for from in VERSIONS {
        for to in VERSIONS {
            let tidegate = Tidegate::start(&forward(receiver.place(), REQUIRED, &format!("send_proxy: {to}")));
            let sender = haproxy_in_front_of(&tidegate, from);
            let mut client = connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 9, 1)), sender.address);
            let own = client.local_addr().unwrap().to_string();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            let page = String::from_utf8(read_to_end(&mut client).0).unwrap();
            assert_eq!(page.lines().last(), Some(own.as_str()), "{from}, {to}: {page}");
        }
    }
}

/// A proxy in front, PostgreSQL's TLS here, and a database behind.
#[test]
fn psql_through_haproxy_and_postgres_tls() {
    let (postgres, authority) = (Postgres::bare(&[]), Authority::new());
    let listener = format!(
        "{REQUIRED}, tls: {{ certificates: [{}], starttls: postgres }}",
        authority.issue(&["db.example.test"]).yaml()
    );
    let to = format!("127.0.0.1:{}", postgres.port());
    let tidegate = Tidegate::start(&forward(to, &listener, ""));
    for version in VERSIONS {
        let sender = haproxy_in_front_of(&tidegate, version);
        let mut command = postgres.psql(sender.address.port());
        command.env("PGHOSTADDR", sender.address.ip().to_string());
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", authority.file());
        let output = command.args(["-X", "-h", "db.example.test", "-At", "-c", "select 6 * 7"]).output().expect("psql");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "42", "{version}: {told}");
    }
}

/// A backend that demands headers is found well by a check that begins with one, and unwell without.
#[test]
fn haproxy_that_demands_headers_can_be_checked() {
    for checked in ["http: { path: / }", "tcp: {}"] {
        let receiver = Peer::haproxy(|at| {
            format!("frontend f\n mode http\n bind {at} accept-proxy\n http-request return status 200\n")
        });
        for version in VERSIONS {
            let pool = format!("send_proxy: {version}, health: {{ {checked}, rise: 1, fall: 1, interval: 100ms }}");
            let tidegate = Tidegate::start(&forward(receiver.place(), "", &pool));
            tidegate.wait_for_up("b");
            let mut client = connect(&tidegate.at("in"));
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            assert!(read_to_end(&mut client).0.starts_with(b"HTTP/1.1 200"));
        }
    }
    let receiver = Peer::haproxy(|at| {
        format!("frontend f\n mode http\n bind {at} accept-proxy\n http-request return status 200\n")
    });
    let pool = "health: { http: { path: / }, fall: 1, interval: 100ms }";
    Tidegate::start(&forward(receiver.place(), "", pool)).wait_for_down("b");
}
