//! Malformed and ambiguous requests: the answer of tidegate, and what nginx and HAProxy do with the same bytes.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::support::client::{Place, connect};
use crate::support::peer::Peer;
use crate::support::tidegate::Tidegate;
use crate::support::web::{balance_requests, nginx_named};

/// The table of the gate's own tests.
#[path = "../../src/http/gate/tests/malformed.rs"]
mod malformed;

use malformed::MALFORMED;

/// A server that has said nothing for so long waits for more.
const SILENCE: Duration = Duration::from_secs(1);

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http-malformed.md");

/// The status of the first response; `closed` without one, and `waits` for more bytes.
fn answer(at: SocketAddr, request: &[u8]) -> String {
    let mut client = connect(&Place::Tcp(at));
    client.set_read_timeout(Some(SILENCE)).unwrap();
    // The server may have had enough before the end.
    let _ = client.write_all(request);
    let mut response = Vec::new();
    let mut part = [0; 4096];
    loop {
        match client.read(&mut part) {
            Ok(0) => break,
            Ok(count) => response.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(_) => break,
        }
        if response.contains(&b'\n') {
            break;
        }
    }
    let text = String::from_utf8_lossy(&response);
    match text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)) {
        Some(status) => status.to_owned(),
        None if !text.is_empty() => "a body without a head".to_owned(),
        None if client.read(&mut part).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) => {
            "waits".to_owned()
        }
        None => "closed".to_owned(),
    }
}

fn answers(at: SocketAddr) -> Vec<String> {
    MALFORMED.iter().map(|(_, request, _)| answer(at, request)).collect()
}

#[test]
fn malformed_requests_are_refused_and_what_others_do_is_known() {
    let backend = nginx_named("ok", "");
    let nginx = Peer::nginx(|at| {
        format!(
            "http {{ server {{ listen {at}; location / {{ proxy_http_version 1.1; proxy_set_header Connection ''; \
             proxy_pass http://{}; }} }} }}",
            backend.place()
        )
    });
    let haproxy = Peer::haproxy(|at| {
        format!("listen in\n mode http\n timeout http-request 60s\n bind {at}\n server b {}\n", backend.place())
    });
    let tidegate = Tidegate::start(&balance_requests(&[backend.place()], "", ""));
    let places = [tidegate.at("in").tcp(), nginx.place().tcp(), haproxy.place().tcp()];
    let [own, nginx, haproxy] =
        places.map(|at| thread::spawn(move || answers(at))).map(|thread| thread.join().expect("all were asked"));
    let mut rows = String::new();
    for (number, (name, request, status)) in MALFORMED.iter().enumerate() {
        assert_eq!(own[number], status.to_string(), "{name}: {}", request.escape_ascii());
        let shown: String = request.escape_ascii().to_string().chars().take(120).collect();
        let shown = shown.replace('|', "\\|").replace('`', "'");
        let (nginx, haproxy) = (&nginx[number], &haproxy[number]);
        let _ = writeln!(rows, "| {name} | `{shown}` | {status} | {nginx} | {haproxy} |");
    }
    let taken = |answers: &[String]| answers.iter().filter(|answer| answer.starts_with('2')).count();
    let page = format!(
        "# Malformed requests\n\n\
         What `protocol: http` answers to malformed and ambiguous requests, and what nginx 1.22 and HAProxy 2.6 of Debian 12 do with \
         the same bytes, each as a proxy in front of nginx. `waits`: it wants more bytes; `closed`: it closes without an \
         answer. Of these {} requests, nginx takes {} and HAProxy {}: their backends have to read them in the same way.\n\n\
         <!-- Made by a test: TIDEGATE_BLESS=1 cargo nextest run --test peers http_mode_malformed -->\n\n\
         | rule | request | tidegate | nginx | HAProxy |\n|---|---|---|---|---|\n{rows}",
        MALFORMED.len(),
        taken(&nginx),
        taken(&haproxy)
    );
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(TABLE, &page).unwrap();
    }
    // Columns of others are those of the versions that the page names.
    let kept = fs::read_to_string(TABLE).unwrap_or_default();
    let own_columns = |page: &str| -> Vec<String> {
        page.lines()
            .filter(|line| line.starts_with("| "))
            .map(|line| line.rsplitn(3, " | ").last().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(own_columns(&kept), own_columns(&page), "{TABLE} is out of date");
}
