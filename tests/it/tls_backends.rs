//! TLS towards backends: whom they must be, what they are shown, and that nothing but TLS comes from them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustls::{HandshakeKind, ServerConfig};
use tidegate::admin::snapshot_model::HandshakeStats;

use crate::support::DEADLINE;
use crate::support::backend::{Backend, in_thread};
use crate::support::client::{End, Place, connect, expect, read_to_end, reset};
use crate::support::data::{receive, send};
use crate::support::stats::ADMIN;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, read_all, send_name_over_tls, tls_backend};

const MIB: u64 = 1 << 20;

/// A backend whose connections, after their handshake, the test drives.
struct Scripted {
    backend: Backend,
    connections: Receiver<Tls>,
}

impl Scripted {
    fn start(config: ServerConfig) -> Scripted {
        let (sender, connections) = mpsc::channel();
        let backend = tls_backend(config, move |tls| _ = sender.send(tls));
        Scripted { backend, connections }
    }

    fn accept(&self) -> Tls {
        self.connections.recv_timeout(DEADLINE).expect("a connection to the backend")
    }
}

fn towards(backend: &Place, tls: &str) -> Tidegate {
    Tidegate::start(&forward(backend, "", &format!("retries: 0, tls: {{ {tls} }}")))
}

fn ca(authority: &Authority) -> String {
    format!("ca: {}", authority.file().display())
}

/// Both ends: plain at the client, TLS at the backend.
fn one_connection() -> (Tidegate, TcpStream, Tls) {
    let authority = Authority::new();
    let scripted = Scripted::start(authority.issue(&["db.example"]).server());
    let tidegate = towards(scripted.backend.place(), &format!("server_name: db.example, {}", ca(&authority)));
    let client = connect(&tidegate.at("in"));
    let backend = scripted.accept();
    (tidegate, client, backend)
}

/// The client gets nothing, and the log says why.
fn refused(tidegate: &Tidegate, why: &str) {
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    assert_eq!(tidegate.only_access().end(), "rejected: connect failed");
    let line = tidegate.wait_for_log("why", |line| line.is("connect failed"));
    assert!(line.field("reason").contains(why), "{why:?} is not in {}", line.text);
    assert_eq!(line.field("backend"), "b");
}

fn served(tidegate: &Tidegate) {
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))), (b"name".to_vec(), End::Fin));
    assert_eq!(tidegate.only_access().end(), "backend closed");
}

#[test]
fn a_backend_must_be_the_one_it_is_taken_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let backend = tls_backend(authority.issue(&["db.example"]).server(), send_name_over_tls("name"));
    let with = |keys: &str, authority: &Authority| towards(backend.place(), &format!("{keys}, {}", ca(authority)));

    served(&with("verify: full, server_name: db.example", &authority));
    served(&with("server_name: DB.Example", &authority));
    refused(&with("verify: full, server_name: other.example", &authority), "db.example");
    refused(&with("server_name: other.example", &authority), "other.example");
    // Without server_name it is the backend's host, and that is an address here.
    refused(&with("verify: full", &authority), "127.");
    refused(&with("server_name: db.example", &stranger), "issued by an unknown authority");

    served(&with("verify: ca, server_name: other.example", &authority));
    served(&with("verify: ca", &authority));
    refused(&with("verify: ca", &stranger), "issued by an unknown authority");

    let off = with("verify: off", &stranger);
    served(&off);
    let warning = off.wait_for_log("that it is not verified", |line| {
        line.text.contains("tls.verify: backend certificates are not verified")
    });
    assert_eq!(warning.level(), "WARN");
    refused(&towards(backend.place(), "server_name: db.example"), "issued by an unknown authority");
}

#[test]
fn an_address_can_be_verified_too() {
    let authority = Authority::new();
    let certificate = authority.issue(&["127.0.0.1"]);
    let config = std::sync::Arc::new(certificate.server());
    let serve = send_name_over_tls("name");
    let backend = Backend::bind(
        "127.0.0.1:0".parse().unwrap(),
        in_thread(move |socket| {
            if let Ok(tls) = Tls::accept(socket, &config) {
                serve(tls);
            }
        }),
    );
    served(&towards(backend.place(), &ca(&authority)));
}

