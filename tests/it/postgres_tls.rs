//! PostgreSQL's own TLS at a listener: `starttls: postgres`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use rustls::{AlertDescription, Error};

use crate::support::authority::{Authority, Issued, handshake};
use crate::support::backend::{Backend, Dead, Scripted};
use crate::support::client::{End, Place, connect, expect, read_to_end, reset};
use crate::support::pgwire::{
    GSSENC_REQUEST, SSL_REQUEST, cancel, query, read_error, read_message, startup, until_ready,
};
use crate::support::postgres::{Postgres, tps};
use crate::support::process::Process;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

const NAME: &str = "db.example.test";
const ALPN: &[&str] = &["postgresql"];

/// The keys of a listener on which PostgreSQL's TLS ends.
fn starttls(files: &Issued, more: &str) -> String {
    format!("tls: {{ certificates: [{}], starttls: postgres, {more} }}", files.yaml())
}

/// A listener with a certificate for [`NAME`] and 127.0.0.1, in front of `to`.
fn in_front_of(to: &Place, more: &str) -> (Authority, Tidegate) {
    let authority = Authority::new();
    let listener = starttls(&authority.issue(&[NAME, "127.0.0.1"]), more);
    let tidegate = Tidegate::start(&forward(to, &listener, ""));
    (authority, tidegate)
}

fn place_of(postgres: &Postgres) -> Place {
    Place::parse(&format!("127.0.0.1:{}", postgres.port()))
}

/// psql through tidegate by this sslmode, for which the authority's certificate is the root.
fn psql(postgres: &Postgres, tidegate: &Tidegate, mode: &str, authority: &Authority, sql: &str) -> Output {
    let mut command = postgres.psql(tidegate.at("in").tcp().port());
    by_mode(&mut command, mode, authority);
    command.args(["-X", "-At", "-c", sql]).output().expect("psql")
}

fn by_mode<'c>(command: &'c mut Command, mode: &str, authority: &Authority) -> &'c mut Command {
    command.env("PGSSLMODE", mode).env("PGSSLROOTCERT", authority.file())
}

#[track_caller]
fn printed(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What it says on its way out.
#[track_caller]
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it connects");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn psql_by_tls_to_a_server_without_tls() {
    let postgres = Postgres::bare(&[]);
    let (authority, tidegate) = in_front_of(&place_of(&postgres), "");
    // The server itself sees no TLS.
    let sql = "select 6 * 7, ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for mode in ["require", "verify-ca", "verify-full", "prefer"] {
        assert_eq!(printed(&psql(&postgres, &tidegate, mode, &authority, sql)), "42|f", "{mode}");
        let told = printed(&psql(&postgres, &tidegate, mode, &authority, "\\conninfo"));
        assert!(told.contains("SSL connection (protocol: TLSv1.3"), "{mode}: {told}");
    }

    let other = Authority::new();
    let told = complaint(&psql(&postgres, &tidegate, "verify-full", &other, sql));
    assert!(told.contains("certificate verify failed"), "{told}");
    let line = tidegate.wait_for_access("of the one that trusts another authority", |line| line.backend().is_none());
    assert_eq!(line.end(), "TLS handshake failed");
}

#[test]
fn pgbench_by_tls_to_a_server_without_tls() {
    let postgres = Postgres::start();
    let (authority, tidegate) = in_front_of(&place_of(&postgres), "");
    for mode in ["require", "verify-full"] {
        for lasting in [&["-T", "3"][..], &["-T", "3", "-C"]] {
            let mut pgbench = postgres.pgbench(tidegate.at("in").tcp().port());
            tps(by_mode(&mut pgbench, mode, &authority).args(["-n", "-c", "10", "-j", "2"]).args(lasting));
        }
    }
    let lines = tidegate.access();
    assert!(lines.len() > 40, "a connection for each transaction, not {}", lines.len());
    for line in &lines {
        // Once it has read that the client leaves, the server is sometimes the first to close.
        assert!(["client closed", "backend closed"].contains(&line.end().as_str()), "{line:?}");
        assert_eq!(line.backend(), Some("b"), "{line:?}");
    }
}

