//! TLS ends here: how connections begin, and what becomes of those that don't.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, read_to_end};
use crate::support::proc::allow_open_files;
use crate::support::tidegate::Tidegate;
use crate::support::tls::{Authority, Issued, Tls, client_connection, client_hello, read_all, split_record, terminate};
use crate::support::{DEADLINE, eventually, tell};

/// A listener with TLS before a backend that says `b`.
struct Served {
    tidegate: Tidegate,
    authority: Authority,
    _backend: Backend,
}

impl Served {
    fn new(tls: &str, listener: &str) -> Served {
        let (authority, backend) = (Authority::new(), Backend::named("b"));
        let certificate = authority.issue(&["a.example"]);
        let tidegate = Tidegate::start(&terminate(backend.place(), &[&certificate], tls, listener));
        Served { tidegate, authority, _backend: backend }
    }

    fn place(&self) -> Place {
        self.tidegate.at("in")
    }

    fn hello(&self) -> (ClientConnection, Vec<u8>) {
        let mut connection = client_connection(&self.authority.client(), "a.example");
        let hello = client_hello(&mut connection);
        (connection, hello)
    }

    /// A whole connection by a client like any other.
    fn works(&self) {
        assert_eq!(read_all(&Tls::connect(&self.place(), &self.authority.client(), "a.example")), "b");
    }
}

/// Closed, with an alert at most.
fn assert_closed(mut client: TcpStream) {
    let (bytes, _) = read_to_end(&mut client);
    assert!(bytes.len() <= 7, "an alert, or nothing: {bytes:?}");
}

#[test]
fn a_post_quantum_key_exchange() {
    let served = Served::new("", "");
    let client = Tls::connect(&served.place(), &served.authority.client(), "a.example");
    let group = client.look(|tls| tls.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name));
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(client.look(|tls| tls.protocol_version()), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.look(|tls| tls.handshake_kind()), Some(HandshakeKind::Full), "without another round trip");
    assert_eq!(read_all(&client), "b");
}

/// A ClientHello with a post-quantum key is longer than a segment, and comes as the network likes.
#[test]
fn a_client_hello_in_single_bytes() {
    let served = Served::new("", "");
    let (connection, hello) = served.hello();
    assert!(hello.len() > 1400, "{} bytes, more than a segment", hello.len());
    let mut socket = connect(&served.place());
    socket.set_nodelay(true).unwrap();
    for byte in &hello {
        socket.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_all(&Tls::on(socket, connection).unwrap()), "b");
}

#[test]
fn a_client_hello_split_over_records() {
    let served = Served::new("", "");
    for size in [1, 2, 5, 100, 1000] {
        let (connection, hello) = served.hello();
        let mut socket = connect(&served.place());
        socket.write_all(&split_record(&hello, size)).unwrap();
        let client = Tls::on(socket, connection).unwrap_or_else(|error| panic!("records of {size} bytes: {error}"));
        assert_eq!(read_all(&client), "b", "records of {size} bytes");
    }
}

/// What a client sends right behind its handshake's end, in one segment with it, is not lost.
#[test]
fn a_request_in_one_segment_with_the_end_of_the_handshake() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let certificate = authority.issue(&["a.example"]);
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&certificate], "", ""));
    let mut connection = client_connection(&authority.client(), "a.example");
    let mut socket = connect(&tidegate.at("in"));
    while connection.is_handshaking() {
        while connection.wants_write() && connection.is_handshaking() {
            connection.write_tls(&mut socket).unwrap();
        }
        connection.read_tls(&mut socket).unwrap();
        connection.process_new_packets().unwrap();
    }
    connection.writer().write_all(b"at once").unwrap();
    connection.send_close_notify();
    let mut all = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut all).unwrap();
    }
    socket.write_all(&all).unwrap();
    assert_eq!(read_all(&Tls::on(socket, connection).unwrap()), "at once");
}

#[test]
fn what_is_no_tls_is_closed() {
    let served = Served::new("", "");
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"[..], "it speaks plain HTTP, on a listener with TLS"),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ""),
        // A ServerHello instead of a ClientHello.
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", ""),
    ] {
        let before = served.tidegate.access().len();
        let mut client = connect(&served.place());
        client.write_all(bytes).unwrap();
        assert_closed(client);
        served.tidegate.wait_for_access("it", |_| served.tidegate.access().len() > before);
        let line = served.tidegate.access().pop().unwrap();
        assert_eq!((line.end().as_str(), line.backend()), ("rejected: no TLS", None), "{bytes:?}");
        if !why.is_empty() {
            let line = served.tidegate.wait_for_log("why", |line| line.text.contains("client rejected"));
            assert!(line.text.contains(why), "{}", line.text);
        }
    }
    served.works();
}

#[test]
fn a_client_hello_that_does_not_come() {
    let served = Served::new("", "timeouts: { sniff: 300ms }");
    let (_, hello) = served.hello();
    for bytes in [&hello[..0], &hello[..1], &hello[..hello.len() - 1]] {
        let before = served.tidegate.access().len();
        let mut client = connect(&served.place());
        client.write_all(bytes).unwrap();
        assert_closed(client);
        served.tidegate.wait_for_access("it", |_| served.tidegate.access().len() > before);
        assert_eq!(served.tidegate.access().pop().unwrap().end(), "preamble timeout", "{} bytes", bytes.len());
    }
}

#[test]
fn a_handshake_that_does_not_end() {
    let served = Served::new("", "timeouts: { handshake: 300ms }");
    let (mut socket, _) = begin_handshake(&served);
    read_to_end(&mut socket);
    assert_eq!(served.tidegate.only_access().end(), "TLS handshake timeout");
}

