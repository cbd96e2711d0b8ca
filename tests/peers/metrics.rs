//! `/metrics`, read by others: the strict parser of Prometheus' Python client, and Prometheus itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::Place;
use crate::support::observed::{
    BYTES, OPAQUE, Observed, PLAIN, REFUSED, RETRIED, SECURE, UNANSWERED, requests, responses,
};
use crate::support::process::{Process, bound, require};
use crate::support::stats::get_with;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, free_port, python};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

fn accepting(forms: &str) -> String {
    format!("Accept: {forms}\r\n")
}

/// Prints each sample: the type of its family, its name, its labels, its value.
const STRICT_PARSER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
print(json.dumps([
    [family.type, sample.name, sample.labels, sample.value]
    for family in text_string_to_metric_families(sys.stdin.read()) for sample in family.samples]))
";

/// The same of Prometheus' text format before OpenMetrics.
const CLASSIC_PARSER: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families
print(json.dumps([
    [family.type, sample.name, sample.labels, sample.value]
    for family in text_string_to_metric_families(sys.stdin.read()) for sample in family.samples]))
";

/// What the strict parser reads.
pub(crate) struct Parsed(Vec<(String, String, Value, f64)>);

impl Parsed {
    pub(crate) fn of(port: &Place) -> Parsed {
        let answer = get_with(port, "/metrics", &accepting(OPENMETRICS));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        Parsed::by(STRICT_PARSER, &answer.body)
    }

    fn by(parser: &str, text: &[u8]) -> Parsed {
        Parsed(serde_json::from_str(&python::run(parser, text)).expect("JSON"))
    }

    /// The type of the family of each name of a sample.
    fn types(&self) -> BTreeMap<&str, &str> {
        self.0.iter().map(|(kind, name, ..)| (name.as_str(), kind.as_str())).collect()
    }

    /// The samples of this name, with their labels.
    pub(crate) fn samples(&self, name: &str) -> impl Iterator<Item = (&Value, f64)> {
        self.0.iter().filter(move |(_, known, ..)| known == name).map(|(.., labels, value)| (labels, *value))
    }

    /// The only sample of this name with these labels.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |known: &Value| labels.iter().all(|(label, value)| known[label] == *value);
        let found: Vec<_> = self.samples(name).filter(|(labels, _)| fits(labels)).collect();
        let [(_, value)] = found[..] else { panic!("{name}{labels:?}: {found:?}") };
        value
    }

    fn sum(&self, name: &str, label: (&str, &str)) -> f64 {
        self.samples(name).filter(|(labels, _)| labels[label.0] == label.1).map(|(_, value)| value).sum()
    }

    /// The labels of each name of a sample.
    pub(crate) fn labels(&self, name: &str) -> Option<Vec<String>> {
        let mut samples = self.samples(name).peekable();
        samples.peek()?;
        let labels = samples.flat_map(|(labels, _)| labels.as_object().expect("labels").keys().cloned());
        Some(labels.collect())
    }
}

