//! The comparison's figures: what counts as a valid run, medians, ratios, goals, what is drawn.

use std::net::TcpListener;

use clap::Parser;

use crate::http::{self, ResponseReader};
use crate::result::{self, Latency, Ledger, Memory, Outcome, Results, Run};
use crate::summary::{Summary, median, ratio};
use crate::{Cli, Task, chart, goals, load, report};

#[test]
fn a_run_counts_only_if_every_byte_is_accounted_for() {
    let valid = outcome(1_000, 10_000);
    assert!(valid.clone().checked().is_ok());

    let cut = |change: fn(&mut Outcome)| {
        let mut outcome = valid.clone();
        change(&mut outcome);
        outcome.checked().expect_err("it must not count")
    };
    let lost = cut(|outcome| outcome.ledger.answers_received -= 1);
    assert_eq!(lost, "backends sent 6400 bytes, clients received 6399");
    let extra = cut(|outcome| outcome.ledger.requests_received += 1);
    assert_eq!(extra, "clients sent 6400 bytes, backends received 6401");
    assert_eq!(cut(|outcome| outcome.errors.push("reset".into())), "reset");
    assert_eq!(cut(|outcome| outcome.errors = vec!["reset".into(), "cut".into()]), "reset (and 1 more)");
    assert_eq!(cut(|outcome| outcome.ledger = Ledger::default()), "nothing was exchanged");
}

#[test]
fn what_the_load_prints_is_read_back() {
    let json = serde_json::to_string(&outcome(1_000, 10_000)).unwrap();
    assert_eq!(Outcome::parse(&json).unwrap().operations, 1_000);
    assert!(Outcome::parse("").unwrap_err().starts_with("the load's result: "));
    // A field that is missing is not taken for zero.
    assert!(Outcome::parse(&json.replace("\"answers_sent\"", "\"other\"")).unwrap_err().contains("answers_sent"));
}

#[test]
fn medians_and_ratios() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0]), Some(3.0));
    assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
    assert_eq!(ratio(Some(3.0), Some(0.0)), None);
    assert_eq!(ratio(None, Some(1.0)), None);
}

#[test]
fn cost_is_cpu_per_unit_of_valid_runs() {
    let mut results = Results::default();
    for (round, micros) in [10, 30, 20].into_iter().enumerate() {
        results.runs.push(run("tidegate", 1, round, "crr", Ok(outcome(1_000, micros * 1_000))));
    }
    results.runs.push(run("tidegate", 1, 4, "crr", Err("reset".into())));
    // Neither another's runs nor those with other workers are mixed in.
    results.runs.push(run("nginx", 1, 1, "crr", Ok(outcome(1_000, 99_000))));
    results.runs.push(run("tidegate", 2, 1, "crr", Ok(outcome(1_000, 99_000))));
    let summary = Summary::of(&results, "tidegate", 1, "crr");
    assert_eq!(summary.cost, Some(20.0), "µs per operation, the median");
    assert_eq!(summary.throughput, Some(500.0), "operations per second");
    assert_eq!(summary.failed, 1);

    let bulk = Outcome { bytes: 4_000_000_000, ..outcome(0, 2_000_000) };
    results.runs.push(run("tidegate", 1, 1, "bulk-1", Ok(bulk)));
    let summary = Summary::of(&results, "tidegate", 1, "bulk-1");
    assert_eq!((summary.cost, summary.throughput), (Some(0.5), Some(2.0)), "s per GB, GB per second");

    let memory = Memory { before_kib: 1_000, after_kib: 3_000, connections: 4_000 };
    results.runs.push(run("tidegate", 1, 1, "idle", Ok(Outcome { memory: Some(memory), ..outcome(0, 0) })));
    assert_eq!(Summary::of(&results, "tidegate", 1, "idle").cost, Some(0.5), "KiB per connection");
}

#[test]
fn goals_are_met_or_short() {
    let results = two_peers(96_000, 100_000);
    let met = |results: &Results| {
        let goals = goals::goals(results);
        let goal = goals.iter().find(|goal| goal.what == "crr: CPU against nginx").unwrap();
        goal.verdict()
    };
    assert_eq!(met(&results), "met");
    assert_eq!(met(&two_peers(147_000, 100_000)), "short by 50 %");
    // What was not measured is no goal.
    assert!(goals::goals(&results).iter().all(|goal| !goal.what.contains("envoy")));
}

