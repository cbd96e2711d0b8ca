//! PostgreSQL's own TLS at a listener (`starttls: postgres`), as clients that are not PostgreSQL's speak it.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::{AlertDescription, Error};

use crate::support::authority::{Authority, handshake};
use crate::support::backend::{Backend, Dead, Scripted};
use crate::support::client::{End, connect, expect, read_to_end, reset};
use crate::support::pgwire::{GSSENC_REQUEST, SSL_REQUEST, cancel, read_error, startup};
use crate::support::starttls::{ALPN, NAME, echoes, in_front_of, starttls, wait_for_refusal};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::{Access, Tidegate, forward};
use crate::support::{DEADLINE, eventually};

/// So that no client of another protocol is taken for one of PostgreSQL's.
#[test]
fn tls_unasked_without_the_protocols_name_is_refused() {
    let backend = Backend::echo();
    let (authority, tidegate) = in_front_of(backend.place(), "");
    for protocols in [&[][..], &["h2", "http/1.1"], &["postgresq", "postgresql2"]] {
        let Err(refused) = handshake(authority.client_for(NAME, protocols), connect(&tidegate.at("in"))) else {
            panic!("it is refused");
        };
        let reason = refused.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        assert_eq!(reason, Some(&Error::AlertReceived(AlertDescription::NoApplicationProtocol)), "{protocols:?}");
    }
    wait_for_refusal(&tidegate, "it begins with TLS at once, and does not offer the protocol postgresql (ALPN)");
    eventually(DEADLINE, "three lines", || tidegate.access().len() == 3);
    assert!(tidegate.access().iter().all(|line| line.end() == "TLS handshake failed"), "{:?}", tidegate.access());
    assert_eq!(backend.accepted(), 0);

    // Asked for, TLS needs no such name: libpq knows of none before version 17.
    let mut asked = connect(&tidegate.at("in"));
    asked.write_all(&SSL_REQUEST).unwrap();
    expect(&mut asked, b"S");
    echoes(handshake(authority.client_for(NAME, &[]), asked).unwrap());
}

#[test]
fn gssapi_encryption_is_refused_once_and_tls_goes_on() {
    let backend = Backend::echo();
    let (authority, tidegate) = in_front_of(backend.place(), "");
    let begin = || {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&GSSENC_REQUEST).unwrap();
        expect(&mut client, b"N");
        client
    };
    let mut client = begin();
    client.write_all(&SSL_REQUEST).unwrap();
    expect(&mut client, b"S");
    echoes(handshake(authority.client_for(NAME, ALPN), client).unwrap());
    echoes(handshake(authority.client_for(NAME, ALPN), begin()).unwrap());

    // Asked again and again, that would never end.
    let mut client = begin();
    client.write_all(&GSSENC_REQUEST).unwrap();
    assert_eq!(read_to_end(&mut client).0, b"");
    wait_for_refusal(&tidegate, "it asks for GSSAPI encryption again, which was refused");
}

/// Somebody in between could have put them there: CVE-2021-23214.
#[test]
fn bytes_after_the_request_for_tls_that_are_not_encrypted_are_refused() {
    let backend = Backend::echo();
    for allowed in ["", "plaintext: allow"] {
        let (_authority, tidegate) = in_front_of(backend.place(), allowed);
        for more in [&startup(3, 0)[..], b"x", b"\x16\x03\x01"] {
            let mut client = connect(&tidegate.at("in"));
            client.write_all(&[&SSL_REQUEST, more].concat()).unwrap();
            let fields = read_error(&mut client);
            assert_eq!((fields[&'S'].as_str(), fields[&'C'].as_str()), ("FATAL", "08P01"));
            assert_eq!(read_to_end(&mut client), (Vec::new(), End::Fin));
        }
        wait_for_refusal(&tidegate, "it sends unencrypted data after its SSLRequest");
    }
    assert_eq!(backend.accepted(), 0);
}