#[test]
fn a_strict_parser_reads_the_exact_numbers() {
    let observed = Observed::start();
    let parsed = Parsed::of(&observed.port);
    for (listener, count) in [("plain", PLAIN), ("secure", SECURE), ("retried", RETRIED), ("refused", REFUSED)] {
        let value = |name: &str| parsed.value(name, &[("listener", listener)]) as u64;
        let bytes = if listener == "refused" { 0 } else { count * BYTES };
        assert_eq!(value("tidegate_listener_connections_total"), count, "{listener}");
        assert_eq!(value("tidegate_listener_connections_open"), 0, "{listener}");
        assert_eq!(value("tidegate_listener_bytes_in_total"), bytes, "{listener}");
        assert_eq!(value("tidegate_listener_bytes_out_total"), bytes, "{listener}");
        assert_eq!(parsed.sum("tidegate_listener_connections_ended_total", ("listener", listener)) as u64, count);
        let session = [("listener", listener), ("stage", "session")];
        assert_eq!(parsed.value("tidegate_listener_latency_seconds_count", &session) as u64, count);
    }
    let refused = [("listener", "refused"), ("reason", "rejected: connect failed")];
    assert_eq!(parsed.value("tidegate_listener_rejections_total", &refused) as u64, REFUSED);
    let ended = [("listener", "plain"), ("reason", "client closed"), ("side", "client"), ("code", "--")];
    assert_eq!(parsed.value("tidegate_listener_connections_ended_total", &ended) as u64, PLAIN);

    let a = [("pool", "p"), ("backend", "a")];
    assert_eq!(parsed.value("tidegate_backend_connections_total", &a) as u64, PLAIN + SECURE);
    assert_eq!(parsed.value("tidegate_backend_bytes_in_total", &a) as u64, (PLAIN + SECURE) * BYTES);
    assert_eq!(parsed.value("tidegate_backend_up", &a), 1.0);
    let gone = [("pool", "r"), ("backend", "gone")];
    let failed = parsed.value("tidegate_backend_connection_errors_total", &gone);
    assert!(failed as u64 >= REFUSED, "{failed}");
    let retries = parsed.value("tidegate_listener_retries_total", &[("listener", "retried")]);
    assert!(retries >= 1.0);
    assert_eq!(parsed.value("tidegate_backend_retries_total", &[("pool", "q"), ("backend", "gone")]), retries);
    let down = [("pool", "c"), ("backend", "down")];
    assert_eq!(parsed.value("tidegate_backend_up", &down), 0.0);
    assert_eq!(parsed.value("tidegate_backend_down_transitions_total", &down), 1.0);
    assert!(parsed.value("tidegate_backend_check_failures_total", &down) >= 1.0);
    assert!(parsed.value("tidegate_backend_downtime_seconds_total", &down) > 0.0);
    assert_eq!(parsed.value("tidegate_backend_weight", &[("pool", "c"), ("backend", "up")]), 3.0);
    assert!(parsed.value("tidegate_certificate_not_after_seconds", &[("listener", "secure")]) > 1.7e9);
    assert_eq!(parsed.value("tidegate_tls_files_stale", &[("listener", "secure")]), 0.0);
    assert_eq!(parsed.value("tidegate_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(parsed.value("process_cpu_seconds_total", &[]) > 0.0);

    // The sum is exact: what /stats says of the same.
    let view = observed.get("/stats").json();
    let session = &view["listeners"][0]["latency"]["session"]["all"];
    let (mean, count) = (session["mean_us"].as_f64().unwrap(), session["count"].as_f64().unwrap());
    let sum = parsed.value("tidegate_listener_latency_seconds_sum", &[("listener", "plain"), ("stage", "session")]);
    assert!((sum * 1e6 - mean * count).abs() <= 0.05 * count + 0.001, "{sum} {mean} {count}");

    // Never a client.
    let client = observed.tidegate.access()[0].field("client");
    let host = client.rsplit_once(':').expect("host and port").0;
    assert!(!observed.get("/metrics").text().contains(&format!("\"{host}")), "{client}");
}

#[test]
fn http_is_counted_by_method_and_class() {
    let observed = Observed::start();
    let parsed = Parsed::of(&observed.port);
    let of_web: [(&str, &[(&str, &str)]); 2] =
        [("listener", &[("listener", "web")]), ("backend", &[("pool", "w"), ("backend", "site")])];
    for (owner, labels) in of_web {
        let name = |what: &str| format!("tidegate_{owner}_http_{what}_total");
        let value = |what: &str| parsed.value(&name(what), labels) as u64;
        let counted = [value("requests"), value("no_response"), value("passthrough")];
        assert_eq!(counted, [requests(), UNANSWERED, OPAQUE], "{owner}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let by_class: BTreeMap<_, _> = parsed
            .samples(&name("responses"))
            .map(|(labels, count)| ((text(&labels["method"]), text(&labels["class"])), count as u64))
            .collect();
        assert_eq!(by_class, responses(), "{owner}");
        // No more samples than those: of nobody else, whose HTTP is not watched.
        assert_eq!(parsed.samples(&name("requests")).count(), 1);
        assert_eq!(parsed.samples(&name("responses")).count(), by_class.len());
        for stage in ["http_first_byte", "http_response"] {
            let labels: Vec<_> = labels.iter().copied().chain([("stage", stage)]).collect();
            let timed = parsed.value(&format!("tidegate_{owner}_latency_seconds_count"), &labels) as u64;
            assert_eq!(timed, requests() - UNANSWERED, "{owner} {stage}");
        }
    }
}

#[test]
fn names_that_are_odd_do_not_break_the_text() {
    let tidegate = Tidegate::start(
        "admin: { bind: 127.0.0.1:0 }\n\
         listeners: [{ name: 'a\"b\\c, d', bind: 127.0.0.1:0, pool: \"ü{}=\" }]\n\
         pools: [{ name: \"ü{}=\", backends: [{ name: '# x', address: 127.0.0.1:9 }] }]\n",
    );
    let parsed = Parsed::of(&tidegate.stats_port());
    assert_eq!(parsed.value("tidegate_listener_connections_total", &[("listener", "a\"b\\c, d")]), 0.0);
    assert_eq!(parsed.value("tidegate_backend_up", &[("pool", "ü{}="), ("backend", "# x")]), 1.0);
    let classic = Parsed::by(CLASSIC_PARSER, &get_with(&tidegate.stats_port(), "/metrics", "").body);
    assert_eq!(classic.value("tidegate_listener_connections_total", &[("listener", "a\"b\\c, d")]), 0.0);
    assert_eq!(classic.value("tidegate_backend_up", &[("pool", "ü{}="), ("backend", "# x")]), 1.0);
}

#[test]
fn each_reader_gets_its_form() {
    let observed = Observed::start();
    let classic = observed.get("/metrics");
    assert_eq!(classic.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let protobuf = get_with(&observed.port, "/metrics", &accepting(PROTOBUF));
    assert!(
        protobuf
            .header("content-type")
            .starts_with("application/vnd.google.protobuf; proto=io.prometheus.client.metricfamily")
    );
    assert!(protobuf.body.len() > 1000 && !protobuf.body.ends_with(b"# EOF\n"));
}

/// What reads Prometheus' text format 0.0.4 gets that, with the same types and numbers as in OpenMetrics.
#[test]
fn classic_text_has_types_help_and_the_same_numbers() {
    let observed = Observed::start();
    for accept in ["text/plain;version=0.0.4", "text/plain", "*/*"] {
        let answer = get_with(&observed.port, "/metrics", &accepting(accept));
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8", "{accept}");
        let text = answer.text();
        assert!(text.starts_with("# HELP ") && !text.contains("# EOF") && !text.contains("# UNIT"), "{accept}");
    }
    let text = observed.get("/metrics").text();
    // Each HELP is followed by a TYPE of the same name, and each sample is of the TYPE before it.
    let (mut kind, mut name, mut samples) = ("", "", 0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            name = rest.split_once(' ').expect("a text").0;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (of, what) = rest.split_once(' ').expect("a type");
            assert_eq!(of, name, "{line}");
            assert_eq!(what == "counter", name.ends_with("_total"), "{line}");
            kind = what;
        } else {
            let sample = line.split(['{', ' ']).next().expect("a name");
            let suffix = sample.strip_prefix(name).unwrap_or_else(|| panic!("{line} is not of {name}"));
            let fits = if kind == "histogram" { suffix.starts_with('_') } else { suffix.is_empty() };
            assert!(fits, "{line} is not of the {kind} {name}");
            samples += 1;
        }
    }
    assert!(samples > 100, "{text}");

    let (classic, strict) = (Parsed::by(CLASSIC_PARSER, text.as_bytes()), Parsed::of(&observed.port));
    assert_eq!(classic.types(), strict.types());
    for name in ["tidegate_listener_connections_total", "tidegate_backend_bytes_in_total", "tidegate_backend_up"] {
        assert_eq!(classic.samples(name).collect::<Vec<_>>(), strict.samples(name).collect::<Vec<_>>(), "{name}");
    }
    let buckets = |parsed: &Parsed| {
        let buckets = parsed.samples("tidegate_listener_latency_seconds_bucket");
        let of = buckets.filter(|(labels, _)| labels["listener"] == "plain" && labels["stage"] == "session");
        of.map(|(labels, value)| (labels["le"].as_str().unwrap().parse::<f64>().unwrap(), value)).collect::<Vec<_>>()
    };
    assert_eq!(buckets(&classic), buckets(&strict));
    assert_eq!(buckets(&classic).last(), Some(&(f64::INFINITY, PLAIN as f64)));
    let plain = [("listener", "plain")];
    assert_eq!(classic.value("tidegate_listener_connections_total", &plain) as u64, PLAIN);

    // What Prometheus' own linter says of it.
    require("promtool", "prometheus");
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("promtool");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}");
}

/// Prometheus, which scrapes a stats port every second.
struct Prometheus {
    process: Process,
    address: String,
    _directory: TempDir,
}

impl Prometheus {
    fn start(target: &str, arguments: &[&str]) -> Prometheus {
        require("prometheus", "prometheus");
        loop {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let config = format!(
                "global: {{ scrape_interval: 1s }}\n\
                 scrape_configs: [{{ job_name: tidegate, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n"
            );
            fs::write(directory.path().join("prometheus.yml"), config).expect("write");
            let address = format!("127.0.0.1:{}", free_port());
            let mut command = bound("prometheus", "KILL");
            command
                .arg("--config.file=prometheus.yml")
                .arg("--storage.tsdb.path=data")
                .arg(format!("--web.listen-address={address}"))
                .args(["--log.level=warn"])
                .args(arguments)
                .current_dir(directory.path())
                .stdout(Stdio::null())
                .stderr(fs::File::create(directory.path().join("log")).expect("a log file"));
            let process = Process::start(command, Signal::TERM);
            let mut prometheus = Prometheus { process, address, _directory: directory };
            eventually(DEADLINE, "Prometheus is ready", || {
                prometheus.process.has_ended() || prometheus.get("-/ready", &[]).is_some()
            });
            if !prometheus.process.has_ended() {
                return prometheus;
            }
            let log = fs::read_to_string(prometheus._directory.path().join("log")).unwrap_or_default();
            assert!(log.contains("address already in use"), "{log}");
        }
    }

    fn get(&self, path: &str, arguments: &[String]) -> Option<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--max-time", "20", "--get"]).args(arguments);
        let output = command.arg(format!("http://{}/{path}", self.address)).output().expect("curl");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("UTF-8"))
    }

    /// The value of the only sample that a query gives; `None` while it gives none.
    fn query(&self, query: &str) -> Option<f64> {
        let arguments = ["--data-urlencode".to_owned(), format!("query={query}")];
        let answer = self.get("api/v1/query", &arguments).unwrap_or_else(|| panic!("{query} is refused"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let result = answer["data"]["result"].as_array().expect("a vector");
        assert!(result.len() <= 1, "{query}: {result:?}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    fn wait_for(&self, query: &str, wanted: f64) {
        let mut got = None;
        eventually(DEADLINE, &format!("{query} is {wanted}"), || {
            got = self.query(query);
            got == Some(wanted)
        });
    }
}

#[test]
fn prometheus_scrapes_text() {
    let observed = Observed::start();
    let prometheus = Prometheus::start(&observed.port.to_string(), &[]);
    prometheus.wait_for("up", 1.0);
    prometheus.wait_for("tidegate_listener_connections_total{listener=\"plain\"}", PLAIN as f64);
    prometheus.wait_for("tidegate_listener_bytes_in_total{listener=\"plain\"}", (PLAIN * BYTES) as f64);
    let session = "listener=\"plain\",stage=\"session\"";
    prometheus.wait_for(&format!("tidegate_listener_latency_seconds_count{{{session}}}"), PLAIN as f64);
    prometheus.wait_for(&format!("tidegate_listener_latency_seconds_bucket{{{session},le=\"+Inf\"}}"), PLAIN as f64);
}

#[test]
fn prometheus_scrapes_native_histograms() {
    let observed = Observed::start();
    let prometheus = Prometheus::start(&observed.port.to_string(), &["--enable-feature=native-histograms"]);
    prometheus.wait_for("up", 1.0);
    prometheus.wait_for("tidegate_listener_connections_total{listener=\"plain\"}", PLAIN as f64);
    let session = "tidegate_listener_latency_seconds{listener=\"plain\",stage=\"session\"}";
    prometheus.wait_for(&format!("histogram_count({session})"), PLAIN as f64);
    let view = observed.get("/stats").json();
    let ours = &view["listeners"][0]["latency"]["session"]["all"];
    let sum = prometheus.query(&format!("histogram_sum({session})")).unwrap() * 1e6;
    let mean = ours["mean_us"].as_f64().unwrap();
    assert!((sum / PLAIN as f64 - mean).abs() <= 0.051, "{sum} {mean}");
    for (quantile, name) in [("0.5", "p50_us"), ("0.9", "p90_us"), ("1", "max_us")] {
        let theirs = prometheus.query(&format!("histogram_quantile({quantile}, {session})")).unwrap() * 1e6;
        let ours = ours[name].as_f64().unwrap();
        // A bucket is 4.4 % wide, one of ours 0.8 %.
        assert!((theirs / ours - 1.0).abs() < 0.055, "{name}: {theirs} µs there, {ours} µs here");
    }
}
