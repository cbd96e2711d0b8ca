//! `health: redis` with real servers: roles, logins, faults.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use crate::support::checked::{checking, down_for, is_up, reason, write_and_read};
use crate::support::client::{Place, connect};
use crate::support::redis::{Redis, ping_on};
use crate::support::{DEADLINE, eventually};

#[test]
fn roles_of_a_primary_and_a_replica() {
    let mut one = Redis::start();
    let two = Redis::start();
    two.command(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
    let [primary, replica] = ["redis: { role: primary }", "redis: { role: replica }"];
    let tidegate = write_and_read([one.port(), two.port()], primary, replica);
    let up = |pool: &str| ["one", "two"].map(|name| is_up(&tidegate, pool, name));
    assert_eq!(reason(&tidegate, "write", "two"), "is a replica, role: primary is wanted");
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
    tidegate
        .wait_for_log("two primaries", |line| line.text.contains("none of them gets") && line.field("pool") == "write");
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
    let tidegate =
        checking("redis", redis.port(), &format!("user: probe, password_file: {}, role: primary", file.display()), "");
    tidegate.wait_for_up("b");
    cli(&["ACL", "SETUSER", "probe", "-role", "+info"]);
    let refused = checking("redis", redis.port(), "", "");
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
    let tidegate = checking("redis", redis.port(), "", "");
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
