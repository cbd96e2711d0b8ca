//! What tidegate is to reach in the comparison, and whether it does.

use super::result::{Newcomers, Results};
use super::scenario;
use super::summary::{Summary, median, ratio};

/// CPU per unit at most so many times that of nginx, HAProxy with splice, Envoy; in this order.
const COST: &[(&str, [f64; 3])] = &[
    ("crr", [0.98, 0.85, 0.60]),
    ("rr64", [0.98, 0.80, 0.65]),
    ("rr64-16", [0.98, 0.80, 0.65]),
    ("rr64-1000", [0.85, 0.70, 0.60]),
    ("rr4k", [0.98, 0.80, 0.65]),
    ("rr4k-16", [0.98, 0.80, 0.65]),
    ("rr64k", [0.55, 0.95, 0.60]),
    ("rr64k-16", [0.55, 0.95, 0.60]),
    ("bulk-1", [0.92, 0.75, 0.80]),
    ("bulk-16", [0.40, 0.35, 0.45]),
];
/// Whose columns those are: HAProxy's two ways to splice share one.
const RIVALS: [(&str, usize); 4] = [("nginx", 0), ("haproxy-splice", 1), ("haproxy-auto", 1), ("envoy", 2)];
/// The same over TLS, of nginx, HAProxy, Envoy: so many times their handshakes, or bytes, for a second of CPU.
const TLS: &[(&str, [f64; 3])] =
    &[("tls-full", [1.0 / 1.5, 1.0 / 1.5, 1.0 / 1.1]), ("tls-bulk", [1.0 / 1.1; 3]), ("tls-bulk-16", [1.0 / 1.1; 3])];
/// Who speaks it.
const TLS_RIVALS: [&str; 3] = ["nginx", "haproxy", "envoy"];
/// The limit of CPU for a request as a ratio to that of nginx, HAProxy and Envoy, in each scenario with HTTP.
const HTTP: [(&str, f64); 3] = [("nginx", 0.95), ("haproxy", 0.85), ("envoy", 0.50)];
/// The same for a datagram and its reply.
const UDP: [(&str, f64); 3] = [("nginx", 0.90), ("envoy", 0.90), ("limit", 1.15)];
/// Whose newcomers wait no longer.
const NEWCOMERS_RIVALS: [&str; 2] = ["nginx", "haproxy"];
/// KiB of an idle connection over TLS.
const TLS_IDLE: f64 = 20.0;
/// Within 10 % of the limit everywhere.
const MAX_OF_LIMIT: f64 = 1.10;
/// KiB of an idle connection, plain.
const IDLE: f64 = 1.0;
/// p99 beside bulk streams, against p99 without.
const STARVATION: f64 = 3.0;
/// CPU per unit with two workers, against one.
const TWO_WORKERS: f64 = 1.10;
/// The fuller worker's connections against the emptier one's.
const SPREAD: f64 = 1.25;

/// A goal and what came of it.
pub(crate) struct Goal {
    /// What is compared.
    pub(crate) what: String,
    /// At most.
    pub(crate) target: f64,
    /// In this run.
    pub(crate) measured: f64,
}

impl Goal {
    /// "met", or by how much it is not.
    pub(crate) fn verdict(&self) -> String {
        if self.measured <= self.target {
            return "met".into();
        }
        format!("short by {:.0} %", ((self.measured / self.target - 1.0) * 100.0).max(1.0))
    }
}

/// Every goal for which there are results.
pub(crate) fn goals(results: &Results) -> Vec<Goal> {
    let of = |peer: &str, workers, scenario: &str| Summary::of(results, peer, workers, scenario);
    let mut goals = Vec::new();
    let mut add = |what: String, target: f64, measured: Option<f64>| {
        goals.extend(measured.map(|measured| Goal { what, target, measured }));
    };
    for &(scenario, targets) in COST {
        let own = of("tidegate", 1, scenario).cost;
        let rivals = RIVALS.iter().map(|&(rival, column)| (rival, targets[column])).chain([("limit", MAX_OF_LIMIT)]);
        for (rival, target) in rivals {
            add(format!("{scenario}: CPU against {rival}"), target, ratio(own, of(rival, 1, scenario).cost));
        }
    }
    for &(scenario, targets) in TLS {
        let own = of("tidegate", 1, scenario).cost;
        for (rival, target) in TLS_RIVALS.into_iter().zip(targets) {
            add(format!("{scenario}: CPU against {rival}"), target, ratio(own, of(rival, 1, scenario).cost));
        }
    }
    for scenario in scenario::ALL.iter().filter(|scenario| scenario.http.is_some()) {
        let own = of("tidegate", 1, scenario.name).cost;
        for (rival, target) in HTTP {
            let what = format!("{}: CPU against {rival}", scenario.name);
            add(what, target, ratio(own, of(rival, 1, scenario.name).cost));
        }
    }
    for scenario in scenario::ALL.iter().filter(|scenario| scenario.udp) {
        let own = of("tidegate", 1, scenario.name).cost;
        for (rival, target) in UDP {
            let what = format!("{}: CPU against {rival}", scenario.name);
            add(what, target, ratio(own, of(rival, 1, scenario.name).cost));
        }
    }
    let own = of("tidegate", 1, "latency").latency;
    for (rival, _) in RIVALS {
        let other = of(rival, 1, "latency").latency;
        let against =
            |pick: fn(&super::result::Latency) -> f64| ratio(own.as_ref().map(pick), other.as_ref().map(pick));
        add(format!("latency: p50 against {rival}"), 1.0, against(|latency| latency.p50));
        add(format!("latency: p99 against {rival}"), 1.0, against(|latency| latency.p99));
    }
    for scenario in ["newcomers", "newcomers-hellos"] {
        let own = of("tidegate", 1, scenario).newcomers;
        for rival in NEWCOMERS_RIVALS {
            let other = of(rival, 1, scenario).newcomers;
            let against = |pick: fn(&Newcomers) -> f64| ratio(own.as_ref().map(pick), other.as_ref().map(pick));
            let (at_once, one_by_one) = (against(|waits| waits.at_once_last), against(|waits| waits.one_by_one_last));
            add(format!("{scenario}: last of 200 at once against {rival}"), 1.0, at_once);
            add(format!("{scenario}: slowest of 40 one by one against {rival}"), 1.0, one_by_one);
        }
    }
    let beside = of("tidegate", 1, "latency-beside-4").latency;
    let starvation = ratio(beside.map(|latency| latency.p99), own.map(|latency| latency.p99));
    add("latency: p99 beside 4 bulk streams against without".into(), STARVATION, starvation);
    add("idle: KiB of a connection".into(), IDLE, of("tidegate", 1, "idle").cost);
    add("tls-idle: KiB of a connection".into(), TLS_IDLE, of("tidegate", 1, "tls-idle").cost);
    for scenario in scenario::TWO_WORKERS {
        let two = ratio(of("tidegate", 2, scenario).cost, of("tidegate", 1, scenario).cost);
        add(format!("{scenario}: CPU with two workers against one"), TWO_WORKERS, two);
    }
    let spread = results.runs.iter().filter(|run| run.peer == "tidegate" && run.workers == 2);
    let uneven = spread.filter(|run| run.scenario == scenario::SPREAD.name).filter_map(|run| {
        let spread = &run.outcome.as_ref().ok()?.spread;
        Some(*spread.first()? as f64 / (*spread.get(1)? as f64).max(0.1))
    });
    add("20 long connections: fuller worker against emptier".into(), SPREAD, median(uneven.collect()));
    goals
}
