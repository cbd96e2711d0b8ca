//! What the manual says of PostgreSQL is so.

use std::process::Command;

use crate::support::docs::{command, manual, quote, root, the_yaml};
use crate::support::free_port;
use crate::support::postgres::Postgres;
use crate::support::tidegate::{Tidegate, forward};

#[test]
fn the_example_runs_in_front_of_postgres() {
    let postgres = Postgres::start();
    let (example, log) =
        the_yaml().split_once("log:\n").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a log section");
    let example = example
        .replace("127.0.0.1:6432", "127.0.0.1:0")
        .replace("127.0.0.1:5432", &format!("127.0.0.1:{}", postgres.port()))
        .replace("127.0.0.1:5433", &format!("127.0.0.1:{}", free_port()));
    let log = log.trim().replace('\n', ", ");
    let tidegate = Tidegate::with(&example).log(&format!("{{ {log} }}")).start();
    let up = |line: &crate::support::tidegate::Line| line.text.contains("backend up") && line.text.contains("db-1");
    tidegate.wait_for_log("db-1 is up", up);

    let port = tidegate.at_text("postgres").port();
    let command = command("psql").replace("6432", &port.to_string());
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).env("PGUSER", "postgres").env("PGCONNECT_TIMEOUT", "30");
    let output = shell.output().expect("sh");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("(1 row)"));

    let quoted = quote("tidegate[");
    // psql says that it ends and closes: either FIN may be the first that is seen.
    let line = tidegate.wait_for_log("the access line", |line| {
        line.text.contains("reason=\"client closed\"") || line.text.contains("reason=\"backend closed\"")
    });
    let fields = |line: &str| line.split_whitespace().count();
    assert_eq!(fields(&line.text), fields(&quoted), "as many fields: {} {quoted}", line.text);
    assert!(line.text.contains("] postgres postgres/db-1 "), "{}", line.text);
}

#[test]
fn psql_without_tls_is_told_what_is_quoted() {
    let postgres = Postgres::start();
    let nobody = free_port();
    let certs = root().join("certs");
    let tls = format!(
        "tls: {{ certificates: [{{ cert: {0}/dev.pem, key: {0}/dev.key }}], starttls: postgres }}",
        certs.display()
    );
    let tidegate = Tidegate::start(&forward(format!("127.0.0.1:{nobody}"), &tls, ""));
    let port = tidegate.at("in").tcp().port();
    let told = |mode: &str| {
        let output = postgres.psql(port).env("PGSSLMODE", mode).args(["-c", "select 1"]).output().expect("psql");
        assert!(!output.status.success(), "{mode}");
        String::from_utf8_lossy(&output.stderr).replace(&port.to_string(), "6432")
    };
    assert_eq!(told("disable"), quote("psql: error"));
    let words = "FATAL:  no database server can take the connection now";
    assert!(told("require").contains(words), "{}", told("require"));
    assert!(manual().contains(words));
}
