//! One shape of log and access lines as JSON: one reader parses both.

use crate::support::backend::Backend;
use crate::support::client::{connect, read_to_end};
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;
use serde_json::Value;

/// `2009-02-06T12:14:14.655Z`.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
fn every_line_has_its_time_type_and_level_and_shared_keys_mean_the_same() {
    let backend = Backend::named("b");
    let mut tidegate = Tidegate::with(&format!(
        "{ADMIN}listeners: [{{ name: 'i \"n\" ä', bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}], health: {{ tcp: {{}} }} }}]\n",
        backend.address()
    ))
    .log("{ level: debug, format: json, access: stderr }")
    .start();
    assert_eq!(read_to_end(&mut connect(&tidegate.at("i \"n\" ä"))).0, b"b");
    tidegate.wait_for_log("the access line", |line| line.field("type") == "access");
    tidegate.terminate();
    assert!(tidegate.wait().success());

    let lines = tidegate.logs();
    for line in &lines {
        let object: serde_json::Map<String, Value> = serde_json::from_str(&line.text).expect("an object");
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        assert!(is_time(&line.field("time")), "{line:?}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&&*line.field("level")), "{line:?}");
        match &*line.field("type") {
            "log" => assert!(object["message"].is_string() && !keys.contains(&"timestamp"), "{line:?}"),
            "access" => assert!(object["reason"].is_string() && line.level() == "INFO", "{line:?}"),
            _ => panic!("{line:?}"),
        }
        // In the order in which a person reads them.
        assert!(line.text.starts_with("{\"time\":\""), "{line:?}");
        for key in ["listener", "pool", "backend", "client", "reason", "error"] {
            assert!(object.get(key).is_none_or(|value| value.is_string() || value.is_null()), "{key} of {line:?}");
        }
    }
    let of = |kind: &str| lines.iter().filter(|line| line.field("type") == kind).count();
    assert_eq!((of("access"), of("access") + of("log")), (1, lines.len()));
    let listening = lines.iter().find(|line| line.is("listening")).expect("it listens");
    assert_eq!(listening.field("listener"), "i \"n\" ä");
}
