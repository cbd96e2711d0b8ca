//! `protocol: http` under real clients: whose turn it is, what is counted, and what the death of a backend costs.

use std::collections::BTreeMap;
use std::thread;

use rustix::process::Signal;

use crate::support::authority::Authority;
use crate::support::client::Place;
use crate::support::http::{seen_by_listener, stats};
use crate::support::peer::Peer;
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;
use crate::support::web::{answered, balance_requests, curl, nginx_named, over_tls, printed};
use crate::support::{DEADLINE, eventually, python, tell};

fn three() -> [Peer; 3] {
    ["one", "two", "three"].map(|name| nginx_named(name, ""))
}

fn places(peers: &[Peer]) -> Vec<Place> {
    peers.iter().map(Peer::place).collect()
}

fn start(peers: &[Peer], listener: &str, pool: &str) -> Tidegate {
    Tidegate::start(&format!("{ADMIN}{}", balance_requests(&places(peers), listener, pool)))
}

/// Twenty names in turn.
fn in_turn() -> Vec<&'static str> {
    ["one", "two", "three"].into_iter().cycle().take(20).collect()
}

#[test]
fn requests_of_one_connection_of_python_go_to_the_backends_in_turn() {
    let peers = three();
    let tidegate = start(&peers, "", "");
    let script = "
import http.client, sys
client = http.client.HTTPConnection(sys.stdin.read(), timeout=60)
ports = set()
for _ in range(20):
    client.request('GET', '/')
    print(client.getresponse().read().decode())
    ports.add(client.sock.getsockname()[1])
assert len(ports) == 1, ports
";
    let said = python::run(script, tidegate.at("in").to_string().as_bytes());
    assert_eq!(said.lines().collect::<Vec<_>>(), in_turn());
    assert_eq!(stats(&tidegate)["listeners"][0]["accepted"], 1);
}

#[test]
fn requests_of_one_connection_of_curl_go_to_the_backends_in_turn_over_both_versions() {
    let (peers, authority) = (three(), Authority::new());
    let issued = authority.issue(&["127.0.0.1"]);
    for version in ["--http1.1", "--http2"] {
        let tidegate = start(&peers, &over_tls(&issued), "");
        let url = format!("https://{}/", tidegate.at("in"));
        let ca = authority.file();
        let mut arguments = vec![version, "--cacert", ca.to_str().unwrap(), "-w", " %{http_version}\\n"];
        arguments.extend([url.as_str(); 20]);
        let said = curl(&arguments);
        let spoken = if version == "--http2" { " 2" } else { " 1.1" };
        assert_eq!(said.lines().map(|line| line.trim_end_matches(spoken)).collect::<Vec<_>>(), in_turn(), "{version}");
        assert_eq!(stats(&tidegate)["listeners"][0]["accepted"], 1, "{version}");
    }
}

