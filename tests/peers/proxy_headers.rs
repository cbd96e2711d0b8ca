//! PROXY headers taken: `listeners[].proxy_protocol`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::support::authority::{Authority, handshake};
use crate::support::backend::{Backend, Scripted};
use crate::support::client::{End, connect, connect_from, expect, read_to_end};
use crate::support::pgwire::{SSL_REQUEST, read_error, startup};
use crate::support::proc::is_read;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

const PAYLOAD: &[u8] = b"GET / HTTP/1.1\r\n\r\nPROXY TCP4 is not a header here\r\n";
const SOURCE: &str = "192.0.2.1:56324";
const REQUIRED: &str = "proxy_protocol: { trusted: [127.0.0.1] }";
const ALLOWED: &str = "proxy_protocol: { trusted: [127.0.0.1], required: false }";

fn v1() -> Vec<u8> {
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec()
}

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, family], &length, rest].concat()
}

/// The addresses of [`v1`].
const INET: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

fn with_tlvs() -> Vec<u8> {
    v2(1, 0x11, &[&INET[..], &tlv(1, b"h2"), &tlv(2, b"a.example.test"), &tlv(0xee, &[0; 20])].concat())
}

/// The header in these parts, each of which is read before the next one is sent, and the payload with the last one.
fn send_in_parts(client: &mut TcpStream, parts: &[&[u8]]) {
    client.set_nodelay(true).unwrap();
    for part in parts {
        client.write_all(part).unwrap();
        eventually(DEADLINE, "it is read", || is_read(client));
    }
}

/// What an echoing backend has got of it: the client has sent all, and finishes.
fn echoed(client: &mut TcpStream) -> Vec<u8> {
    client.shutdown(Shutdown::Write).unwrap();
    let (bytes, end) = read_to_end(client);
    assert_eq!(end, End::Fin);
    bytes
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), REQUIRED, ""));
    let mut count = 0;
    for header in [v1(), with_tlvs()] {
        for cut in 1..=header.len() {
            let mut client = connect(&tidegate.at("in"));
            // The last cut is that between the header and the payload.
            send_in_parts(&mut client, &[&header[..cut], &[&header[cut..], PAYLOAD].concat()]);
            assert_eq!(String::from_utf8_lossy(&echoed(&mut client)), String::from_utf8_lossy(PAYLOAD), "cut at {cut}");
            count += 1;
        }
        // In one, and byte by byte.
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&[&header, PAYLOAD].concat()).unwrap();
        assert_eq!(echoed(&mut client), PAYLOAD);
        let mut client = connect(&tidegate.at("in"));
        client.set_nodelay(true).unwrap();
        header.iter().chain(PAYLOAD).for_each(|byte| client.write_all(&[*byte]).unwrap());
        assert_eq!(echoed(&mut client), PAYLOAD);
        count += 2;
    }
    eventually(DEADLINE, "all lines", || tidegate.access().len() == count);
    for line in tidegate.access() {
        assert_eq!(line.field("client"), SOURCE);
        assert_eq!(line.bytes(), (PAYLOAD.len() as u64, PAYLOAD.len() as u64), "the header is not the client's");
        assert_eq!(line.end(), "client closed");
    }
}

