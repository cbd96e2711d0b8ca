//! What clients that get no backend read in their own protocol, where the listener knows it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::backend::Backend;
use crate::support::client::{End, connect, connect_from, read_to_end, talking};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, client_hello, read_all, terminate};
use crate::support::{DEADLINE, eventually};

const STARTUP: &[u8] = b"\x00\x00\x00\x13\x00\x03\x00\x00user\0me\0\0\0\0";
const SSL_REQUEST: &[u8] = b"\x00\x00\x00\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\x00\x00\x00\x08\x04\xd2\x16\x30";

/// What a client reads that sends `first`, until the end.
fn answer(tidegate: &Tidegate, first: &[u8]) -> Vec<u8> {
    finish(connect(&tidegate.at("in")), first)
}

fn finish(mut client: TcpStream, first: &[u8]) -> Vec<u8> {
    client.write_all(first).unwrap();
    let (answer, end) = read_to_end(&mut client);
    assert_eq!(end, End::Fin, "{}", answer.escape_ascii());
    answer
}

/// Fields of an ErrorResponse, such as `C53300`.
fn fields(answer: &[u8]) -> Vec<String> {
    assert_eq!(answer[0], b'E', "{}", answer.escape_ascii());
    answer[5..].split(|byte| *byte == 0).map(|field| String::from_utf8(field.to_vec()).unwrap()).collect()
}

fn assert_postgres(answer: &[u8], code: &str, message: &str) {
    let fields = fields(answer);
    for field in ["SFATAL".to_owned(), format!("C{code}"), format!("M{message}")] {
        assert!(fields.contains(&field), "{field}: {fields:?}");
    }
}

/// Of the packet instead of a greeting.
fn assert_mysql(answer: &[u8], code: u16, rest: &str) {
    let payload = [&[0xff], &code.to_le_bytes()[..], rest.as_bytes()].concat();
    let wanted = [&[payload.len() as u8, 0, 0, 0], payload.as_slice()].concat();
    assert_eq!(answer.escape_ascii().to_string(), wanted.escape_ascii().to_string());
}

fn assert_http(answer: &[u8], status: u16, error: &str) {
    let answer = String::from_utf8_lossy(answer);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.ends_with(&format!("{{\"error\":\"{error}\"}}")), "{answer}");
    assert_eq!(answer.contains("Retry-After: "), status != 403, "{answer}");
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The same refusal to clients of each protocol: SQLSTATE, number and state of MySQL, status; and its words.
fn refused(listener: &str, pool: &str, postgres: &str, (code, state): (u16, &str), status: u16, words: [&str; 2]) {
    let started = |protocol: &str| {
        Tidegate::start(&forward("127.0.0.1:1", &format!("protocol_hint: {protocol}, {listener}"), pool))
    };
    let [database, request] = words;
    let tidegate = started("postgres");
    assert_postgres(&answer(&tidegate, STARTUP), postgres, database);
    assert_mysql(&answer(&started("mysql"), b""), code, &format!("#{state}{database}"));
    assert_eq!(String::from_utf8_lossy(&answer(&started("redis"), b"")), format!("-ERR {database}\r\n"));
    assert_http(&answer(&started("http"), GET), status, request);
}

#[test]
fn each_reason_is_told_in_each_protocol() {
    let none = "no database server can take the connection now";
    refused("", "retries: 0", "57P03", (1105, "HY000"), 503, [none, "no backend could be reached"]);
    let denied = "connections from this address are not allowed";
    refused("access: { deny: [127.0.0.1] }", "", "28000", (1130, "HY000"), 403, [denied, denied]);
    let in_vain = ["no database server could take the connection in time", "no backend could take the request in time"];
    let queue = "retries: 0, queue: { size: 1, timeout: 100ms }";
    refused("", queue, "57P03", (1105, "HY000"), 503, in_vain);
}

#[test]
fn limits_are_told_in_each_protocol() {
    let backend = Backend::echo();
    for protocol in ["postgres", "mysql", "redis", "http"] {
        let listener = format!("protocol_hint: {protocol}, limits: {{ connections_per_ip: 1 }}");
        let tidegate = Tidegate::start(&forward(backend.place(), &listener, ""));
        let _first = talking(&tidegate.at("in"));
        let words = "too many connections from this address";
        match protocol {
            "postgres" => assert_postgres(&answer(&tidegate, STARTUP), "53300", words),
            "mysql" => assert_mysql(&answer(&tidegate, b""), 1040, &format!("#08004{words}")),
            "redis" => assert_eq!(answer(&tidegate, b"*1\r\n$4\r\nPING\r\n"), format!("-ERR {words}\r\n").as_bytes()),
            _ => assert_http(&answer(&tidegate, GET), 429, words),
        }
    }
}