#[test]
fn datagrams_have_goals_of_their_own() {
    let mut results = two_peers(96_000, 100_000);
    for (peer, micros) in [("tidegate", 20_000), ("nginx", 25_000), ("envoy", 20_000), ("limit", 16_000)] {
        results.runs.push(run(peer, 1, 1, "udp64-1000", Ok(outcome(1_000, micros))));
    }
    let goals: Vec<(String, f64, String)> =
        goals::goals(&results).into_iter().map(|goal| (goal.what.clone(), goal.target, goal.verdict())).collect();
    for (rival, target, verdict) in
        [("nginx", 0.9, "met"), ("envoy", 0.9, "short by 11 %"), ("limit", 1.15, "short by 9 %")]
    {
        let expected = (format!("udp64-1000: CPU against {rival}"), target, verdict.to_owned());
        assert!(goals.contains(&expected), "{goals:?}");
    }
    let report = report::markdown(&results);
    let [plain, udp] = ["## CPU per unit", "## UDP"].map(|title| report.find(title).unwrap());
    assert!(plain < udp && report[udp..].contains("| udp64-1000 (µs) |"), "{report}");
    assert!(!report[plain..udp].contains("udp64-1000"), "{report}");
    assert!(chart::svg(&results).contains("UDP, relative to a bare proxy without features = 1"));
}

