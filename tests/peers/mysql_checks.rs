//! `health: mysql` with a real MariaDB, and with a server that plays MySQL 8.

use std::fs;
use std::path::Path;

use crate::support::authority::Authority;
use crate::support::checked::{checking, down_for, is_up, reason, write_and_read};
use crate::support::mariadb::MariaDb;
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, free_port};

fn run(server: &MariaDb, sql: &str) {
    let output = server.query(sql);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
}

fn status(server: &MariaDb, name: &str) -> u64 {
    let output = server.query(&format!("show global status like '{name}'"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1).unwrap_or_default().parse().unwrap()
}

fn password(folder: &Path, text: &str) -> String {
    let file = folder.join("password");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn logins_and_what_can_be_wrong_with_them() {
    let server = MariaDb::start(&[]);
    run(&server, "create user probe@'%' identified by 'pw'");
    let folder = tempfile::tempdir().unwrap();
    let file = password(folder.path(), "pw");
    let tidegate = checking("mysql", server.port(), &format!("user: probe, password_file: {file}, role: primary"), "");
    tidegate.wait_for_up("b");
    assert_eq!(tidegate.resource("/api/pools/p/backends/b")["role"], "primary");
    run(&server, "set global read_only = 1");
    down_for(&tidegate, "is read-only (read_only = ON), role: primary is wanted");
    run(&server, "set global read_only = 0");
    eventually(DEADLINE, "it accepts writes again", || is_up(&tidegate, "p", "b"));
    run(&server, "alter user probe@'%' identified by 'other'");
    down_for(&tidegate, "refuses the password: Access denied for user 'probe'@");
    assert!(reason(&tidegate, "p", "b").ends_with(&format!("see health.mysql (user `probe`, password from {file})")));
    password(folder.path(), "other");
    eventually(DEADLINE, "the new password", || is_up(&tidegate, "p", "b"));
    // Alive and full: the verdict stays.
    run(&server, "alter user probe@'%' with max_user_connections 1");
    let hold = || {
        let mut holder = std::process::Command::new("mariadb");
        holder.args([
            "--no-defaults",
            "--host=127.0.0.1",
            "--user=probe",
            "--password=other",
            "-Nse",
            "select sleep(600)",
        ]);
        holder.arg(format!("--port={}", server.port())).spawn().unwrap()
    };
    let mut holder = hold();
    eventually(DEADLINE, "the only session is taken", || {
        // A check may have it.
        if holder.try_wait().unwrap().is_some() {
            holder = hold();
        }
        let holders =
            server.query("select count(*) from information_schema.processlist where info like 'select sleep%'");
        holders.stdout.starts_with(b"1")
    });
    let full = tidegate.wait_for_log("full", |line| line.is("health check not possible: the backend keeps its state"));
    assert!(full.field("reason").starts_with("too many connections: "), "{}", full.text);
    assert!(is_up(&tidegate, "p", "b"));
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn checks_are_never_counted_as_aborted() {
    let server = MariaDb::start(&["--max-connect-errors=3", "--skip-name-resolve=0"]);
    run(&server, "create user probe@'%' identified by 'pw'");
    let folder = tempfile::tempdir().unwrap();
    let file = password(folder.path(), "pw");
    let before = (status(&server, "Aborted_connects"), status(&server, "Aborted_clients"));
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p0 }}]\npools:\n{}",
        (0..20)
            .map(|pool| format!(
                "- {{ name: p{pool}, backends: [{{ name: b, address: \"127.0.0.1:{}\" }}], source: [127.0.0.79],\n\
                 \x20   health: {{ mysql: {{ user: probe, password_file: {file}, role: primary }}, interval: 1ms, timeout: 10s }} }}\n",
                server.port()
            ))
            .collect::<String>()
    ));
    let checks =
        || tidegate.view().pools.iter().map(|pool| pool.backends[0].checks.as_ref().unwrap().count).sum::<u64>();
    eventually(6 * DEADLINE, "10,000 checks", || checks() >= 10_000);
    let view = tidegate.view();
    for pool in &view.pools {
        assert_eq!((pool.backends[0].up, pool.backends[0].checks.as_ref().unwrap().failed), (true, 0), "{}", pool.name);
    }
    assert_eq!((status(&server, "Aborted_connects"), status(&server, "Aborted_clients")), before);
}

#[test]
fn check_without_a_user_never_blocks_the_host() {
    let server = MariaDb::start(&["--max-connect-errors=3"]);
    // The server never blocks 127.0.0.1.
    let tidegate = checking("mysql", server.port(), "", "source: [127.0.0.78],");
    tidegate.wait_for_up("b");
    let checks = || tidegate.view().pools[0].backends[0].checks.as_ref().unwrap().count;
    eventually(DEADLINE, "200 checks", || checks() >= 200);
    assert!(is_up(&tidegate, "p", "b"));
    let through = crate::support::mariadb::query(tidegate.at("in").tcp().port(), "select 1");
    assert!(through.status.success(), "{}", String::from_utf8_lossy(&through.stderr));
}

