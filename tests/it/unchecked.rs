//! A backend without health checks is `unchecked` wherever a state is shown, and never `up`.

use std::process::Command;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::Tidegate;

/// A pool with checks and one without, a backend each.
fn start() -> (Tidegate, [Backend; 2]) {
    let backends = ["one", "two"].map(Backend::named_and_open);
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners:\n\
         \x20 - {{ name: in, bind: 127.0.0.1:0, pool: checked }}\n\
         \x20 - {{ name: in2, bind: 127.0.0.1:0, pool: bare }}\n\
         pools:\n\
         \x20 - {{ name: checked, health: {{ tcp: {{}}, interval: 100ms }}, backends: [{{ name: one, address: \"{}\" }}] }}\n\
         \x20 - {{ name: bare, backends: [{{ name: two, address: \"{}\" }}] }}\n",
        backends[0].place(),
        backends[1].place()
    ));
    tidegate.wait_for_up("one");
    (tidegate, backends)
}

fn command(tidegate: &Tidegate, arguments: &[&str]) -> String {
    let stats = tidegate.stats_port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(arguments).args(["--stats", &stats]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn unchecked_is_shown_in_every_form() {
    let (tidegate, _backends) = start();
    let port = tidegate.stats_port();
    let ask = |path: &str| get(&port, path).json();
    // Each place where a state is, of the backend with checks and of the one without.
    let stats = ask("/stats");
    let plain = ask("/lb/status");
    let metrics = ask("/lb-metrics");
    let servers = ask("/api/servers");
    let measured = ask("/api/metrics/servers");
    let one = |place: usize, value: &Value| value[place].clone();
    for (what, said, words) in [
        ("/stats", [0, 1].map(|n| stats["pools"][n]["backends"][0]["status"].clone()), ["up", "unchecked"]),
        ("/stats, pools", [0, 1].map(|n| stats["pools"][n]["status"].clone()), ["up", "unchecked"]),
        ("/lb/status", [0, 1].map(|n| one(n, &plain["backends"])["state"].clone()), ["healthy", "unchecked"]),
        ("/lb-metrics", [0, 1].map(|n| one(n, &metrics["backends"])["state"].clone()), ["healthy", "unchecked"]),
        ("/api/servers", [0, 1].map(|n| one(n, &servers["data"])["status"].clone()), ["healthy", "unchecked"]),
        ("/api/metrics/servers", [0, 1].map(|n| one(n, &measured["data"])["status"].clone()), ["healthy", "unchecked"]),
        (
            "/api/servers/NAME/health",
            ["one", "two"].map(|name| ask(&format!("/api/servers/{name}/health"))["data"]["status"].clone()),
            ["healthy", "unchecked"],
        ),
    ] {
        assert_eq!(said, words.map(Value::from), "{what}");
    }
    assert_eq!(metrics["unchecked_backends"], 1);
    assert_eq!(
        (&ask("/api/health")["data"]["uncheckedServers"], &ask("/api/metrics")["data"]["uncheckedServers"]),
        (&1.into(), &1.into())
    );

    // As HAProxy has it.
    let table = get(&port, "/stats;csv").text();
    let row = |start: &str| table.lines().find(|line| line.starts_with(start)).expect("a row").split(',').nth(17);
    assert_eq!((row("checked,one,"), row("bare,two,")), (Some("UP"), Some("no check")));
    let text = get(&port, "/metrics").text();
    for line in [
        "tidegate_backend_up{pool=\"checked\",backend=\"one\"} 1",
        "tidegate_backend_up{pool=\"bare\",backend=\"two\"} 1",
        "tidegate_backend_checked{pool=\"checked\",backend=\"one\"} 1",
        "tidegate_backend_checked{pool=\"bare\",backend=\"two\"} 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }

    let explained = command(&tidegate, &["explain", "--client", "192.0.2.1"]);
    assert!(explained.contains("up, no connections") && explained.contains("unchecked, no connections"), "{explained}");
    let top = command(&tidegate, &["top", "--once"]);
    let states: Vec<&str> = top.lines().skip(3).filter_map(|line| line[19..].split_whitespace().next()).collect();
    assert_eq!(states.len(), 4, "{top}");
    let top: Value = serde_json::from_str(&command(&tidegate, &["top", "--once", "--json"])).unwrap();
    let states = [0, 1, 2, 3].map(|row| top["rows"][row]["state"].clone());
    assert_eq!(states, ["up", "up", "unchecked", "unchecked"].map(Value::from));
}

/// A backend without checks whose name has no address takes no connections, and that is known.
#[test]
fn unchecked_name_that_does_not_resolve_is_down() {
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"nowhere.invalid:80\" }}] }}]\n"
    ));
    tidegate.wait_for_log("that the name does not resolve", |line| line.is("name does not resolve"));
    let stats = get(&tidegate.stats_port(), "/stats").json();
    assert_eq!(stats["pools"][0]["backends"][0]["status"], "down");
    assert_eq!(stats["pools"][0]["status"], "down");
}
