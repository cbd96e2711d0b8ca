//! `starttls: mysql` with a server that plays MySQL 8.

use std::net::TcpStream;

use rustls::ClientConnection;

use crate::support::authority::{Authority, Issued, client_connection};
use crate::support::backend::{Backend, Dead, Scripted, in_thread};
use crate::support::client::{Place, connect, read_to_end, reset};
use crate::support::mysqlwire::{
    AnyWire, CACHING, CLEAR, ErrorAt, LoginEnd, Mysql8, MysqlClient, NATIVE, SHA256_PASSWORD, SSL, Wire, as_error,
    echoes, head,
};
use crate::support::starttls::{NAME, wait_for_refusal};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

const PASSWORD: &[u8] = b"correct horse";

/// Of a server that the test drives.
const GREETING: &[u8] = b"\x0a8.4.3\0\x01\0\0\0abcdefgh\0\xff\xff\x2d\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0";

/// A server behind tidegate: TLS ends at the listener with `front`, and begins at the pool with `back`.
struct Bench {
    authority: Authority,
    server: Mysql8,
    /// Not dropped before tidegate.
    _backend: Backend,
    tidegate: Tidegate,
}

fn starttls(authority: &Authority, more: &str) -> String {
    format!("tls: {{ certificates: [{}], starttls: mysql, {more} }}", authority.issue(&[NAME]).yaml())
}

fn back(authority: &Authority) -> String {
    format!("retries: 0, tls: {{ starttls: mysql, server_name: {NAME}, ca: {} }}", authority.file().display())
}

impl Bench {
    /// `front` is more keys of the listener's `tls`; without, it has none. `back`: the pool has TLS.
    fn start(change: impl FnOnce(&mut Mysql8), method: &'static str, front: Option<&str>, has_back: bool) -> Bench {
        let authority = Authority::new();
        let mut server = Mysql8::new(method);
        if has_back {
            server.tls = Some(authority.issue(&[NAME]).server().into());
        }
        change(&mut server);
        let backend = Backend::start(in_thread({
            let server = server.clone();
            move |stream| server.serve(stream)
        }));
        let listener = front.map_or(String::new(), |more| starttls(&authority, more));
        let pool = if has_back { back(&authority) } else { String::new() };
        let tidegate = Tidegate::start(&forward(backend.place(), &listener, &pool));
        Bench { authority, server, _backend: backend, tidegate }
    }

    fn client(&self, method: &'static str, tls: bool) -> MysqlClient {
        let tls = tls.then(|| self.tls());
        MysqlClient { password: PASSWORD, method, tls, asks_for_key: false }
    }

    fn tls(&self) -> ClientConnection {
        self.authority.client_for(NAME, &[])
    }

    fn log_in(&self, client: MysqlClient) -> std::io::Result<(LoginEnd, AnyWire)> {
        client.log_in(connect(&self.tidegate.at("in")))
    }

    #[track_caller]
    fn logs_in(&self, method: &'static str, tls: bool) -> AnyWire {
        let (end, mut session) = self.log_in(self.client(method, tls)).unwrap();
        assert_eq!(end, LoginEnd::Ok, "{:?}", self.server.seen());
        echoes(&mut session, b"\x03select 1");
        session
    }
}

/// Of every way in which TLS may be on either side, the server's account and the client's first method.
#[test]
fn logins_go_through_with_tls_on_either_side() {
    for (front, has_back, client_tls) in [
        (Some(""), false, true),
        (Some(""), true, true),
        (None, true, false),
        (Some("plaintext: allow"), false, true),
        (Some("plaintext: allow"), true, true),
        (Some("plaintext: allow"), true, false),
        (Some("plaintext: allow"), false, false),
    ] {
        for method in [NATIVE, CACHING] {
            let bench = Bench::start(|_| {}, method, front, has_back);
            let full = usize::from(method == CACHING);
            let text = format!("{front:?}, {has_back}, {client_tls}, {method}");
            if method == CACHING && !client_tls {
                // In full, a client needs TLS; from the cache it does not.
                let bench = Bench::start(|_| {}, method, Some("plaintext: allow"), has_back);
                bench.logs_in(CACHING, true);
                bench.logs_in(CACHING, false);
                bench.logs_in(NATIVE, false);
                assert_eq!(bench.server.logins(), (1, 2), "{text}: {:?}", bench.server.seen());
                continue;
            }
            for first in [CACHING, NATIVE, CACHING] {
                bench.logs_in(first, client_tls);
            }
            assert_eq!(bench.server.logins(), (full, 2 * full), "{text}");
            let expected = if has_back { "ssl login" } else { "plain login" };
            let logins = bench.server.seen().into_iter().filter(|it| it.ends_with(" login")).collect::<Vec<_>>();
            assert_eq!(logins, [expected; 3], "{text}");
        }
    }
}

