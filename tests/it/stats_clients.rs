//! The stats port among clients that hold it up, that ask too much, or that were sent by a web page.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, read_to_end};
use crate::support::stats::{ADMIN, ask, get, get_with};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

/// The limits, as docs/limitations.md has them.
const STRANGERS: usize = 64;
const STREAMS: usize = 64;

const TOKEN: &str = "Authorization: Bearer s3cret\r\n";

/// A stats port that demands a token, and the token's file.
fn with_token() -> (Backend, Tidegate, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write_token(&folder.path().join("token"), "s3cret\n");
    let backend = Backend::echo();
    let yaml = format!(
        "admin: {{ bind: \"127.0.0.1:0\", token_file: {} }}\n{}",
        folder.path().join("token").display(),
        forward(backend.place(), "", "")
    );
    (backend, Tidegate::start(&yaml), folder)
}

/// As whatever manages secrets does: written beside it, then renamed.
fn write_token(path: &Path, token: &str) {
    let new = path.with_extension("new");
    fs::write(&new, token).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, path).unwrap();
}

/// Asks for events, and waits until the first one is there. The error is the answer instead.
fn watch(place: &Place, headers: &str) -> Result<TcpStream, String> {
    let mut stream = connect(place);
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).unwrap();
    let mut text = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..count]);
        if text.windows(11).any(|window| window == b"event: view") {
            return Ok(stream);
        }
        if count == 0 {
            return Err(String::from_utf8_lossy(&text).to_lowercase());
        }
    }
}

/// Whether the other side has not closed it. What has come is read.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// The fault: an orchestrator that gets no answer to its probe ends the process.
#[test]
fn probes_are_answered_beside_silent_clients_dashboards_and_scrapers() {
    let (_backend, tidegate, _folder) = with_token();
    let place = tidegate.stats_port();
    let mut dashboards: Vec<_> = (0..STREAMS).map(|_| watch(&place, TOKEN).unwrap()).collect();
    let mut silent: Vec<_> = (0..80).map(|_| connect(&place)).collect();
    thread::scope(|scope| {
        let scrapers: Vec<_> = (0..60)
            .map(|_| {
                let place = &place;
                scope.spawn(move || {
                    // As long as a scraper that waits for 10 s, which Prometheus does by default.
                    let asked = Instant::now();
                    let answer = get_with(place, "/metrics", TOKEN);
                    (answer.status, asked.elapsed() < Duration::from_secs(10))
                })
            })
            .collect();
        for _ in 0..10 {
            for probe in ["/livez", "/readyz"] {
                assert_eq!((get(&place, probe).status, &*get(&place, probe).text()), (200, "ok\n"), "{probe}");
            }
        }
        for scraper in scrapers {
            assert_eq!(scraper.join().unwrap(), (200, true));
        }
    });
    assert!(dashboards.iter_mut().all(is_open), "those who are admitted stay");
    assert!(silent.last_mut().is_some_and(is_open), "probes were answered before the silent clients were closed");
}

#[test]
fn silent_clients_have_few_places_and_little_time() {
    let (_backend, tidegate, _folder) = with_token();
    let place = tidegate.stats_port();
    let at_start = tidegate.open_files();
    let mut silent: Vec<_> = (0..STRANGERS + 20).map(|_| connect(&place)).collect();
    eventually(DEADLINE, "the first ones make room", || !silent[..20].iter_mut().any(is_open));
    assert!(tidegate.open_files() <= at_start + STRANGERS);
    let begun = silent.last_mut().unwrap();
    begun.write_all(b"GET /livez HT").unwrap();
    begun.set_nonblocking(false).unwrap();
    assert!(read_to_end(begun).0.is_empty(), "the others are closed after a while");
    eventually(DEADLINE, "all are closed", || tidegate.open_files() == at_start);
}

#[test]
fn dashboards_beyond_the_limit_are_told_so() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), "", "")));
    let place = tidegate.stats_port();
    let mut dashboards: Vec<_> = (0..STREAMS).map(|_| watch(&place, "").unwrap()).collect();
    let refused = watch(&place, "").unwrap_err();
    assert!(refused.starts_with("http/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.ends_with("64 dashboards are open, which is the limit: close one of them\n"), "{refused}");
    assert_eq!(get(&place, "/stats").status, 200, "other pages have places of their own");
    dashboards.pop();
    eventually(DEADLINE, "one that was closed makes room", || watch(&place, "").is_ok());
}

#[test]
fn pages_of_other_sites_are_refused() {
    let (_backend, tidegate, _folder) = with_token();
    let backend = Backend::echo();
    let open = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), "", "")));
    let by_page = [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:3000\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
    ];
    for (tidegate, token) in [(&tidegate, TOKEN), (&open, "")] {
        let place = tidegate.stats_port();
        let status = |path: &str, headers: &str| get_with(&place, path, &format!("{token}{headers}")).status;
        for headers in by_page {
            for path in ["/events", "/stats", "/metrics", "/", "/dashboard/app.js"] {
                assert_eq!(status(path, headers), 403, "{path} {headers}");
            }
            assert_eq!(status("/livez", headers), 200);
        }
        let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
        assert_eq!([status("/", link), status("/stats", link), status("/events", link)], [200, 200, 403]);
        let own = "Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n";
        assert_eq!(status("/stats", own), 200);
        assert!(watch(&place, &format!("{token}{own}")).is_ok());
    }
}

