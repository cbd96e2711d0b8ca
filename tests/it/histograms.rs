//! `/histograms`: percentiles as JSON.

use serde_json::json;

use crate::support::observed::{Observed, PLAIN, SECURE};

const PERCENTILES: [&str; 7] = ["p50_us", "p75_us", "p90_us", "p95_us", "p99_us", "p99.9_us", "p99.99_us"];

#[test]
fn json_has_every_percentile_of_what_was_measured() {
    let observed = Observed::start();
    let all = observed.get("/histograms");
    assert_eq!((all.status, all.header("content-type")), (200, "application/json"));
    let all = all.json();
    let plain = &all["listeners"][0];
    assert_eq!(plain["listener"], "plain");
    let turnaround = &plain["latency"]["turnaround"]["all"];
    assert_eq!(turnaround["count"], PLAIN);
    for name in PERCENTILES {
        assert!(turnaround[name].as_u64() <= turnaround["max_us"].as_u64(), "{name}");
    }
    assert_eq!(plain["latency"]["session"]["5m"]["count"], PLAIN);
    assert_eq!(all["backends"].as_array().unwrap().len(), 7);

    let one = observed.get("/histograms?listener=secure&stage=tls_handshake&window=all").json();
    assert_eq!(one["backends"], json!([]));
    assert_eq!(one["listeners"][0]["latency"]["tls_handshake"]["all"]["count"], SECURE);
    assert_eq!(one["listeners"][0]["latency"].as_object().unwrap().len(), 1);
    let one = observed.get("/histograms?pool=p&backend=a&stage=session").json();
    assert_eq!(one["listeners"], json!([]));
    assert_eq!(one["backends"][0]["latency"]["session"]["all"]["count"], PLAIN + SECURE);
    assert_eq!(observed.get("/histograms?backend=gone").json()["backends"].as_array().unwrap().len(), 2);
}

#[test]
fn what_there_is_not_is_said() {
    let observed = Observed::start();
    for (query, status, known) in [
        ("listener=nobody", 404, json!(["checked", "plain", "refused", "retried", "secure", "web"])),
        ("pool=nobody", 404, json!(["c", "p", "q", "r", "w"])),
        ("pool=q&backend=a", 404, json!(["b", "gone"])),
        ("window=2m", 400, json!(["all", "10s", "1m", "5m"])),
        ("format=xml", 400, json!(["json", "hdr"])),
        ("listner=plain", 400, json!(["listener", "pool", "backend", "stage", "window", "format"])),
        ("listener=%zz", 400, json!([])),
    ] {
        let answer = observed.get(&format!("/histograms?{query}"));
        assert_eq!((answer.status, &answer.json()["known"]), (status, &known), "{query}");
        assert!(answer.json()["error"].as_str().unwrap().starts_with("there is no "), "{query}");
    }
    let stages = observed.get("/histograms?stage=lunch").json();
    assert_eq!(
        (stages["error"].as_str(), &stages["known"][4]),
        (Some("there is no stage \"lunch\""), &json!("turnaround"))
    );
}
