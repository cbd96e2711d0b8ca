//! `/histograms?format=hdr`: the log that the tools of HdrHistogram read.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use crate::support::observed::{Observed, PLAIN, SECURE};
use crate::support::python;

const PERCENTILES: [(&str, f64); 7] = [
    ("p50_us", 50.0),
    ("p75_us", 75.0),
    ("p90_us", 90.0),
    ("p95_us", 95.0),
    ("p99_us", 99.0),
    ("p99.9_us", 99.9),
    ("p99.99_us", 99.99),
];

/// Prints of each histogram of a log its tag, and the buckets with their counts. (Its percentiles are of another rank
/// than those of Java's and Rust's: it rounds the rank to the nearest.)
const READER: &str = "
import json, sys, tempfile
from hdrh.log import HistogramLogReader
from hdrh.histogram import HdrHistogram
with tempfile.NamedTemporaryFile('wb') as log:
    log.write(sys.stdin.buffer.read())
    log.flush()
    reader = HistogramLogReader(log.name, HdrHistogram(1, 3600 * 1000 * 1000, 2))
    read = []
    while True:
        histogram = reader.get_next_interval_histogram()
        if histogram is None:
            break
        read.append([histogram.get_tag(), [
            [bucket.value_iterated_to, bucket.count_added_in_this_iter_step]
            for bucket in histogram.get_recorded_iterator()]])
print(json.dumps(read))
";

/// Each series of an answer as JSON, by the tag that it has in the log.
fn tagged(answer: &Value, window: &str) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let lists = [("listeners", vec!["listener"]), ("pools", vec!["pool"]), ("backends", vec!["pool", "backend"])];
    for (list, names) in lists {
        for entry in answer[list].as_array().expect("a list") {
            let owner: Vec<&str> = names.iter().map(|name| entry[name].as_str().expect("a name")).collect();
            for (stage, windows) in entry["latency"].as_object().expect("stages") {
                if windows[window].is_object() {
                    let kind = list.trim_end_matches('s');
                    all.push((format!("{kind}/{}/{stage}", owner.join("/")), windows[window].clone()));
                }
            }
        }
    }
    all.sort_by(|one, two| one.0.cmp(&two.0));
    all
}

/// The percentile that HdrHistogram gives is the upper end of a bucket; ours is never above the largest value.
fn agrees(theirs: u64, ours: &Value, max: &Value) -> bool {
    let (ours, max) = (ours.as_u64().expect("a number"), max.as_u64().expect("a number"));
    theirs == ours || (ours == max && theirs > max && theirs - max <= max / 100)
}

#[test]
fn tools_of_hdr_histogram_read_the_log() {
    let observed = Observed::start();
    let log = observed.get("/histograms?format=hdr");
    assert_eq!((log.status, log.header("content-type")), (200, "text/plain; charset=utf-8"));
    let wanted = tagged(&observed.get("/histograms?window=all").json(), "all");
    assert!(
        wanted.iter().any(|(tag, summary)| tag == "backend/p/a/session" && summary["count"] == PLAIN + SECURE),
        "{wanted:?}"
    );
    let text = log.text();
    let started = observed.get("/stats").json()["started"].as_f64().unwrap();
    assert!(text.contains(&format!("#[StartTime: {started:.3} (seconds since epoch)]\n")), "{text}");

    // The reader of the crate.
    let mut read = Vec::new();
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        if let LogEntry::Interval(line) = entry.expect("a line") {
            let bytes = base64(line.encoded_histogram());
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).expect("a histogram");
            assert!(line.start_timestamp().is_zero() && line.duration().as_secs_f64() > 0.0);
            read.push((line.tag().expect("a tag").to_string(), histogram));
        }
    }
    read.sort_by(|one, two| one.0.cmp(&two.0));
    assert_eq!(read.len(), wanted.len());
    for ((tag, histogram), (wanted_tag, summary)) in read.iter().zip(&wanted) {
        assert_eq!(tag, wanted_tag);
        assert_eq!(summary["count"], histogram.len(), "{tag}");
        for (name, percentile) in PERCENTILES {
            let value = histogram.value_at_percentile(percentile);
            assert!(agrees(value, &summary[name], &summary["max_us"]), "{tag} {name}: {value}, {summary}");
        }
    }

    // Python's.
    let mut theirs: Vec<(String, Vec<(u64, u64)>)> =
        serde_json::from_str(&python::run(READER, text.as_bytes())).expect("JSON");
    theirs.sort_by(|one, two| one.0.cmp(&two.0));
    let ours: Vec<_> = read
        .iter()
        .map(|(tag, histogram)| {
            let buckets = histogram.iter_recorded();
            (
                tag.clone(),
                buckets.map(|bucket| (bucket.value_iterated_to(), bucket.count_since_last_iteration())).collect(),
            )
        })
        .collect();
    assert_eq!(theirs, ours);

    let one = observed.get("/histograms?format=hdr&listener=plain&stage=session&window=5m").text();
    let lines: Vec<&str> = one.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(matches!(lines[..], [line] if line.starts_with("Tag=listener/plain/session,")), "{lines:?}");
}

/// Decodes (RFC 4648, 4).
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for character in text.bytes().filter(|character| *character != b'=') {
        let value = ALPHABET.iter().position(|known| *known == character).expect("base64");
        (bits, count) = (bits << 6 | value as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
