//! The recipe of Redis: its check finds the primary among real servers.

use std::process::Command;

use crate::support::docs::yaml;
use crate::support::process::require;
use crate::support::redis::{Redis, ping};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, free_port};

fn replicate(port: u16, of: &[&str]) {
    require("redis-cli", "redis-tools");
    let output = Command::new("redis-cli").args(["-p", &port.to_string(), "REPLICAOF"]).args(of).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"OK"), "{output:?}");
}

#[test]
fn failover_of_redis_moves_the_traffic_to_the_new_primary() {
    let [one, two] = [Redis::start(), Redis::start()];
    replicate(two.port(), &["127.0.0.1", &one.port().to_string()]);
    let recipe = yaml("redis-primary.yaml")
        .replace("127.0.0.1:6380", "127.0.0.1:0")
        .replace("10.0.0.31:6379", &format!("127.0.0.1:{}", one.port()))
        .replace("10.0.0.32:6379", &format!("127.0.0.1:{}", two.port()))
        .replace("10.0.0.33:6379", &format!("127.0.0.1:{}", free_port()))
        .replace("interval: 1s", "interval: 100ms");
    let tidegate = Tidegate::start(&recipe);
    tidegate.wait_for_up("redis-1");
    let role = |port: u16| {
        let output = Command::new("redis-cli").args(["-p", &port.to_string(), "ROLE"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    let through = tidegate.at("redis").tcp().port();
    assert_eq!((role(through), role(two.port())), ("master".into(), "slave".into()));
    assert_eq!(tidegate.count_logs(|line| line.is("backend up")), 1, "the replica is none");

    replicate(two.port(), &["NO", "ONE"]);
    replicate(one.port(), &["127.0.0.1", &two.port().to_string()]);
    tidegate.wait_for_down("redis-1");
    tidegate.wait_for_up("redis-2");
    eventually(DEADLINE, "the new primary answers", || ping(&tidegate.at("redis")).is_ok());
    assert_eq!(role(through), "master");
}
