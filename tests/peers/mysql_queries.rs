//! `sniff: mysql`: what is counted of queries that mariadb and a client in Python make to the real MariaDB.

use crate::support::http::observed;
use crate::support::mariadb::{MariaDb, query};
use crate::support::python;
use crate::support::queries::{SeenQueries, numbers, queries_everywhere};
use crate::support::tidegate::{Tidegate, forward};

const WATCHED: &str = "sniff: mysql";

fn in_front_of(mariadb: &MariaDb) -> Tidegate {
    let app = mariadb.query(
        "create database shop; create table shop.t (a int primary key, b longtext); grant all on shop.* to app@'%'",
    );
    assert!(app.status.success(), "{app:?}");
    observed(&forward(format!("127.0.0.1:{}", mariadb.port()), WATCHED, ""))
}

fn port(tidegate: &Tidegate) -> u16 {
    tidegate.at("in").tcp().port()
}

/// A counter of the server.
fn status(mariadb: &MariaDb, name: &str) -> u64 {
    let output = mariadb.query(&format!("show global status like '{name}'"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn queries_of_mariadb_are_counted_as_the_server_counts_them() {
    let mariadb = MariaDb::start(&[]);
    let tidegate = in_front_of(&mariadb);
    let before = ["Com_select", "Com_insert", "Com_update"].map(|name| status(&mariadb, name));
    let inserts: String = (0..200).map(|row| format!("insert into shop.t values ({row}, 'x');")).collect();
    let script = format!(
        "use shop; {inserts} select * from t; select a from t where false; update t set b = 'y'; select repeat('z', 15000000);"
    );
    let output = query(port(&tidegate), &script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!query(port(&tidegate), "selec 1").status.success());
    assert!(!query(port(&tidegate), "insert into shop.t values (1, 'x')").status.success());
    let counted = ["Com_select", "Com_insert", "Com_update"].map(|name| status(&mariadb, name));
    let seen = queries_everywhere(&tidegate);
    let of = |word: &str| seen.statements.get(word).copied().unwrap_or_default();
    let through = [of("SELECT"), of("INSERT"), of("UPDATE")];
    assert_eq!(through, std::array::from_fn(|at| counted[at] - before[at]), "{seen:?}");
    assert_eq!((of("INSERT"), of("UPDATE"), of("USE"), seen.failed), (201, 1, 1, 2), "{seen:?}");
    assert_eq!(seen.errors, numbers(&[("23", 1), ("42", 1)]));
    assert_eq!((seen.pipelined, seen.unanswered, seen.opaque.len()), (0, 0, 0), "{seen:?}");
    let lines = tidegate.access();
    assert!(lines.iter().all(|line| line.field("user") == "app"), "{lines:?}");
    assert_eq!(lines[0].field("database"), "shop");
}

#[test]
fn prepared_statements_several_results_and_long_rows_of_python_are_followed() {
    let mariadb = MariaDb::start(&["--max-allowed-packet=64M", "--local-infile=1"]);
    let tidegate = in_front_of(&mariadb);
    let executed = status(&mariadb, "Com_stmt_execute");
    let script = format!(
        "import mysql.connector, tempfile\n\
         c = mysql.connector.connect(host='127.0.0.1', port={}, user='app', password='app', database='shop',\n\
         \x20   ssl_disabled=True, use_pure=True, autocommit=True, allow_local_infile=True)\n\
         p = c.cursor(prepared=True)\n\
         for n in range(10): p.execute('insert into t values (%s, %s)', (n, 'x' * n))\n\
         p.execute('select * from t where a < %s', (5,)); print(len(p.fetchall()))\n\
         p.close()\n\
         d = c.cursor()\n\
         d.execute('create procedure p() begin select 1; select 2; end')\n\
         d.callproc('p')\n\
         print(sum(len(r.fetchall()) for r in d.stored_results()))\n\
         d.execute(\"select repeat('q', 40000000)\"); print(len(d.fetchone()[0]))\n\
         d.execute('insert into t values (100, %s)', ('w' * 20000000,))\n\
         with tempfile.NamedTemporaryFile('w') as f:\n\
         \x20   f.write(''.join(f'{{n}}\\tselect\\n' for n in range(1000, 2000))); f.flush()\n\
         \x20   d.execute(f\"load data local infile '{{f.name}}' into table t\"); print(d.rowcount)\n\
         c.ping()\n\
         c.database = 'information_schema'\n\
         c.close()\n",
        port(&tidegate)
    );
    let told = python::run(&script, b"");
    assert_eq!(told.split_whitespace().collect::<Vec<_>>(), ["5", "2", "40000000", "1000"]);
    let executed = status(&mariadb, "Com_stmt_execute") - executed;
    let seen = queries_everywhere(&tidegate);
    let of = |word: &str| seen.statements.get(word).copied().unwrap_or_default();
    assert_eq!(executed, 11);
    assert_eq!((of("INSERT"), of("CALL"), of("LOAD")), (11, 1, 1), "{seen:?}");
    assert!(of("PREPARE") >= 2 && of("PING") >= 1 && of("USE") + of("SET") >= 1, "{seen:?}");
    assert_eq!((seen.failed, seen.unanswered, seen.opaque.len(), seen.errors.len()), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(tidegate.only_access().number("queries"), Some(seen.statements.values().sum::<u64>() as f64));
}

#[test]
fn refused_logins_and_compression_are_told_apart() {
    let mariadb = MariaDb::start(&["--max-connections=1"]);
    let tidegate = in_front_of(&mariadb);
    let run = |arguments: &[&str]| {
        let mut client = std::process::Command::new("mariadb");
        client.args(["--no-defaults", "--host=127.0.0.1", "--user=app", "-Nse", "select 1"]).args(arguments);
        client.arg(format!("--port={}", port(&tidegate))).output().unwrap()
    };
    assert!(run(&["--password=app", "--compress"]).status.success());
    assert!(!run(&["--password=wrong"]).status.success());
    let seen = queries_everywhere(&tidegate);
    let expected =
        SeenQueries { errors: numbers(&[("28", 1)]), opaque: numbers(&[("compressed", 1)]), ..SeenQueries::default() };
    assert_eq!(seen, expected);
}