#[test]
fn headers_of_every_kind_are_taken_off() {
    let (backend, inet6) = (Backend::echo(), {
        let (from, to) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0; 16]);
        [&from[..], &to, &[0, 1, 0, 2]].concat()
    });
    let padded = |length: usize| [&INET[..], &tlv(4, &vec![0; length - 12 - 3])].concat();
    // `None`: the peer's own.
    let cases: Vec<(Vec<u8>, Option<&str>)> = vec![
        (v1(), Some(SOURCE)),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), Some("[2001:db8::1]:1")),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 2\r\n".to_vec(), Some(SOURCE)),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN 192.0.2.1 anything at all\r\n".to_vec(), None),
        (v2(1, 0x11, &INET), Some(SOURCE)),
        (v2(1, 0x21, &inet6), Some("[2001:db8::1]:1")),
        (with_tlvs(), Some(SOURCE)),
        (v2(1, 0x11, &padded(65_535)), Some(SOURCE)),
        // Over UDP, the addresses are as good.
        (v2(1, 0x12, &INET), Some(SOURCE)),
        (v2(1, 0x22, &inet6), Some("[2001:db8::1]:1")),
        (v2(1, 0x31, &[7; 216]), Some("unix:")),
        (v2(1, 0x32, &[7; 216]), Some("unix:")),
        (v2(1, 0x00, &[]), None),
        (v2(0, 0x00, &[]), None),
        (v2(0, 0x11, &INET), None),
        (v2(0, 0x00, &[0xff; 65_535]), None),
    ];
    for (header, source) in cases {
        for listener in [REQUIRED, ALLOWED] {
            let tidegate = Tidegate::start(&forward(backend.place(), listener, ""));
            let mut client = connect(&tidegate.at("in"));
            let own = client.local_addr().unwrap().to_string();
            client.write_all(&[&header, PAYLOAD].concat()).unwrap();
            let told = String::from_utf8_lossy(&header[..header.len().min(100)]).into_owned();
            assert_eq!(echoed(&mut client), PAYLOAD, "{told}");
            assert_eq!(tidegate.only_access().field("client"), source.unwrap_or(&own), "{told}");
        }
    }
}

#[test]
fn broken_headers_close_the_connection_and_the_log_says_why() {
    let backend = Backend::echo();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            v2(1, 0x11, &[&INET[..], &[4, 0, 9, 0]].concat()),
            "sends a malformed PROXY header: TLV 0x04 is longer than the header",
        ),
        (v2(1, 0x11, &[]), "sends a malformed PROXY header: 0 bytes are too few for its addresses, which have 12"),
        (v2(1, 0x21, &INET), "sends a malformed PROXY header: 12 bytes are too few for its addresses, which have 36"),
        (v2(1, 0x41, &INET), "sends a malformed PROXY header: family and transport 0x41 do not exist"),
        (v2(2, 0x11, &INET), "sends a malformed PROXY header: command 2 is neither LOCAL nor PROXY"),
        (
            v2(1, 0x11, &[&INET[..], &tlv(3, &[0; 4])].concat()),
            "sends a damaged PROXY header: its CRC32C is not that of its bytes",
        ),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n".to_vec(),
            "sends a malformed PROXY header: its line does not end with CR LF",
        ),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 65536\r\n".to_vec(),
            "sends a malformed PROXY header: a port is no number of 0 to 65535",
        ),
        (
            [b"PROXY TCP4 ", &[b'1'; 200][..]].concat(),
            "sends a malformed PROXY header: its line is longer than 107 bytes",
        ),
    ];
    for (header, reason) in cases {
        for listener in [REQUIRED, ALLOWED] {
            is_refused(&backend, listener, None, &header, reason, "rejected: bad PROXY header");
        }
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_header_that_is_required_must_come() {
    let backend = Backend::echo();
    for first in [PAYLOAD, b"\x16\x03\x01", b"\0"] {
        is_refused(&backend, REQUIRED, None, first, "sends no PROXY header", "rejected: bad PROXY header");
    }
    assert_eq!(backend.accepted(), 0);

    // Who says nothing is not waited for without an end, and neither is who stops in the middle.
    for first in [&b""[..], &v1()[..20], &with_tlvs()[..20]] {
        let listener = format!("{REQUIRED}, timeouts: {{ sniff: 300ms }}");
        let tidegate = Tidegate::start(&forward(backend.place(), &listener, ""));
        let mut client = connect(&tidegate.at("in"));
        client.write_all(first).unwrap();
        assert_eq!(read_to_end(&mut client).0, b"");
        assert_eq!(tidegate.only_access().end(), "preamble timeout");
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_header_that_is_not_required_may_be_left_out() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), ALLOWED, ""));
    // Those that begin like a header too.
    for payload in [PAYLOAD, b"PROXIMITY", b"\r\n\r\n\0\r\nQUIT\r\n", b"P."] {
        let mut client = connect(&tidegate.at("in"));
        let own = client.local_addr().unwrap().to_string();
        client.write_all(payload).unwrap();
        assert_eq!(echoed(&mut client), payload);
        tidegate.wait_for_access("its own address", |line| line.field("client") == own);
    }
    // A client that finishes without a word.
    assert_eq!(echoed(&mut connect(&tidegate.at("in"))), b"");
}

