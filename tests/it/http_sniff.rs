//! `sniff: http`: what is counted of requests that real clients make to real servers, and that no byte of them changes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::support::backend::Scripted;
use crate::support::client::{Place, connect, expect, read_to_end};
use crate::support::data::{receive, send};
use crate::support::peer::Peer;
use crate::support::process::require;
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, terminate};
use crate::support::{DEADLINE, eventually};

const WATCHED: &str = "sniff: http";

/// With the stats port.
pub(crate) fn observed(yaml: &str) -> Tidegate {
    Tidegate::start(&format!("{ADMIN}{yaml}"))
}

/// What the stats port says.
fn stats(tidegate: &Tidegate) -> Value {
    get(&tidegate.stats_port(), "/stats").json()
}

/// What was seen of HTTP.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) unanswered: u64,
    pub(crate) opaque: u64,
    /// `GET 2xx`, and how many.
    pub(crate) responses: Vec<(String, u64)>,
}

fn seen(http: &Value) -> Seen {
    let Some(http) = http.as_object() else { return Seen::default() };
    let number = |value: &Value| value.as_u64().expect("a number");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let responses = http["responses"].as_array().expect("a list");
    Seen {
        requests: number(&http["requests"]),
        unanswered: number(&http["no_response"]),
        opaque: number(&http["passthrough"]),
        responses: responses
            .iter()
            .map(|of| (format!("{} {}", text(&of["method"]), text(&of["class"])), number(&of["count"])))
            .collect(),
    }
}

/// Of the listener `in`, once its connections have ended.
pub(crate) fn seen_by_listener(tidegate: &Tidegate) -> Seen {
    ended(tidegate);
    seen(&stats(tidegate)["listeners"][0]["http"])
}

fn ended(tidegate: &Tidegate) {
    eventually(DEADLINE, "no connection is open", || stats(tidegate)["listeners"][0]["open"] == 0);
}

/// The listener's and its backend's, which are the same, and times of each answer.
fn seen_everywhere(tidegate: &Tidegate) -> Seen {
    let listener = seen_by_listener(tidegate);
    let stats = stats(tidegate);
    assert_eq!(stats["listeners"][0]["sniffs_http"], true);
    let backend = &stats["pools"][0]["backends"][0];
    assert_eq!(seen(&backend["http"]), listener);
    for stage in ["http_first_byte", "http_response"] {
        for owner in [&stats["listeners"][0], backend] {
            let timed = owner["latency"][stage]["all"]["count"].as_u64().unwrap_or_default();
            assert_eq!(timed, listener.requests - listener.unanswered, "{stage}");
        }
    }
    listener
}

fn responses(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(of, count)| ((*of).to_owned(), *count)).collect()
}

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
    const SIZE: u64 = 200_000_000;
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
fn what_goes_on_as_something_else_passes_unchanged_and_is_counted_as_opaque() {
    let scripted = Scripted::start();
    let tidegate = observed(&forward(scripted.place(), WATCHED, ""));
    let converse = |request: &str, response: &str| {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(request.as_bytes()).unwrap();
        let mut backend = scripted.accept();
        expect(&mut backend, request.as_bytes());
        backend.write_all(response.as_bytes()).unwrap();
        expect(&mut client, response.as_bytes());
        for round in 0..3_u8 {
            let frame = [0x82, 2, round, 0xff];
            client.write_all(&frame).unwrap();
            expect(&mut backend, &frame);
            backend.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            expect(&mut client, b"HTTP/1.1 200 OK\r\n\r\n");
        }
    };
    converse(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    converse("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "HTTP/1.1 200 Connection established\r\n\r\n");
    converse("EHLO example.com\r\n", "250-example.com\r\n250 HELP\r\n");
    let wanted =
        Seen { requests: 2, opaque: 3, responses: responses(&[("GET 1xx", 1), ("CONNECT 2xx", 1)]), ..Seen::default() };
    assert_eq!(seen_everywhere(&tidegate), wanted);
}

#[test]
fn requests_that_get_no_answer_are_counted_as_that() {
    let scripted = Scripted::start();
    let tidegate = observed(&forward(scripted.place(), WATCHED, ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT").unwrap();
    let mut backend = scripted.accept();
    expect(&mut backend, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT");
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    drop(backend);
    assert!(read_to_end(&mut client).0.ends_with(b"01234"));
    drop(client);
    let wanted = Seen { requests: 2, unanswered: 2, ..Seen::default() };
    assert_eq!(seen_everywhere(&tidegate), wanted);
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

/// The address of a place, for clients that make URLs of it.
pub(crate) fn address(tidegate: &Tidegate) -> SocketAddr {
    tidegate.at("in").tcp()
}

/// What is left of a connection to be read.
pub(crate) fn rest(mut stream: TcpStream) -> String {
    String::from_utf8(read_to_end(&mut stream).0).unwrap()
}