/// Also after a change of method: the one that the client begins with is not the account's.
#[test]
fn full_authentication_over_a_plain_leg_is_encrypted_by_the_servers_key() {
    for first in [CACHING, NATIVE] {
        let bench = Bench::start(|_| {}, CACHING, Some(""), false);
        for round in 1..=3 {
            bench.server.forget();
            let session = bench.logs_in(first, true);
            assert_eq!(bench.server.logins(), (round, 0), "{:?}", bench.server.seen());
            drop(session);
        }
        // What the server tells an account without a cache from a wrong password by.
        bench.server.forget();
        let wrong = MysqlClient { password: b"wrong", ..bench.client(first, true) };
        let (end, _) = bench.log_in(wrong).unwrap();
        let denied = "Access denied for user 'app'@'localhost' (using password: YES)".to_owned();
        assert_eq!(end, LoginEnd::Error(1045, denied));
    }
}

/// Of a greeting by one method and an account by another.
#[test]
fn account_of_another_method_than_the_servers_default() {
    for (default, method) in [(NATIVE, CACHING), (CACHING, NATIVE)] {
        for (front, has_back) in [(Some(""), false), (Some(""), true)] {
            let bench = Bench::start(|server| server.default = default, method, front, has_back);
            bench.logs_in(default, true);
            bench.logs_in(default, true);
        }
    }
}

/// What servers send last is what the client reads, with the number that it expects.
#[test]
fn error_of_the_server_reaches_the_client_at_any_step() {
    for (front, has_back, client_tls) in [(Some(""), false, true), (Some(""), true, true), (None, true, false)] {
        for at in [ErrorAt::Login, ErrorAt::Switch, ErrorAt::Full, ErrorAt::Key] {
            let is_full = matches!(at, ErrorAt::Full | ErrorAt::Key);
            // A key is asked for on a plain leg only, and in full a client needs TLS.
            if is_full && !client_tls || at == ErrorAt::Key && has_back {
                continue;
            }
            let bench = Bench::start(|server| server.error_at = Some(at), CACHING, front, has_back);
            let (end, _) = bench.log_in(bench.client(NATIVE, client_tls)).unwrap();
            assert_eq!(end, LoginEnd::Error(1045, format!("denied at {at:?}")), "{front:?} {has_back}");
        }
    }
}

#[test]
fn clear_text_goes_as_it_is_to_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mysqld.sock");
    let authority = Authority::new();
    let mut server = Mysql8::new(CACHING);
    server.is_local = true;
    let _backend = Backend::bind_unix(
        &path,
        in_thread({
            let server = server.clone();
            move |stream| server.serve(stream)
        }),
    );
    let place = Place::Unix(path);
    let tidegate = Tidegate::start(&forward(&place, &starttls(&authority, ""), ""));
    let tls = Some(authority.client_for(NAME, &[]));
    let client = MysqlClient { password: PASSWORD, method: CACHING, tls, asks_for_key: false };
    let (end, _) = client.log_in(connect(&tidegate.at("in"))).unwrap();
    assert_eq!((end, server.logins()), (LoginEnd::Ok, (1, 0)));
}

