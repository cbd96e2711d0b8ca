//! `health: postgres` with real servers: logins, faults, roles, lag.

use std::fs;
use std::path::Path;

use crate::support::authority::Authority;
use crate::support::checked::{checking, down_for, is_up, reason, write_and_read};
use crate::support::postgres::Postgres;
use crate::support::stats::get;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

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
    let tidegate = checking("postgres", postgres.port(), &account, "");
    tidegate.wait_for_up("b");

    // Another password, in the server and then in the file.
    postgres.query("alter role probe password 'battery staple'");
    let see = format!("see health.postgres (user `probe`, password from {})", file.display());
    down_for(&tidegate, "refuses the password: password authentication failed for user \"probe\" (28P01): ");
    assert!(reason(&tidegate, "p", "b").ends_with(&see), "{}", reason(&tidegate, "p", "b"));
    write(&file, "battery staple\n");
    eventually(DEADLINE, "up again", || is_up(&tidegate, "p", "b"));
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
    assert!(is_up(&tidegate, "p", "b"));
    postgres.query("alter role probe connection limit -1");

    postgres.set_hba("host all probe 127.0.0.1/32 reject");
    down_for(&tidegate, "refuses the login: pg_hba.conf rejects connection for host");
    postgres.set_hba("host all all 127.0.0.1/32 trust");
    eventually(DEADLINE, "up again", || is_up(&tidegate, "p", "b"));
    postgres.query("revoke connect on database postgres from public");
    down_for(&tidegate, "permission denied: permission denied for database \"postgres\" (42501): see health.postgres");
    let missing = checking("postgres", postgres.port(), "user: probe, database: nothing", "");
    down_for(&missing, "has no database `nothing`: database \"nothing\" does not exist (3D000): see health.postgres");
    let log = postgres.log();
    assert!(!log.contains("could not receive") && !log.contains("unexpected EOF"), "{log}");
}

#[test]
fn check_without_a_user_never_logs_in() {
    let postgres = Postgres::bare(&["log_connections=on"]);
    postgres.set_hba("host all all 127.0.0.1/32 scram-sha-256");
    let tidegate = checking("postgres", postgres.port(), "database: nothing", "");
    tidegate.wait_for_up("b");
    assert!(!postgres.log().contains("connection authorized: user=tidegate"));
    postgres.set_hba("host all all 127.0.0.1/32 trust");
    let failed = || postgres.log().contains("role \"tidegate\" does not exist");
    eventually(DEADLINE, "the server knows no such user", failed);
    assert!(is_up(&tidegate, "p", "b"));
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
    let plain = checking("postgres", postgres.port(), &account, "");
    down_for(&plain, "asks for the password in clear text, which is sent over TLS only");
    let encrypted = checking("postgres", postgres.port(), &account, &tls);
    encrypted.wait_for_up("b");
    assert_eq!(encrypted.resource("/api/pools/p/backends/b")["role"], "primary");
    postgres.set_hba("hostssl all all 127.0.0.1/32 scram-sha-256");
    down_for(&plain, "refuses the login: no pg_hba.conf entry for host");
    assert!(is_up(&encrypted, "p", "b"));
    postgres.query("set password_encryption = md5; alter role probe password 'pw'");
    postgres.set_hba("host all all 127.0.0.1/32 md5");
    down_for(&plain, "stores the password as an MD5 hash, which is not supported");

    let unknown = Authority::new();
    let other = format!("tls: {{ ca: {}, starttls: postgres }},", unknown.file().display());
    let strange = checking("postgres", postgres.port(), &account, &other);
    down_for(&strange, "TLS handshake failed: the certificate was issued by an unknown authority");
}

#[test]
fn roles_and_lag_of_a_primary_and_a_standby() {
    let mut one = Postgres::bare(&[]);
    let two = one.standby(&[]);
    let [primary, replica] =
        ["postgres: { user: postgres, role: primary }", "postgres: { user: postgres, role: replica, max_lag: 1MiB }"];
    let tidegate = write_and_read([one.port(), two.port()], primary, replica);
    let up = |pool: &str| ["one", "two"].map(|name| is_up(&tidegate, pool, name));
    assert_eq!(reason(&tidegate, "write", "two"), "is a replica, role: primary is wanted");
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
    let why = reason(&tidegate, "read", "two");
    assert!(why.contains(" MiB behind the primary, max_lag is 1.0 MiB"), "{why}");
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
    let tidegate = checking("postgres", two.port(), "user: postgres", "");
    tidegate.wait_for_up("b");
    two.stop();
    down_for(&tidegate, "connection refused");
    two.start_unready(&["hot_standby=off"]);
    down_for(&tidegate, "starting: the database system is not accepting connections (57P03)");
}
