//! One port for psql, redis-cli, mariadb, curl and openssl: their first bytes, as they are.

use std::process::{Command, Stdio};

use crate::support::authority::Authority;
use crate::support::backend::Backend;
use crate::support::mariadb::{MariaDb, query};
use crate::support::postgres::Postgres;
use crate::support::process::{bound, require};
use crate::support::redis::Redis;
use crate::support::tidegate::Tidegate;
use crate::support::tls::{send_name_over_tls, tls_backend};

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the client runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn clients_of_five_protocols_share_a_port() {
    require("curl", "curl");
    require("openssl", "openssl");
    require("redis-cli", "redis-tools");
    let (postgres, redis, mariadb) = (Postgres::start(), Redis::start(), MariaDb::start(&[]));
    let web = Backend::web("web");
    let authority = Authority::new();
    let encrypted = tls_backend(authority.issue(&["localhost"]).server(), send_name_over_tls("encrypted"));
    let pools = [
        ("mysql", format!("127.0.0.1:{}", mariadb.port())),
        ("postgres", format!("127.0.0.1:{}", postgres.port())),
        ("redis", format!("127.0.0.1:{}", redis.port())),
        ("http", web.place().to_string()),
        ("tls", encrypted.place().to_string()),
    ];
    let routes = ["postgres", "redis", "http", "tls"]
        .map(|protocol| format!("{{ match: {{ protocol: [{protocol}] }}, pool: {protocol} }}"));
    let mut yaml = format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: mysql, timeouts: {{ sniff: 300ms }}, routes: [{}] }}]\npools:\n",
        routes.join(", ")
    );
    for (name, address) in pools {
        yaml.push_str(&format!("- {{ name: {name}, backends: [{{ address: \"{address}\" }}] }}\n"));
    }
    let tidegate = Tidegate::start(&yaml);
    let port = tidegate.at("in").tcp().port();

    assert_eq!(output(postgres.psql(port).args(["-Atc", "SELECT 6 * 7"])).trim(), "42");
    assert_eq!(output(bound("redis-cli", "KILL").args(["-p", &port.to_string(), "PING"])).trim(), "PONG");
    assert_eq!(output(bound("curl", "KILL").args(["-s", &format!("http://127.0.0.1:{port}/")])), "web");
    let answer = query(port, "SELECT 6 * 7");
    assert!(String::from_utf8_lossy(&answer.stdout).contains("42"), "{answer:?}");
    let mut client = bound("openssl", "KILL");
    client.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}"), "-servername", "localhost"]);
    assert!(output(&mut client).contains("encrypted"));
}
