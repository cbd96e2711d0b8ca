//! How long backends take to answer, as the stats port says it and as their own load generators measure it.
//!
//! Each turnaround lies within the latency that the client sees, and is at least the time that the server is known to wait.
//! Both hold on a busy machine, where a second run without tidegate is no bound: the CPU sleeps at other moments in it.

use tidegate::stats::latency::{Stage, Window};

use crate::support::postgres::Postgres;
use crate::support::process::{bound, require};
use crate::support::redis::Redis;
use crate::support::stats::{ADMIN, backend};
use crate::support::tell;
use crate::support::tidegate::{Tidegate, forward};

/// What the server waits before it answers, in microseconds.
const WAIT_US: u64 = 20_000;

/// The exchanges of a run. The few that a client has at its start do not move a percentile by 5 %.
const EXCHANGES: usize = 200;

#[test]
fn pgbench_sees_the_same() {
    let postgres = Postgres::start();
    // A load generator of one client, which waits for each answer: its median and its 95th percentile.
    let run = |port: u16, script: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script.sql");
        std::fs::write(&file, script).unwrap();
        let mut command = postgres.pgbench(port);
        command.args(["-n", "-c", "1", "-t", &EXCHANGES.to_string(), "-l", "--log-prefix=latencies", "-f"]).arg(&file);
        let output = command.current_dir(folder.path()).output().expect("pgbench");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let log = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let log = log.into_iter().find(|path| path != &file).expect("a log of pgbench");
        let text = std::fs::read_to_string(log).unwrap();
        // Client, transaction, microseconds, and more.
        let mut latencies: Vec<u64> =
            text.lines().map(|line| line.split(' ').nth(2).unwrap().parse().unwrap()).collect();
        assert_eq!(latencies.len(), EXCHANGES, "{text}");
        latencies.sort_unstable();
        [latencies[EXCHANGES / 2], latencies[EXCHANGES * 95 / 100]]
    };
    let server = format!("127.0.0.1:{}", postgres.port());
    lies_within(&server, 0, |port| run(port, "select 1;"));
    lies_within(&server, WAIT_US, |port| run(port, &format!("select pg_sleep({});", WAIT_US as f64 / 1e6)));
}

#[test]
fn redis_benchmark_sees_the_same() {
    require("redis-benchmark", "redis-tools");
    let redis = Redis::start();
    let run = |port: u16, request: &[&str]| {
        let mut command = bound("redis-benchmark", "KILL");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "1", "-n", &EXCHANGES.to_string(), "--csv"]);
        let output = command.args(request).output().expect("redis-benchmark");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms",...
        let line = text.lines().last().unwrap_or_default();
        let fields: Vec<&str> = line.split("\",\"").map(|field| field.trim_matches('"')).collect();
        assert!(fields.len() > 5, "{text}");
        [fields[4], fields[5]].map(|field| (field.parse::<f64>().unwrap() * 1000.0) as u64)
    };
    let server = format!("127.0.0.1:{}", redis.port());
    lies_within(&server, 0, |port| run(port, &["PING"]));
    // The list stays empty, so that BLPOP waits its time. Redis counts it in whole milliseconds from a clock that it has
    // read before: one less is right.
    lies_within(&server, WAIT_US - 1000, |port| run(port, &["BLPOP", "empty", &(WAIT_US as f64 / 1e6).to_string()]));
}

/// Fails unless the median turnaround of a run through tidegate is at least `least_us`, and at most what the client saw as
/// its 95th percentile. `run` returns the client's median and 95th percentile, in microseconds.
#[track_caller]
fn lies_within(server: &str, least_us: u64, run: impl FnOnce(u16) -> [u64; 2]) {
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(server, "", "")));
    let [median, p95] = run(tidegate.at("in").tcp().port());
    let ours = *backend(&tidegate.view(), "b").latency.get(Stage::Turnaround, Window::All).unwrap();
    assert!(ours.count >= EXCHANGES as u64, "{ours:?}");
    let figures = format!("median {} us by the stats port, {median} seen by the client, 95 % below {p95}", ours.p50_us);
    // The histogram knows a value to within 1 %.
    assert!(ours.p50_us + ours.p50_us / 64 >= least_us && ours.p50_us - ours.p50_us / 64 <= p95, "{figures}");
    tell(&figures);
}