/// Faithful, through the limit: clients, backends and the proxy between them are real.
#[test]
fn every_datagram_is_answered_once_and_in_order_through_the_limit() {
    let address = |last: u8| {
        let bound = std::net::UdpSocket::bind((std::net::Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
        let std::net::SocketAddr::V4(address) = bound.local_addr().unwrap() else { panic!("not IPv4") };
        address
    };
    let (listen, backends) = (address(1), [address(2), address(3)]);
    // It ends with the test's process.
    std::thread::spawn(move || crate::udp::limit(listen, &backends));
    let wanted = format!(":{:04X} ", listen.port());
    while !std::fs::read_to_string("/proc/net/udp").unwrap().contains(&wanted) {
        std::thread::yield_now();
    }
    let scenario = crate::scenario::Scenario { connections: 100, ..crate::scenario::find("udp64-1000").unwrap() };
    let mut echo = crate::udp::Echo::start(&scenario, &[listen], &backends).unwrap();
    while echo.replies < 2_000 {
        echo.turn(std::time::Duration::from_millis(100)).unwrap();
    }
    echo.stop();
    while !echo.is_idle() {
        echo.turn(std::time::Duration::from_millis(100)).unwrap();
    }
    let ledger = echo.ledger(&scenario);
    assert!(echo.is_up() && ledger.requests_sent >= 2_000 * 64, "{ledger:?}");
    assert_eq!([ledger.requests_received, ledger.answers_sent, ledger.answers_received], [ledger.requests_sent; 3]);
}

#[test]
fn requests_have_goals_of_their_own() {
    let mut results = two_peers(96_000, 100_000);
    for (peer, micros) in [("tidegate", 40_000), ("nginx", 40_000), ("haproxy", 50_000), ("envoy", 100_000)] {
        results.runs.push(run(peer, 1, 1, "http64", Ok(outcome(1_000, micros))));
    }
    let goals: Vec<(String, f64, String)> =
        goals::goals(&results).into_iter().map(|goal| (goal.what.clone(), goal.target, goal.verdict())).collect();
    for (rival, target, verdict) in [("nginx", 0.95, "short by 5 %"), ("haproxy", 0.85, "met"), ("envoy", 0.5, "met")] {
        let expected = (format!("http64: CPU against {rival}"), target, verdict.to_owned());
        assert!(goals.contains(&expected), "{goals:?}");
    }
    // They are shown apart from what is forwarded unread.
    let report = report::markdown(&results);
    let [plain, http] = ["## CPU per unit", "## HTTP"].map(|title| report.find(title).unwrap());
    assert!(plain < http && report[http..].contains("| http64 (µs) |"), "{report}");
    assert!(!report[plain..http].contains("http64 (µs)"), "{report}");
    assert!(chart::svg(&results).contains("HTTP, relative to nginx = 1"));
}

#[test]
fn responses_are_read_in_any_pieces() {
    let response = http::response(300);
    for first in 1..response.len() {
        let mut reader = ResponseReader::default();
        let mut read = 0;
        for piece in [&response[..first], &response[first..], &response] {
            if reader.in_body() {
                reader.add_body(piece.len()).unwrap();
                read += piece.len();
            } else {
                read += reader.add(piece, 300).unwrap();
            }
        }
        assert_eq!((read, reader.in_body()), (600, false), "first piece of {first} bytes");
    }
}

#[test]
fn only_the_expected_response_counts() {
    let refused = |bytes: &[u8]| ResponseReader::default().add(bytes, 64).unwrap_err().to_string();
    let response = String::from_utf8(http::response(64)).unwrap();
    assert_eq!(ResponseReader::default().add(response.as_bytes(), 64).unwrap(), 64);
    assert_eq!(
        ResponseReader::default().add(response.replace("Content-Length", "content-length").as_bytes(), 64).unwrap(),
        64
    );
    assert!(refused(response.replace("200 OK", "502 Bad Gateway").as_bytes()).contains("502 Bad Gateway"));
    assert!(refused(response.replace("Content-Length: 64", "Content-Length: 65").as_bytes()).contains("65"));
    assert!(
        refused(response.replace("Content-Length: 64", "Transfer-Encoding: chunked").as_bytes()).contains("chunked")
    );
    assert_eq!(refused((response + ".").as_bytes()), "a client received 1 bytes behind a response");
    assert_eq!(refused(&[b'.'; http::MAX_HEAD]), "no end of a head in 4096 bytes");
}

#[test]
fn the_load_exchanges_http_with_itself() {
    let exchanged = |options: &[&str]| {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut arguments = vec!["compare", "load", "--seconds", "0.2", "--warmup", "0", "--target", &backend];
        arguments.extend(["--backend", &backend].iter().chain(options));
        let Task::Load(args) = Cli::parse_from(arguments).command else { panic!("it is the load") };
        load::run(&args).unwrap().checked()
    };
    for (scenario, answer) in [("http64", 64), ("http16k", 16 << 10)] {
        let outcome = exchanged(&["--scenario", scenario]).unwrap();
        let ledger = outcome.ledger;
        assert!(outcome.operations > 0, "{outcome:?}");
        assert_eq!(ledger.answers_received / answer, ledger.requests_sent / http::REQUEST.len() as u64, "{ledger:?}");
        assert_eq!(ledger.answers_received % answer, 0, "{ledger:?}");
    }
    // No proxy is between them to add the field.
    let error = exchanged(&["--scenario", "http64", "--forwarded"]).unwrap_err();
    assert!(error.starts_with("a backend received \"GET /api"), "{error}");
}

#[test]
fn the_report_names_failures_and_hides_their_figures() {
    let mut results = two_peers(96_000, 100_000);
    results.runs.push(run("nginx", 1, 2, "rr64", Err("a client saw the end after 3 bytes of 64".into())));
    let report = report::markdown(&results);
    let row = report.lines().find(|line| line.starts_with("| rr64 (µs)")).unwrap();
    assert!(row.contains("failed"), "{row}");
    assert!(report.contains("round 2, rr64, nginx (1 workers): a client saw the end after 3 bytes of 64"), "{report}");
    let row = report.lines().find(|line| line.starts_with("| crr (µs)")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>().join(" "), "| crr (µs) | 96.00 | 100.00 |");

    // From the raw results alone the same report comes again.
    let read = serde_json::from_str(&serde_json::to_string(&results).unwrap()).unwrap();
    assert_eq!(report::markdown(&read), report);
}

#[test]
fn the_chart_has_a_bar_for_each_figure() {
    let svg = chart::svg(&two_peers(96_000, 100_000));
    assert!(svg.contains(">0.96</text>") && svg.contains(">1.00</text>"), "{svg}");
    assert!(svg.trim_end().ends_with("</svg>"));
    assert!(chart::svg(&Results::default()).starts_with("<svg"));
}

/// Over two seconds.
fn outcome(operations: u64, cpu_us: u64) -> Outcome {
    Outcome {
        scenario: "crr".into(),
        seconds: 2.0,
        operations,
        bytes: operations * 64,
        cpu_ns: cpu_us * 1_000,
        latency: Some(Latency { p50: 10.0, p99: 20.0, p999: 30.0, max: 40.0 }),
        ledger: Ledger { requests_sent: 6_400, requests_received: 6_400, answers_sent: 6_400, answers_received: 6_400 },
        ..Outcome::default()
    }
}

fn run(peer: &str, workers: u32, round: usize, scenario: &str, outcome: Result<Outcome, String>) -> Run {
    Run { peer: peer.into(), workers, round: round as u32, scenario: scenario.into(), attempt: 1, outcome }
}

/// One run of crr by each of two.
fn two_peers(tidegate_us: u64, nginx_us: u64) -> Results {
    let peer = |name: &str| result::Peer { name: name.into(), version: "1".into() };
    Results {
        peers: vec![peer("tidegate"), peer("nginx")],
        runs: vec![
            run("tidegate", 1, 1, "crr", Ok(outcome(1_000, tidegate_us))),
            run("nginx", 1, 1, "crr", Ok(outcome(1_000, nginx_us))),
        ],
        ..Results::default()
    }
}
