//! `sniff: postgres`: what is counted of queries that psql, pgbench and psycopg make to the real PostgreSQL.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use crate::support::authority::Authority;
use crate::support::http::{observed, stats};
use crate::support::postgres::Postgres;
use crate::support::python;
use crate::support::queries::{SeenQueries, numbers, queries_everywhere, queries_of};
use crate::support::stats::{ADMIN_SOCKET, call, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::terminate;
use crate::support::{DEADLINE, eventually};

const WATCHED: &str = "sniff: postgres";

fn in_front_of(postgres: &Postgres) -> Tidegate {
    observed(&forward(format!("127.0.0.1:{}", postgres.port()), WATCHED, ""))
}

fn port(tidegate: &Tidegate) -> u16 {
    tidegate.at("in").tcp().port()
}

/// psql with a script on its standard input.
fn psql(postgres: &Postgres, tidegate: &Tidegate, script: &str) -> Output {
    let mut psql = postgres.psql(port(tidegate));
    psql.args(["-XAtq"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = psql.spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// pgbench with a script of its own, which four clients run 100 times each.
fn pgbench(postgres: &Postgres, tidegate: &Tidegate, protocol: &str, script: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script.sql");
    fs::write(&file, script).unwrap();
    let mut pgbench = postgres.pgbench(port(tidegate));
    let output =
        pgbench.args(["-n", "-c", "4", "-j", "2", "-t", "100", "-M", protocol, "-f"]).arg(file).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("actually processed: 400/400"), "{output:?}");
}

#[test]
fn queries_of_pgbench_are_counted_exactly_by_each_protocol() {
    let postgres = Postgres::bare(&[]);
    postgres.query("create table t (a int)");
    for protocol in ["simple", "extended", "prepared"] {
        let tidegate = in_front_of(&postgres);
        postgres.query("truncate t");
        let script = "begin;\ninsert into t values (1);\n-- c\nupdate t set a = a where false;\nselect 1;\nend;\n";
        pgbench(&postgres, &tidegate, protocol, script);
        let words = ["BEGIN", "INSERT", "UPDATE", "SELECT", "END"].map(|word| (word, 400));
        let expected = SeenQueries { statements: numbers(&words), ..SeenQueries::default() };
        assert_eq!(queries_everywhere(&tidegate), expected, "{protocol}");
        assert_eq!(postgres.query("select count(*) from t"), "400", "PostgreSQL counts the same");
    }
}

#[test]
fn pipelined_queries_are_told_apart() {
    let postgres = Postgres::bare(&[]);
    let tidegate = in_front_of(&postgres);
    let script = "\\startpipeline\nselect 1;\nselect 2;\nvalues (3);\n\\endpipeline\nselect 4;\n";
    pgbench(&postgres, &tidegate, "extended", script);
    let statements = numbers(&[("SELECT", 1200), ("VALUES", 400)]);
    let expected = SeenQueries { statements, pipelined: 800, ..SeenQueries::default() };
    assert_eq!(queries_everywhere(&tidegate), expected);
}

#[test]
fn copies_and_errors_of_psql_are_counted_by_class() {
    let postgres = Postgres::bare(&[]);
    let tidegate = in_front_of(&postgres);
    let rows: String = (0..10_000).map(|row| format!("{row}\tEEEEZZZZ\n")).collect();
    let script = format!(
        "create table c (a int primary key, b text);\ncopy c from stdin;\n{rows}\\.\ncopy c to stdout;\n\
         insert into c values (1);\nselec 1;\nselect 1/0;\nselect a, repeat(b, 100) from c;\n\
         copy c from stdin;\nx\ty\n\\.\nselect 1 \\; update c set b = b where false;\nlisten n;\nnotify n;\n"
    );
    let output = psql(&postgres, &tidegate, &script);
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    assert!(lines > 20_000, "{lines} lines: {}", String::from_utf8_lossy(&output.stderr));
    let expected = SeenQueries {
        failed: 4,
        statements: numbers(&[
            ("CREATE", 1),
            ("COPY", 3),
            ("INSERT", 1),
            ("SELECT", 3),
            ("LISTEN", 1),
            ("NOTIFY", 1),
            ("other", 1),
        ]),
        // A unique violation, a syntax error, a division by zero, and text that is no number.
        errors: numbers(&[("22", 2), ("23", 1), ("42", 1)]),
        ..SeenQueries::default()
    };
    assert_eq!(queries_everywhere(&tidegate), expected);
}

#[test]
fn prepared_statements_and_pipelines_of_psycopg_are_counted() {
    let postgres = Postgres::bare(&[]);
    let tidegate = in_front_of(&postgres);
    let script = format!(
        "import psycopg\n\
         with psycopg.connect(host='127.0.0.1', port={}, user='postgres', dbname='postgres', autocommit=True) as c:\n\
         \x20   c.execute('create table p (a int primary key)')\n\
         \x20   for n in range(10): c.execute('insert into p values (%s)', (n,), prepare=True)\n\
         \x20   with c.pipeline():\n\
         \x20       for n in range(10, 20): c.execute('insert into p values (%s)', (n,), prepare=True)\n\
         \x20   try:\n\
         \x20       with c.pipeline():\n\
         \x20           for n in (20, 19, 21): c.execute('insert into p values (%s)', (n,))\n\
         \x20   except psycopg.errors.UniqueViolation: pass\n\
         \x20   with c.cursor('named') as named:\n\
         \x20       pass\n\
         \x20   with c.cursor().copy('copy p to stdout') as copy:\n\
         \x20       print(sum(1 for _ in copy))\n",
        port(&tidegate)
    );
    let rows: u64 = python::run(&script, b"").trim().parse().unwrap();
    let seen = queries_everywhere(&tidegate);
    assert_eq!((seen.statements.get("CREATE"), seen.statements.get("COPY")), (Some(&1), Some(&1)), "{seen:?}");
    assert_eq!(seen.errors, numbers(&[("23", 1)]));
    // All that were sent have an end: those before the error, that itself, and what it skipped.
    let inserts = seen.statements.get("INSERT").copied().unwrap_or_default();
    // The one before the error was undone with it.
    assert_eq!((inserts + seen.unanswered, inserts - seen.failed), (23, rows + 1), "{seen:?}");
    assert!(seen.pipelined >= 9, "{seen:?}");
}

#[test]
fn connections_show_user_and_database_inside_tls_too() {
    let (postgres, authority) = (Postgres::bare(&[]), Authority::new());
    let issued = authority.issue(&["127.0.0.1"]);
    postgres.query("create role \"al ice\" login superuser");
    postgres.query("create database shop");
    let to = format!("127.0.0.1:{}", postgres.port());
    let yaml = terminate(to, &[&issued], "starttls: postgres", WATCHED);
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}{yaml}"));
    let mut sleeper = postgres.psql(port(&tidegate));
    sleeper.env("PGSSLMODE", "require").args(["-X", "-U", "al ice", "-d", "shop", "-c", "select pg_sleep(600)"]);
    let mut sleeper = sleeper.stderr(Stdio::null()).spawn().unwrap();
    let rows =
        |query: &str| get(&tidegate.stats_port(), &format!("/api/connections{query}")).json()["connections"].clone();
    eventually(DEADLINE, "a user", || rows("?user=al%20ice").as_array().unwrap().len() == 1);
    assert_eq!((&rows("")[0]["user"], &rows("")[0]["database"]), (&"al ice".into(), &"shop".into()));
    assert_eq!(rows("?user=bob"), serde_json::json!([]));
    eventually(DEADLINE, "the query is on its way", || {
        postgres.query("select count(*) from pg_stat_activity where query like 'select pg_sleep%'") == "1"
    });
    assert_eq!(call(&tidegate.stats_port(), "DELETE", "/api/connections?user=al%20ice", "").json()["ended"], 1);
    sleeper.wait().unwrap();
    let line = tidegate.wait_for_access("of the sleeper", |_| true);
    assert_eq!(
        (line.field("user"), line.field("database"), line.number("queries")),
        ("al ice".into(), "shop".into(), Some(1.0))
    );
    let seen = queries_everywhere(&tidegate);
    assert_eq!((seen.unanswered, seen.opaque.len()), (1, 0), "{seen:?}");
}

#[test]
fn what_is_encrypted_or_replicates_turns_opaque() {
    let authority = Authority::new();
    let postgres = Postgres::with_tls(&authority.issue(&["127.0.0.1"]));
    let tidegate = in_front_of(&postgres);
    let mut psql = postgres.psql(port(&tidegate));
    let output = psql.env("PGSSLMODE", "require").args(["-XAtc", "select 7"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n");
    let mut replica = postgres.psql(port(&tidegate));
    replica.args(["-XAt", "-c", "IDENTIFY_SYSTEM", "-d", "replication=true user=postgres"]).env("PGSSLMODE", "disable");
    let output = replica.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut wrong = postgres.psql(port(&tidegate));
    wrong.env("PGSSLMODE", "disable").args(["-U", "nobody", "-c", "select 1"]);
    assert!(!wrong.output().unwrap().status.success());
    let expected = SeenQueries {
        opaque: numbers(&[("encrypted", 1), ("replication", 1)]),
        errors: numbers(&[("28", 1)]),
        ..SeenQueries::default()
    };
    assert_eq!(queries_of(&stats(&tidegate)["listeners"][0]).opaque.len(), 2);
    assert_eq!(queries_everywhere(&tidegate), expected);
}
