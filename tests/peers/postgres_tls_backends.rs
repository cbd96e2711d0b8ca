//! PostgreSQL's own TLS towards backends: `pools[].tls.starttls: postgres`.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;

use crate::support::authority::Authority;
use crate::support::backend::Scripted;
use crate::support::client::{connect, expect, read_to_end};
use crate::support::pgwire::SSL_REQUEST;
use crate::support::postgres::{Postgres, tps};
use crate::support::tidegate::Tidegate;

const NAME: &str = "db.example.test";

/// Two listeners, `plain` and `tls`, in front of one backend that is asked for TLS.
fn in_front_of(to: impl Display, authority: &Authority, pool_tls: &str) -> Tidegate {
    let own = authority.issue(&["127.0.0.1"]).yaml();
    Tidegate::start(&format!(
        "listeners:\n\
         - {{ name: plain, bind: \"127.0.0.1:0\", pool: p }}\n\
         - {{ name: tls, bind: \"127.0.0.1:0\", pool: p,\n\
         \x20   tls: {{ certificates: [{own}], starttls: postgres, plaintext: allow }} }}\n\
         pools:\n\
         - {{ name: p, backends: [{{ name: b, address: \"{to}\" }}], tls: {{ starttls: postgres, {pool_tls} }} }}\n"
    ))
}

fn trusting(authority: &Authority) -> String {
    format!("ca: {}, server_name: {NAME}", authority.file().display())
}

fn psql(postgres: &Postgres, tidegate: &Tidegate, listener: &str, mode: &str, authority: &Authority) -> Command {
    let mut command = postgres.psql(tidegate.at(listener).tcp().port());
    command.args(["-X", "-At", "-c", "select ssl from pg_stat_ssl where pid = pg_backend_pid()"]);
    command.env("PGSSLMODE", mode).env("PGSSLROOTCERT", authority.file());
    command
}

/// The reason for which the only connect failed.
fn failure(tidegate: &Tidegate) -> String {
    let line = tidegate.wait_for_log("connect failed", |line| line.is("connect failed"));
    assert_eq!((line.field("pool").as_str(), line.field("backend").as_str()), ("p", "b"), "{}", line.text);
    line.field("reason")
}

#[test]
fn a_server_is_asked_for_tls_and_verified() {
    let authority = Authority::new();
    let postgres = Postgres::with_tls(&authority.issue(&[NAME]));
    let address = format!("127.0.0.1:{}", postgres.port());
    let ca = authority.file();
    for rules in [trusting(&authority), format!("verify: ca, ca: {}", ca.display()), "verify: off".to_owned()] {
        let tidegate = in_front_of(&address, &authority, &rules);
        for (listener, mode) in [("plain", "disable"), ("tls", "verify-full"), ("tls", "disable")] {
            let output = psql(&postgres, &tidegate, listener, mode, &authority).output().expect("psql");
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "t", "{listener} {mode}, {rules}: {told}");
        }
    }
    let tidegate = in_front_of(&address, &authority, &trusting(&authority));
    let mut load = postgres.pgbench(postgres.port());
    assert!(load.args(["-i", "-q"]).output().expect("pgbench").status.success());
    for (listener, mode) in [("plain", "disable"), ("tls", "require")] {
        for lasting in [&["-T", "2"][..], &["-T", "2", "-C"]] {
            let mut pgbench = postgres.pgbench(tidegate.at(listener).tcp().port());
            tps(pgbench.env("PGSSLMODE", mode).args(["-n", "-c", "10", "-j", "2"]).args(lasting));
        }
    }
}

