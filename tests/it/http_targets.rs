//! `protocol: http`: targets that no URI has.

use std::io::Write;

use crate::support::backend::Scripted;
use crate::support::client::{connect, read_to_end};
use crate::support::http::stats;
use crate::support::http1::HTTP;
use crate::support::stats::ADMIN;
use crate::support::tidegate::{Tidegate, forward};

#[test]
fn target_that_is_no_uri_is_answered_logged_and_counted() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(scripted.place(), HTTP, "")));
    let targets = ["/<", "/a`", "/?\"", "http://a%41/", "http://[::1/", "//\u{7f}"];
    for target in targets {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let (bytes, _) = read_to_end(&mut client);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 "), "{target}: {text}");
        assert!(text.ends_with("{\"error\":\"invalid character in the request target\"}"), "{target}: {text}");
    }
    let view = stats(&tidegate);
    let endings = view["listeners"][0]["terminations"].as_array().unwrap();
    let count = endings.iter().find(|it| it["reason"] == "rejected: bad HTTP request").map(|it| &it["count"]);
    assert_eq!(count, Some(&targets.len().into()), "{endings:?}");
    tidegate.wait_for_access("a line", |line| line.end() == "rejected: bad HTTP request");
    assert_eq!(
        tidegate.access().iter().filter(|line| line.end() == "rejected: bad HTTP request").count(),
        targets.len()
    );
}
