//! How long backends take to answer, as the stats port says it and as their own load generators measure it.

use tidegate::stats::latency::{Stage, Window};

use crate::support::most_runs_agree;
use crate::support::postgres::Postgres;
use crate::support::process::{bound, require};
use crate::support::redis::Redis;
use crate::support::stats::{ADMIN, backend};
use crate::support::tidegate::{Tidegate, forward};

/// With one client that waits for each answer, what it sees is the turnaround and the way through the balancer.
#[test]
fn pgbench_sees_the_same() {
    let postgres = Postgres::start();
    most_runs_agree("pgbench's average", || {
        let tidegate =
            Tidegate::start(&format!("{ADMIN}{}", forward(format!("127.0.0.1:{}", postgres.port()), "", "")));
        let mut load = postgres.pgbench(tidegate.at("in").tcp().port());
        let output = load.args(["-n", "-S", "-c", "1", "-t", "5000"]).output().expect("pgbench");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        let latency = text.lines().find_map(|line| line.strip_prefix("latency average = ")?.strip_suffix(" ms"));
        let theirs = latency.unwrap_or_else(|| panic!("{text}")).parse::<f64>().unwrap() * 1000.0;
        let ours = *backend(&tidegate.view(), "b").latency.get(Stage::Turnaround, Window::All).unwrap();
        assert!(ours.count >= 5000, "{ours:?}");
        let figures = format!("{theirs:.0} us, and {:.0} us through the stats port", ours.mean_us);
        (is_near(ours.mean_us, theirs), figures)
    });
}

#[test]
fn redis_benchmark_sees_the_same() {
    require("redis-benchmark", "redis-tools");
    let redis = Redis::start();
    most_runs_agree("redis-benchmark's average and p50", || {
        let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(format!("127.0.0.1:{}", redis.port()), "", "")));
        let port = tidegate.at("in").tcp().port().to_string();
        let output = bound("redis-benchmark", "KILL")
            .args(["-h", "127.0.0.1", "-p", &port, "-c", "1", "-n", "10000", "-t", "set", "--csv"])
            .output()
            .expect("redis-benchmark");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms",...
        let fields = text.lines().find(|line| line.starts_with("\"SET\"")).unwrap_or_else(|| panic!("{text}"));
        let fields: Vec<f64> =
            fields.split(',').skip(1).map(|field| field.trim_matches('"').parse().unwrap()).collect();
        let theirs = [fields[1] * 1000.0, fields[3] * 1000.0];
        let ours = *backend(&tidegate.view(), "b").latency.get(Stage::Turnaround, Window::All).unwrap();
        assert!(ours.count >= 10_000, "{ours:?}");
        let figures = format!("{theirs:.0?} us, and {:.0}, {} us through the stats port", ours.mean_us, ours.p50_us);
        let agrees = is_near(ours.mean_us, theirs[0]) && is_near(ours.p50_us as f64, theirs[1]);
        (agrees, figures)
    });
}

/// Within 10 %, or 50 us.
fn is_near(ours: f64, theirs: f64) -> bool {
    (ours - theirs).abs() <= (theirs * 0.1).max(50.0)
}
