//! A pool's percentiles are those of all its traffic.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::backend::{Backend, in_thread};
use crate::support::client::{connect, expect};
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// One turn of round robin by weight 9:1, twice.
const CONNECTIONS: u64 = 20;

fn answering_after(pause: Duration) -> Backend {
    Backend::start(in_thread(move |mut stream: TcpStream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            thread::sleep(pause);
            if stream.write_all(&byte).is_err() {
                return;
            }
        }
    }))
}

#[test]
fn one_slow_backend_does_not_make_its_pool_slow() {
    let (fast, slow) = (answering_after(Duration::ZERO), answering_after(Duration::from_millis(500)));
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: fast, address: \"{}\", weight: 9 }}, {{ name: slow, address: \"{}\" }}] }}]\n",
        fast.place(),
        slow.place()
    ));
    for _ in 0..CONNECTIONS {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"x").unwrap();
        expect(&mut client, b"x");
    }
    let port = tidegate.stats_port();
    let mut stats = Value::Null;
    eventually(DEADLINE, "all have ended", || {
        stats = get(&port, "/stats").json();
        stats["listeners"][0]["ended"] == CONNECTIONS
    });

    // Every connection of the only listener went to the only pool: both have measured the same.
    let (listener, pool) = (&stats["listeners"][0]["latency"], &stats["pools"][0]["latency"]);
    let mut compared = 0;
    for stage in ["connect", "first_byte", "turnaround", "session"] {
        for window in ["all", "10s", "1m", "5m"] {
            assert_eq!(pool[stage][window], listener[stage][window], "{stage} {window}");
            compared += u32::from(pool[stage][window].is_object());
        }
    }
    assert!(compared >= 12, "{pool}");
    let of = |value: &Value, name: &str| value["turnaround"]["all"][name].as_u64().expect("a number");
    let [fast, slow] = [0, 1].map(|n| &stats["pools"][0]["backends"][n]["latency"]);
    assert_eq!([fast, slow, pool].map(|it| of(it, "count")), [18, 2, 20]);
    assert_eq!(of(pool, "max_us"), of(slow, "max_us").max(of(fast, "max_us")));
    // Of 20, the tenth is none of the two slow ones.
    assert!(of(pool, "p50_us") <= of(fast, "max_us") * 101 / 100, "{pool} {fast}");

    // `top` says the same, also of a filtered view.
    let port_name = port.to_string();
    let arguments = ["top", "--once", "--json", "--window", "all", "--filter", "slow", "--stats", &port_name];
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap();
    let top: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&top["rows"][1]["backend"], &top["rows"][2]), (&"slow".into(), &Value::Null));
    let row = &top["rows"][0];
    let names = ["p50_us", "p99_us", "max_us"];
    assert_eq!(names.map(|name| row[name].as_u64()), names.map(|name| Some(of(pool, name))));

    // So do the pages with histograms.
    let chosen = get(&port, "/histograms?pool=p&stage=turnaround&window=all").json();
    assert_eq!(
        (&chosen["pools"][0]["pool"], &chosen["pools"][0]["latency"]["turnaround"]),
        (&"p".into(), &serde_json::json!({ "all": pool["turnaround"]["all"] }))
    );
    let log = get(&port, "/histograms?format=hdr&pool=p&stage=turnaround").text();
    assert!(log.lines().any(|line| line.starts_with("Tag=pool/p/turnaround,")), "{log}");
    let answer = get(&port, "/series?pool=0&stage=turnaround");
    assert_eq!(answer.status, 200);
    assert!(answer.json()["seconds"].is_array());
}
