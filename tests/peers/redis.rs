//! redis-benchmark through the balancer to the real Redis, and its health check by PING.

use crate::support::backend::Backend;
use crate::support::client::{End, Place, connect, read_to_end};
use crate::support::process::{bound, require};
use crate::support::redis::{Redis, ping};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually, tell};

const PING: &str = r#"health: { exchange: { send: "PING\r\n", expect: "+PONG" }, interval: 100ms, fall: 2 }"#;

#[test]
fn redis_benchmark() {
    let redis = Redis::start();
    let tidegate = Tidegate::start(&forward(format!("127.0.0.1:{}", redis.port()), "", PING));
    tidegate.wait_for_up("b");
    let direct = benchmark(redis.port());
    let through = benchmark(tidegate.at("in").tcp().port());
    tell(&format!("redis-benchmark, direct:\n{direct}\nthrough tidegate:\n{through}"));
    assert_eq!(tidegate.count_logs(|line| line.is("backend down")), 0, "it answered all the time");
}

#[test]
fn a_server_that_stops_answering_is_down() {
    let mut redis = Redis::start();
    let tidegate = Tidegate::start(&forward(format!("127.0.0.1:{}", redis.port()), "", PING));
    tidegate.wait_for_up("b");
    ping(&tidegate.at("in")).expect("PONG");

    redis.kill();
    assert_eq!(tidegate.wait_for_down("b").field("reason"), "connection refused");
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))), (Vec::new(), End::Fin));
    tidegate.wait_for_access("nobody to send it to", |line| line.end() == "rejected: no backend");

    let _again = Redis::start_on(redis.port());
    eventually(DEADLINE, "PONG again", || ping(&tidegate.at("in")).is_ok());
}

#[test]
fn a_server_that_answers_something_else_is_never_up() {
    let echo = Backend::echo();
    let tidegate = Tidegate::start(&forward(
        echo.place(),
        "",
        r#"health: { exchange: { send: "PING\r\n", expect: "+PONG" }, interval: 100ms, fall: 2, initial: up }"#,
    ));
    tidegate.wait_for_down("b");
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))), (Vec::new(), End::Fin));
    assert_eq!(tidegate.only_access().end(), "rejected: no backend");
    assert_eq!(tidegate.count_logs(|line| line.is("backend up")), 0);
}

fn benchmark(port: u16) -> String {
    require("redis-benchmark", "redis-tools");
    let output = bound("redis-benchmark", "KILL")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "50", "-n", "200000", "-P", "16"])
        .args(["-t", "set,get,incr,lpush,lrange_100", "-d", "100", "-q"])
        .output()
        .expect("redis-benchmark");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {text}", output.status);
    for word in ["rror", "WRONGTYPE", "closed", "refused", "reset"] {
        assert!(!text.contains(word), "{text}");
    }
    // Each test rewrites its line while it runs; what stands at the end of it is the result.
    let results: Vec<&str> =
        text.lines().filter_map(|line| line.rsplit('\r').find(|part| part.contains("requests per second"))).collect();
    assert!(results.len() >= 5, "a result for each test: {text}");
    results.join("\n")
}

#[test]
fn a_killed_redis_refuses_and_comes_back() {
    let mut redis = Redis::start();
    let place = Place::Tcp(([127, 0, 0, 1], redis.port()).into());
    ping(&place).unwrap();
    redis.kill();
    assert!(ping(&place).unwrap_err().contains("refused"));
    let _again = Redis::start_on(redis.port());
    ping(&place).unwrap();
}