/// Who waits for a backend when the process ends.
#[test]
fn end_of_the_process_is_told_in_each_protocol() {
    for protocol in ["postgres", "mysql", "redis", "http"] {
        let yaml = format!(
            "{ADMIN_SOCKET}shutdown: {{ drain: 200ms }}\n{}",
            forward(
                "127.0.0.1:1",
                &format!("protocol_hint: {protocol}"),
                "retries: 0, queue: { size: 9, timeout: 1h }"
            )
        );
        let mut tidegate = Tidegate::start(&yaml);
        let waits = connect(&tidegate.at("in"));
        eventually(DEADLINE, "it waits", || tidegate.view().pools[0].queue.waiting == 1);
        tidegate.terminate();
        let words = "the server is shutting down";
        match protocol {
            "postgres" => assert_postgres(&finish(waits, STARTUP), "57P01", words),
            "mysql" => assert_mysql(&finish(waits, b""), 1053, &format!("#08S01{words}")),
            "redis" => assert_eq!(finish(waits, b""), format!("-ERR {words}\r\n").as_bytes()),
            _ => assert_http(&finish(waits, GET), 503, words),
        }
        tidegate.wait();
    }
}

/// libpq shows an error only in place of the answer to its startup message.
#[test]
fn postgres_clients_that_ask_for_encryption_first_are_told_too() {
    let tidegate = Tidegate::start(&forward("127.0.0.1:1", "protocol_hint: postgres", "retries: 0"));
    let mut client = connect(&tidegate.at("in"));
    for request in [GSS_REQUEST, SSL_REQUEST] {
        client.write_all(request).unwrap();
        let mut refusal = [0];
        client.read_exact(&mut refusal).unwrap();
        assert_eq!(&refusal, b"N");
    }
    assert_postgres(&finish(client, STARTUP), "57P03", "no database server can take the connection now");
    // No end of requests, a cancel request, and another protocol.
    for first in [&SSL_REQUEST.repeat(4)[..], b"\x00\x00\x00\x10\x04\xd2\x16\x2eabcdefgh", b"GET / HTTP/1.1\r\n\r\n"] {
        let answer = read_to_end(&mut {
            let mut client = connect(&tidegate.at("in"));
            client.write_all(first).unwrap();
            client
        })
        .0;
        assert!(answer.iter().all(|byte| *byte == b'N') && answer.len() <= 3, "{}", answer.escape_ascii());
    }
}

#[test]
fn without_a_hint_nothing_is_said() {
    let tidegate = Tidegate::start(&forward("127.0.0.1:1", "", "retries: 0"));
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))), (Vec::new(), End::Fin));
}

/// A denied client says nothing after its connect: it takes no room of others, and its denial is what counts.
#[test]
fn denied_clients_take_no_handshakes_and_are_counted_as_denied() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let backend = Backend::named("b");
    let keys =
        "protocol_hint: redis, access: { deny: [127.0.0.2] }, limits: { handshakes: 2 }, timeouts: { handshake: 1h }";
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&issued], "", keys));
    let place = tidegate.at("in");
    let mut connection =
        rustls::ClientConnection::new(authority.client().into(), "localhost".try_into().unwrap()).unwrap();
    let hello = client_hello(&mut connection);
    let denied: Vec<TcpStream> = (0..6)
        .map(|_| {
            let mut client = connect_from([127, 0, 0, 2].into(), place.tcp());
            client.write_all(&hello).unwrap();
            // The server's answer: the handshake is under way.
            client.read_exact(&mut [0]).unwrap();
            client
        })
        .collect();
    assert_eq!(read_all(&Tls::connect(&place, &authority.client(), "localhost")), "b");
    drop(denied);
    eventually(DEADLINE, "all are logged", || tidegate.access().len() == 7);
    let denials = tidegate.access().iter().filter(|line| line.end() == "rejected: access denied").count();
    assert_eq!(denials, 6);
}

/// What the first bytes say wins over what is said of the listener.
#[test]
fn clients_of_another_protocol_are_not_told_in_the_hinted_one() {
    let routes =
        "routes: [{ match: { protocol: [tls, ssh, http, postgres, redis] }, pool: p }], timeouts: { sniff: 300ms }";
    let tidegate = Tidegate::start(&forward("127.0.0.1:1", &format!("protocol_hint: mysql, {routes}"), "retries: 0"));
    let words = "no database server can take the connection now";
    assert_mysql(&answer(&tidegate, b""), 1105, &format!("#HY000{words}"));
    assert_eq!(answer(&tidegate, b"\x16\x03\x01\x00\x05\x01"), b"");
    assert_eq!(answer(&tidegate, b"SSH-2.0-x\r\n"), b"");
    assert_http(&answer(&tidegate, GET), 503, "no backend could be reached");
    assert_postgres(&answer(&tidegate, STARTUP), "57P03", words);
    assert_eq!(answer(&tidegate, b"*1\r\n$4\r\nPING\r\n"), format!("-ERR {words}\r\n").as_bytes());
}
