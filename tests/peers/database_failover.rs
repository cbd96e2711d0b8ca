//! Databases whose primary dies under load while a replica is promoted: clients of the writer's port wait, and none fails but those
//! whose session was on the old primary.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::support::authority::Authority;
use crate::support::checked::{is_up, reason};
use crate::support::client::connect;
use crate::support::mariadb::{self, MariaDb};
use crate::support::postgres::Postgres;
use crate::support::redis::{Redis, ping_on};
use crate::support::stats::{ADMIN_SOCKET, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, free_port, tell};

/// The writer's and the reader's pool over the same two servers. `more` is listeners and pools beside them.
fn writer_and_reader([one, two]: [u16; 2], kind: &str, account: &str, more: [&str; 2]) -> Tidegate {
    let backends = format!(
        "backends: [{{ name: one, address: \"127.0.0.1:{one}\" }}, {{ name: two, address: \"127.0.0.1:{two}\" }}]"
    );
    let pool = |name: &str, role: &str, keys: &str| {
        format!(
            "- {{ name: {name}, {backends}, {keys} queue: {{ size: 100, timeout: 1m }},\n\
             \x20   health: {{ {kind}: {{ {account} role: {role} }}, interval: 200ms, timeout: 5s }} }}\n"
        )
    };
    let [listeners, pools] = more;
    let tidegate = Tidegate::start(&format!(
        "{ADMIN_SOCKET}workers: 2\nlisteners:\n\
         - {{ name: write, bind: \"127.0.0.1:0\", pool: write }}\n\
         - {{ name: read, bind: \"127.0.0.1:0\", pool: read }}\n{listeners}\
         pools:\n{}{}{}",
        pool("write", "primary", "on_down: cut,"),
        pool("read", "prefer_replica", ""),
        pools.replace("BACKENDS", &backends),
    ));
    let up = |pool: &str| ["one", "two"].map(|name| is_up(&tidegate, pool, name));
    eventually(DEADLINE, "the roles", || up("write") == [true, false] && up("read") == [true, true]);
    tidegate
}

/// A client that did one thing, on a connection of its own.
struct Trial {
    began: Instant,
    result: Result<(), String>,
}

/// Clients that do one thing after another, until they are stopped.
struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Trial>>>,
}

impl Clients {
    fn start(count: usize, trial: impl Fn() -> Result<(), String> + Send + Clone + 'static) -> Clients {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (stop, done, trial) = (Arc::clone(&stop), Arc::clone(&done), trial.clone());
            thread::spawn(move || {
                let mut trials = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    trials.push(Trial { began, result: trial() });
                    done.fetch_add(1, Ordering::SeqCst);
                }
                trials
            })
        };
        let threads = (0..count).map(client).collect();
        Clients { stop, done, threads }
    }

    /// Waits until as many more are done.
    fn reach(&self, more: usize) {
        let goal = self.done.load(Ordering::SeqCst) + more;
        eventually(2 * DEADLINE, "the load goes on", || self.done.load(Ordering::SeqCst) >= goal);
    }

    /// Ends the load. Returns how many succeeded; fails the test when one failed that began after `gone`, when the old primary had
    /// ended.
    fn end(self, gone: Instant) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let clients = self.threads.len();
        let trials: Vec<Trial> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let failed: Vec<&Trial> = trials.iter().filter(|trial| trial.result.is_err()).collect();
        let late: Vec<_> = failed.iter().filter(|trial| trial.began > gone).map(|trial| &trial.result).collect();
        assert!(late.is_empty(), "{late:?}");
        assert!(failed.len() <= clients, "more failed than were under way: {}", failed.len());
        tell(&format!("{} of {} failed, all under way on the old primary", failed.len(), trials.len()));
        trials.len() - failed.len()
    }
}

fn succeeded(output: &Output) -> Result<(), String> {
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn longest_wait(tidegate: &Tidegate) -> f64 {
    tidegate.access().iter().filter_map(|line| line.number("queue_ms")).fold(0.0, f64::max)
}

/// Runs pgbench over the failover that `failover` does. Returns the transactions that it counted, and the clients that it lost.
fn pgbench_over(server: &Postgres, port: u16, tidegate: &Tidegate, failover: impl FnOnce()) -> (usize, usize) {
    let seconds = std::env::var("FAILOVER_SECONDS").unwrap_or_else(|_| "8".to_owned());
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), "insert into done default values;\n").unwrap();
    let mut pgbench = server.pgbench(port);
    // At this rate, few are under way at any moment; a thread each, as a connect holds its thread.
    pgbench.args(["-n", "-C", "-c", "20", "-j", "20", "-R", "100", "-T", &seconds, "-f"]).arg(script.path());
    let before = tidegate.access().len();
    let load = pgbench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually(DEADLINE, "pgbench is at work", || tidegate.access().len() > before + 50);
    failover();
    let output = load.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let label = "number of transactions actually processed: ";
    let processed = out.lines().find_map(|line| line.strip_prefix(label));
    let processed = processed.unwrap_or_else(|| panic!("{out}\n{err}"));
    assert!(out.contains("number of failed transactions: 0 "), "{out}\n{err}");
    // A client whose session ends is lost to pgbench.
    let aborted = err.lines().filter(|line| line.contains("aborted in command"));
    (processed.split('/').next().unwrap().trim().parse().unwrap(), aborted.count())
}