#[test]
fn psql_without_tls_reads_why_it_is_refused() {
    let postgres = Postgres::bare(&[]);
    let (authority, refusing) = in_front_of(&place_of(&postgres), "");
    let told = complaint(&psql(&postgres, &refusing, "disable", &authority, "select 1"));
    assert!(told.contains("FATAL:  this server takes encrypted connections only\n"), "{told}");
    assert!(told.contains("Connect with sslmode=require or stronger."), "{told}");
    assert_eq!(refusing.only_access().end(), "rejected: no TLS");

    let mut plain = connect(&refusing.at("in"));
    plain.write_all(&startup(3, 0)).unwrap();
    let fields = read_error(&mut plain);
    assert_eq!((fields[&'S'].as_str(), fields[&'V'].as_str(), fields[&'C'].as_str()), ("FATAL", "FATAL", "28000"));
    assert_eq!(read_to_end(&mut plain), (Vec::new(), End::Fin));

    let (authority, allowing) = in_front_of(&place_of(&postgres), "plaintext: allow");
    assert_eq!(printed(&psql(&postgres, &allowing, "disable", &authority, "select 1")), "1");
    let told = printed(&psql(&postgres, &allowing, "verify-full", &authority, "\\conninfo"));
    assert!(told.contains("SSL connection"), "{told}");
}

/// PostgreSQL 17 (`sslnegotiation=direct`).
#[test]
fn tls_unasked_works_on_the_same_port() {
    let postgres = Postgres::bare(&[]);
    let (authority, tidegate) = in_front_of(&place_of(&postgres), "");
    for protocols in [ALPN, &["h2", "postgresql"]] {
        let mut client = handshake(authority.client_for(NAME, protocols), connect(&tidegate.at("in"))).unwrap();
        assert_eq!(client.conn.alpn_protocol(), Some(&b"postgresql"[..]), "libpq insists on it");
        client.write_all(&startup(3, 0)).unwrap();
        until_ready(&mut client);
        client.write_all(&query("select 6 * 7")).unwrap();
        let row = until_ready(&mut client).into_iter().find(|(kind, _)| *kind == b'D').expect("a row");
        assert_eq!(row.1, b"\x00\x01\x00\x00\x00\x0242");
    }
}

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