/// Sent by TLS in clear text, it would go on so.
#[test]
fn sha256_password_is_refused_where_only_one_side_has_tls() {
    let refusal = "it sends its password by sha256_password over TLS, which does not go on to the database server: set \
                   pools[].tls with starttls: mysql";
    for first in [SHA256_PASSWORD, NATIVE] {
        let bench = Bench::start(|_| {}, SHA256_PASSWORD, Some(""), false);
        let (end, _) = bench.log_in(bench.client(first, true)).unwrap();
        let LoginEnd::Error(1251, message) = end else { panic!("{end:?}") };
        assert!(message.starts_with("sha256_password needs TLS between the load balancer"), "{message}");
        wait_for_refusal(&bench.tidegate, refusal);
        assert_eq!(bench.tidegate.only_access().end(), "rejected: authentication method");
    }
    let bench = Bench::start(|_| {}, SHA256_PASSWORD, None, true);
    let (end, _) = bench.log_in(bench.client(NATIVE, false)).unwrap();
    assert!(matches!(&end, LoginEnd::Error(1251, message) if message.contains("connect with TLS")), "{end:?}");
}

/// A server with TLS takes the password as it is, and gives no key.
#[test]
fn full_authentication_of_a_plain_client_is_refused_where_the_server_has_tls() {
    let bench = Bench::start(|_| {}, CACHING, None, true);
    let client = MysqlClient { asks_for_key: true, ..bench.client(CACHING, false) };
    let (end, _) = bench.log_in(client).unwrap();
    assert!(matches!(&end, LoginEnd::Error(1251, message) if message.contains("for a first login")), "{end:?}");
    assert_eq!(bench.tidegate.only_access().end(), "rejected: authentication method");
}

#[test]
fn clear_text_to_a_plain_server_is_logged() {
    let bench = Bench::start(|_| {}, CLEAR, Some(""), false);
    bench.logs_in(NATIVE, true);
    let line = bench.tidegate.wait_for_log("a warning", |line| line.field("method") == CLEAR);
    assert!(line.is("a password goes to a backend in clear text: set pools[].tls"), "{}", line.text);
    assert_eq!(line.level(), "WARN");
    let bench = Bench::start(|_| {}, CLEAR, Some(""), true);
    bench.logs_in(NATIVE, true);
    assert_eq!(bench.tidegate.count_logs(|line| line.field("method") == CLEAR), 0);
}

#[test]
fn plain_client_reads_that_it_must_use_tls() {
    let bench = Bench::start(|_| {}, NATIVE, Some(""), false);
    let (end, _) = bench.log_in(bench.client(NATIVE, false)).unwrap();
    let wanted = "Connections without TLS are prohibited by the load balancer: connect with TLS (--ssl)";
    assert_eq!(end, LoginEnd::Error(3159, wanted.to_owned()));
    wait_for_refusal(&bench.tidegate, "it asks for no TLS, on a listener that requires it (tls.plaintext: refuse)");
    assert_eq!(bench.tidegate.only_access().end(), "rejected: no TLS");
    let ended = ["error: failed to fill whole buffer"];
    eventually(DEADLINE, "the server gets no login", || bench.server.seen() == ended);
}

/// In place of the greeting, and in place of the answer to the login.
#[test]
fn client_reads_that_no_server_can_take_it() {
    let authority = Authority::new();
    let plain = |tidegate: &Tidegate| {
        let client = MysqlClient { password: PASSWORD, method: NATIVE, tls: None, asks_for_key: false };
        client.log_in(connect(&tidegate.at("in"))).unwrap().0
    };
    let none = LoginEnd::Error(1105, "no database server can take the connection now".to_owned());
    let dead = Dead::start();
    let tidegate = Tidegate::start(&forward(dead.place(), &starttls(&authority, ""), ""));
    assert_eq!(plain(&tidegate), none);
    // A server that is full has no greeting: another one may have.
    let bench = Bench::start(|server| server.error_at = Some(ErrorAt::Greeting), NATIVE, Some(""), false);
    assert_eq!(plain(&bench.tidegate), none);
    let reason = "refuses the connection: Too many connections (1040)";
    bench.tidegate.wait_for_log("why", |line| line.is("connect failed") && line.field("reason").ends_with(reason));
    // A server without TLS, of a pool that wants it.
    let bench = Bench::start(|server| server.tls = None, NATIVE, Some(""), true);
    assert_eq!(plain(&bench.tidegate), none);
    bench.tidegate.wait_for_log("why", |line| line.field("reason").contains("offers no TLS"));
    assert_eq!(bench.tidegate.only_access().end(), "rejected: connect failed");
}

