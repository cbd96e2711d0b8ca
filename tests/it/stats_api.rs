//! The plain JSON of the stats port: `/lb/status`, `/lb-metrics` and `/api/`, against what was sent.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Dead};
use crate::support::client::{End, connect, expect, read_to_end};
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// Connections of one round trip each.
const SERVED: u64 = 10;
/// Half of them meet the backend that refuses: a retry takes no turn.
const RETRIED: u64 = SERVED / 2;
/// Connections that nobody takes.
const REFUSED: u64 = 3;

struct Run {
    tidegate: Tidegate,
    echo: Backend,
    dead: Dead,
}

/// Everything has ended when this returns.
fn run() -> Run {
    let (echo, dead) = (Backend::echo(), Dead::start());
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners:\n\
         \x20 - {{ name: in, bind: 127.0.0.1:0, pool: p }}\n\
         \x20 - {{ name: lost, bind: 127.0.0.1:0, pool: q }}\n\
         pools:\n\
         \x20 - {{ name: p, backends: [{{ name: a, address: \"{0}\", weight: 1 }}, {{ name: b, address: \"{1}\" }}] }}\n\
         \x20 - {{ name: q, balance: ip_hash, backends: [{{ name: b, address: \"{1}\" }}] }}\n",
        echo.address(),
        dead.address()
    ));
    for _ in 0..SERVED {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"0123456789").unwrap();
        expect(&mut client, b"0123456789");
    }
    for _ in 0..REFUSED {
        assert_eq!(read_to_end(&mut connect(&tidegate.at("lost"))), (Vec::new(), End::Fin));
    }
    tidegate.wait_for_access("all", |_| tidegate.access().len() as u64 == SERVED + REFUSED);
    Run { tidegate, echo, dead }
}

impl Run {
    fn ask(&self, path: &str) -> (u16, Value) {
        let answer = get(&self.tidegate.stats_port(), path);
        assert!(answer.headers.contains("content-type: application/json"), "{path}: {}", answer.headers);
        (answer.status, answer.json())
    }

    fn data(&self, path: &str) -> Value {
        let (status, mut answer) = self.ask(path);
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{path}: {answer}");
        answer["data"].take()
    }
}

#[test]
fn the_plain_pages_say_what_happened() {
    let run = run();
    // Closed by then, as the access log says; the pages count what is open a moment longer.
    eventually(DEADLINE, "nothing is open", || run.data("/api/metrics")["activeConnections"] == 0);
    let (a, b) = (format!("tcp://{}", run.echo.address()), format!("tcp://{}", run.dead.address()));
    let row = |url: &str, total: u64| {
        json!({
            "url": url, "healthy": true, "state": "unchecked", "activeConnections": 0, "totalRequests": total,
        })
    };
    let shape = json!({ "backends": [row(&a, SERVED), row(&b, 0), row(&b, 0)] });
    assert_eq!(run.ask("/lb/status"), (200, shape));

    let (_, mut metrics) = run.ask("/lb-metrics");
    let uptime = metrics["uptime_seconds"].take();
    assert!(uptime.as_u64().is_some_and(|seconds| seconds < 3600), "{uptime}");
    let average = metrics["avg_latency_ms"].take();
    assert!(average.as_f64().is_some_and(|ms| ms > 0.0 && ms < 60_000.0), "{average}");
    let row = |url: &str, total: u64, failures: u64| {
        json!({
            "url": url, "state": "unchecked", "active_connections": 0, "total_requests": total,
            "total_failures": failures, "last_checked": null,
        })
    };
    let shape = json!({
        "uptime_seconds": null, "avg_latency_ms": null,
        "total_requests": SERVED + REFUSED, "success_requests": SERVED, "failed_requests": REFUSED,
        "retry_attempts": RETRIED, "healthy_backends": 3, "unchecked_backends": 3,
        "total_backends": 3,
        "backends": [row(&a, SERVED, 0), row(&b, 0, RETRIED), row(&b, 0, REFUSED)],
    });
    assert_eq!(metrics, shape);
}

#[test]
fn the_api_says_what_happened() {
    let run = run();
    let metrics = run.data("/api/metrics");
    let numbers = ["totalRequests", "successfulRequests", "failedRequests", "retries", "bytesIn", "bytesOut"];
    let expected = [SERVED + REFUSED, SERVED, REFUSED, RETRIED, 10 * SERVED, 10 * SERVED];
    assert_eq!(numbers.map(|key| metrics[key].as_u64().unwrap()), expected, "{metrics}");
    assert_eq!((&metrics["activeServers"], &metrics["unhealthyServers"]), (&json!(3), &json!(0)));
    assert_eq!(metrics["algorithm"], "ip_hash, round_robin");
    assert!(metrics["averageResponseTime"].as_f64().unwrap() > 0.0, "{metrics}");
    let rate = metrics["requestsPerSecond"].as_f64().unwrap();
    assert!(rate > 0.0 && rate <= (SERVED + REFUSED) as f64 / 10.0, "{rate}");

    let servers = run.data("/api/metrics/servers");
    let of = |place: usize, key: &str| servers[place][key].as_u64().unwrap();
    assert_eq!([of(0, "totalRequests"), of(0, "failedRequests"), of(0, "retries")], [SERVED, 0, 0]);
    assert_eq!([of(1, "totalRequests"), of(1, "failedRequests"), of(1, "retries")], [0, RETRIED, RETRIED]);
    assert_eq!([of(2, "totalRequests"), of(2, "failedRequests"), of(2, "retries")], [0, REFUSED, 0]);
    assert_eq!(servers[0]["responseTime"]["count"], SERVED, "one turnaround each");

    let requests = run.data("/api/metrics/requests");
    assert_eq!(requests["listeners"][0]["connectionEnds"], json!({ "client closed": SERVED }));
    assert_eq!(requests["listeners"][1]["connectionEnds"], json!({ "rejected: connect failed": REFUSED }));

    let listed = run.data("/api/servers");
    let port = run.echo.address().port();
    assert_eq!((&listed[0]["id"], &listed[0]["port"], &listed[2]["id"]), (&json!("p/a"), &json!(port), &json!("q/b")));
    assert_eq!(run.data("/api/servers/p%2Fb/health")["status"], "unchecked");
    assert_eq!(run.data("/api/servers/a/health")["id"], "p/a");
    assert_eq!(run.data("/api/algorithms").as_array().unwrap().len(), 6);
    assert_eq!(run.data("/api/config")["pools"][1]["balance"], "ip_hash");
    assert_eq!(run.data("/api/health")["status"], "healthy");
    for (path, error) in [
        ("/api/servers/b/health", "several servers are called `b`: p/b, q/b"),
        ("/api/servers/c/health", "there is no server `c`: /api/servers lists them, by pool/name"),
        ("/api/anything", "there is nothing at /api/anything"),
    ] {
        assert_eq!(run.ask(path), (404, json!({ "success": false, "error": error })), "{path}");
    }
}

/// `config` shows neither the token nor where it is.
#[test]
fn the_token_is_asked_for_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("hidden-token");
    std::fs::write(&token, "open-sesame\n").unwrap();
    let backend = Backend::named("a");
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"127.0.0.1:0\", token_file: \"{}\" }}\n\
         listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: \"{}\" }}] }}]\n",
        token.display(),
        backend.address()
    ));
    let place = tidegate.stats_port();
    assert_eq!(get(&place, "/api/config").status, 401);
    let answer = crate::support::stats::get_with(&place, "/api/config", "Authorization: Bearer open-sesame\r\n");
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("sesame") && !answer.text().contains("hidden-token"), "{}", answer.text());
    assert_eq!(answer.json()["data"]["pools"][0]["backends"][0]["address"], backend.address().to_string());
}
