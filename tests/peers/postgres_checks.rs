//! `health: postgres` with real servers: logins, faults, roles, lag.

use std::fs;
use std::path::Path;

use crate::support::authority::Authority;
use crate::support::postgres::Postgres;
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

const FAST: &str = "interval: 50ms, timeout: 5s, rise: 1, fall: 1";

/// One pool `p` of one backend `b`.
fn checking(port: u16, check: &str, pool: &str) -> Tidegate {
    Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"127.0.0.1:{port}\" }}], {pool}\n\
         \x20   health: {{ postgres: {{ {check} }}, {FAST} }} }}]\n"
    ))
}

/// Waits until the backend is down for this reason.
fn down_for(tidegate: &Tidegate, reason: &str) {
    eventually(DEADLINE, reason, || shown(tidegate, "p", "b").2.starts_with(reason));
}

/// Whether a backend is up, its role, and why it is down.
fn shown(tidegate: &Tidegate, pool: &str, name: &str) -> (bool, String, String) {
    let answer = tidegate.resource(&format!("/api/pools/{pool}/backends/{name}"));
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    (
        answer["health"]["up"].as_bool().unwrap(),
        text("role"),
        answer["health"]["reason"].as_str().unwrap_or_default().to_owned(),
    )
}

fn metric(tidegate: &Tidegate, line: &str) -> Option<f64> {
    let text = get(&tidegate.stats_port(), "/metrics").text();
    text.lines().find_map(|it| it.strip_prefix(line)).map(|value| value.trim().parse().unwrap())
}

fn write(path: &Path, password: &str) {
    let next = path.with_extension("next");
    fs::write(&next, password).unwrap();
    fs::rename(next, path).unwrap();
}

#[test]
fn login_by_scram_and_what_can_be_wrong_with_it() {
    let postgres = Postgres::bare(&[]);
    postgres.query("create role probe login password 'correct horse'");
    postgres.set_hba("host all all 127.0.0.1/32 scram-sha-256");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write(&file, "correct horse\n");
    let account = format!("user: probe, password_file: {}", file.display());
    let tidegate = checking(postgres.port(), &account, "");
    tidegate.wait_for_up("b");

    // Another password, in the server and then in the file.
    postgres.query("alter role probe password 'battery staple'");
    let see = format!("see health.postgres (user `probe`, password from {})", file.display());
    down_for(&tidegate, "refuses the password: password authentication failed for user \"probe\" (28P01): ");
    assert!(shown(&tidegate, "p", "b").2.ends_with(&see), "{}", shown(&tidegate, "p", "b").2);
    write(&file, "battery staple\n");
    eventually(DEADLINE, "up again", || shown(&tidegate, "p", "b").0);
    // A file that is being written replaces nothing.
    write(&file, "");
    tidegate
        .wait_for_log("the empty file", |line| line.text.contains("the password that was read before is still used"));
    write(&file, "battery staple\n");

    // Alive and full: the verdict stays.
    postgres.query("alter role probe connection limit 0");
    tidegate.wait_for_log("it is full", |line| line.is("health check not possible: the backend keeps its state"));
    let reason = tidegate.wait_for_log("it is full", |line| line.text.contains("(53300)")).field("reason");
    assert_eq!(reason, "too many connections: too many connections for role \"probe\" (53300)");
    assert!(shown(&tidegate, "p", "b").0);
    postgres.query("alter role probe connection limit -1");

    postgres.set_hba("host all probe 127.0.0.1/32 reject");
    down_for(&tidegate, "refuses the login: pg_hba.conf rejects connection for host");
    postgres.set_hba("host all all 127.0.0.1/32 trust");
    eventually(DEADLINE, "up again", || shown(&tidegate, "p", "b").0);
    postgres.query("revoke connect on database postgres from public");
    down_for(&tidegate, "permission denied: permission denied for database \"postgres\" (42501): see health.postgres");
    let missing = checking(postgres.port(), "user: probe, database: nothing", "");
    down_for(&missing, "has no database `nothing`: database \"nothing\" does not exist (3D000): see health.postgres");
    let log = postgres.log();
    assert!(!log.contains("could not receive") && !log.contains("unexpected EOF"), "{log}");
}

#[test]
fn check_without_a_user_never_logs_in() {
    let postgres = Postgres::bare(&["log_connections=on"]);
    postgres.set_hba("host all all 127.0.0.1/32 scram-sha-256");
    let tidegate = checking(postgres.port(), "database: nothing", "");
    tidegate.wait_for_up("b");
    assert!(!postgres.log().contains("connection authorized: user=tidegate"));
    postgres.set_hba("host all all 127.0.0.1/32 trust");
    let failed = || postgres.log().contains("role \"tidegate\" does not exist");
    eventually(DEADLINE, "the server knows no such user", failed);
    assert!(shown(&tidegate, "p", "b").0);
}