/// Begun: its ClientHello was sent, and the answer to it has begun to come.
fn begin_handshake(served: &Served) -> (TcpStream, ClientConnection) {
    let (mut connection, hello) = served.hello();
    let mut socket = connect(&served.place());
    socket.write_all(&hello).unwrap();
    connection.read_tls(&mut socket).unwrap();
    (socket, connection)
}

#[test]
fn handshakes_over_the_limit_are_closed_at_once() {
    let served = Served::new("", "limits: { handshakes: 2 }");
    let under_way = [begin_handshake(&served), begin_handshake(&served)];
    let (_, hello) = served.hello();
    let mut third = connect(&served.place());
    third.write_all(&hello).unwrap();
    assert_eq!(read_to_end(&mut third).0, b"");
    assert_eq!(served.tidegate.only_access().end(), "rejected: too many TLS handshakes");
    for (socket, mut connection) in under_way {
        connection.process_new_packets().unwrap();
        assert_eq!(read_all(&Tls::on(socket, connection).unwrap()), "b", "those under way come to their end");
    }
    // One whose client leaves is under way no more either.
    for _ in 0..4 {
        drop(begin_handshake(&served));
        eventually(DEADLINE, "it is gone", || {
            served.tidegate.access().iter().filter(|line| line.end() == "client left").count() > 0
        });
    }
    eventually(DEADLINE, "there is room", || {
        Tls::try_connect(&served.place(), &served.authority.client(), "a.example").is_ok()
    });
}

/// Slow clients hold up nobody, and take next to nothing.
#[test]
fn two_thousand_clients_that_fall_silent_after_one_byte() {
    const SILENT: usize = 2_000;
    allow_open_files(16_000);
    let served = Served::new("", "timeouts: { sniff: 10s }");
    let quick = |served: &Served| {
        let begun = Instant::now();
        served.works();
        begun.elapsed()
    };
    quick(&served);
    let alone = quick(&served);
    let before = served.tidegate.resident();

    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|_| {
            let mut client = connect(&served.place());
            client.write_all(&[0x16]).unwrap();
            client
        })
        .collect();
    let among_them = quick(&served);
    let each = served.tidegate.resident().saturating_sub(before) / SILENT as u64;
    tell(&format!(
        "a handshake takes {alone:?} alone, {among_them:?} among {SILENT} silent clients of {each} bytes each"
    ));
    assert!(each < 8 * 1024, "{each} bytes each");

    let timed_out = || served.tidegate.access().iter().filter(|line| line.end() == "preamble timeout").count();
    eventually(DEADLINE, "all of them are closed", || timed_out() == SILENT);
    for client in silent {
        assert_closed(client);
    }
}

#[test]
fn idle_clients_cost_less_than_20_kib_each() {
    const CLIENTS: usize = 1_000;
    allow_open_files(16_000);
    let authority = Authority::new();
    let backend = Backend::echo();
    let certificate = authority.issue(&["a.example"]);
    let yaml = terminate(backend.place(), &[&certificate], "", "");
    let tidegate = Tidegate::start(&format!("workers: 2\n{yaml}"));
    let config = authority.client();
    let open = |count: usize| -> Vec<Tls> {
        let one = || {
            let client = Tls::connect(&tidegate.at("in"), &config, "a.example");
            (&client).write_all(b"question").unwrap();
            let mut answer = [0; 8];
            (&client).read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"question");
            client
        };
        (0..count).map(|_| one()).collect()
    };
    // Warm: what every worker has once is not what a connection costs.
    drop(open(50));
    tidegate.wait_for_access("all of them left", |_| tidegate.access().len() == 50);
    let before = tidegate.resident();
    let clients = open(CLIENTS);
    let each = tidegate.resident().saturating_sub(before) / CLIENTS as u64;
    tell(&format!("{each} bytes of process memory an idle TLS connection"));
    assert!(each < 20 * 1024, "{each} bytes each");
    drop(clients);
}

/// The name of the certificate that a client gets who asks for this one.
fn common_name_for(served: &Tidegate, authority: &Authority, certificates: &[&Issued], name: &str) -> usize {
    let client = Tls::connect(&served.at("in"), &authority.client(), name);
    let got = client.peer().expect("a certificate");
    certificates.iter().position(|issued| issued.der == got).expect("one of ours")
}

#[test]
fn the_server_name_chooses_among_certificates() {
    let (authority, backend) = (Authority::new(), Backend::named("b"));
    let [exact, wildcard, both] =
        [&["a.example"][..], &["*.b.example"], &["c.example", "very.b.example"]].map(|names| authority.issue(names));
    let certificates = [&exact, &wildcard, &both];
    let tidegate = Tidegate::start(&terminate(backend.place(), &certificates, "", ""));
    for (name, index) in
        [("a.example", 0), ("x.b.example", 1), ("X.B.Example", 1), ("c.example", 2), ("very.b.example", 2)]
    {
        assert_eq!(common_name_for(&tidegate, &authority, &certificates, name), index, "{name}");
    }
}

/// A flood of handshakes that are left in their midst leaves nothing behind.
#[test]
fn handshakes_that_clients_leave() {
    let served = Served::new("", "");
    served.works();
    let files = served.tidegate.open_files();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(begin_handshake(&served))));
        }
    });
    eventually(DEADLINE, "all of them are closed", || served.tidegate.access().len() == 201);
    eventually(Duration::from_secs(10), "their sockets too", || served.tidegate.open_files() <= files);
    let left = served.tidegate.access().iter().filter(|line| line.end() == "client left").count();
    assert_eq!(left, 200);
}