#[test]
fn a_client_certificate_is_shown() {
    let authority = Authority::new();
    let server = authority.strict_server(&authority.issue(&["db.example"]));
    let shown = authority.issue_client("tidegate");
    let scripted = Scripted::start(server);
    let rules = format!("server_name: db.example, {}", ca(&authority));

    let with = towards(scripted.backend.place(), &format!("{rules}, client_certificate: {}", shown.yaml()));
    let mut client = connect(&with.at("in"));
    let backend = scripted.accept();
    assert_eq!(backend.peer(), Some(shown.der.clone()));
    (&backend).write_all(b"welcome").unwrap();
    expect(&mut client, b"welcome");

    // In TLS 1.3 the client has finished before the server says no: that is a connection that fails, not a connect.
    let without = towards(scripted.backend.place(), &rules);
    let (bytes, _) = read_to_end(&mut connect(&without.at("in")));
    assert_eq!(bytes, b"");
    let line = without.only_access();
    assert!(
        ["rejected: connect failed", "backend TLS protocol error", "backend reset"].contains(&line.end().as_str()),
        "{line:?}"
    );
}

#[test]
fn protocols_are_offered_and_sessions_resumed() {
    let authority = Authority::new();
    let scripted = Scripted::start(authority.issue(&["db.example"]).server_for(&["postgresql", "other"]));
    let rules = format!(
        "workers: 1\n{ADMIN}{}",
        forward(
            scripted.backend.place(),
            "",
            &format!("tls: {{ server_name: db.example, alpn: [postgresql], {} }}", ca(&authority)),
        )
    );
    let tidegate = Tidegate::start(&rules);
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let mut client = connect(&tidegate.at("in"));
        let backend = scripted.accept();
        let look = backend.look(|tls| (tls.alpn_protocol().map(<[u8]>::to_vec), tls.handshake_kind()));
        assert_eq!(look.0, Some(b"postgresql".to_vec()));
        let server_name = backend.look(|tls| match tls {
            rustls::Connection::Server(server) => server.server_name().map(str::to_owned),
            rustls::Connection::Client(_) => None,
        });
        assert_eq!(server_name.as_deref(), Some("db.example"));
        kinds.push(look.1.unwrap());
        // Tickets come before this.
        (&backend).write_all(b"welcome").unwrap();
        expect(&mut client, b"welcome");
    }
    assert_eq!(kinds[0], HandshakeKind::Full);
    assert_eq!(kinds[1..], [HandshakeKind::Resumed, HandshakeKind::Resumed]);
    assert_eq!(tidegate.view().pools[0].backends[0].handshakes, Some(HandshakeStats { full: 1, resumed: 2 }));
}

#[test]
fn no_protocol_in_common() {
    let authority = Authority::new();
    let backend = tls_backend(authority.issue(&["db.example"]).server_for(&["other"]), send_name_over_tls("name"));
    let rules = format!("server_name: db.example, alpn: [postgresql], {}", ca(&authority));
    refused(&towards(backend.place(), &rules), "ALPN");
}

/// They could come from anybody on the way.
#[test]
fn plain_bytes_before_the_handshake_are_an_error() {
    let authority = Authority::new();
    let backend = Backend::start(in_thread(|mut stream| {
        _ = stream.write_all(b"220 welcome, speak freely\r\n");
        _ = stream.read(&mut [0; 4096]);
        _ = stream.read(&mut [0; 4096]);
    }));
    let rules = format!("server_name: db.example, {}", ca(&authority));
    refused(&towards(backend.place(), &rules), "does not speak TLS");
}

#[test]
fn a_backend_that_closes_instead_of_a_handshake() {
    let backend = Backend::start(drop);
    refused(&towards(backend.place(), "verify: off"), "");
}

#[test]
fn a_backend_that_says_nothing_is_given_up() {
    let backend =
        Backend::start(in_thread(|mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}));
    let yaml = forward(backend.place(), "", "retries: 0, timeouts: { connect: 300ms }, tls: { verify: off }");
    refused(&Tidegate::start(&yaml), "timed out in its TLS handshake");
}

/// Nothing was sent yet: the next one has its try.
#[test]
fn another_backend_is_tried() {
    let authority = Authority::new();
    let bad = Backend::start(drop);
    let good = tls_backend(authority.issue(&["db.example"]).server(), send_name_over_tls("name"));
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, retries: 1, tls: {{ server_name: db.example, {} }}, \
         backends: [{{ name: bad, address: \"{}\" }}, {{ name: good, address: \"{}\" }}] }}]",
        ca(&authority),
        bad.place(),
        good.place()
    ));
    for _ in 0..6 {
        assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))), (b"name".to_vec(), End::Fin));
    }
    tidegate.wait_for_access("all", |_| tidegate.access().len() == 6);
    assert!(tidegate.access().iter().all(|line| line.backend() == Some("good")));
}