/// DNS rebinding: a name of the page's own that it makes mean this host.
#[test]
fn streams_are_refused_under_names_of_others() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), "", "")));
    let request = "GET /events HTTP/1.1\r\nHost: evil.example\r\nSec-Fetch-Site: same-origin\r\n\r\n";
    assert_eq!(ask(&tidegate.stats_port(), request).status, 403);
}

#[test]
fn probes_need_no_token_and_strangers_get_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    write_token(&token, "s3cret");
    let dead = crate::support::backend::Dead::start();
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"0.0.0.0:0\", token_file: {} }}\n{}",
        token.display(),
        forward(dead.address(), "", "health: { tcp: {}, interval: 50ms }")
    ));
    let place = Place::Tcp(([127, 0, 0, 1], tidegate.stats_port().tcp().port()).into());
    // Whatever name the prober has for this host.
    let probe = |path: &str, headers: &str| {
        let answer = ask(&place, &format!("GET {path} HTTP/1.1\r\nHost: pod.example\r\n{headers}\r\n"));
        assert_eq!(answer.header("connection"), "close");
        (answer.status, answer.text())
    };
    assert_eq!(probe("/livez", ""), (200, "ok\n".to_owned()));
    assert_eq!(probe("/livez", "Authorization: Bearer wrong\r\n").0, 200);
    let (status, text) = probe("/readyz", "");
    assert_eq!(status, 503);
    assert!(!text.contains("pool"), "{text}");
    assert_eq!(probe("/readyz", TOKEN), (503, "listener in: no backend of pool p is up\n".to_owned()));
    assert_eq!(probe("/metrics", "").0, 401);
    assert_eq!(ask(&place, "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 401);
}

#[test]
fn scrapes_are_answered_or_refused_in_time() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), "", "")));
    let place = tidegate.stats_port();
    // Once the burst is used up, the next round is half a second away.
    eventually(DEADLINE, "a scraper in a hurry is refused", || {
        get(&place, "/metrics");
        let answer = get_with(&place, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds: 0.05\r\n");
        assert!([200, 503].contains(&answer.status), "{}", answer.headers);
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), "1");
            assert!(answer.text().contains("busy"), "{}", answer.text());
        }
        answer.status == 503
    });
    assert_eq!(get_with(&place, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n").status, 200);
}

#[test]
fn token_is_replaced_while_it_runs() {
    let (_backend, tidegate, folder) = with_token();
    let (place, path) = (tidegate.stats_port(), folder.path().join("token"));
    let status = |token: &str| get_with(&place, "/stats", &format!("Authorization: Bearer {token}\r\n")).status;
    let mut stream = watch(&place, TOKEN).unwrap();
    assert_eq!((status("s3cret"), status("n3w")), (200, 401));

    write_token(&path, "n3w\n");
    tidegate.wait_for_log("the new token", |line| line.text.contains("admin.token_file has changed"));
    assert_eq!((status("s3cret"), status("n3w")), (401, 200));
    eventually(DEADLINE, "the stream that the old token opened ends", || !is_open(&mut stream));

    // Neither of these makes the port open to all, or closed to its owner.
    fs::write(&path, "").unwrap();
    tidegate.wait_for_log("the empty file", |line| line.text.contains("is empty: store it in a file"));
    assert_eq!((status(""), status("n3w")), (401, 200));
    fs::remove_file(&path).unwrap();
    tidegate.wait_for_log("the missing file", |line| line.text.contains("cannot read"));
    assert_eq!(status("n3w"), 200);
    write_token(&path, "third");
    eventually(DEADLINE, "a good file is taken again", || status("third") == 200);
    assert!(!tidegate.logs().iter().any(|line| line.text.contains("n3w") || line.text.contains("s3cret")));
}

#[test]
fn token_that_everybody_can_read_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write_token(&path, "s3cret");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"127.0.0.1:0\", token_file: {} }}\n{}",
        path.display(),
        forward(backend.place(), "", "")
    ));
    let warned = |mode: &str| {
        let text = format!("{} can be read by every user of this host (mode {mode})", path.display());
        let remedy = format!("chmod 600 {}", path.display());
        tidegate.wait_for_log("a warning", |line| {
            line.level() == "WARN" && line.text.contains(&text) && line.text.contains(&remedy)
        });
    };
    warned("644");
    fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    warned("604");
}
