//! `health: redis` with real servers: roles, logins, faults.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use crate::support::client::{Place, connect};
use crate::support::redis::{Redis, ping_on};
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

const FAST: &str = "interval: 50ms, timeout: 5s, rise: 1, fall: 1";

/// One pool `p` of one backend `b`.
fn checking(port: u16, check: &str) -> Tidegate {
    Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"127.0.0.1:{port}\" }}],\n\
         \x20   health: {{ redis: {{ {check} }}, {FAST} }} }}]\n"
    ))
}

fn is_up(tidegate: &Tidegate, pool: &str, name: &str) -> bool {
    tidegate.resource(&format!("/api/pools/{pool}/backends/{name}"))["health"]["up"].as_bool().unwrap()
}

fn reason(tidegate: &Tidegate, pool: &str, name: &str) -> String {
    let shown = tidegate.resource(&format!("/api/pools/{pool}/backends/{name}"));
    shown["health"]["reason"].as_str().unwrap_or_default().to_owned()
}

fn down_for(tidegate: &Tidegate, expected: &str) {
    eventually(DEADLINE, expected, || reason(tidegate, "p", "b").starts_with(expected));
}

#[test]
fn roles_of_a_primary_and_a_replica() {
    let mut one = Redis::start();
    let two = Redis::start();
    two.command(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
    let backends = format!(
        "backends: [{{ name: one, address: \"127.0.0.1:{}\" }}, {{ name: two, address: \"127.0.0.1:{}\" }}]",
        one.port(),
        two.port()
    );
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners:\n\
         - {{ name: write, bind: \"127.0.0.1:0\", pool: write }}\n\
         - {{ name: read, bind: \"127.0.0.1:0\", pool: read }}\n\
         pools:\n\
         - {{ name: write, {backends}, health: {{ redis: {{ role: primary }}, {FAST} }} }}\n\
         - {{ name: read, {backends}, health: {{ redis: {{ role: replica }}, {FAST} }} }}\n"
    ));
    let up = |pool: &str| ["one", "two"].map(|name| is_up(&tidegate, pool, name));
    eventually(DEADLINE, "the roles", || up("write") == [true, false] && up("read") == [false, true]);
    assert_eq!(reason(&tidegate, "write", "two"), "is a replica, role: primary is wanted");
    assert_eq!(reason(&tidegate, "read", "one"), "is a primary, role: replica is wanted");
    let two_shown = || tidegate.resource("/api/pools/read/backends/two");
    assert_eq!(two_shown()["role"], "replica");
    eventually(DEADLINE, "no lag", || two_shown()["lag_bytes"] == 0);

    one.kill();
    eventually(DEADLINE, "a replica without its primary", || up("read") == [false, false]);
    let lost = reason(&tidegate, "read", "two");
    assert!(lost.starts_with("replica without a connection to its primary (connect"), "{lost}");
    two.command(&["REPLICAOF", "NO", "ONE"]);
    eventually(DEADLINE, "the new primary", || up("write") == [false, true]);
    // The old one comes back as it was.
    let one = Redis::start_on(one.port());
    tidegate.wait_for_log("two primaries", |line| line.text.contains("two primaries") && line.field("pool") == "write");
    one.command(&["REPLICAOF", "127.0.0.1", &two.port().to_string()]);
    eventually(DEADLINE, "the roles", || up("write") == [false, true] && up("read") == [true, false]);
}

#[test]
fn logins_and_what_can_be_wrong_with_them() {
    let redis = Redis::start();
    redis.command(&["ACL", "SETUSER", "probe", "on", ">pw", "+ping", "+role"]);
    redis.command(&["ACL", "SETUSER", "default", "resetpass", ">root"]);
    let cli = |words: &[&str]| redis.command(&[&["-a", "root", "--no-auth-warning"], words].concat());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "pw\n").unwrap();
    let tidegate = checking(redis.port(), &format!("user: probe, password_file: {}, role: primary", file.display()));
    tidegate.wait_for_up("b");
    cli(&["ACL", "SETUSER", "probe", "-role", "+info"]);
    let refused = checking(redis.port(), "");
    down_for(&refused, "asks for a password: NOAUTH");
    assert!(is_up(&tidegate, "p", "b"), "INFO stands in for ROLE");
    cli(&["ACL", "SETUSER", "probe", "-info"]);
    down_for(&tidegate, "allows neither ROLE nor INFO (NOPERM");
    cli(&["ACL", "SETUSER", "probe", "-ping", "+role"]);
    down_for(&tidegate, "permission denied: NOPERM");
    cli(&["ACL", "SETUSER", "probe", "+ping", "resetpass", ">other"]);
    down_for(&tidegate, "refuses the password: WRONGPASS");
    let see = format!("see health.redis (user `probe`, password from {})", file.display());
    assert!(reason(&tidegate, "p", "b").ends_with(&see), "{}", reason(&tidegate, "p", "b"));
    fs::write(&file, "other").unwrap();
    eventually(DEADLINE, "the new password", || is_up(&tidegate, "p", "b"));
}

#[test]
fn full_server_keeps_its_state() {
    let redis = Redis::start_with(&["--maxclients", "4"]);
    let tidegate = checking(redis.port(), "");
    tidegate.wait_for_up("b");
    let place = Place::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port())));
    let mut clients = Vec::new();
    eventually(DEADLINE, "it is full", || {
        let mut client = connect(&place);
        if ping_on(&mut client).is_ok() {
            clients.push(client);
        }
        clients.len() == 4
    });
    let full = tidegate.wait_for_log("full", |line| line.is("health check not possible: the backend keeps its state"));
    assert_eq!(full.field("reason"), "too many connections: ERR max number of clients reached");
    assert!(is_up(&tidegate, "p", "b"));
}
