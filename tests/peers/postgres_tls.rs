//! PostgreSQL's own TLS at a listener: `starttls: postgres`.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::support::authority::{Authority, handshake};
use crate::support::backend::Dead;
use crate::support::client::{End, Place, connect, read_to_end};
use crate::support::pgwire::{cancel, query, read_error, read_message, startup, until_ready};
use crate::support::postgres::{Postgres, tps};
use crate::support::process::Process;
use crate::support::starttls::{ALPN, NAME, in_front_of, starttls};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

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
        for lasting in [&["-T", "2"][..], &["-T", "2", "-C"]] {
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

fn piped(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
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

#[test]
fn psql_reads_that_the_queue_is_full_and_that_it_waited_in_vain() {
    let dead = Dead::start();
    let authority = Authority::new();
    let listener = starttls(&authority.issue(&[NAME, "127.0.0.1"]), "plaintext: allow");
    let postgres = Postgres::bare(&[]); // only for its psql
    let tidegate = |queue: &str| {
        let pool = format!("queue: {queue}, health: {{ tcp: {{}}, fall: 1 }}");
        let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}{}", forward(dead.address(), &listener, &pool)));
        tidegate.wait_for_down("b");
        tidegate
    };
    for mode in ["verify-full", "disable"] {
        let in_vain = tidegate("{ size: 1, timeout: 100ms }");
        let told = complaint(&psql(&postgres, &in_vain, mode, &authority, "select 1"));
        assert!(told.contains("FATAL:  no database server could take the connection in time\n"), "{mode}: {told}");
        let full = tidegate("{ size: 1, timeout: 1m }");
        let mut waits = connect(&full.at("in"));
        waits.write_all(&startup(3, 0)).unwrap();
        eventually(DEADLINE, "it waits", || full.view().pools[0].queue.waiting == 1);
        let told = complaint(&psql(&postgres, &full, mode, &authority, "select 1"));
        assert!(told.contains("FATAL:  too many connections wait for a database server\n"), "{mode}: {told}");
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
