//! pgbench through the balancer to the real PostgreSQL.

use crate::support::postgres::{Postgres, tps};
use crate::support::tell;
use crate::support::tidegate::{Tidegate, forward};

#[test]
fn pgbench_with_lasting_connections() {
    let postgres = Postgres::start();
    let tidegate = in_front_of(&postgres);
    let direct = pgbench(&postgres, postgres.port(), &["-T", "3"]);
    let through = pgbench(&postgres, tidegate.at("in").tcp().port(), &["-T", "10"]);
    tell(&format!("pgbench: {direct} tps direct, {through} tps through tidegate"));
    tidegate.wait_for_access("of the last of 20 clients", |_| tidegate.access().len() >= 20);
}

#[test]
fn pgbench_with_a_connection_for_each_transaction() {
    let postgres = Postgres::start();
    let tidegate = in_front_of(&postgres);
    let direct = pgbench(&postgres, postgres.port(), &["-C", "-T", "3"]);
    let through = pgbench(&postgres, tidegate.at("in").tcp().port(), &["-C", "-T", "10"]);
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
