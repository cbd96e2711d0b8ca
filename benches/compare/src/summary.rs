//! The figures of one balancer in one scenario: what a unit cost, medians over the rounds.

use super::result::{Latency, Newcomers, Outcome, Results, Run};
use super::scenario::{self, Scenario, Shape};

/// One peer in one scenario, over all rounds.
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct Summary {
    /// CPU per unit: µs per operation, s per GB; KiB per connection when idle.
    pub(crate) cost: Option<f64>,
    /// CPU per unit of the load itself.
    pub(crate) load_cost: Option<f64>,
    /// Operations, or GB, per second.
    pub(crate) throughput: Option<f64>,
    /// Each percentile's median.
    pub(crate) latency: Option<Latency>,
    /// Each figure's median.
    pub(crate) newcomers: Option<Newcomers>,
    /// Runs that do not.
    pub(crate) failed: usize,
}

impl Summary {
    /// Medians over the valid runs.
    pub(crate) fn of(results: &Results, peer: &str, workers: u32, scenario: &str) -> Summary {
        let Some(scenario) = scenario::find(scenario) else { return Summary::default() };
        let runs = results
            .runs
            .iter()
            .filter(|run| (run.peer.as_str(), run.workers, run.scenario.as_str()) == (peer, workers, scenario.name));
        let (valid, failed): (Vec<&Run>, Vec<&Run>) = runs.partition(|run| run.outcome.is_ok());
        let outcomes: Vec<&Outcome> = valid.iter().filter_map(|run| run.outcome.as_ref().ok()).collect();
        let over =
            |value: &dyn Fn(&Outcome) -> Option<f64>| median(outcomes.iter().filter_map(|run| value(run)).collect());
        let percentile = |pick: fn(&Latency) -> f64| over(&|run| run.latency.as_ref().map(pick));
        let latency = || {
            let (p50, p99) = (percentile(|latency| latency.p50)?, percentile(|latency| latency.p99)?);
            Some(Latency {
                p50,
                p99,
                p999: percentile(|latency| latency.p999)?,
                max: percentile(|latency| latency.max)?,
            })
        };
        let newcomer = |pick: fn(&Newcomers) -> f64| over(&|run| run.newcomers.as_ref().map(pick));
        let newcomers = || {
            Some(Newcomers {
                at_once_p50: newcomer(|waits| waits.at_once_p50)?,
                at_once_last: newcomer(|waits| waits.at_once_last)?,
                one_by_one_p50: newcomer(|waits| waits.one_by_one_p50)?,
                one_by_one_last: newcomer(|waits| waits.one_by_one_last)?,
            })
        };
        Summary {
            cost: over(&|run| cost(&scenario, run)),
            load_cost: over(&|run| cost(&scenario, &Outcome { cpu_ns: run.load_cpu_ns, memory: None, ..run.clone() })),
            throughput: over(&|run| throughput(&scenario, run)),
            latency: latency(),
            newcomers: newcomers(),
            failed: failed.len(),
        }
    }
}

/// CPU time of a unit, or memory of a connection.
pub(crate) fn cost(scenario: &Scenario, run: &Outcome) -> Option<f64> {
    let cost = match scenario.shape {
        Shape::Idle => run.memory.map(|memory| memory.kib_per_connection()),
        Shape::Bulk => run.s_per_gb(),
        Shape::Newcomers => None,
        Shape::Short | Shape::Closed | Shape::Paced => run.us_per_operation(),
    };
    // The control has no balancer, hence no cost; beside streams it would be mostly theirs.
    cost.filter(|&cost| cost > 0.0 && scenario.beside == 0)
}

/// Units per second.
pub(crate) fn throughput(scenario: &Scenario, run: &Outcome) -> Option<f64> {
    let units = if scenario.per_byte() { run.bytes as f64 / 1e9 } else { run.operations as f64 };
    (run.seconds > 0.0 && scenario.shape != Shape::Newcomers).then(|| units / run.seconds)
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Of two medians, if there are both.
pub(crate) fn ratio(own: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(own? / other.filter(|&other| other > 0.0)?)
}

/// Of the cost.
pub(crate) fn unit(scenario: &Scenario) -> &'static str {
    match scenario.shape {
        Shape::Bulk => "s/GB",
        Shape::Idle => "KiB",
        Shape::Newcomers => "ms",
        Shape::Short | Shape::Closed | Shape::Paced => "µs",
    }
}

/// A cost.
pub(crate) fn figure(scenario: &Scenario, cost: f64) -> String {
    if scenario.per_byte() { format!("{cost:.3}") } else { format!("{cost:.2}") }
}

/// A throughput, without "per second".
pub(crate) fn quantity(scenario: &Scenario, throughput: f64) -> String {
    if scenario.per_byte() { format!("{throughput:.2} GB") } else { format!("{throughput:.0}") }
}
