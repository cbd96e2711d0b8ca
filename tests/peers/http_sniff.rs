//! `sniff: http`: what is counted of requests that real clients make to real servers, and that no byte of them changes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Command;

use crate::support::client::Place;
use crate::support::data::{receive, send};
use crate::support::http::{Seen, WATCHED, ended, observed, responses, seen, seen_everywhere, stats};
use crate::support::peer::Peer;
use crate::support::process::require;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, terminate};

/// nginx with a small file, a large one, and something it logs each request to.
fn nginx() -> Peer {
    let peer = Peer::nginx(|at| {
        format!(
            "http {{ keepalive_requests 1000000; client_max_body_size 0; server {{ listen {at}; root .; log_not_found off; \
             location = /small {{ return 200 hello; }} location / {{ access_log requests; }} }} }}"
        )
    });
    fs::write(peer.directory.path().join("small.txt"), "hello\n".repeat(100)).unwrap();
    peer
}

/// Requests that nginx has logged.
fn logged(nginx: &Peer) -> u64 {
    let log = fs::read_to_string(nginx.directory.path().join("requests")).unwrap_or_default();
    log.lines().count() as u64
}

fn run(program: &str, package: &str, arguments: &[&str]) -> String {
    require(program, package);
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `h2load` says of HTTP/1.1, with pipelining; all requests are answered.
fn h2load(place: &Place, path: &str, requests: u64, clients: u64, pipelined: u64) -> String {
    let url = format!("http://{place}{path}");
    let [n, c, m] = [requests, clients, pipelined].map(|number| number.to_string());
    let said = run("h2load", "nghttp2-client", &["--h1", "-n", &n, "-c", &c, "-m", &m, "-t", "1", &url]);
    assert!(said.contains(&format!("{requests} total, {requests} started, {requests} done")), "{said}");
    said
}

#[test]
fn requests_of_h2load_are_counted_exactly_with_keep_alive_and_pipelining() {
    let nginx = nginx();
    let tidegate = observed(&forward(nginx.place(), WATCHED, ""));
    let at = tidegate.at("in");
    let said = h2load(&at, "/small.txt", 20_000, 25, 1);
    assert!(said.contains("status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    let said = h2load(&at, "/small.txt", 20_000, 10, 16);
    assert!(said.contains("status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    let said = h2load(&at, "/missing", 1_000, 5, 8);
    assert!(said.contains("status codes: 0 2xx, 0 3xx, 1000 4xx, 0 5xx"), "{said}");
    let url = format!("http://{at}/small.txt");
    run("curl", "curl", &["-sS", "--head", "-o", "/dev/null", &url, "-o", "/dev/null", &url]);
    let wanted = Seen {
        requests: 41_002,
        responses: responses(&[("GET 2xx", 40_000), ("GET 4xx", 1_000), ("HEAD 2xx", 2)]),
        ..Seen::default()
    };
    assert_eq!(seen_everywhere(&tidegate), wanted);
    assert_eq!(logged(&nginx), 41_002, "nginx counts the same");
}

#[test]
fn requests_of_wrk_over_many_connections_are_counted_exactly() {
    const CONNECTIONS: u64 = 200;
    let nginx = nginx();
    let tidegate = observed(&forward(nginx.place(), WATCHED, ""));
    let url = format!("http://{}/small.txt", tidegate.at("in"));
    let said = run("wrk", "wrk", &["-t", "2", "-c", &CONNECTIONS.to_string(), "-d", "2s", &url]);
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let line = said.lines().find(|line| line.contains(" requests in ")).expect("the total");
    let completed: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    let seen = seen_everywhere(&tidegate);
    // When its time is over, wrk closes each connection on which it waits for an answer.
    assert!((completed..=completed + CONNECTIONS).contains(&seen.requests), "{completed}: {seen:?}");
    let answered = seen.requests - seen.unanswered;
    assert_eq!((seen.opaque, seen.responses), (0, responses(&[("GET 2xx", answered)])));
    assert!((answered..=answered + seen.unanswered).contains(&logged(&nginx)), "{answered}: {}", logged(&nginx));
}

/// Pipes that a process has.
fn pipes(tidegate: &Tidegate) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", tidegate.pid())).unwrap();
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

#[test]
fn downloads_and_uploads_are_unchanged_and_go_by_pipe() {
    const SIZE: u64 = 64_000_000;
    let nginx = nginx();
    let large = nginx.directory.path().join("large");
    let sum = send(&mut File::create(&large).unwrap(), 7, SIZE).unwrap();
    let tidegate = observed(&forward(nginx.place(), WATCHED, ""));
    let before = pipes(&tidegate);
    let at = tidegate.at("in");
    let [first, second] = ["first", "second"].map(|name| nginx.directory.path().join(name));
    let [url, small] = ["large", "small.txt"].map(|path| format!("http://{at}/{path}"));
    let paths = [&first, &second].map(|path| path.to_str().unwrap());
    // On one connection: the small one in the middle is found behind the large one's last byte.
    let arguments = ["-sS", "-o", paths[0], &url, "-o", "/dev/null", &small, "-o", paths[1], &url];
    run("curl", "curl", &arguments);
    for file in [&first, &second] {
        assert_eq!(receive(&mut File::open(file).unwrap()).unwrap(), sum);
    }
    assert!(pipes(&tidegate) > before, "what need not be seen goes by splice");
    // nginx reads it all before it refuses the method.
    let upload = format!("@{}", large.display());
    run("curl", "curl", &["-sS", "-o", "/dev/null", "-H", "Expect:", "--data-binary", &upload, &small]);
    let wanted = Seen { requests: 4, responses: responses(&[("GET 2xx", 3), ("POST 4xx", 1)]), ..Seen::default() };
    assert_eq!(seen_everywhere(&tidegate), wanted);
    let stats = stats(&tidegate);
    assert_eq!(stats["listeners"][0]["accepted"], 2);
    let bytes_out = stats["listeners"][0]["bytes_out"].as_u64().unwrap();
    assert!((2 * SIZE..2 * SIZE + 10_000).contains(&bytes_out), "{bytes_out}");
}

#[test]
fn requests_over_tls_are_counted_too() {
    let nginx = nginx();
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let tidegate = observed(&terminate(nginx.place(), &[&issued], "", WATCHED));
    let tls = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
    let body = "hello\n".repeat(100);
    for _ in 0..10 {
        (&tls).write_all(b"GET /small.txt HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut response = Vec::new();
        while !response.ends_with(body.as_bytes()) {
            let mut byte = [0];
            (&tls).read_exact(&mut byte).unwrap();
            response.push(byte[0]);
        }
    }
    drop(tls);
    let wanted = Seen { requests: 10, responses: responses(&[("GET 2xx", 10)]), ..Seen::default() };
    assert_eq!(seen_everywhere(&tidegate), wanted);
}

#[test]
fn what_is_not_to_be_watched_is_not() {
    let nginx = nginx();
    let tidegate = observed(&forward(nginx.place(), "sniff: off", ""));
    h2load(&tidegate.at("in"), "/small.txt", 100, 2, 2);
    ended(&tidegate);
    let stats = stats(&tidegate);
    assert_eq!(stats["listeners"][0]["sniffs_http"], false);
    assert_eq!(seen(&stats["listeners"][0]["http"]), Seen::default());
}