#[test]
fn only_trusted_peers_may_send_a_header() {
    let backend = Backend::echo();
    let stranger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let reason = "sends a PROXY header, and is not in proxy_protocol.trusted";
    for listener in [REQUIRED, ALLOWED] {
        for header in [v1(), with_tlvs(), b"PROXY UNKNOWN\r\n".to_vec(), v2(0, 0, &[]), b"PROXY nonsense\r\n".to_vec()]
        {
            is_refused(&backend, listener, Some(stranger), &header, reason, "rejected: untrusted PROXY header");
        }
    }
    assert_eq!(backend.accepted(), 0);

    // Without one they are clients like any other.
    for listener in [REQUIRED, ALLOWED] {
        let tidegate = Tidegate::start(&forward(backend.place(), listener, ""));
        let mut client = connect_from(stranger, tidegate.at("in").tcp());
        let own = client.local_addr().unwrap().to_string();
        client.write_all(PAYLOAD).unwrap();
        assert_eq!(echoed(&mut client), PAYLOAD);
        assert_eq!(tidegate.only_access().field("client"), own);
    }
}

/// One client, whose first bytes close the connection for this reason.
#[track_caller]
fn is_refused(backend: &Backend, listener: &str, from: Option<IpAddr>, first: &[u8], reason: &str, end: &str) {
    let tidegate = Tidegate::start(&forward(backend.place(), listener, ""));
    let at = tidegate.at("in").tcp();
    let mut client = connect_from(from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), at);
    let own = client.local_addr().unwrap().to_string();
    client.write_all(&[first, PAYLOAD].concat()).unwrap();
    assert_eq!(read_to_end(&mut client).0, b"", "{reason}");
    let wanted = format!("client rejected: it {reason}");
    let line = tidegate.wait_for_log(&wanted, |line| line.field("message") == wanted);
    assert_eq!((line.field("client"), line.field("listener")), (own.clone(), "in".to_owned()));
    let access = tidegate.only_access();
    assert_eq!((access.end(), access.field("client")), (end.to_owned(), own));
}

/// What speaks first is the server: nothing comes from the client, however long it is waited for.
#[test]
fn a_server_may_speak_first_where_no_header_is_required() {
    for stranger in [false, true] {
        let scripted = Scripted::start();
        let mut rule = ALLOWED;
        if stranger {
            rule = "proxy_protocol: { trusted: [127.0.0.3] }";
        }
        let tidegate =
            Tidegate::start(&forward(scripted.place(), &format!("{rule}, timeouts: {{ sniff: 200ms }}"), ""));
        let mut client = connect(&tidegate.at("in"));
        let mut backend = scripted.accept();
        backend.write_all(b"220 welcome").unwrap();
        expect(&mut client, b"220 welcome");
        client.write_all(b"HELO").unwrap();
        expect(&mut backend, b"HELO");
        // And where a header is sent, it is not waited for.
        if !stranger {
            let mut client = connect(&tidegate.at("in"));
            client.write_all(&v1()).unwrap();
            let mut backend = scripted.accept();
            backend.write_all(b"220 welcome").unwrap();
            expect(&mut client, b"220 welcome");
        }
    }
}