/// The client has the greeting by then, so that another backend cannot take it.
#[test]
fn tls_with_the_server_that_fails_is_told_in_the_answer_to_the_login() {
    let other = Authority::new();
    for (front, client_tls) in [(Some(""), true), (None, false)] {
        let change = |server: &mut Mysql8| server.tls = Some(other.issue(&[NAME]).server().into());
        let bench = Bench::start(change, NATIVE, front, true);
        let (end, _) = bench.log_in(bench.client(NATIVE, client_tls)).unwrap();
        assert_eq!(end, LoginEnd::Error(1105, "no database server can take the connection now".to_owned()));
        assert_eq!(bench.tidegate.only_access().end(), "rejected: connect failed");
        let failed = bench.tidegate.wait_for_log("why", |line| line.is("connect failed"));
        assert!(failed.field("reason").starts_with("TLS handshake failed: "), "{}", failed.text);
    }
}

/// Nor may a server say anything in plain text where its TLS begins.
#[test]
fn plain_text_of_the_server_before_tls_is_no_answer() {
    let scripted = Scripted::start();
    let authority = Authority::new();
    let tidegate = Tidegate::start(&forward(scripted.place(), "", &back(&authority)));
    let stream = connect(&tidegate.at("in"));
    let mut server = Wire::new(scripted.accept());
    server.send(GREETING).unwrap();
    let mut client = Wire::new(stream);
    client.receive().unwrap();
    // An attacker's.
    server.next = 2;
    server.send(b"\xff\x15\x04#28000use mysql://evil").unwrap();
    let error = as_error(&client.receive().unwrap()).unwrap();
    assert!(matches!(&error, LoginEnd::Error(1105, message) if !message.contains("evil")), "{error:?}");
    assert_eq!(tidegate.only_access().end(), "backend login protocol error");
}

#[test]
fn what_no_client_of_mysql_says_is_refused() {
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", "sends a packet longer than 65536 bytes before the end of its login"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "sends a packet longer than 65536 bytes before the end of its login",
        ),
        (b"\x05\0\0\x01\x85\xa6\x03\0\0", "speaks the protocol of MySQL 4.0, or another one than MySQL's"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "sends a packet longer than 65536 bytes before the end of its login"),
    ];
    for (bytes, reason) in cases {
        let bench = Bench::start(|_| {}, NATIVE, Some(""), false);
        let mut client = connect(&bench.tidegate.at("in"));
        Wire::new(&mut client).receive().unwrap();
        std::io::Write::write_all(&mut client, bytes).unwrap();
        assert_eq!(read_to_end(&mut client).0, b"", "{reason}");
        bench
            .tidegate
            .wait_for_log(reason, |line| line.field("message").starts_with(&format!("client rejected: it {reason}")));
        assert_eq!(bench.tidegate.only_access().end(), "client login protocol error");
    }
}

#[test]
fn login_has_deadlines() {
    let timeouts = "timeouts: { sniff: 100ms, handshake: 100ms },";
    let authority = Authority::new();
    let scripted = Scripted::start();
    let listener = format!("{timeouts} {}", starttls(&authority, "plaintext: allow"));
    let tidegate = Tidegate::start(&forward(scripted.place(), &listener, ""));
    let begin = || {
        let stream = connect(&tidegate.at("in"));
        let mut server = Wire::new(scripted.accept());
        server.send(GREETING).unwrap();
        let mut client = Wire::new(stream);
        client.receive().unwrap();
        (client, server)
    };
    let login = [&head(0x0008_8200)[..], b"app\0\0mysql_native_password\0"].concat();
    let silent = begin();
    tidegate.wait_for_access("no login", |line| line.end() == "preamble timeout");
    drop(silent);
    let (mut client, server) = begin();
    client.send(&head(0x0008_8200 | SSL)).unwrap();
    tidegate.wait_for_access("no ClientHello", |line| line.end() == "preamble timeout" && line.bytes().1 > 0);
    drop((client, server));
    let (mut client, mut server) = begin();
    client.send(&login).unwrap();
    assert_eq!(server.receive().unwrap(), login);
    let error = as_error(&client.receive().unwrap()).unwrap();
    assert!(matches!(error, LoginEnd::Error(1105, _)), "{error:?}");
    tidegate.wait_for_access("no answer", |line| line.end() == "backend login timeout");
    let (mut client, mut server) = begin();
    client.send(&login).unwrap();
    server.receive().unwrap();
    server.send(b"\xfemysql_native_password\0abcdefghijklmnopqrst\0").unwrap();
    client.receive().unwrap();
    tidegate.wait_for_access("no proof", |line| line.end() == "client login timeout");
}