#[test]
fn tls_of_the_pool_is_asked_for() {
    let authority = Authority::new();
    let own = authority.issue(&["127.0.0.1"]);
    let server = MariaDb::start(&[
        &format!("--ssl-cert={}", own.cert.display()),
        &format!("--ssl-key={}", own.key.display()),
        "--require-secure-transport=ON",
    ]);
    run(&server, "create user probe@'%' identified by 'pw' require ssl");
    let folder = tempfile::tempdir().unwrap();
    let account = format!("user: probe, password_file: {}, role: primary", password(folder.path(), "pw"));
    let tls = format!("tls: {{ ca: {} }},", authority.file().display());
    checking("mysql", server.port(), &account, &tls).wait_for_up("b");
    let plain = checking("mysql", server.port(), &account, "");
    let down = plain.wait_for_down("b").field("reason");
    assert!(down.contains("see health.mysql"), "{down}");
    let unknown = Authority::new();
    let strange = checking("mysql", server.port(), &account, &format!("tls: {{ ca: {} }},", unknown.file().display()));
    down_for(&strange, "TLS handshake failed: the certificate was issued by an unknown authority");
}

#[test]
fn roles_and_lag_of_a_primary_and_a_replica() {
    let one = MariaDb::start(&["--log-bin=binlog", "--server-id=1"]);
    let two = MariaDb::start(&["--server-id=2", "--read-only=1"]);
    let from = "create user repl@'%' identified by 'repl'; grant replication slave on *.* to repl@'%'; \
                create user probe@'%' identified by ''; grant slave monitor on *.* to probe@'%'";
    run(&one, from);
    run(&two, "create user probe@'%' identified by ''; grant slave monitor on *.* to probe@'%'");
    run(
        &two,
        &format!(
            "set global gtid_slave_pos = '{}'; change master to master_host = '127.0.0.1', master_port = {}, master_user = 'repl', \
         master_password = 'repl', master_use_gtid = slave_pos; start slave",
            String::from_utf8_lossy(&one.query("select @@gtid_binlog_pos").stdout).trim(),
            one.port()
        ),
    );
    let [primary, replica] =
        ["mysql: { user: probe, role: primary }", "mysql: { user: probe, role: replica, max_lag: 1s }"];
    let tidegate = write_and_read([one.port(), two.port()], primary, replica);
    assert_eq!(reason(&tidegate, "write", "two"), "is read-only (read_only = ON), role: primary is wanted");
    let two_shown = || tidegate.resource("/api/pools/read/backends/two");
    assert_eq!(two_shown()["role"], "replica");
    eventually(DEADLINE, "no lag", || two_shown()["lag_seconds"] == 0.0);

    // A statement that waits on the replica for a lock holds replication up.
    run(&one, "create database d; create table d.t (n int)");
    eventually(DEADLINE, "the table", || two.query("select * from d.t").status.success());
    let mut holder = std::process::Command::new("mariadb");
    holder.args(["--no-defaults", "--user=root", "-Nse", "lock tables d.t read; select sleep(600)"]);
    let mut holder = holder.arg(format!("--socket={}", two.socket().display())).spawn().unwrap();
    eventually(DEADLINE, "the lock", || {
        let locked = two.query("show open tables where in_use > 0");
        !locked.stdout.is_empty()
    });
    run(&one, "insert into d.t values (1)");
    eventually(DEADLINE, "it is too far behind", || {
        reason(&tidegate, "read", "two").contains(" behind the primary, max_lag is 1 s")
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    // The server goes on with it until it is killed there.
    let id = two.query("select id from information_schema.processlist where info like 'select sleep%'");
    run(&two, &format!("kill {}", String::from_utf8_lossy(&id.stdout).trim()));
    eventually(DEADLINE, "it has caught up", || is_up(&tidegate, "read", "two"));

    run(&two, "stop slave");
    eventually(DEADLINE, "NULL is no replica", || {
        reason(&tidegate, "read", "two").starts_with("replica whose replication does not run")
    });
    run(&one, "set global read_only = 1");
    run(&two, "reset slave all; set global read_only = 0");
    eventually(DEADLINE, "the new primary", || is_up(&tidegate, "write", "two"));
    let role = || tidegate.resource("/api/pools/read/backends/two")["role"].clone();
    eventually(DEADLINE, "its role", || role() == "primary");
    run(&one, "drop user probe@'%'");
    eventually(DEADLINE, "an account is missing", || {
        reason(&tidegate, "write", "one").starts_with("refuses the password: ")
    });
}

#[test]
fn member_of_a_galera_cluster_is_synced_or_says_why_not() {
    let group = free_port();
    let server = MariaDb::start(&[
        "--wsrep-on=ON",
        "--wsrep-provider=/usr/lib/galera/libgalera_smm.so",
        "--wsrep-cluster-address=gcomm://",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--wsrep-node-address=127.0.0.1",
        &format!(
            "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group};pc.wait_prim_timeout=PT1S;ist.recv_addr=127.0.0.1:{}",
            free_port()
        ),
    ]);
    run(&server, "create user probe@'%' identified by ''");
    let tidegate = checking("mysql", server.port(), "user: probe, role: synced", "");
    tidegate.wait_for_up("b");
    assert_eq!(tidegate.resource("/api/pools/p/backends/b")["role"], "synced");
    run(&server, "set global wsrep_desync = ON");
    down_for(&tidegate, "is a donor (wsrep_local_state = 2), role: synced is wanted");
    run(&server, "set global wsrep_desync = OFF");
    eventually(DEADLINE, "synced again", || is_up(&tidegate, "p", "b"));
    // Members that do not answer.
    run(&server, &format!("set global wsrep_cluster_address = 'gcomm://127.0.0.1:{}'", free_port()));
    eventually(DEADLINE, "it has left", || !is_up(&tidegate, "p", "b"));
    let alone = MariaDb::start(&[]);
    run(&alone, "create user probe@'%' identified by ''");
    let tidegate = checking("mysql", alone.port(), "user: probe, role: synced", "");
    down_for(&tidegate, "is not part of the primary component (wsrep_cluster_status = Disconnected)");
}