#[test]
fn postgres_under_pgbench() {
    let mut one = Postgres::bare(&["log_connections=on"]);
    let two = one.standby(&["log_connections=on"]);
    // What was acknowledged is on the standby.
    one.query("alter system set synchronous_standby_names = '*'");
    one.query("select pg_reload_conf()");
    one.query("create table done (n serial)");
    let newest = [
        "- { name: newest, bind: \"127.0.0.1:0\", pool: newest }\n",
        "- { name: newest, BACKENDS, on_conflict: newest,\n\
         \x20   health: { postgres: { user: postgres, role: primary }, interval: 200ms, timeout: 5s } }\n",
    ];
    let tidegate = writer_and_reader([one.port(), two.port()], "postgres", "user: postgres,", newest);
    let port = |listener: &str| tidegate.at(listener).tcp().port();
    let ask = |server: &Postgres, listener: &str, sql: &str| {
        let output = server.psql(port(listener)).args(["-XAtc", sql]).output().unwrap();
        succeeded(&output).map(|()| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let in_recovery = "select pg_is_in_recovery()";
    assert_eq!(ask(&one, "write", in_recovery).as_deref(), Ok("f"));
    assert_eq!(ask(&one, "read", in_recovery).as_deref(), Ok("t"));

    let stopped = Instant::now();
    let (processed, aborted) = pgbench_over(&two, port("write"), &tidegate, || {
        one.crash();
        // Clients of the reader's port have no primary to do with.
        assert_eq!(ask(&two, "read", in_recovery).as_deref(), Ok("t"));
        two.query("select pg_promote()");
    });
    let rows: usize = two.query("select count(*) from done").parse().unwrap();
    tell(&format!(
        "pgbench over a crash and a promotion: {processed} transactions, {aborted} of 20 clients were under way, {rows} rows; the \
         longest wait in the queue was {:.0} ms; {:?} from the crash until pgbench had ended",
        longest_wait(&tidegate),
        stopped.elapsed()
    ));
    assert!(processed <= rows && rows <= processed + aborted, "{processed} processed, {aborted} aborted, {rows} rows");
    assert!(aborted < 20, "some clients saw both primaries");
    assert!(longest_wait(&tidegate) > 0.0);
    assert_eq!(ask(&two, "read", in_recovery).as_deref(), Ok("f"), "the reader's pool falls back to the primary");

    // Pools with the same servers share their checks.
    let checks = |pool: usize| tidegate.view().pools[pool].backends[1].checks.as_ref().unwrap().count;
    let sessions = || two.log().matches("application_name=tidegate").count() as u64;
    let (checks_before, sessions_before) = ((0..3).map(checks).sum::<u64>(), sessions());
    eventually(DEADLINE, "30 more checks", || (0..3).map(checks).sum::<u64>() >= checks_before + 30);
    let more = sessions() - sessions_before;
    assert!(more <= 20, "{more} sessions for 30 checks of three pools");

    // The old primary comes back as it was: nothing fences it.
    one.start_again();
    let conflict = tidegate.wait_for_log("the conflict", |line| {
        line.text.contains("none of them gets new connections") && line.field("pool") == "write"
    });
    assert_eq!(conflict.field("backends"), "one, two");
    eventually(DEADLINE, "neither is used", || {
        ["one", "two"].iter().all(|name| reason(&tidegate, "write", name).starts_with("more than one primary: "))
    });
    let metric = |pool: &str| {
        let line = format!("tidegate_pool_primary_conflict{{pool=\"{pool}\"}} 1");
        get(&tidegate.stats_port(), "/metrics").text().contains(&line)
    };
    assert!(metric("write") && !metric("read"));
    eventually(DEADLINE, "the newer timeline is used", || reason(&tidegate, "newest", "one").contains("(timeline 2)"));
    assert!(is_up(&tidegate, "newest", "two"));
    assert_eq!(ask(&two, "newest", "select count(*) from done"), Ok(rows.to_string()));
    one.stop();
    eventually(DEADLINE, "no conflict", || is_up(&tidegate, "write", "two") && !metric("write"));
    tidegate.wait_for_log("the end", |line| line.is("more than one primary: no more"));
}

/// As an administrator does it: the sessions on the old primary end in order, new ones wait.
#[test]
fn postgres_switchover_fails_nothing() {
    let mut one = Postgres::bare(&[]);
    let two = one.standby(&[]);
    one.query("create table done (n serial)");
    let tidegate = writer_and_reader([one.port(), two.port()], "postgres", "user: postgres,", ["", ""]);
    let config = tidegate.config_file();
    let (processed, aborted) = pgbench_over(&two, tidegate.at("write").tcp().port(), &tidegate, || {
        let command = tidegate.command(&["drain", "write/one", "--wait", "30s", "--config", config.to_str().unwrap()]);
        command.printed();
        one.stop();
        two.query("select pg_promote()");
    });
    let rows: usize = two.query("select count(*) from done").parse().unwrap();
    assert_eq!((aborted, rows), (0, processed));
    tell(&format!(
        "pgbench over a switchover: {processed} transactions; the longest wait was {:.0} ms",
        longest_wait(&tidegate)
    ));
}

fn run(server: &MariaDb, sql: &str) -> String {
    let output = server.query(sql);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A primary and its replica, which has what was acknowledged, with the table `d.t`. The accounts are `probe` and `app`.
fn replicated_mariadb(options: &[&str]) -> [MariaDb; 2] {
    let semi_sync = ["--log-bin=binlog", "--log-slave-updates=ON", "--rpl-semi-sync-slave-enabled=1"];
    let first = ["--server-id=1", "--rpl-semi-sync-master-enabled=1"];
    let one = MariaDb::start(&[&semi_sync[..], &first, options].concat());
    let two = MariaDb::start(&[&semi_sync[..], &["--server-id=2", "--read-only=1"], options].concat());
    for server in [&one, &two] {
        run(
            server,
            "set sql_log_bin = 0; create user probe@'%' identified by ''; grant slave monitor on *.* to probe@'%'; \
             grant all on *.* to app@'%'; revoke read_only admin on *.* from app@'%'",
        );
    }
    run(&one, "create user repl@'%' identified by 'repl'; grant replication slave on *.* to repl@'%'");
    run(
        &two,
        &format!(
            "change master to master_host = '127.0.0.1', master_port = {}, master_user = 'repl', master_password = 'repl', \
             master_use_gtid = slave_pos; set global gtid_slave_pos = '{}'; start slave",
            one.port(),
            run(&one, "select @@gtid_binlog_pos")
        ),
    );
    run(&one, "create database d; create table d.t (n int auto_increment primary key)");
    eventually(DEADLINE, "the table", || two.query("select * from d.t").status.success());
    eventually(DEADLINE, "semi-synchronous", || {
        run(&one, "show status like 'Rpl_semi_sync_master_clients'").ends_with('1')
    });
    [one, two]
}

#[test]
fn mariadb_under_inserts() {
    let [mut one, two] = replicated_mariadb(&[]);
    let tidegate = writer_and_reader([one.port(), two.port()], "mysql", "user: probe,", ["", ""]);
    let (write, read) = (tidegate.at("write").tcp().port(), tidegate.at("read").tcp().port());
    let server_of =
        |port: u16| String::from_utf8_lossy(&mariadb::query(port, "select @@server_id").stdout).trim().to_owned();
    assert_eq!([server_of(write), server_of(read)], ["1", "2"]);

    let clients = Clients::start(8, move || succeeded(&mariadb::query(write, "insert into d.t values ()")));
    clients.reach(50);
    one.kill();
    let gone = Instant::now();
    // What it has received is applied first.
    eventually(DEADLINE, "the relay log is applied", || {
        run(&two, "show slave status\\G").contains("Slave has read all relay log")
    });
    run(&two, "stop slave; reset slave all; set global read_only = 0");
    clients.reach(50);
    let inserted = clients.end(gone);
    let rows: usize = run(&two, "select count(*) from d.t").parse().unwrap();
    assert!(rows >= inserted, "{rows} rows, {inserted} were acknowledged");
    assert_eq!([server_of(write), server_of(read)], ["2", "2"], "the reader's pool falls back");
    tell(&format!("mariadb: the longest wait in the queue was {:.0} ms", longest_wait(&tidegate)));
}

#[test]
fn redis_under_increments() {
    let mut one = Redis::start();
    let two = Redis::start();
    two.command(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
    eventually(DEADLINE, "the replica", || two.command(&["ROLE"]).contains("connected"));
    let tidegate = writer_and_reader([one.port(), two.port()], "redis", "", ["", ""]);
    let (write, read) = (tidegate.at("write").tcp().port(), tidegate.at("read").tcp().port());
    let cli = |port: u16, words: &[&str]| {
        let output = Command::new("redis-cli").args(["-e", "-p", &port.to_string()]).args(words).output().unwrap();
        succeeded(&output).map(|()| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    assert!(cli(read, &["SET", "a", "b"]).unwrap_err().contains("READONLY"));
    let clients = Clients::start(8, move || cli(write, &["INCR", "n"]).map(drop));
    clients.reach(100);
    one.kill();
    let gone = Instant::now();
    two.command(&["REPLICAOF", "NO", "ONE"]);
    clients.reach(100);
    clients.end(gone);
    assert!(cli(read, &["SET", "a", "b"]).is_ok(), "the reader's pool falls back");
    tell(&format!("redis: the longest wait in the queue was {:.0} ms", longest_wait(&tidegate)));
}

/// A session on a primary that is demoted ends, though its server goes on.
#[test]
fn sessions_on_a_demoted_primary_are_cut() {
    let [one, two] = [Redis::start(), Redis::start()];
    two.command(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
    eventually(DEADLINE, "the replica", || two.command(&["ROLE"]).contains("connected"));
    let tidegate = writer_and_reader([one.port(), two.port()], "redis", "", ["", ""]);
    let mut sessions = ["write", "read"].map(|listener| connect(&tidegate.at(listener)));
    sessions.iter_mut().for_each(|session| ping_on(session).unwrap());
    two.command(&["REPLICAOF", "NO", "ONE"]);
    one.command(&["REPLICAOF", "127.0.0.1", &two.port().to_string()]);
    tidegate.wait_for_access("cut", |line| line.backend() == Some("one") && line.end() == "backend down");
    let [writer, reader] = &mut sessions;
    assert!(ping_on(writer).is_err());
    ping_on(reader).unwrap();
    eventually(DEADLINE, "the new primary", || is_up(&tidegate, "write", "two"));
    assert!(tidegate.logs().iter().all(|line| !line.text.contains("none of them gets")), "a switchover is no conflict");
}

/// With the default `fall`: what a server states of itself counts at once.
#[test]
fn lag_is_seen_within_two_checks() {
    let one = Postgres::bare(&[]);
    let two = one.standby(&[]);
    let backends = format!(
        "backends: [{{ name: one, address: \"127.0.0.1:{}\" }}, {{ name: two, address: \"127.0.0.1:{}\" }}]",
        one.port(),
        two.port()
    );
    let tidegate = Tidegate::start(&format!(
        "{ADMIN_SOCKET}listeners: [{{ name: read, bind: \"127.0.0.1:0\", pool: read }}]\n\
         pools: [{{ name: read, {backends}, health: {{ postgres: {{ user: postgres, role: replica, max_lag: 1MiB }}, \
         interval: 500ms, timeout: 400ms }} }}]\n"
    ));
    tidegate.wait_for_up("two");
    let checks = |place: usize| tidegate.view().pools[0].backends[place].checks.as_ref().unwrap().count;
    let is_up = || is_up(&tidegate, "read", "two");
    two.query("select pg_wal_replay_pause()");
    one.query("create table t as select n, repeat('x', 100) from generate_series(1, 50000) n");
    // The primary's position is read.
    let before = checks(0);
    eventually(DEADLINE, "a check of the primary", || checks(0) > before + 1);
    let before = checks(1);
    eventually(DEADLINE, "it is left out", || !is_up());
    let took = checks(1) - before;
    assert!(took <= 2, "{took} checks");
    two.query("select pg_wal_replay_resume()");
    eventually(DEADLINE, "it comes back", is_up);
}

/// The writer's and the reader's port of each database, by its own client, over TLS to tidegate and from there.
#[test]
fn ports_of_primary_and_replica_over_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&["127.0.0.1", "localhost"]);
    let ca_file = authority.file();
    let (cert, key, ca) = (issued.cert.display(), issued.key.display(), ca_file.display());
    let pool = |name: &str, role: &str, kind: &str, account: &str, starttls: &str, [one, two]: [u16; 2]| {
        format!(
            "- {{ name: {name}, backends: [{{ name: one, address: \"127.0.0.1:{one}\" }}, {{ name: two, address: \"127.0.0.1:{two}\" }}],\n\
             \x20   tls: {{ ca: \"{ca}\"{starttls} }}, health: {{ {kind}: {{ {account} role: {role} }}, interval: 200ms, timeout: 5s }} }}\n"
        )
    };
    let both = |kind: &str, account: &str, starttls: &str, ports: [u16; 2]| {
        let starttls = if starttls.is_empty() { String::new() } else { format!(", starttls: {starttls}") };
        let listener = |name: &str| {
            format!(
                "- {{ name: {name}, bind: \"127.0.0.1:0\", pool: {name}, sniff: {kind}, \
                 tls: {{ certificates: [{{ cert: \"{cert}\", key: \"{key}\" }}]{starttls} }} }}\n"
            )
        };
        let tidegate = Tidegate::start(&format!(
            "{ADMIN_SOCKET}listeners:\n{}{}pools:\n{}{}",
            listener("write"),
            listener("read"),
            pool("write", "primary", kind, account, &starttls, ports),
            pool("read", "replica", kind, account, &starttls, ports)
        ));
        let up = |pool: &str| ["one", "two"].map(|name| is_up(&tidegate, pool, name));
        eventually(DEADLINE, "the roles", || up("write") == [true, false] && up("read") == [false, true]);
        let ports = ["write", "read"].map(|listener| tidegate.at(listener).tcp().port());
        (tidegate, ports)
    };

    let one = Postgres::with_tls(&issued);
    let two = one.standby_with_tls(&issued);
    let (tidegate, ports) = both("postgres", "user: postgres,", "postgres", [one.port(), two.port()]);
    let ask = |port: u16| {
        let mut psql = one.psql(port);
        psql.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", authority.file());
        let output = psql
            .args(["-XAtc", "select pg_is_in_recovery(), ssl from pg_stat_ssl where pid = pg_backend_pid()"])
            .output();
        let output = output.unwrap();
        succeeded(&output).map(|()| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    assert_eq!(ports.map(ask), [Ok("f|t".to_owned()), Ok("t|t".to_owned())]);
    counted(&tidegate, "postgres", "SELECT");

    let files = [format!("--ssl-cert={cert}"), format!("--ssl-key={key}")];
    let [one, two] = replicated_mariadb(&files.each_ref().map(String::as_str));
    let (tidegate, ports) = both("mysql", "user: probe,", "mysql", [one.port(), two.port()]);
    let asks = "select concat(@@server_id, (select variable_value <> '' from information_schema.session_status \
                where variable_name = 'Ssl_cipher'))";
    let ask = |port: u16| {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--host=127.0.0.1", "--user=app", "--password=app", "-Nse", asks]);
        client.args([format!("--port={port}"), format!("--ssl-ca={ca}"), "--ssl-verify-server-cert".to_owned()]);
        let output = client.output().unwrap();
        succeeded(&output).map(|()| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    assert_eq!(ports.map(ask), [Ok("11".to_owned()), Ok("21".to_owned())]);
    counted(&tidegate, "mysql", "SELECT");

    let tls_ports = [free_port(), free_port()];
    let [one, two] = tls_ports.map(|port| {
        let (port, cert, key) = (port.to_string(), cert.to_string(), key.to_string());
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
        Redis::start_with(&[&["--tls-port", &port][..], &files].concat())
    });
    two.command(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
    eventually(DEADLINE, "the replica", || two.command(&["ROLE"]).contains("connected"));
    let (tidegate, ports) = both("redis", "", "", tls_ports);
    let role = |port: u16| {
        let mut client = Command::new("redis-cli");
        client.args(["--tls", "--cacert", &ca.to_string(), "-h", "127.0.0.1", "-p", &port.to_string(), "ROLE"]);
        let output = client.output().unwrap();
        succeeded(&output)
            .map(|()| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    };
    assert_eq!(ports.map(role), [Ok("master".to_owned()), Ok("slave".to_owned())]);
    counted(&tidegate, "redis", "ROLE");
}

/// Waits until a query of this kind is counted at both ports, seen inside TLS that ends there.
fn counted(tidegate: &Tidegate, protocol: &str, statement: &str) {
    for listener in ["write", "read"] {
        let line = format!(
            "tidegate_listener_queries_total{{listener=\"{listener}\",protocol=\"{protocol}\",statement=\"{statement}\"}} "
        );
        eventually(DEADLINE, &line, || {
            let text = get(&tidegate.stats_port(), "/metrics").text();
            text.lines().filter_map(|it| it.strip_prefix(&line)).any(|count| count != "0")
        });
    }
}
