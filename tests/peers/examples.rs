//! The files in config/ do what their first lines say, with other ports.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, connect_from, read_to_end};
use crate::support::mariadb::{self, MariaDb};
use crate::support::postgres::Postgres;
use crate::support::process::require;
use crate::support::redis::Redis;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// An example with each of these texts replaced, each of which must be in it.
fn example(name: &str, replacements: &[(&str, String)]) -> String {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = repository.join("config").join(name);
    let mut yaml = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // It runs in another directory.
    yaml = yaml.replace(" certs/", &format!(" {}/certs/", repository.display()));
    for (from, to) in replacements {
        assert!(yaml.contains(from), "{name} has no {from}");
        yaml = yaml.replace(from, to);
    }
    yaml
}

/// A listener's address as a client on this host reaches it.
fn reach(tidegate: &Tidegate, listener: &str) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), tidegate.at(listener).tcp().port())
}

#[test]
fn web_gives_the_first_server_half_of_the_connections() {
    require("curl", "curl");
    let servers = ["one", "two", "three"].map(Backend::web);
    let mut replacements = vec![("0.0.0.0:8080", "127.0.0.1:0".to_owned())];
    for (server, written) in servers.iter().zip(["127.0.0.1:3001", "127.0.0.1:3002", "127.0.0.1:3003"]) {
        replacements.push((written, server.address().to_string()));
    }
    let tidegate = Tidegate::start(&example("web.yaml", &replacements));
    for backend in ["web-1", "web-2", "web-3"] {
        tidegate.wait_for_up(backend);
    }
    let url = format!("http://{}/", reach(&tidegate, "web"));
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..20 {
        let output = Command::new("curl").args(["-sS", "--max-time", "30", &url]).output().expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        *answers.entry(String::from_utf8_lossy(&output.stdout).into_owned()).or_default() += 1;
    }
    assert_eq!(answers, [("one".to_owned(), 10), ("two".to_owned(), 5), ("three".to_owned(), 5)].into());
}

#[test]
fn postgres_serves_psql() {
    let postgres = Postgres::start();
    let tidegate = Tidegate::start(&example(
        "postgres.yaml",
        &[("127.0.0.1:6432", "127.0.0.1:0".to_owned()), ("127.0.0.1:5432", format!("127.0.0.1:{}", postgres.port()))],
    ));
    tidegate.wait_for_up("pg-1");
    let output =
        postgres.psql(reach(&tidegate, "postgres").port()).args(["-Atc", "select 6 * 7"]).output().expect("psql");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n");
}