#[test]
fn a_server_that_cannot_be_verified_gets_nothing() {
    let authority = Authority::new();
    let postgres = Postgres::with_tls(&authority.issue(&[NAME]));
    let address = format!("127.0.0.1:{}", postgres.port());
    let (own, other) = (authority.file(), Authority::new());
    for (rules, reason) in [
        (
            trusting(&other),
            "TLS handshake failed: the certificate was issued by an unknown authority; add its authority's certificate, or \
             this one itself, to the file of the pool's tls.ca",
        ),
        (
            format!("ca: {}", own.display()),
            "TLS handshake failed: the certificate is not for 127.0.0.1, but for db.example.test; set server_name to a name \
             that it is for, or issue it with -addext subjectAltName=DNS:NAME",
        ),
        (
            format!("ca: {}, server_name: other.example.test", own.display()),
            "TLS handshake failed: the certificate is not for other.example.test, but for db.example.test; set server_name to a name \
             that it is for, or issue it with -addext subjectAltName=DNS:NAME",
        ),
    ] {
        let tidegate = in_front_of(&address, &authority, &rules);
        for mode in ["verify-full", "disable"] {
            let output = psql(&postgres, &tidegate, "tls", mode, &authority).output().expect("psql");
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{rules}");
            assert!(told.contains("FATAL:  no database server can take the connection now"), "{rules}: {told}");
        }
        assert_eq!(failure(&tidegate), format!("{address}: {reason}"));
        assert!(tidegate.access().iter().all(|line| line.end() == "rejected: connect failed"));
    }
}

#[test]
fn a_server_without_tls_is_named_as_such() {
    let (postgres, authority) = (Postgres::bare(&[]), Authority::new());
    let address = format!("127.0.0.1:{}", postgres.port());
    let tidegate = in_front_of(&address, &authority, &trusting(&authority));
    let output = psql(&postgres, &tidegate, "tls", "verify-full", &authority).output().expect("psql");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("FATAL:  no database server can take the connection now"), "{told}");
    assert_eq!(failure(&tidegate), format!("{address}: refuses TLS (PostgreSQL: ssl = off)"));
}

/// What a backend sends that is not encrypted is never a client's data, and a client's data never goes to it.
#[test]
fn answers_other_than_tls_are_errors() {
    let authority = Authority::new();
    let refusal = b"E\0\0\0\x1dSFATAL\0C53300\0Mforged words\0\0";
    for (answer, reason) in [
        (&b"SE\0\0\0\x0bSFATAL\0\0"[..], "TLS handshake failed: the peer does not speak TLS"),
        (b"SSSSSSSS", "TLS handshake failed: the peer does not speak TLS"),
        (refusal, "answers the request for TLS by an error, as PostgreSQL does when it cannot start a process for it"),
        (b"X", "answers the request for TLS by byte 0x58, as PostgreSQL never does"),
        (b"N", "refuses TLS (PostgreSQL: ssl = off)"),
        (b"", "closed the connection instead of a TLS handshake"),
        (b"S", "closed the connection instead of a TLS handshake"),
    ] {
        let scripted = Scripted::start();
        let tidegate = in_front_of(scripted.place(), &authority, &trusting(&authority));
        let mut client = connect(&tidegate.at("plain"));
        client.write_all(b"the client's secret").unwrap();
        let mut backend = scripted.accept();
        expect(&mut backend, &SSL_REQUEST);
        backend.write_all(answer).unwrap();
        // After a wrong answer it may have closed already.
        _ = backend.shutdown(Shutdown::Write);
        let (got, _) = read_to_end(&mut backend);
        assert!(!got.windows(6).any(|part| part == b"secret"), "{answer:?}: {got:?}");
        assert_eq!(read_to_end(&mut client).0, b"", "{answer:?}");
        assert_eq!(failure(&tidegate), format!("{}: {reason}", scripted.place()), "{answer:?}");
        assert_eq!(tidegate.only_access().end(), "rejected: connect failed");
    }
}

/// It is never waited for without an end.
#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let (scripted, authority) = (Scripted::start(), Authority::new());
    for first in [&b""[..], b"S"] {
        let tidegate = Tidegate::start(&format!(
            "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}], timeouts: {{ connect: 300ms }},\n\
             \x20   tls: {{ starttls: postgres, {} }} }}]\n",
            scripted.place(),
            trusting(&authority)
        ));
        let mut client = connect(&tidegate.at("in"));
        let mut backend = scripted.accept();
        backend.write_all(first).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(failure(&tidegate), format!("{}: timed out in its TLS handshake", scripted.place()));
    }
}
