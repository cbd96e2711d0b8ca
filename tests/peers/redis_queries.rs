//! `sniff: redis`: what is counted of commands that redis-cli, redis-benchmark and a client in Python send to the real Redis.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use crate::support::authority::Authority;
use crate::support::client::{connect, expect};
use crate::support::http::observed;
use crate::support::process::require;
use crate::support::python;
use crate::support::queries::{SeenQueries, numbers, queries_everywhere};
use crate::support::redis::Redis;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::terminate;

const WATCHED: &str = "sniff: redis";

fn in_front_of(redis: &Redis) -> Tidegate {
    observed(&forward(format!("127.0.0.1:{}", redis.port()), WATCHED, ""))
}

/// What a program of Redis prints that talks to the balancer.
fn run(program: &str, tidegate: &Tidegate, arguments: &[&str]) -> String {
    require(program, "redis-tools");
    let port = tidegate.at("in").tcp().port().to_string();
    let output = Command::new(program).args(["-p", &port]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Calls of each command, as the server counts them; of commands with subcommands all together.
fn calls(redis: &Redis) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in redis.command(&["info", "commandstats"]).lines() {
        let Some((name, rest)) = line.trim().strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls="))
        else {
            continue;
        };
        let count: u64 = rest.split(',').next().unwrap().parse().unwrap();
        *calls.entry(name.split('|').next().unwrap().to_uppercase()).or_default() += count;
    }
    calls
}

#[test]
fn commands_of_redis_benchmark_are_counted_exactly_with_pipelining() {
    let redis = Redis::start();
    let tidegate = in_front_of(&redis);
    run("redis-benchmark", &tidegate, &["-q", "-n", "32000", "-c", "20", "-P", "16", "-t", "set,get,lrange_100,mset"]);
    let pipelined = queries_everywhere(&tidegate);
    redis.command(&["config", "get", "save"]);
    let mut expected = calls(&redis);
    // Its readiness, this question, and what redis-cli asks for by itself.
    for own in ["PING", "INFO", "COMMAND", "CONFIG"] {
        expected.remove(own);
    }
    let mut seen = pipelined.statements.clone();
    let config = seen.remove("CONFIG").unwrap_or_default();
    assert_eq!(seen, expected);
    assert!(seen["SET"] >= 32_000 && seen["GET"] >= 32_000 && config > 0, "{seen:?}");
    let batches = seen.values().sum::<u64>();
    let expected = batches / 16 * 15 + (config - 1);
    assert_eq!(pipelined.pipelined, expected, "all but the first of each 16, and of the questions before");
    assert_eq!((pipelined.failed, pipelined.unanswered, pipelined.opaque.len()), (0, 0, 0));
}

#[test]
fn commands_and_errors_of_redis_cli_are_counted() {
    let redis = Redis::start();
    let tidegate = in_front_of(&redis);
    for words in [&["set", "a", "1"][..], &["lpush", "a", "2"], &["no-such-command"], &["get", "a"]] {
        run("redis-cli", &tidegate, words);
    }
    let big = "x".repeat(100_000);
    run("redis-cli", &tidegate, &["set", "big", &big]);
    assert_eq!(run("redis-cli", &tidegate, &["get", "big"]).trim(), big);
    run("redis-cli", &tidegate, &["-n", "3", "incr", "n"]);
    tidegate.wait_for_access("database 3", |line| line.has("database") && line.field("database") == "3");
    let seen = queries_everywhere(&tidegate);
    let expected = SeenQueries {
        failed: 2,
        statements: numbers(&[("GET", 2), ("INCR", 1), ("LPUSH", 1), ("SELECT", 1), ("SET", 2), ("other", 1)]),
        errors: numbers(&[("ERR", 1), ("WRONGTYPE", 1)]),
        ..SeenQueries::default()
    };
    assert_eq!(seen, expected);
}

#[test]
fn clients_of_resp3_with_users_and_channels_are_followed() {
    let redis = Redis::start();
    redis.command(&["acl", "setuser", "alice", "on", ">pw", "~*", "&*", "+@all"]);
    let tidegate = in_front_of(&redis);
    let script = format!(
        "import redis\n\
         r = redis.Redis(port={}, protocol=3, username='alice', password='pw', db=2, single_connection_client=True)\n\
         p = r.pipeline(transaction=True)\n\
         for n in range(50): p.incr('n')\n\
         print(p.execute()[-1])\n\
         r.hset('h', mapping={{'a': 1, 'b': 2}}); print(len(r.hgetall('h')))\n\
         s = r.pubsub(); s.subscribe('c')\n\
         seen = [s.get_message(timeout=30)]\n\
         r.publish('c', 'x')\n\
         seen.append(s.get_message(timeout=30))\n\
         print([m['type'] for m in seen])\n\
         s.close(); r.close()\n",
        tidegate.at("in").tcp().port()
    );
    let told = python::run(&script, b"");
    assert_eq!(told, "50\n2\n['subscribe', 'message']\n");
    let seen = queries_everywhere(&tidegate);
    let of = |word: &str| seen.statements.get(word).copied().unwrap_or_default();
    assert_eq!((of("INCRBY"), of("MULTI"), of("EXEC"), of("SUBSCRIBE"), of("PUBLISH")), (50, 1, 1, 1, 1), "{seen:?}");
    assert!(of("HELLO") >= 1 && of("SELECT") >= 1 && seen.pipelined >= 50, "{seen:?}");
    // It tells its name by a command that Redis 7.0 does not know.
    assert_eq!(seen.errors.values().sum::<u64>(), seen.failed);
    assert_eq!((seen.unanswered, seen.opaque.len()), (0, 0), "{seen:?}");
    let lines = tidegate.access();
    assert!(lines.iter().all(|line| line.field("user") == "alice" && line.field("database") == "2"), "{lines:?}");
}

#[test]
fn commands_over_tls_are_counted_too() {
    let (redis, authority) = (Redis::start(), Authority::new());
    let issued = authority.issue(&["127.0.0.1"]);
    let tidegate = observed(&terminate(format!("127.0.0.1:{}", redis.port()), &[&issued], "", WATCHED));
    let ca = authority.file().display().to_string();
    run(
        "redis-benchmark",
        &tidegate,
        &["--tls", "--cacert", &ca, "-q", "-n", "1600", "-c", "4", "-P", "16", "-t", "set"],
    );
    let seen = queries_everywhere(&tidegate);
    assert_eq!(seen.statements["SET"], calls(&redis)["SET"]);
    let expected = seen.statements["SET"] / 16 * 15 + seen.statements["CONFIG"] - 1;
    assert_eq!((seen.pipelined, seen.opaque.len()), (expected, 0), "{seen:?}");
}

#[test]
fn monitors_turn_opaque() {
    let redis = Redis::start();
    let tidegate = in_front_of(&redis);
    run("redis-cli", &tidegate, &["ping"]);
    let mut monitor = connect(&tidegate.at("in"));
    monitor.write_all(b"MONITOR\r\n").unwrap();
    expect(&mut monitor, b"+OK\r\n");
    redis.command(&["get", "a"]);
    expect(&mut monitor, b"+");
    drop(monitor);
    let expected = SeenQueries {
        statements: numbers(&[("PING", 1)]),
        opaque: numbers(&[("streaming", 1)]),
        ..SeenQueries::default()
    };
    assert_eq!(queries_everywhere(&tidegate), expected);
}