#[test]
fn sides_that_leave_end_the_login() {
    let authority = Authority::new();
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), &starttls(&authority, "plaintext: allow"), ""));
    let begin = || {
        let stream = connect(&tidegate.at("in"));
        let mut server = Wire::new(scripted.accept());
        server.send(GREETING).unwrap();
        let mut client = Wire::new(stream);
        client.receive().unwrap();
        (client.stream, server.stream)
    };
    let (client, mut server) = begin();
    drop(client);
    assert_eq!(read_to_end(&mut server).0, b"");
    tidegate.wait_for_access("the client", |line| line.end() == "client closed");
    let (mut client, server) = begin();
    drop(server);
    assert_eq!(read_to_end(&mut client).0, b"");
    tidegate.wait_for_access("the server", |line| line.end() == "backend closed");
    let (client, mut server) = begin();
    reset(client);
    assert_eq!(read_to_end(&mut server).0, b"");
    tidegate.wait_for_access("the client", |line| line.end() == "client reset");
    let _: &TcpStream = &server;
}

/// The relay goes on from the login: counted as one connection.
#[test]
fn connection_is_counted_and_logged_as_any_other() {
    let authority = Authority::new();
    let server = Mysql8::new(CACHING);
    let backend = Backend::start(in_thread({
        let server = server.clone();
        move |stream| server.serve(stream)
    }));
    let keys = starttls(&authority, "");
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}{}", forward(backend.place(), &keys, "")));
    let tls = Some(authority.client_for(NAME, &[]));
    let client = MysqlClient { password: PASSWORD, method: CACHING, tls, asks_for_key: false };
    let (end, mut session) = client.log_in(connect(&tidegate.at("in"))).unwrap();
    assert_eq!(end, LoginEnd::Ok);
    echoes(&mut session, &[b'x'; 100]);
    eventually(DEADLINE, "bytes of the open connection", || tidegate.view().listeners[0].bytes_in > 104);
    let open = tidegate.resource("/api/connections");
    assert_eq!(open["connections"][0]["sni"], NAME, "{open}");
    drop(session);
    let line = tidegate.only_access();
    assert_eq!((line.end().as_str(), line.backend()), ("client closed without close_notify", Some("b")));
    for field in ["tls_handshake_ms", "first_byte_ms", "connect_ms"] {
        assert!(line.number(field).is_some(), "{field}: {line:?}");
    }
    let (to_backend, to_client) = line.bytes();
    // Greeting, request for the password, OK, echo; login, request for the key, password, command.
    assert!(to_client > 104 + 60 && to_backend > 104 + 256 + 60, "{to_backend} {to_client}");
    let view = tidegate.view();
    assert_eq!((view.listeners[0].bytes_in, view.listeners[0].bytes_out), line.bytes());
}

