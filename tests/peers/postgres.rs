//! pgbench and psql through the balancer to the real PostgreSQL.

use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::postgres::{Postgres, tps};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{eventually, tell};

#[test]
fn pgbench_with_lasting_connections() {
    let postgres = Postgres::start();
    let tidegate = in_front_of(&postgres);
    let direct = pgbench(&postgres, postgres.port(), &["-T", "2"]);
    let through = pgbench(&postgres, tidegate.at("in").tcp().port(), &["-T", "2"]);
    tell(&format!("pgbench: {direct} tps direct, {through} tps through tidegate"));
    tidegate.wait_for_access("of the last of 20 clients", |_| tidegate.access().len() >= 20);
}

#[test]
fn pgbench_with_a_connection_for_each_transaction() {
    let postgres = Postgres::start();
    let tidegate = in_front_of(&postgres);
    let direct = pgbench(&postgres, postgres.port(), &["-C", "-T", "2"]);
    let through = pgbench(&postgres, tidegate.at("in").tcp().port(), &["-C", "-T", "2"]);
    tell(&format!("pgbench -C: {direct} tps direct, {through} tps through tidegate"));
    let lines = tidegate.access();
    assert!(lines.len() > 20, "a connection for each transaction, not {}", lines.len());
    for line in &lines {
        assert_eq!(line.backend(), Some("b"), "{line:?}");
    }
}

fn in_front_of(postgres: &Postgres) -> Tidegate {
    let tidegate =
        Tidegate::start(&forward(format!("127.0.0.1:{}", postgres.port()), "", "health: { tcp: {}, interval: 500ms }"));
    tidegate.wait_for_up("b");
    tidegate
}

/// Transactions a second of 20 clients, none of whom saw an error.
fn pgbench(postgres: &Postgres, port: u16, arguments: &[&str]) -> String {
    tps(postgres.pgbench(port).args(["-n", "-c", "20", "-j", "2"]).args(arguments))
}

/// psql asks for TLS, sends its last message, and closes while the server still has something to say: both ends reset.
/// None of its sessions may stay, where a limit of the database's own is behind it.
#[test]
fn sessions_over_passed_through_tls_leave_no_connection_behind() {
    let authority = Authority::new();
    let postgres = Postgres::with_tls(&authority.issue(&["127.0.0.1"]));
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, max_connections: 10 }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"127.0.0.1:{}\" }}] }}]\n",
        postgres.port()
    ));
    for session in 1..=200 {
        let mut psql = postgres.psql(tidegate.at("in").tcp().port());
        let output = psql.env("PGSSLMODE", "prefer").args(["-X", "-At", "-c", "select 1"]).output().expect("psql");
        assert!(output.status.success(), "session {session}: {}", String::from_utf8_lossy(&output.stderr));
        // half_close is a minute: what is not gone by itself is not gone within this.
        let gone = || tidegate.access().len() == session;
        eventually(Duration::from_secs(10), &format!("the end of session {session}"), gone);
    }
}