/// libpq before version 17 cancels in plain text, whatever its connection uses.
#[test]
fn a_query_is_cancelled() {
    let postgres = Postgres::bare(&[]);
    let (authority, tidegate) = in_front_of(&place_of(&postgres), "");
    let sleeping = || {
        let sql = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
        printed(&postgres.psql(postgres.port()).args(["-X", "-At", "-c", sql]).output().expect("psql")) == "1"
    };

    // Ctrl-C.
    let mut command = postgres.psql(tidegate.at("in").tcp().port());
    by_mode(&mut command, "require", &authority).args(["-X", "-c", "select pg_sleep(60)"]);
    let mut psql = Process::start(piped(command), Signal::KILL);
    eventually(DEADLINE, "it sleeps", sleeping);
    psql.signal(Signal::INT);
    let mut told = String::new();
    psql.child().stderr.take().expect("piped").read_to_string(&mut told).unwrap();
    assert!(told.contains("canceling statement due to user request"), "{told}");
    drop(psql);

    // And a client of version 17, by TLS.
    let direct = || handshake(authority.client_for(NAME, ALPN), connect(&tidegate.at("in"))).unwrap();
    let mut client = direct();
    client.write_all(&startup(3, 0)).unwrap();
    let key = until_ready(&mut client).into_iter().find(|(kind, _)| *kind == b'K').expect("BackendKeyData").1;
    client.write_all(&query("select pg_sleep(60)")).unwrap();
    eventually(DEADLINE, "it sleeps", sleeping);
    let mut canceller = direct();
    canceller.write_all(&cancel(&key)).unwrap();
    let mut error = read_message(&mut client);
    while error.0 != b'E' {
        error = read_message(&mut client);
    }
    assert!(String::from_utf8_lossy(&error.1).contains("C57014"), "{error:?}");
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

fn piped(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
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

/// Both when the pool knows that its backend is down and when the connect fails.
#[test]
fn psql_reads_that_no_server_can_take_it() {
    let dead = Dead::start();
    let authority = Authority::new();
    let listener = starttls(&authority.issue(&[NAME, "127.0.0.1"]), "plaintext: allow");
    let postgres = Postgres::bare(&[]); // only for its psql
    for (pool, end) in [("", "rejected: connect failed"), ("health: { tcp: {}, fall: 1 }", "rejected: no backend")] {
        let tidegate = Tidegate::start(&forward(dead.address(), &listener, pool));
        for mode in ["verify-full", "disable"] {
            let told = complaint(&psql(&postgres, &tidegate, mode, &authority, "select 1"));
            assert!(told.contains("FATAL:  no database server can take the connection now\n"), "{mode}: {told}");
        }
        let mut client = handshake(authority.client_for(NAME, ALPN), connect(&tidegate.at("in"))).unwrap();
        client.write_all(&startup(3, 0)).unwrap();
        assert_eq!(read_error(&mut client)[&'C'], "57P03");
        let rest = client.read(&mut [0]).expect("close_notify, then FIN");
        assert_eq!(rest, 0);
        drop(client);
        eventually(DEADLINE, "three lines", || tidegate.access().len() == 3);
        assert!(tidegate.access().iter().all(|line| line.end() == end), "{:?}", tidegate.access());
    }
}

/// One port, two databases.
#[test]
fn server_names_choose_the_database() {
    let servers = ["a", "b"].map(|name| Postgres::bare(&[&format!("cluster_name={name}")]));
    let authority = Authority::new();
    let listener = starttls(&authority.issue(&["a.example.test", "b.example.test", "127.0.0.1"]), "");
    let tidegate = Tidegate::start(&format!(
        "listeners:\n\
         - {{ name: in, bind: \"127.0.0.1:0\", pool: b, {listener},\n\
         \x20   routes: [{{ match: {{ sni: [a.example.test] }}, pool: a }}] }}\n\
         pools:\n\
         - {{ name: a, backends: [{{ name: a, address: \"{}\" }}] }}\n\
         - {{ name: b, backends: [{{ name: b, address: \"{}\" }}] }}\n",
        place_of(&servers[0]),
        place_of(&servers[1]),
    ));
    let cluster = |host: &str, sni: &str| {
        let mut command = servers[0].psql(tidegate.at("in").tcp().port());
        by_mode(&mut command, "verify-full", &authority).env("PGHOSTADDR", "127.0.0.1").env("PGSSLSNI", sni);
        printed(&command.args(["-X", "-h", host, "-At", "-c", "show cluster_name"]).output().expect("psql"))
    };
    for _ in 0..2 {
        assert_eq!(cluster("a.example.test", "1"), "a");
        assert_eq!(cluster("b.example.test", "1"), "b");
        // A name that is not sent chooses nothing.
        assert_eq!(cluster("a.example.test", "0"), "b");
        assert_eq!(cluster("127.0.0.1", "1"), "b");
    }
}

#[track_caller]
fn wait_for_refusal(tidegate: &Tidegate, reason: &str) {
    let wanted = format!("client rejected: {reason}");
    let line = tidegate.wait_for_log(&wanted, |line| line.field("message") == wanted);
    assert_eq!((line.field("listener").as_str(), line.level().as_str()), ("in", "INFO"));
}

/// What is said comes back, and the end of it.
#[track_caller]
fn echoes<S: Read + Write>(mut client: crate::support::authority::TlsOver<S>) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    client.conn.send_close_notify();
    client.flush().unwrap();
    match client.read(&mut answer) {
        Ok(0) => {}
        Ok(count) => panic!("{count} bytes more"),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => panic!("no close_notify"),
        Err(error) => panic!("{error}"),
    }
}