/// Whatever a header in front says.
#[test]
fn proxy_header_comes_before_the_greeting() {
    let authority = Authority::new();
    let server = Mysql8::new(NATIVE);
    let backend = Backend::start(in_thread({
        let server = server.clone();
        move |stream| server.serve(stream)
    }));
    let keys = format!("{}, proxy_protocol: {{ trusted: [127.0.0.1] }}", starttls(&authority, ""));
    let tidegate = Tidegate::start(&forward(backend.place(), &keys, ""));
    let mut stream = connect(&tidegate.at("in"));
    std::io::Write::write_all(&mut stream, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").unwrap();
    let tls = Some(authority.client_for(NAME, &[]));
    let client = MysqlClient { password: PASSWORD, method: NATIVE, tls, asks_for_key: false };
    let (end, mut session) = client.log_in(stream).unwrap();
    assert_eq!(end, LoginEnd::Ok);
    echoes(&mut session, b"x");
    drop(session);
    assert!(tidegate.only_access().field("client").starts_with("192.0.2.1"));
}

/// A client that waits for the answer to its login: of the server that the test drives.
fn waiting(tidegate: &Tidegate, scripted: &Scripted) -> (Wire<TcpStream>, Wire<TcpStream>) {
    let stream = connect(&tidegate.at("in"));
    let mut server = Wire::new(scripted.accept());
    server.send(GREETING).unwrap();
    let mut client = Wire::new(stream);
    client.receive().unwrap();
    client.send(&[&head(0x0008_8200)[..], b"app\0\0mysql_native_password\0"].concat()).unwrap();
    server.receive().unwrap();
    (client, server)
}

#[test]
fn login_is_ended_by_a_drain_and_an_administrator() {
    let authority = Authority::new();
    let scripted = Scripted::start();
    let keys = starttls(&authority, "plaintext: allow");
    let config = format!("{ADMIN_SOCKET}shutdown: {{ drain: 1m }}\n{}", forward(scripted.place(), &keys, ""));
    let tidegate = Tidegate::start(&config);
    let (mut client, _server) = waiting(&tidegate, &scripted);
    let open = tidegate.resource("/api/connections");
    let id = open["connections"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(open["connections"][0]["backend"], "b", "{open}");
    let killed = tidegate.call("DELETE", &format!("/api/connections/{id}"), "");
    assert!(killed.status < 300, "{killed:?}");
    client.receive().unwrap_err();
    assert_eq!(tidegate.only_access().end(), "killed by an administrator");

    let (mut client, _server) = waiting(&tidegate, &scripted);
    tidegate.terminate();
    tidegate.wait_for_log("the drain", |line| line.text.contains("drain"));
    tidegate.terminate();
    let error = as_error(&client.receive().unwrap()).unwrap();
    assert_eq!(error, LoginEnd::Error(1053, "the server is shutting down".to_owned()));
    tidegate.wait_for_access("the second", |line| line.end() == "drain aborted");
}

/// TLS that fails after the greeting counts against the backend, though its connect has succeeded.
#[test]
fn backend_whose_tls_fails_is_ejected() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut server = Mysql8::new(NATIVE);
    server.tls = Some(other.issue(&[NAME]).server().into());
    let backend = Backend::start(in_thread(move |stream| server.serve(stream)));
    let pool = format!("outlier: {{ failures: 2, max_ejected: 100% }}, {}", back(&authority));
    let tidegate = Tidegate::start(&forward(backend.place(), "", &pool));
    for end in ["rejected: connect failed", "rejected: connect failed", "rejected: no backend"] {
        let lines = tidegate.access().len();
        let client = MysqlClient { password: PASSWORD, method: NATIVE, tls: None, asks_for_key: false };
        let (error, _) = client.log_in(connect(&tidegate.at("in"))).unwrap();
        assert!(matches!(error, LoginEnd::Error(1105, _)), "{error:?}");
        eventually(DEADLINE, "a line", || tidegate.access().len() > lines);
        assert_eq!(tidegate.access()[lines].end(), end);
    }
}

/// Also mTLS, and the server's name as the client asks for it.
#[test]
fn client_certificate_is_required_and_the_server_name_goes_on() {
    let authority = Authority::new();
    let own = authority.issue_client("app");
    let mut server = Mysql8::new(CACHING);
    server.tls = Some(authority.issue(&[NAME]).server().into());
    let backend = Backend::start(in_thread(move |stream| server.serve(stream)));
    let keys = starttls(&authority, &format!("client_auth: {{ mode: required, ca: {} }}", authority.file().display()));
    let pool = format!("tls: {{ starttls: mysql, server_name: sni, ca: {} }}", authority.file().display());
    let tidegate = Tidegate::start(&forward(backend.place(), &keys, &pool));
    let log_in = |own: Option<&Issued>| {
        let config = authority.client_of(rustls::ALL_VERSIONS, &[], own);
        let tls = Some(client_connection(&config, NAME));
        let client = MysqlClient { password: PASSWORD, method: CACHING, tls, asks_for_key: false };
        client.log_in(connect(&tidegate.at("in"))).map(|(end, _)| end)
    };
    assert_eq!(log_in(Some(&own)).unwrap(), LoginEnd::Ok);
    log_in(None).unwrap_err();
    tidegate.wait_for_access("no certificate", |line| line.end() == "TLS handshake failed");
}
