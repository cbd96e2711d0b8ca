//! From the runs to something a person reads: tables, files.

use std::fs;
use std::path::Path;

use super::chart;
use super::goals;
use super::result::{Results, Run};
use super::scenario::{self, Scenario, Shape};
use super::summary::{Summary, cost, figure, median, quantity, ratio, throughput, unit};

/// `compare report`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where the results are.
    #[arg(long, default_value = "target/compare")]
    out: std::path::PathBuf,
}

/// Renders once more what an earlier comparison measured, and returns the report.
pub(crate) fn again(args: &Args) -> Result<String, String> {
    let path = args.out.join("results.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let results = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    write(&results, &args.out)?;
    Ok(markdown(&results))
}

/// results.json, report.md and chart.svg.
pub(crate) fn write(results: &Results, out: &Path) -> Result<(), String> {
    let json = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    for (name, text) in [("results.json", json), ("report.md", markdown(results)), ("chart.svg", chart::svg(results))] {
        fs::write(out.join(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// One run as a line of progress.
pub(crate) fn line(run: &Run) -> String {
    let name = format!("{:<17} {:<15}", run.scenario, run.peer);
    let workers = if run.workers > 1 { format!("  {} workers", run.workers) } else { String::new() };
    let Some(scenario) = scenario::find(&run.scenario) else { return name };
    let outcome = match &run.outcome {
        Ok(outcome) => outcome,
        Err(error) => return format!("{name} FAILED: {error}{workers}"),
    };
    let mut line = name;
    if let Some(cost) = cost(&scenario, outcome) {
        line += &format!(" {cost:>9.3} {}", unit(&scenario));
    }
    if let Some(throughput) = throughput(&scenario, outcome) {
        line += &format!(" {:>9}/s", quantity(&scenario, throughput));
    }
    if let Some(latency) = outcome.latency {
        line += &format!("  p50 {:.0} µs, p99 {:.0} µs", latency.p50, latency.p99);
    }
    if run.workers > 1 && scenario.shape == Shape::Idle {
        line += &format!("  sockets {:?}", outcome.spread);
    }
    if let Some(waits) = outcome.newcomers {
        line += &format!("  last at once {:.1} ms, one by one {:.1} ms", waits.at_once_last, waits.one_by_one_last);
    }
    line + &workers
}

/// The whole report.
pub(crate) fn markdown(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# tidegate beside others\n\n{}, {} CPUs, Linux {}, {}. {} rounds, windows of {} s; figures are medians.\n{}\n",
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.date,
        machine.rounds,
        machine.seconds,
        quietness(results)
    );
    let mut versions = Table::new(&["balancer", "version"], &[]);
    for peer in &results.peers {
        versions.rows.push(vec![peer.name.clone(), peer.version.clone()]);
    }
    text += &versions.render();

    let peers: Vec<&str> = results.peers.iter().map(|peer| peer.name.as_str()).collect();
    let balancers: Vec<&str> = peers.iter().copied().filter(|&peer| peer != "direct").collect();
    let shaped = |shapes: &[Shape]| -> Vec<&Scenario> {
        let ran = |name: &str| results.runs.iter().any(|run| run.workers == 1 && run.scenario == name);
        scenario::ALL.iter().filter(|scenario| shapes.contains(&scenario.shape) && ran(scenario.name)).collect()
    };
    let mut closed = shaped(&[Shape::Short, Shape::Closed, Shape::Bulk]);
    let over_tls: Vec<&Scenario> = closed.extract_if(.., |scenario| scenario.tls.is_some()).collect();
    let of_http: Vec<&Scenario> = closed.extract_if(.., |scenario| scenario.http.is_some()).collect();
    let of_udp: Vec<&Scenario> = closed.extract_if(.., |scenario| scenario.udp).collect();
    let paced = shaped(&[Shape::Paced]);

    text += "\n## CPU per unit, one worker\n\nUser and system time of all of a balancer's processes.\n\n";
    let mut busy = [&closed[..], &paced[..]].concat();
    // Beside streams, a request's share of the CPU time cannot be told from theirs.
    busy.retain(|scenario| scenario.beside == 0);
    text +=
        &grid(results, &busy, &balancers, named_with_unit, |scenario, summary| Some(figure(scenario, summary.cost?)));

    text += "\n## Throughput, one worker\n\nPer second, with the balancer on one CPU and the load on another; `direct` is the \
             load without a balancer.\n\n";
    text += &grid(results, &closed, &peers, named, |scenario, summary| Some(quantity(scenario, summary.throughput?)));

    text += "\n## Latency at a fixed rate, one worker\n\np50 / p99 / p99.9 in µs, counted from when each request was due.\n\n";
    text += &grid(results, &paced, &peers, named, |_, summary| {
        summary.latency.map(|latency| format!("{:.0} / {:.0} / {:.0}", latency.p50, latency.p99, latency.p999))
    });

    text += &newcomers(results, &shaped(&[Shape::Newcomers]), &peers);
    let about =
        "TLS 1.3 with X25519, AES-128-GCM and a certificate of ECDSA P-256 towards clients, plain towards backends.";
    text += &section(results, &over_tls, "Over TLS", about, "Connections, round trips and GB");
    let about = "Requests are balanced one by one. Connections to clients and to backends are kept.";
    text += &section(results, &of_http, "HTTP", about, "Requests");

    let about = "A session is a client's socket. An operation is a datagram and its reply.";
    text += &section(results, &of_udp, "UDP", about, "Datagrams with their replies");

    text += "\n## Memory, one worker\n\nOf the processes, for each idle connection.\n\n";
    text += &grid(results, &shaped(&[Shape::Idle]), &balancers, named_with_unit, |_, summary| {
        Some(format!("{:.2}", summary.cost?))
    });

    text += &two_workers(results, &balancers);
    text += &the_load(results, &[&closed[..], &of_udp[..]].concat());
    text += &the_load_beside(results, &over_tls, "Over TLS");
    text += &the_load_beside(results, &of_http, "HTTP");

    text += "\n## Goals\n\ntidegate's figure divided by the other's.\n\n";
    let mut table = Table::new(&["goal", "at most", "measured", ""], &[]);
    for goal in goals::goals(results) {
        let row = [format!("{:.2}", goal.target), format!("{:.2}", goal.measured), goal.verdict()];
        table.rows.push([goal.what].into_iter().chain(row).collect());
    }
    text += &table.render();

    text += "\n## Scenarios\n\n";
    for scenario in scenario::ALL.iter().chain([&scenario::SPREAD]) {
        text += &format!("- {}: {}\n", scenario.name, scenario.about);
    }
    text + &failures(results)
}

/// Whether the machine was left alone.
fn quietness(results: &Results) -> String {
    let alone = results.runs.iter().filter(|run| run.workers == 1);
    let waited = alone.filter_map(|run| {
        let outcome = run.outcome.as_ref().ok().filter(|outcome| outcome.seconds > 0.0 && outcome.cpu_ns > 0)?;
        Some(outcome.waited_ns as f64 / outcome.seconds / 1e7)
    });
    let Some(waited) = median(waited.collect()) else { return String::new() };
    let verdict = if waited > 5.0 { ": others used the machine, and the figures are rough" } else { "" };
    format!("In the median run the balancer waited {waited:.0} % of the time for its CPU{verdict}.\n")
}

/// How long new connections waited.
fn newcomers(results: &Results, scenarios: &[&Scenario], peers: &[&str]) -> String {
    if scenarios.is_empty() {
        return String::new();
    }
    let about = "From a new connection's connect to its answer, in ms: the last of 200 that came at once, and the slowest of \
                 40 that came one by one; in parentheses the medians.";
    let grid = grid(results, scenarios, peers, named, |_, summary| {
        let waits = summary.newcomers?;
        Some(format!(
            "{:.1} ({:.1}) / {:.1} ({:.1})",
            waits.at_once_last, waits.at_once_p50, waits.one_by_one_last, waits.one_by_one_p50
        ))
    });
    format!("\n## Newcomers, one worker\n\n{about}\n\n{grid}")
}

/// CPU per unit with two, and where connections went.
fn two_workers(results: &Results, balancers: &[&str]) -> String {
    let ran = |name: &str| results.runs.iter().any(|run| run.workers == 2 && run.scenario == name);
    let threaded: Vec<&str> = balancers.iter().copied().filter(|&peer| peer != "limit").collect();
    let mut table = Table::new(&["scenario"], &threaded);
    for scenario in scenario::TWO_WORKERS.iter().filter(|name| ran(name)).filter_map(|name| scenario::find(name)) {
        let cells = threaded.iter().map(|peer| {
            let cost = |workers| Summary::of(results, peer, workers, scenario.name).cost;
            let Some(two) = cost(2) else { return "–".into() };
            let against = ratio(Some(two), cost(1)).map(|ratio| format!(" ({ratio:.2})"));
            figure(&scenario, two) + &against.unwrap_or_default()
        });
        table.rows.push([named_with_unit(&scenario)].into_iter().chain(cells).collect());
    }
    if ran(scenario::SPREAD.name) {
        let cells = threaded.iter().map(|peer| spread(results, peer));
        table.rows.push([String::from("20 connections")].into_iter().chain(cells).collect());
    }
    if table.rows.is_empty() {
        return String::new();
    }
    let about = "CPU per unit, in parentheses against one worker; and how many of 20 long connections each worker had, by round.";
    format!("\n## Two workers, on both CPUs, as is the load\n\n{about}\n\n{}", table.render())
}

/// That it is not the load that is measured.
fn the_load(results: &Results, scenarios: &[&Scenario]) -> String {
    let mut table = Table::new(&["scenario", "CPU of the load", "CPU of the limit", "direct / limit"], &[]);
    for scenario in scenarios {
        let of = |peer| Summary::of(results, peer, 1, scenario.name);
        let (direct, limit) = (of("direct"), of("limit"));
        let cost = |cost: Option<f64>| cost.map_or_else(|| "–".into(), |cost| figure(scenario, cost));
        let faster = ratio(direct.throughput, limit.throughput);
        let faster = faster.map_or_else(|| "–".into(), |ratio| format!("{ratio:.1}"));
        table.rows.push(vec![named_with_unit(scenario), cost(direct.load_cost), cost(limit.cost), faster]);
    }
    let about = "CPU per unit of the load, clients and backends together, without a balancer; and how much more it does then \
                 than through the limit.";
    format!("\n## The load itself\n\n{about}\n\n{}", table.render())
}

/// CPU per unit, and what a second of it is worth.
fn section(results: &Results, scenarios: &[&Scenario], title: &str, about: &str, units: &str) -> String {
    if scenarios.is_empty() {
        return String::new();
    }
    let balancers = balancers_in(results, scenarios);
    let mut text = format!("\n## {title}, one worker\n\n{about} CPU per unit:\n\n");
    text += &grid(results, scenarios, &balancers, named_with_unit, |scenario, summary| {
        Some(figure(scenario, summary.cost?))
    });
    text += &format!("\n{units} for a second of CPU:\n\n");
    text += &grid(results, scenarios, &balancers, named, |scenario, summary| {
        let a_second = if scenario.per_byte() { 1.0 } else { 1e6 };
        Some(quantity(scenario, a_second / summary.cost?))
    });
    text += "\nThroughput per second:\n\n";
    text + &grid(results, scenarios, &balancers, named, |scenario, summary| {
        Some(quantity(scenario, summary.throughput?))
    })
}

/// Those that took part in any of them, but for the control.
fn balancers_in<'a>(results: &'a Results, scenarios: &[&Scenario]) -> Vec<&'a str> {
    let ran = |peer: &str| {
        results
            .runs
            .iter()
            .any(|run| run.peer == peer && scenarios.iter().any(|scenario| scenario.name == run.scenario))
    };
    let peers = results.peers.iter().map(|peer| peer.name.as_str());
    peers.filter(|&peer| peer != "direct" && ran(peer)).collect()
}

/// Whether it was the load that was slow. There is no control over TLS and HTTP/2: with it, backends would have to
/// speak them.
fn the_load_beside(results: &Results, scenarios: &[&Scenario], title: &str) -> String {
    if scenarios.is_empty() {
        return String::new();
    }
    let balancers = balancers_in(results, scenarios);
    let text = format!(
        "\n{title}, beside each balancer. Where the load's CPU per unit is more than the balancer's (above), the \
         throughput is the load's.\n\n"
    );
    let cell = |scenario: &Scenario, summary: &Summary| Some(figure(scenario, summary.load_cost?));
    text + &grid(results, scenarios, &balancers, named_with_unit, cell)
}

/// Scenarios against peers. Cells without a valid run say so.
fn grid(
    results: &Results,
    scenarios: &[&Scenario],
    peers: &[&str],
    first: impl Fn(&Scenario) -> String,
    cell: impl Fn(&Scenario, &Summary) -> Option<String>,
) -> String {
    let mut table = Table::new(&["scenario"], peers);
    for scenario in scenarios {
        let cells = peers.iter().map(|peer| {
            let summary = Summary::of(results, peer, 1, scenario.name);
            match cell(scenario, &summary) {
                Some(cell) if summary.failed == 0 => cell,
                // Of fewer runs than the others.
                Some(cell) => format!("{cell} *"),
                None if summary.failed > 0 => "failed".into(),
                None => "–".into(),
            }
        });
        table.rows.push([first(scenario)].into_iter().chain(cells).collect());
    }
    table.render()
}

fn spread(results: &Results, peer: &str) -> String {
    let runs = results.runs.iter().filter(|run| run.peer == peer && run.scenario == scenario::SPREAD.name);
    let rounds: Vec<String> = runs
        .filter_map(|run| {
            let spread = &run.outcome.as_ref().ok()?.spread;
            // Two sockets a connection.
            let at = |index: usize| spread.get(index).copied().unwrap_or(0) / 2;
            Some(format!("{}+{}", at(0), at(1)))
        })
        .collect();
    if rounds.is_empty() { "–".into() } else { rounds.join(" ") }
}

fn failures(results: &Results) -> String {
    let failed = results.runs.iter().filter_map(|run| Some((run, run.outcome.as_ref().err()?)));
    let lines: String = failed
        .map(|(run, error)| {
            format!("- round {}, {}, {} ({} workers): {error}\n", run.round, run.scenario, run.peer, run.workers)
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("\n## Failed runs\n\nNot reported above; where others were valid, the cell has a *.\n\n{lines}")
}

fn named(scenario: &Scenario) -> String {
    scenario.name.into()
}

fn named_with_unit(scenario: &Scenario) -> String {
    format!("{} ({})", scenario.name, unit(scenario))
}

/// A Markdown table whose columns line up, so that it is one for the terminal as well.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(first: &[&str], others: &[&str]) -> Table {
        Table { head: first.iter().chain(others).map(ToString::to_string).collect(), rows: Vec::new() }
    }

    fn render(&self) -> String {
        let width = |column: usize| {
            let cells = [&self.head].into_iter().chain(&self.rows).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                // Names to the left, figures to the right.
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = widths.iter().enumerate().map(|(column, &width)| {
            if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
        });
        let rule: Vec<String> = rule.collect();
        line(&self.head) + &line(&rule) + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}
