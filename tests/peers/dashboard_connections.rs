//! The dashboard's list of open connections, in a real browser.

use std::io::{Read, Write};

use serde_json::Value;

use super::dashboard::{NASTY, is_hidden, open, screenshots, texts, wait_for};
use crate::support::backend::Backend;
use crate::support::browser::Browser;
use crate::support::client::connect;
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;

#[test]
fn connections_are_listed_while_the_list_is_open() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}, {{ name: other, bind: \"127.0.0.1:0\", pool: q }}]\n\
         pools:\n  - {{ name: p, backends: [{{ name: one, address: \"{0}\" }}] }}\n\
         \x20 - {{ name: q, backends: [{{ name: {1}, address: \"{0}\" }}] }}\n",
        backend.place(),
        Value::from(NASTY),
    ));
    let at = tidegate.stats_port().tcp();
    let mut first = connect(&tidegate.at("in"));
    first.write_all(b"0123456789").unwrap();
    first.read_exact(&mut [0; 10]).unwrap();
    // After the answer, by which the first has been accepted: another worker accepts this one.
    let second = connect(&tidegate.at("other"));
    let browser = Browser::start();
    open(&browser, at, "2");
    let asked = || browser.requests().iter().filter(|url| url.contains("/api/connections")).count();
    assert_eq!(asked(), 0, "closed, it asks for nothing");

    browser.run("document.querySelector('#connections summary').click()");
    let count = |text: &str| {
        wait_for(&browser, &format!("document.getElementById('connections-count').textContent === '{text}'"));
    };
    count("2 connections");
    let clients = [&first, &second].map(|client| client.local_addr().unwrap().to_string());
    assert_eq!(texts(&browser, "#connections-table tbody th"), clients, "the oldest first");
    let cells = texts(&browser, "#connections-table tbody tr:first-child td");
    assert_eq!(
        (&cells[..3], &cells[5..8]),
        (&["in", "p", "one"].map(str::to_owned)[..], &["10 B", "10 B", "–"].map(str::to_owned)[..])
    );
    assert_eq!(texts(&browser, "#connections-table tbody tr:last-child td")[2], NASTY);
    assert_eq!(texts(&browser, "#connections-pool option"), ["all", "p", "q"]);

    let field = |id: &str, value: &str| {
        browser.run(&format!(
            "const field = document.getElementById('connections-{id}'); field.value = '{value}'; field.dispatchEvent(new Event('input'))"
        ));
    };
    field("pool", "p");
    count("1 connection");
    field("pool", "");
    field("client", "10.0.0.0/8");
    count("0 connections");
    field("client", "me");
    wait_for(
        &browser,
        "document.getElementById('connections-error').textContent.startsWith('client: `me` is no address')",
    );
    field("client", "127.0.0.1");
    count("2 connections");
    assert!(is_hidden(&browser, "#connections-error"));
    // By itself, a connection that has gone leaves the list.
    drop(second);
    count("1 connection");
    browser.screenshot(&screenshots("connections.png"), true);

    browser.run("document.querySelector('#connections summary').click()");
    wait_for(&browser, "!document.getElementById('connections').open");
    // What it asked until now.
    assert!(asked() > 0);
    browser.run_async("return await new Promise((resolve) => setTimeout(resolve, 3500))");
    assert_eq!(asked(), 0, "closed again, it asks for nothing more");
    // The answer to what is no address is an error, and the browser says so.
    let console = browser.console();
    assert!(console.iter().all(|line| line.contains("400 (Bad Request)")), "{console:?}");
}
