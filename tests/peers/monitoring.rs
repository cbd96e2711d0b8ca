//! config/grafana.json and config/alerts.yaml: what they ask for is there, and Prometheus understands how.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::metrics::Parsed;
use crate::support::observed::Observed;
use crate::support::process::require;

/// Labels that Prometheus itself adds.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the dashboard asks: the expressions of its panels, with values for Grafana's variables, and the texts of its
/// legends and variables.
fn dashboard() -> (Vec<String>, Vec<String>, Vec<String>) {
    let dashboard: Value = serde_json::from_str(&file("config/grafana.json")).expect("JSON");
    let with_values = |text: &str| {
        ["$instance", "$listener", "$pool", "$backend"]
            .into_iter()
            .fold(text.replace("$__rate_interval", "5m").replace("$stage", "turnaround"), |text, variable| {
                text.replace(&format!("\"{variable}\""), "\".*\"")
            })
    };
    let (mut expressions, mut legends) = (Vec::new(), Vec::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(with_values(target["expr"].as_str().expect("an expression")));
            legends.push(target["legendFormat"].as_str().expect("a legend").to_owned());
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let queries = variables.filter_map(|variable| variable["query"]["query"].as_str()).map(with_values).collect();
    assert!(expressions.iter().all(|expression| !expression.contains('$')), "{expressions:?}");
    (expressions, legends, queries)
}

/// The expressions of the rules: what follows `expr:`, on its line, or on those below that are further in.
fn rules() -> Vec<String> {
    let text = file("config/alerts.yaml");
    let mut lines = text.lines().peekable();
    let mut expressions = Vec::new();
    while let Some(line) = lines.next() {
        let Some((before, expression)) = line.split_once("expr:") else { continue };
        let mut expression = expression.trim_start_matches([' ', '|']).to_owned();
        let depth = |line: &str| line.len() - line.trim_start().len();
        while let Some(more) = lines.next_if(|line| depth(line) > before.len()) {
            expression = format!("{expression} {}", more.trim());
        }
        expressions.push(expression);
    }
    expressions
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The metrics of an expression, each with the labels that its selector names.
fn metrics(expression: &str) -> Vec<(String, Vec<String>)> {
    let mut metrics = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_word) {
        let word: String = rest[start..].chars().take_while(|&character| is_word(character)).collect();
        rest = &rest[start + word.len()..];
        if !word.starts_with("tidegate_") && !word.starts_with("process_") {
            continue;
        }
        let selector =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(selector, _)| selector);
        let labels =
            selector.split(',').filter_map(|part| part.split_once('=')).map(|(label, _)| label.trim().to_owned());
        metrics.push((word, labels.collect()));
    }
    metrics
}

/// What stands between the brackets that follow each of these words.
fn grouped_by(expression: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for word in ["by (", "on ("] {
        for after in expression.split(word).skip(1) {
            let list = after.split(')').next().unwrap_or_default();
            labels.extend(list.split(',').map(|label| label.trim().to_owned()));
        }
    }
    labels
}

#[test]
fn what_is_asked_for_is_there() {
    let observed = Observed::start();
    let parsed = Parsed::of(&observed.port);
    let labels_of = |metric: &str| -> BTreeSet<String> {
        let known = parsed.labels(metric).unwrap_or_else(|| panic!("/metrics has no {metric}"));
        known.into_iter().chain(OF_PROMETHEUS.map(str::to_owned)).collect()
    };
    let (expressions, legends, variables) = dashboard();
    let rules = rules();
    assert!(
        expressions.len() > 30 && rules.len() >= 8 && variables.len() == 5,
        "{expressions:?} {rules:?} {variables:?}"
    );

    let mut asked = BTreeSet::new();
    for expression in expressions.iter().chain(&rules).chain(&variables) {
        let metrics = metrics(expression);
        assert!(!metrics.is_empty(), "{expression}");
        let mut known = BTreeSet::new();
        for (metric, labels) in metrics {
            let has = labels_of(&metric);
            for label in labels {
                assert!(has.contains(&label), "{metric} has no label {label}: {expression}");
            }
            known.extend(has);
            asked.insert(metric);
        }
        for label in grouped_by(expression) {
            assert!(known.contains(&label), "no label {label}: {expression}");
        }
        if let Some(label) = expression.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(", ")) {
            assert!(known.contains(label.1.trim_end_matches(')')), "{expression}");
        }
    }
    assert!(asked.len() > 25, "{asked:?}");
    for (legend, expression) in legends.iter().zip(&expressions) {
        let known: BTreeSet<String> = metrics(expression).iter().flat_map(|(metric, _)| labels_of(metric)).collect();
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")) {
            assert!(known.contains(label.0), "{legend}: {expression}");
        }
    }
}

/// Metrics that only backends with database checks have, and only listeners that watch queries.
const OF_DATABASES: [&str; 17] = [
    "tidegate_backend_role",
    "tidegate_backend_lag_bytes",
    "tidegate_backend_lag_seconds",
    "tidegate_listener_datagrams_in_total",
    "tidegate_listener_datagrams_out_total",
    "tidegate_listener_datagrams_dropped_total",
    "tidegate_listener_sessions_moved_total",
    "tidegate_listener_queries_total",
    "tidegate_listener_query_errors_total",
    "tidegate_listener_queries_pipelined_total",
    "tidegate_listener_queries_no_response_total",
    "tidegate_listener_query_passthrough_total",
    "tidegate_backend_queries_total",
    "tidegate_backend_query_errors_total",
    "tidegate_backend_queries_pipelined_total",
    "tidegate_backend_queries_no_response_total",
    "tidegate_backend_query_passthrough_total",
];

/// Metrics that only listeners and backends with `protocol: http` have.
const OF_REQUESTS: [&str; 8] = [
    "tidegate_listener_http_requests_open",
    "tidegate_backend_http_requests_open",
    "tidegate_route_http_requests_total",
    "tidegate_route_http_responses_total",
    "tidegate_route_http_no_response_total",
    "tidegate_route_http_requests_open",
    "tidegate_route_retries_total",
    "tidegate_route_latency_seconds",
];

/// The manual's table of metrics: each is there, and each that is there is in it.
#[test]
fn the_manual_names_every_metric() {
    let observed = Observed::start();
    let page = file("docs/metrics.md");
    let (_, table) = page.split_once("| metric | labels | at HAProxy |").expect("the table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let named: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .collect();
    let text = observed.get("/metrics").text();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let there: BTreeSet<&str> = families.map(|(name, _)| name).chain(OF_DATABASES).chain(OF_REQUESTS).collect();
    assert_eq!(named, there);
}

#[test]
fn prometheus_understands_them() {
    require("promtool", "prometheus");
    let check = |path: &Path| {
        let output = Command::new("promtool").args(["check", "rules"]).arg(path).output().expect("promtool");
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), told)
    };
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/alerts.yaml");
    let (fine, told) = check(&alerts);
    assert!(fine && told.contains(&format!("{} rules found", rules().len())), "{told}");

    let (expressions, ..) = dashboard();
    let rules: Vec<Value> = (0..)
        .zip(&expressions)
        .map(|(number, expression)| serde_json::json!({ "record": format!("panel_{number}"), "expr": expression }))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    // JSON is YAML.
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(&path, groups.to_string()).unwrap();
    let (fine, told) = check(&path);
    assert!(fine && told.contains(&format!("{} rules found", expressions.len())), "{told}");
}