#[test]
fn bulk_both_ways() {
    let (_tidegate, client, backend) = one_connection();
    thread::scope(|scope| {
        let sent_up = scope.spawn(|| {
            let sum = send(&mut &client, 51, 64 * MIB).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            sum
        });
        let sent_down = scope.spawn(|| {
            let sum = send(&mut &backend, 52, 64 * MIB).unwrap();
            backend.close_notify().unwrap();
            sum
        });
        let got_up = scope.spawn(|| receive(&mut &backend).unwrap());
        assert_eq!(receive(&mut &client).unwrap(), sent_down.join().unwrap(), "backend to client");
        assert_eq!(got_up.join().unwrap(), sent_up.join().unwrap(), "client to backend");
    });
}

#[test]
fn a_clients_fin_is_close_notify_and_the_answer_still_comes() {
    let (tidegate, mut client, backend) = one_connection();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&backend), "question");
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let sum = send(&mut &backend, 53, 50 * MIB).unwrap();
            backend.finish();
            sum
        });
        assert_eq!(receive(&mut client).unwrap(), sent.join().unwrap());
    });
    assert_eq!(tidegate.only_access().end(), "client closed");
}

#[test]
fn a_backends_close_notify_is_fin_and_it_still_receives() {
    let (tidegate, mut client, backend) = one_connection();
    (&backend).write_all(b"question").unwrap();
    backend.close_notify().unwrap();
    assert_eq!(read_to_end(&mut client), (b"question".to_vec(), End::Fin));
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let sum = send(&mut client, 54, 50 * MIB).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            sum
        });
        assert_eq!(receive(&mut &backend).unwrap(), sent.join().unwrap());
    });
    assert_eq!(tidegate.only_access().end(), "backend closed");
}

#[test]
fn a_backends_bare_fin_is_recorded_as_a_truncation() {
    let (tidegate, mut client, backend) = one_connection();
    (&backend).write_all(b"half of it").unwrap();
    backend.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).0, b"half of it");
    drop(client);
    assert_eq!(tidegate.only_access().end(), "backend closed without close_notify");
}

#[test]
fn a_record_of_a_backend_that_was_changed_on_its_way() {
    let (tidegate, mut client, backend) = one_connection();
    (&backend).write_all(b"good").unwrap();
    expect(&mut client, b"good");
    let mut record = backend.seal(b"bad");
    *record.last_mut().unwrap() ^= 1;
    backend.socket().write_all(&record).unwrap();
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset), "nobody may take it for all there was");
    assert_eq!((&backend).read(&mut [0]).expect_err("an alert").kind(), ErrorKind::InvalidData);
    assert_eq!(tidegate.only_access().end(), "backend TLS protocol error");
}

#[test]
fn resets_pass() {
    let (tidegate, client, backend) = one_connection();
    reset(client);
    assert_eq!((&backend).read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!(tidegate.only_access().end(), "client reset");

    let (tidegate, mut client, backend) = one_connection();
    reset(backend.into_socket());
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    assert_eq!(tidegate.only_access().end(), "backend reset");
}

/// Over TLS on both sides, what was cut on one stays cut on the other: a close_notify would vouch for it.
#[test]
fn a_truncation_is_passed_on_as_one() {
    let authority = Authority::new();
    let scripted = Scripted::start(authority.issue(&["db.example"]).server());
    let own = authority.issue(&["a.example"]).yaml();
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, tls: {{ certificates: [{own}] }} }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}], tls: {{ server_name: db.example, {} }} }}]\n",
        scripted.backend.place(),
        ca(&authority)
    ));
    for cut_by_backend in [true, false] {
        let client = Tls::connect(&tidegate.at("in"), &authority.client(), "a.example");
        let backend = scripted.accept();
        let (cut, other) = if cut_by_backend { (&backend, &client) } else { (&client, &backend) };
        (&*cut).write_all(b"half of it").unwrap();
        cut.socket().shutdown(Shutdown::Write).unwrap();
        let mut got = [0; 10];
        (&*other).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"half of it");
        let end = (&*other).read(&mut [0]).expect_err("no close_notify");
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "by the backend: {cut_by_backend}");
    }
}