/// No session comes of it, whatever client and backend say besides.
#[test]
fn a_cancel_request_carries_its_own_bytes_and_nothing_comes_back() {
    let (scripted, authority) = (Scripted::start(), Authority::new());
    let required = format!("client_auth: {{ mode: required, ca: {} }}", authority.file().display());
    for rules in ["", &required, &format!("{required}, plaintext: allow")] {
        let listener = starttls(&authority.issue(&[NAME]), rules);
        let tidegate = Tidegate::start(&forward(scripted.place(), &listener, ""));
        for (key, first) in [(&[7; 8][..], &b""[..]), (&[7; 256], b""), (&[7; 8], &GSSENC_REQUEST)] {
            let lines = tidegate.access().len();
            let mut client = connect(&tidegate.at("in"));
            client.write_all(first).unwrap();
            expect(&mut client, if first.is_empty() { b"" } else { b"N" });
            client.write_all(&[&cancel(key), &startup(3, 0)[..]].concat()).unwrap();
            let mut backend = scripted.accept();
            assert_eq!(read_to_end(&mut backend), (cancel(key), End::Fin), "{rules}");
            backend.write_all(b"R\0\0\0\x08\0\0\0\0").unwrap();
            drop(backend);
            assert_eq!(read_to_end(&mut client).0, b"", "{rules}");
            drop(client);
            eventually(DEADLINE, "a line", || tidegate.access().len() > lines);
            let line = tidegate.access().pop().unwrap();
            assert_eq!(
                (line.end().as_str(), line.bytes()),
                ("client closed", (cancel(key).len() as u64, 0)),
                "{rules}"
            );
        }
    }
}

/// Neither a backend that keeps the connection holds it open, nor a client.
#[test]
fn a_cancel_request_does_not_last() {
    let (scripted, authority) = (Scripted::start(), Authority::new());
    let tidegate = Tidegate::start(&forward(scripted.place(), &starttls(&authority.issue(&[NAME]), ""), ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&cancel(&[7; 8])).unwrap();
    let mut backend = scripted.accept();
    expect(&mut backend, &cancel(&[7; 8]));
    assert_eq!(read_to_end(&mut client).0, b"");
    assert_eq!(tidegate.only_access().end(), "half-close timeout");

    let mut client = connect(&tidegate.at("in"));
    client.write_all(&cancel(&[7; 8])).unwrap();
    let mut backend = scripted.accept();
    expect(&mut backend, &cancel(&[7; 8]));
    reset(client);
    tidegate.wait_for_access("of the client that is gone", |line| line.end() == "client reset");
    read_to_end(&mut backend);
}

/// What the pool puts before each connection comes before it.
#[test]
fn a_cancel_request_goes_by_the_pools_own_rules() {
    let (scripted, authority) = (Scripted::start(), Authority::new());
    let listener = starttls(&authority.issue(&[NAME]), "");
    let tidegate = Tidegate::start(&forward(scripted.place(), &listener, "send_proxy: v1"));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&cancel(&[7; 8])).unwrap();
    let (own, here) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), here.port());
    let wanted = [header.as_bytes(), &cancel(&[7; 8])].concat();
    assert_eq!(read_to_end(&mut scripted.accept()), (wanted, End::Fin));
    assert_eq!(read_to_end(&mut client).0, b"");
}

/// Each byte in a segment of its own, the handshake's too.
#[test]
fn first_bytes_may_come_one_by_one() {
    let backend = Backend::echo();
    let (authority, tidegate) = in_front_of(backend.place(), "plaintext: allow");
    let one_by_one = || {
        let stream = connect(&tidegate.at("in"));
        stream.set_nodelay(true).unwrap();
        OneByOne(stream)
    };
    let mut asked = one_by_one();
    for request in [GSSENC_REQUEST, SSL_REQUEST] {
        asked.write_all(&request).unwrap();
        expect(&mut asked.0, if request == SSL_REQUEST { b"S" } else { b"N" });
    }
    echoes(handshake(authority.client_for(NAME, ALPN), asked).unwrap());
    echoes(handshake(authority.client_for(NAME, ALPN), one_by_one()).unwrap());

    let mut plain = one_by_one();
    plain.write_all(&startup(3, 0)).unwrap();
    expect(&mut plain.0, &startup(3, 0));
    let mut refused = one_by_one();
    refused.write_all(&cancel(b"12345678")).unwrap();
    expect(&mut refused.0, &cancel(b"12345678"));
}