#[test]
fn passwords_in_clear_text_go_over_tls_only() {
    let authority = Authority::new();
    let postgres = Postgres::with_tls(&authority.issue(&["127.0.0.1"]));
    postgres.query("create role probe login password 'pw'");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write(&file, "pw");
    let account = format!("user: probe, password_file: {}, role: primary", file.display());
    let tls = format!("tls: {{ ca: {}, starttls: postgres }},", authority.file().display());
    postgres.set_hba("host all all 127.0.0.1/32 password");
    let plain = checking(postgres.port(), &account, "");
    down_for(&plain, "asks for the password in clear text, which is sent over TLS only");
    let encrypted = checking(postgres.port(), &account, &tls);
    encrypted.wait_for_up("b");
    assert_eq!(shown(&encrypted, "p", "b").1, "primary");
    postgres.set_hba("hostssl all all 127.0.0.1/32 scram-sha-256");
    down_for(&plain, "refuses the login: no pg_hba.conf entry for host");
    assert!(shown(&encrypted, "p", "b").0);
    postgres.query("set password_encryption = md5; alter role probe password 'pw'");
    postgres.set_hba("host all all 127.0.0.1/32 md5");
    down_for(&plain, "stores the password as an MD5 hash, which is not supported");

    let unknown = Authority::new();
    let other = format!("tls: {{ ca: {}, starttls: postgres }},", unknown.file().display());
    let strange = checking(postgres.port(), &account, &other);
    down_for(&strange, "TLS handshake failed: the certificate was issued by an unknown authority");
}

#[test]
fn roles_and_lag_of_a_primary_and_a_standby() {
    let mut one = Postgres::bare(&[]);
    let two = one.standby(&[]);
    let backends = format!(
        "backends: [{{ name: one, address: \"127.0.0.1:{}\" }}, {{ name: two, address: \"127.0.0.1:{}\" }}]",
        one.port(),
        two.port()
    );
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners:\n\
         - {{ name: write, bind: \"127.0.0.1:0\", pool: write }}\n\
         - {{ name: read, bind: \"127.0.0.1:0\", pool: read }}\n\
         pools:\n\
         - {{ name: write, {backends}, health: {{ postgres: {{ user: postgres, role: primary }}, {FAST} }} }}\n\
         - {{ name: read, {backends}, health: {{ postgres: {{ user: postgres, role: replica, max_lag: 1MiB }}, {FAST} }} }}\n"
    ));
    let up = |pool: &str| ["one", "two"].map(|name| shown(&tidegate, pool, name).0);
    eventually(DEADLINE, "the roles", || up("write") == [true, false] && up("read") == [false, true]);
    assert_eq!(shown(&tidegate, "write", "two").2, "is a replica, role: primary is wanted");
    assert_eq!(shown(&tidegate, "read", "one").2, "is a primary, role: replica is wanted");
    assert_eq!(metric(&tidegate, "tidegate_backend_role{pool=\"read\",backend=\"two\",role=\"replica\"}"), Some(1.0));
    assert_eq!(metric(&tidegate, "tidegate_backend_role{pool=\"read\",backend=\"one\",role=\"replica\"}"), Some(0.0));
    let server = |listener: &str| one.psql(tidegate.at(listener).tcp().port());
    for (listener, replica) in [("write", "f"), ("read", "t")] {
        let output = server(listener).args(["-XAtc", "select pg_is_in_recovery()"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), replica, "{listener}");
    }

    // Lag: what the primary has written and the standby has not replayed.
    let lag = || metric(&tidegate, "tidegate_backend_lag_bytes{pool=\"read\",backend=\"two\"}");
    eventually(DEADLINE, "no lag", || lag() == Some(0.0));
    two.query("select pg_wal_replay_pause()");
    one.query("create table t as select n, repeat('x', 100) from generate_series(1, 50000) n");
    eventually(DEADLINE, "it is too far behind", || up("read") == [false, false]);
    let reason = shown(&tidegate, "read", "two").2;
    assert!(reason.contains(" MiB behind the primary, max_lag is 1.0 MiB"), "{reason}");
    assert!(lag() > Some(1024.0 * 1024.0));
    assert_eq!(up("write"), [true, false]);
    let explained = get(&tidegate.stats_port(), "/explain?client=127.0.0.1&listener=read").text();
    assert!(explained.contains(", replica, ") && explained.contains(" MiB behind"), "{explained}");
    two.query("select pg_wal_replay_resume()");
    eventually(DEADLINE, "it has caught up", || up("read") == [false, true]);

    // Failover.
    one.stop();
    eventually(DEADLINE, "the primary is gone", || up("write") == [false, false]);
    assert_eq!(metric(&tidegate, "tidegate_backend_role{pool=\"write\",backend=\"one\",role=\"primary\"}"), None);
    assert_eq!(up("read"), [false, true], "a replica without a primary still serves");
    two.query("select pg_promote()");
    eventually(DEADLINE, "the new primary", || up("write") == [false, true] && up("read") == [false, false]);
    let changed = tidegate.wait_for_log("the role", |line| line.is("role of the backend has changed"));
    assert_eq!(
        [changed.field("backend"), changed.field("role"), changed.field("before")],
        ["two", "primary", "replica"]
    );
}

#[test]
fn standby_without_hot_standby_is_starting() {
    let one = Postgres::bare(&[]);
    let mut two = one.standby(&[]);
    let tidegate = checking(two.port(), "user: postgres", "");
    tidegate.wait_for_up("b");
    two.stop();
    down_for(&tidegate, "connection refused");
    two.start_unready(&["hot_standby=off"]);
    down_for(&tidegate, "starting: the database system is not accepting connections (57P03)");
}
