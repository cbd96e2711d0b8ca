//! What psql, mariadb, redis-cli and curl show when they get no backend.

use std::process::{Command, Stdio};

use crate::support::backend::Backend;
use crate::support::client::talking;
use crate::support::mariadb;
use crate::support::postgres::Postgres;
use crate::support::process::{bound, require};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

fn shown(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the client runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What the protocol's own client prints.
fn client(protocol: &str, postgres: &Postgres, tidegate: &Tidegate) -> String {
    let port = tidegate.at("in").tcp().port();
    match protocol {
        "postgres" => shown(postgres.psql(port).args(["-c", "SELECT 1"])),
        "mysql" => {
            let output = mariadb::query(port, "SELECT 1");
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
        "redis" => shown(bound("redis-cli", "KILL").args(["-p", &port.to_string(), "PING"])),
        _ => shown(bound("curl", "KILL").args(["-si", &format!("http://127.0.0.1:{port}/")])),
    }
}

#[test]
fn clients_show_why_they_get_no_backend() {
    require("curl", "curl");
    require("redis-cli", "redis-tools");
    require("mariadb", "mariadb-client");
    let (postgres, backend) = (Postgres::start(), Backend::echo());
    let in_vain = "no database server could take the connection in time";
    let limit = "too many connections from this address";
    let denied = "connections from this address are not allowed";
    // mariadb names the number and the text, as it cannot verify who says so before TLS begins.
    for (protocol, queue, over_limit, not_allowed) in [
        ("postgres", format!("FATAL:  {in_vain}"), format!("FATAL:  {limit}"), format!("FATAL:  {denied}")),
        ("mysql", format!("1105 - {in_vain}"), format!("1040 - {limit}"), format!("1130 - {denied}")),
        ("redis", format!("ERR {in_vain}"), format!("ERR {limit}"), format!("ERR {denied}")),
        ("http", "503 Service Unavailable".into(), "429 Too Many Requests".into(), "403 Forbidden".into()),
    ] {
        let hint = |keys: &str| format!("protocol_hint: {protocol}, {keys}");
        let waits = "retries: 0, queue: { size: 1, timeout: 100ms }";
        let waited = client(protocol, &postgres, &Tidegate::start(&forward("127.0.0.1:1", &hint(""), waits)));
        assert!(waited.contains(&queue), "{protocol}: {waited}");

        let limited = Tidegate::start(&forward(backend.place(), &hint("limits: { connections_per_ip: 1 }"), ""));
        let _first = talking(&limited.at("in"));
        let refused = client(protocol, &postgres, &limited);
        assert!(refused.contains(&over_limit), "{protocol}: {refused}");

        let denies = Tidegate::start(&forward(backend.place(), &hint("access: { deny: [127.0.0.1] }"), ""));
        let refused = client(protocol, &postgres, &denies);
        assert!(refused.contains(&not_allowed), "{protocol}: {refused}");
    }
}

#[test]
fn clients_that_wait_at_the_end_of_the_process_show_it() {
    let postgres = Postgres::start();
    for (protocol, shown) in [
        ("postgres", "FATAL:  the server is shutting down"),
        ("mysql", "1053 - the server is shutting down"),
        ("redis", "ERR the server is shutting down"),
        ("http", "503 Service Unavailable"),
    ] {
        let yaml = format!(
            "{ADMIN_SOCKET}shutdown: {{ drain: 100ms }}\n{}",
            forward(
                "127.0.0.1:1",
                &format!("protocol_hint: {protocol}"),
                "retries: 0, queue: { size: 9, timeout: 1h }"
            )
        );
        let tidegate = Tidegate::start(&yaml);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| client(protocol, &postgres, &tidegate));
            eventually(DEADLINE, "it waits", || tidegate.view().pools[0].queue.waiting == 1);
            tidegate.terminate();
            let printed = client.join().unwrap();
            assert!(printed.contains(shown), "{protocol}: {printed}");
        });
    }
}