struct OneByOne(TcpStream);

impl Write for OneByOne {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Read for OneByOne {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

#[test]
fn what_no_client_of_postgres_says_is_refused() {
    let backend = Backend::echo();
    let authority = Authority::new();
    let listener = starttls(&authority.issue(&[NAME]), "plaintext: allow");
    let longer = "it is no PostgreSQL client: its first message would be longer than 10,000 bytes";
    let mut huge = startup(3, 0);
    huge.resize(10_005, b'x');
    huge[..4].copy_from_slice(&10_005_u32.to_be_bytes());
    let cases: [(&[u8], &str); 8] = [
        (b"GET / HTTP/1.1\r\n\r\n", longer),
        (b"\xff", longer),
        (&huge, longer),
        (b"\0\0\0\x07\0\x03\0", "it is no PostgreSQL client: its first message would be shorter than 8 bytes"),
        (&startup(2, 0), "it speaks version 2.0 of the PostgreSQL protocol, not 3.x"),
        (&startup(1234, 5681), "it sends an unknown PostgreSQL request, 1234.5681"),
        (&[&[0, 0, 0, 9], &SSL_REQUEST[4..], b"x"].concat(), "it sends a malformed SSLRequest of 9 bytes"),
        (&cancel(b"123"), "it sends a malformed CancelRequest of 11 bytes"),
    ];
    for (bytes, reason) in cases {
        // The log of refusals is throttled: each case has one of its own.
        let tidegate = Tidegate::start(&forward(backend.place(), &listener, ""));
        let mut client = connect(&tidegate.at("in"));
        client.write_all(bytes).unwrap();
        assert_eq!(read_to_end(&mut client).0, b"", "{reason}");
        wait_for_refusal(&tidegate, reason);
        assert_eq!(tidegate.only_access().end(), "rejected: no TLS", "{reason}");
    }
    // What never becomes a message.
    let tidegate = Tidegate::start(&forward(backend.place(), &listener, ""));
    for bytes in [&b"\0\0\0"[..], &SSL_REQUEST[..7], &startup(3, 0)[..20]] {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(bytes).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).0, b"");
    }
    eventually(DEADLINE, "three lines", || tidegate.access().len() == 3);
    assert!(tidegate.access().iter().all(|line| line.end() == "client left"), "{:?}", tidegate.access());
    assert_eq!(backend.accepted(), 0);
}

/// A driver takes 53300 for a server with no room, and 57P03 for one that is not up: it tries again, and says why.
#[test]
fn queue_without_room_and_a_wait_in_vain_are_errors_of_postgresql() {
    let dead = Dead::start();
    let authority = Authority::new();
    let listener = starttls(&authority.issue(&[NAME]), "plaintext: allow");
    let pool = "queue: { size: 1, timeout: 1s }, health: { tcp: {}, fall: 1 }";
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}{}", forward(dead.place(), &listener, pool)));
    tidegate.wait_for_down("b");
    let ask = || {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&startup(3, 0)).unwrap();
        client
    };
    let waits = ask();
    eventually(DEADLINE, "it waits", || tidegate.view().pools[0].queue.waiting == 1);
    for (mut client, code, message) in [
        (ask(), "53300", "too many connections wait for a database server"),
        (waits, "57P03", "no database server could take the connection in time"),
    ] {
        let fields = read_error(&mut client);
        assert_eq!(
            [&fields[&'S'], &fields[&'C'], &fields[&'M']].map(String::as_str),
            ["FATAL", code, message],
            "{fields:?}"
        );
        assert_eq!(read_to_end(&mut client), (Vec::new(), End::Fin));
    }
    eventually(DEADLINE, "both lines", || tidegate.access().len() == 2);
    let ends: Vec<String> = tidegate.access().iter().map(Access::end).collect();
    assert_eq!(ends, ["rejected: queue full", "rejected: queue timeout"]);
}