#[test]
fn mysql_serves_mariadb_after_more_checks_than_a_server_bears() {
    let server = MariaDb::start(&["--max-connect-errors=100"]);
    let tidegate = Tidegate::start(&example(
        "mysql.yaml",
        &[
            ("127.0.0.1:6306", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:3306", format!("127.0.0.1:{}", server.port())),
            // The server never refuses 127.0.0.1.
            ("    balance: ", "    source: [127.0.0.77]\n    balance: ".to_owned()),
            ("interval: 2s", "interval: 10ms".to_owned()),
        ],
    ));
    tidegate.wait_for_up("db-1");
    let connections = || {
        let output = server.query(
            "select variable_value from information_schema.global_status where variable_name = 'aborted_connects'",
        );
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().unwrap_or_default()
    };
    eventually(DEADLINE, "more than max_connect_errors", || connections() > 150);
    let output = mariadb::query(reach(&tidegate, "mysql").port(), "select 6 * 7");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn redis_serves_redis_cli() {
    require("redis-cli", "redis-tools");
    let redis = Redis::start();
    let tidegate = Tidegate::start(&example(
        "redis.yaml",
        &[("127.0.0.1:6380", "127.0.0.1:0".to_owned()), ("127.0.0.1:6379", format!("127.0.0.1:{}", redis.port()))],
    ));
    tidegate.wait_for_up("redis-1");
    let port = reach(&tidegate, "redis").port().to_string();
    let output = Command::new("redis-cli").args(["-p", &port, "ping"]).output().expect("redis-cli");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "PONG\n");
}

/// What curl gets from the name at a listener.
fn fetch(tidegate: &Tidegate, listener: &str, name: &str, options: &[&str]) -> String {
    require("curl", "curl");
    let port = reach(tidegate, listener).port();
    let (resolve, url) = (format!("{name}:{port}:127.0.0.1"), format!("https://{name}:{port}/"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "--resolve", &resolve, &url]).args(options);
    let output = curl.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("curl");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tls_gives_each_name_its_servers() {
    let [shop, admin] = ["shop", "admin"].map(Backend::web);
    let tidegate = Tidegate::start(&example(
        "tls.yaml",
        &[
            ("0.0.0.0:8443", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:3001", shop.address().to_string()),
            ("127.0.0.1:3002", admin.address().to_string()),
        ],
    ));
    tidegate.wait_for_up("shop-1");
    tidegate.wait_for_up("admin-1");
    for (name, server) in [("localhost", "shop"), ("shop.localhost", "shop"), ("admin.localhost", "admin")] {
        assert_eq!(fetch(&tidegate, "web", name, &["--cacert", "certs/dev.pem"]), server, "{name}");
    }
}

#[test]
fn passthrough_gives_each_name_its_servers() {
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let tls = format!("{{ certificates: [{{ cert: {0}/dev.pem, key: {0}/dev.key }}] }}", certs.display());
    let servers = ["www", "internal", "default"].map(|name| (name, Backend::web(name)));
    let mut listeners = String::from("listeners:\n");
    let mut pools = String::from("pools:\n");
    for (name, server) in &servers {
        listeners.push_str(&format!("  - {{ name: {name}, bind: 127.0.0.1:0, pool: {name}, tls: {tls} }}\n"));
        pools.push_str(&format!("  - {{ name: {name}, backends: [{{ address: {} }}] }}\n", server.address()));
    }
    let behind = Tidegate::start(&(listeners + &pools));
    let mut replacements = vec![("0.0.0.0:8443", "127.0.0.1:0".to_owned())];
    for ((name, _), written) in servers.iter().zip(["127.0.0.1:3443", "127.0.0.1:3444", "127.0.0.1:3445"]) {
        replacements.push((written, reach(&behind, name).to_string()));
    }
    let tidegate = Tidegate::start(&example("passthrough.yaml", &replacements));
    for backend in ["www-1", "internal-1", "default-1"] {
        tidegate.wait_for_up(backend);
    }
    for (name, server) in [
        ("www.example.com", "www"),
        ("eu.www.example.com", "www"),
        ("wiki.example.com", "internal"),
        ("example.org", "default"),
    ] {
        assert_eq!(fetch(&tidegate, "tls", name, &["--insecure"]), server, "{name}");
    }
}

#[test]
fn game_keeps_a_client_on_its_server() {
    let servers = [Backend::named("eu-1"), Backend::named("eu-2"), Backend::named("eu-3")];
    let mut replacements = vec![("0.0.0.0:7777", "127.0.0.1:0".to_owned())];
    for (server, written) in servers.iter().zip(["127.0.0.1:7801", "127.0.0.1:7802", "127.0.0.1:7803"]) {
        replacements.push((written, server.address().to_string()));
    }
    let tidegate = Tidegate::start(&example("game.yaml", &replacements));
    for backend in ["eu-1", "eu-2", "eu-3"] {
        tidegate.wait_for_up(backend);
    }
    let mut used = BTreeMap::new();
    for client in 1..=30 {
        let client = Ipv4Addr::new(127, 0, 1, client);
        let server = |_| read_to_end(&mut connect_from(client.into(), reach(&tidegate, "game"))).0;
        let servers: Vec<_> = (0..3).map(server).collect();
        assert!(servers.iter().all(|server| *server == servers[0]), "{client}: {servers:?}");
        *used.entry(servers[0].clone()).or_insert(0) += 1;
    }
    assert_eq!(used.len(), 3, "30 clients, and only these servers: {used:?}");
}

#[test]
fn full_runs_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let socket = folder.path().join("admin.sock");
    // It has a log section of its own; and the names of sockets and ports may be in use here.
    let yaml = example(
        "full.yaml",
        &[
            ("unix:/tmp/tidegate-admin.sock", format!("unix:{}", socket.display())),
            ("127.0.0.1:8080", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:8081", "127.0.0.1:0".to_owned()),
            ("[::1]:8081", "[::1]:0".to_owned()),
            ("127.0.0.1:8082", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:8083", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:8084", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:8053", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:8443", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:8444", "127.0.0.1:0".to_owned()),
            ("\nlog:\n  level: info ", "\n# log:\n#  level: info ".to_owned()),
            ("\n  format: text ", "\n#  format: text ".to_owned()),
            ("\n  access: \"off\" ", "\n#  access: \"off\" ".to_owned()),
            ("\n  access_empty: true ", "\n#  access_empty: true ".to_owned()),
        ],
    );
    let tidegate = Tidegate::start(&yaml);
    let listening: Vec<String> =
        tidegate.logs().iter().filter(|line| line.is("listening")).map(|line| line.field("listener")).collect();
    assert_eq!(listening, ["shop", "admin", "admin", "admin", "cache", "secure", "passthrough", "web", "site", "dns"]);
    assert_eq!(read_to_end(&mut connect(&Place::Unix(socket))).0, b"", "no backend is up: closed at once");
    tidegate.wait_for_access("of the refused connection", |line| line.end() == "rejected: no backend");
}
