//! A real PostgreSQL that is restarted behind a queue: no client sees it.

use std::process::Stdio;
use std::thread;

use crate::support::postgres::{Postgres, tps};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, tell};

/// A startup message of the user postgres, and AuthenticationOk: a server that is starting up answers with an error.
const EXCHANGE: &str = r#"exchange: { send: "\0\0\0\x17\0\x03\0\0user\0postgres\0\0", expect: "R\0\0\0\x08\0\0\0\0" }"#;

fn before(postgres: &Postgres) -> Tidegate {
    let tidegate = Tidegate::start(&format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: db }}]\n\
         pools:\n- name: db\n  health: {{ {EXCHANGE}, interval: 100ms, fall: 1, rise: 1 }}\n\
         \x20 queue: {{ size: 100, timeout: 1m }}\n  backends: [{{ name: a, address: \"127.0.0.1:{}\" }}]\n",
        postgres.port()
    ));
    tidegate.wait_for_up("a");
    tidegate
}

fn waiting(tidegate: &Tidegate) -> u32 {
    tidegate.view().pools[0].queue.waiting
}

#[test]
fn planned_restart_under_pgbench_fails_no_transaction() {
    let mut postgres = Postgres::start();
    let tidegate = before(&postgres);
    let through = tidegate.at("in").tcp().port();
    let config = tidegate.config_file();
    let run = |arguments: &[&str]| {
        let ran = tidegate.command(&[arguments, &["--config", config.to_str().unwrap()]].concat());
        ran.printed().to_owned()
    };
    // A thread each: a connect holds its thread.
    let mut pgbench = postgres.pgbench(through);
    pgbench.args(["-n", "-S", "-C", "-c", "20", "-j", "20", "-T", "8"]);
    let load = thread::spawn(move || tps(&mut pgbench));
    eventually(DEADLINE, "pgbench is at work", || tidegate.access().len() > 50);
    run(&["drain", "db/a", "--wait", "30s"]);
    eventually(DEADLINE, "all clients wait", || waiting(&tidegate) == 20);
    postgres.stop();
    tidegate.wait_for_down("a");
    postgres.start_again();
    run(&["ready", "db/a"]);
    tell(&format!("tps over the restart: {}", load.join().unwrap()));
    let queue = tidegate.view().pools[0].queue.clone();
    assert_eq!((queue.waiting, queue.overflowed, queue.timed_out), (0, 0, 0));
    assert!(queue.queued >= 20, "{queue:?}");
}

#[test]
fn psql_waits_while_the_server_is_gone() {
    let mut postgres = Postgres::bare(&[]);
    let tidegate = before(&postgres);
    let through = tidegate.at("in").tcp().port();
    postgres.stop();
    tidegate.wait_for_down("a");
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut psql = postgres.psql(through);
            psql.args(["-X", "-At", "-c", "select 7"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    eventually(DEADLINE, "all wait", || waiting(&tidegate) == 20);
    // One that gives up leaves the queue.
    let mut gone = clients.pop().unwrap();
    gone.kill().unwrap();
    gone.wait().unwrap();
    eventually(DEADLINE, "it has left", || waiting(&tidegate) == 19);
    postgres.start_again();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"7\n"[..]), "{output:?}");
    }
}