/// Waiting until the backend is connected is no way around the rule.
#[test]
fn a_header_that_comes_after_the_silence_is_refused() {
    let scripted = Scripted::start();
    let strangers = "proxy_protocol: { trusted: [127.0.0.3] }";
    let cases = [
        (strangers, "sends a PROXY header, and is not in proxy_protocol.trusted", "rejected: untrusted PROXY header"),
        (ALLOWED, "sends its PROXY header after timeouts.sniff", "rejected: bad PROXY header"),
    ];
    for (rule, why, end) in cases {
        let tidegate = Tidegate::start(&forward(scripted.place(), &format!("{rule}, timeouts: {{ sniff: 50ms }}"), ""));
        let silent = || {
            let mut client = connect(&tidegate.at("in"));
            let mut backend = scripted.accept();
            backend.write_all(b"220 welcome").unwrap();
            expect(&mut client, b"220 welcome");
            (client, backend)
        };
        for header in [v1(), with_tlvs()] {
            let (mut client, mut backend) = silent();
            send_in_parts(&mut client, &[&header[..3]]);
            client.write_all(&header[3..]).unwrap();
            assert_eq!(read_to_end(&mut backend), (Vec::new(), End::Reset), "{rule}");
            assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset), "{rule}");
        }
        eventually(DEADLINE, "two lines", || tidegate.access().len() == 2);
        assert!(tidegate.access().iter().all(|line| line.end() == end), "{:?}", tidegate.access());
        tidegate.wait_for_log("why", |line| line.is(&format!("client rejected: it {why}")));

        // What begins like one and is none arrives whole, and what follows it goes by pipe as ever.
        for (begin, more) in [(&b"PROX"[..], 1 << 20), (b"\r\n\r\n\0\r\nQUIT", 100), (b"P", 0), (b"HELO", 1 << 20)] {
            let (mut client, mut backend) = silent();
            let rest = vec![b'.'; more];
            thread::scope(|scope| {
                scope.spawn(|| {
                    send_in_parts(&mut client, &[begin, &rest]);
                    client.shutdown(Shutdown::Write).unwrap();
                });
                assert_eq!(read_to_end(&mut backend), ([begin, &rest].concat(), End::Fin));
            });
            backend.write_all(&rest).unwrap();
            drop(backend);
            assert_eq!(read_to_end(&mut client), (rest, End::Fin));
        }
    }
}

/// Where a route or TLS needs the first bytes, silence is no way to the listener's pool.
#[test]
fn silence_is_no_route() {
    let (backend, authority) = (Backend::echo(), Authority::new());
    let tls = format!("tls: {{ certificates: [{}] }}", authority.issue(&["a.example.test"]).yaml());
    for rule in ["proxy_protocol: { trusted: [127.0.0.3] }", ALLOWED] {
        for needs in [&tls, "routes: [{ match: { sni: [a.example.test] }, pool: p }]"] {
            let listener = format!("{rule}, {needs}, timeouts: {{ sniff: 50ms }}");
            let tidegate = Tidegate::start(&forward(backend.place(), &listener, ""));
            assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
            assert_eq!(tidegate.only_access().end(), "preamble timeout");
        }
    }
    assert_eq!(backend.accepted(), 0);
}

/// No byte behind the signature of a stranger's header is waited for.
#[test]
fn a_strangers_header_is_refused_by_its_signature() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(
        backend.place(),
        "proxy_protocol: { trusted: [127.0.0.3] }, timeouts: { sniff: 1h }",
        "",
    ));
    for begin in [&b"PROXY"[..], b"\r\n\r\n\0\r\nQUIT\n"] {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(begin).unwrap();
        assert_eq!(read_to_end(&mut client).0, b"");
    }
    eventually(DEADLINE, "two lines", || tidegate.access().len() == 2);
    assert!(tidegate.access().iter().all(|line| line.end() == "rejected: untrusted PROXY header"));
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn ip_hash_places_by_the_address_in_the_header() {
    let backends = ["a", "b", "c", "d", "e"].map(|name| (name, Backend::named(name)));
    let listed: Vec<String> = backends
        .iter()
        .map(|(name, backend)| format!("{{ name: {name}, address: \"{}\" }}", backend.place()))
        .collect();
    let start = |listener: &str| {
        Tidegate::start(&format!(
            "workers: 2\n\
             listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {listener} }}]\n\
             pools: [{{ name: p, balance: ip_hash, backends: [{}] }}]\n",
            listed.join(", ")
        ))
    };
    let named = |mut client: TcpStream| {
        let (name, end) = read_to_end(&mut client);
        assert_eq!(end, End::Fin);
        String::from_utf8(name).unwrap()
    };
    let tidegate = start(REQUIRED);
    let mut placed = BTreeMap::new();
    for round in 0..3 {
        for last in 1..=40 {
            let ip = Ipv4Addr::new(127, 0, 3, last);
            let mut client = connect(&tidegate.at("in"));
            let port = 1000 + round;
            client.write_all(format!("PROXY TCP4 {ip} 198.51.100.2 {port} 443\r\n").as_bytes()).unwrap();
            let name = named(client);
            assert_eq!(*placed.entry(ip).or_insert_with(|| name.clone()), name, "{ip}");
        }
    }
    assert!(placed.values().collect::<BTreeSet<_>>().len() >= 3, "40 clients share five backends: {placed:?}");
    // As if they had connected themselves.
    let direct = start("");
    for (ip, name) in placed {
        assert_eq!(named(connect_from(IpAddr::V4(ip), direct.at("in").tcp())), name, "{ip}");
    }
}