/// `h2load`; no request fails.
fn h2load(arguments: &[&str], requests: u64) {
    let said = printed("h2load", "nghttp2-client", arguments);
    assert!(said.contains(&format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{said}");
    assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
}

#[test]
fn requests_of_h2load_are_answered_and_counted_exactly() {
    let peers = three();
    let tidegate = start(&peers, "", "");
    let url = format!("http://{}/", tidegate.at("in"));
    h2load(&["--h1", "-n", "6000", "-c", "20", &url], 6_000);
    h2load(&["--h1", "-n", "3000", "-c", "10", "-m", "8", &url], 3_000);
    h2load(&["-n", "9000", "-c", "10", "-m", "30", &url], 9_000);
    let seen = seen_by_listener(&tidegate);
    assert_eq!((seen.requests, seen.unanswered), (18_000, 0), "{seen:?}");
    assert_eq!(peers.each_ref().map(answered), [6_000; 3]);
}

#[test]
fn requests_of_h2load_to_backends_of_http_2_are_answered_and_shared_out() {
    let peers = ["one", "two", "three"].map(|name| nginx_named(name, "http2"));
    let tidegate = start(&peers, "", "http: { version: 2 }");
    let url = format!("http://{}/", tidegate.at("in"));
    h2load(&["--h1", "-n", "3000", "-c", "20", &url], 3_000);
    h2load(&["-n", "9000", "-c", "10", "-m", "30", &url], 9_000);
    let seen = seen_by_listener(&tidegate);
    assert_eq!((seen.requests, seen.unanswered), (12_000, 0), "{seen:?}");
    assert_eq!(peers.each_ref().map(answered), [4_000; 3]);
}

#[test]
fn requests_of_wrk_are_answered_and_counted() {
    const CONNECTIONS: u64 = 100;
    let peers = three();
    let tidegate = start(&peers, "", "");
    let url = format!("http://{}/", tidegate.at("in"));
    let said = printed("wrk", "wrk", &["-t", "2", "-c", &CONNECTIONS.to_string(), "-d", "2s", &url]);
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let line = said.lines().find(|line| line.contains(" requests in ")).expect("the total");
    let completed: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    let seen = seen_by_listener(&tidegate);
    // When its time is over, wrk closes each connection on which it waits for an answer.
    assert!((completed..=completed + CONNECTIONS).contains(&seen.requests), "{completed}: {seen:?}");
    let of_backends: u64 = peers.iter().map(answered).sum();
    let answered = seen.requests - seen.unanswered;
    assert!((answered..=answered + seen.unanswered).contains(&of_backends), "{of_backends}: {seen:?}");
}

/// Statuses of `count` requests by `clients` threads of Python, each with one kept connection, and how many have failed otherwise.
const LOAD: &str = "
import collections, http.client, sys, threading
address, method, clients, count = sys.stdin.read().split()
seen, lock = collections.Counter(), threading.Lock()
def run():
    client = http.client.HTTPConnection(address, timeout=60)
    for _ in range(int(count)):
        try:
            client.request(method, '/')
            answer = client.getresponse()
            answer.read()
            what = str(answer.status)
        except Exception as error:
            client.close()
            what = type(error).__name__
        with lock:
            seen[what] += 1
threads = [threading.Thread(target=run) for _ in range(int(clients))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for what, times in seen.items():
    print(what, times)
";

fn load(at: &Place, method: &str, clients: usize, count: usize) -> BTreeMap<String, u64> {
    let said = python::run(LOAD, format!("{at} {method} {clients} {count}").as_bytes());
    let pair = |line: &str| line.split_once(' ').map(|(what, times)| (what.to_owned(), times.parse().unwrap()));
    said.lines().filter_map(pair).collect()
}

fn statuses(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(what, times)| ((*what).to_owned(), *times)).collect()
}

/// What becomes of a request that waits for a backend when that is killed. `warm` requests came before, one after the other.
fn killed_under_a_request(method: &str, warm: usize, pool: &str, listen: &str) -> BTreeMap<String, u64> {
    let mut peers = ["one", "two"].map(|name| nginx_named(name, listen));
    let tidegate = Tidegate::start(&format!("{ADMIN}workers: 1\n{}", balance_requests(&places(&peers), "", pool)));
    let at = tidegate.at("in");
    if warm > 0 {
        assert_eq!(load(&at, "GET", 1, warm), statuses(&[("200", warm as u64)]));
    }
    peers[0].signal(Signal::STOP);
    let asking = thread::spawn({
        let (at, method) = (at.clone(), method.to_owned());
        move || load(&at, &method, 1, 1)
    });
    eventually(DEADLINE, "the request waits for the stopped backend", || {
        stats(&tidegate)["pools"][0]["backends"][0]["open"] == 1
    });
    peers[0].kill();
    asking.join().unwrap()
}

#[test]
fn a_get_under_way_on_a_reused_connection_is_repeated_when_its_backend_is_killed() {
    assert_eq!(killed_under_a_request("GET", 2, "", ""), statuses(&[("200", 1)]));
    assert_eq!(killed_under_a_request("HEAD", 2, "", ""), statuses(&[("200", 1)]));
    let http2 = "http: { version: 2 }";
    assert_eq!(killed_under_a_request("GET", 2, http2, "http2"), statuses(&[("200", 1)]));
}

#[test]
fn what_may_not_be_repeated_gets_502_when_its_backend_is_killed() {
    assert_eq!(killed_under_a_request("POST", 2, "", ""), statuses(&[("502", 1)]));
    // The first request of a connection.
    assert_eq!(killed_under_a_request("GET", 0, "", ""), statuses(&[("502", 1)]));
    assert_eq!(killed_under_a_request("GET", 2, "http: { retry: [connect] }", ""), statuses(&[("502", 1)]));
}

#[test]
fn gets_under_load_do_not_notice_that_a_backend_is_killed() {
    const CLIENTS: usize = 16;
    const EACH: usize = 500;
    for (listen, pool) in [("", ""), ("http2", "http: { version: 2 }")] {
        let mut peers = ["one", "two", "three"].map(|name| nginx_named(name, listen));
        let tidegate = start(&peers, "", pool);
        let at = tidegate.at("in");
        // Connections that are kept, enough for all clients.
        let url = format!("http://{at}/");
        h2load(&["-n", "3000", "-c", "4", "-m", "32", &url], 3_000);
        let before = answered(&peers[1]);
        let asking = thread::spawn({
            let at = at.clone();
            move || load(&at, "GET", CLIENTS, EACH)
        });
        eventually(DEADLINE, "the load is there", || answered(&peers[1]) > before + 200);
        peers[1].kill();
        let seen = asking.join().unwrap();
        let backend = &stats(&tidegate)["pools"][0]["backends"][1];
        tell(&format!(
            "a backend killed under {CLIENTS} clients ({pool:?}): {seen:?}; retries {}, failed connects {}, failures {}",
            backend["retries"], backend["connect_failures"], backend["failures"]
        ));
        assert_eq!(seen, statuses(&[("200", (CLIENTS * EACH) as u64)]));
    }
}
