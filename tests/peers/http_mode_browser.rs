//! A browser over HTTP/2, in front of backends of HTTP/1.1.

use std::fs;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::browser::Browser;
use crate::support::http::{observed, stats};
use crate::support::peer::Peer;
use crate::support::web::{answered, balance_requests, nginx, over_tls};

#[test]
fn chromium_loads_a_page_and_its_parts_over_http_2() {
    const PARTS: usize = 24;
    let peers =
        [(); 2].map(|()| nginx("", "location / { add_header Cache-Control no-store; default_type text/html; }"));
    let parts: String = (0..PARTS).map(|number| format!("<script src=\"/part-{number}.js\"></script>")).collect();
    for peer in &peers {
        let folder = peer.directory.path();
        let page = format!("<!doctype html><link rel=icon href=data:,><title>page</title>{parts}");
        fs::write(folder.join("index.html"), page).unwrap();
        for number in 0..PARTS {
            let script = format!("window.parts = (window.parts || 0) + 1; // {}", "x".repeat(number * 1000));
            fs::write(folder.join(format!("part-{number}.js")), script).unwrap();
        }
    }
    let authority = Authority::new();
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    let places = peers.each_ref().map(Peer::place);
    let tidegate = observed(&balance_requests(&places, &over_tls(&issued), ""));

    // It trusts no authority of a test's.
    let browser = Browser::start_with(&["--ignore-certificate-errors"]);
    browser.open(&format!("https://{}/", tidegate.at("in")));
    assert_eq!(browser.run("return window.parts"), PARTS);
    let script = "return performance.getEntries().filter((entry) => 'nextHopProtocol' in entry).map((entry) => entry.nextHopProtocol)";
    let protocols = browser.run(script);
    let protocols: Vec<&str> = protocols.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(protocols, vec!["h2"; 1 + PARTS]);
    let of_each = peers.each_ref().map(answered);
    assert_eq!(of_each.iter().sum::<u64>(), 1 + PARTS as u64, "{of_each:?}");
    assert!(of_each.iter().all(|count| *count >= PARTS as u64 / 2), "{of_each:?}");
    assert_eq!(stats(&tidegate)["listeners"][0]["http"]["requests"], 1 + PARTS);
}