#[test]
fn the_address_is_passed_on() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), REQUIRED, "send_proxy: v1"));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&[&with_tlvs(), PAYLOAD].concat()).unwrap();
    let mut backend = scripted.accept();
    expect(&mut backend, &[&v1(), PAYLOAD].concat());

    // Who speaks for itself is the client: a load balancer's health check, for example.
    let mut client = connect(&tidegate.at("in"));
    let (own, here) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    client.write_all(&v2(0, 0, &[])).unwrap();
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), here.port());
    expect(&mut scripted.accept(), line.as_bytes());

    // And a unix socket's client has no address.
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&v2(1, 0x31, &[7; 216])).unwrap();
    expect(&mut scripted.accept(), b"PROXY UNKNOWN\r\n");
}

#[test]
fn the_header_comes_before_tls() {
    let (backend, authority) = (Backend::echo(), Authority::new());
    let certificate = authority.issue(&["a.example.test"]).yaml();
    let start = |tls: &str| {
        let listener = format!("{REQUIRED}, tls: {{ certificates: [{certificate}], {tls} }}");
        Tidegate::start(&forward(backend.place(), &listener, ""))
    };
    let through = |client: TcpStream| {
        let mut tls = handshake(authority.client_for("a.example.test", &["postgresql"]), client).unwrap();
        tls.write_all(PAYLOAD).unwrap();
        let mut answer = vec![0; PAYLOAD.len()];
        tls.read_exact(&mut answer).unwrap();
        assert_eq!(answer, PAYLOAD);
    };
    let from_source = |tidegate: &Tidegate| {
        assert_eq!(tidegate.only_access().field("client"), SOURCE);
    };
    for header in [v1(), with_tlvs()] {
        let tidegate = start("");
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&header).unwrap();
        through(client);
        from_source(&tidegate);

        // In one segment with PostgreSQL's request for TLS.
        let tidegate = start("starttls: postgres");
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&[&header[..], &SSL_REQUEST].concat()).unwrap();
        expect(&mut client, b"S");
        through(client);
        from_source(&tidegate);

        let tidegate = start("starttls: postgres");
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&[&header[..], &startup(3, 0)].concat()).unwrap();
        assert_eq!(read_error(&mut client)[&'C'], "28000");
        drop(client);
        from_source(&tidegate);
        let line = tidegate.wait_for_log("refused", |line| line.field("message").contains("asks for no TLS"));
        assert_eq!(line.field("client"), SOURCE);
    }
    // After it, it is none.
    let tidegate = start("");
    let mut client = connect(&tidegate.at("in"));
    let hello_first: SocketAddr = client.local_addr().unwrap();
    client.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
    assert_eq!(read_to_end(&mut client).0, b"");
    assert_eq!(tidegate.only_access().end(), "rejected: bad PROXY header");
    assert_eq!(tidegate.only_access().field("client"), hello_first.to_string());
}
