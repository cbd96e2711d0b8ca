//! `protocol: http` under curl, in front of nginx: bodies both ways, and answers without any, over both versions.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::authority::Authority;
use crate::support::data::{Sum, receive, send};
use crate::support::http::{Seen, observed, responses, seen_by_listener};
use crate::support::peer::Peer;
use crate::support::tidegate::Tidegate;
use crate::support::web::{answered, balance_requests, curl, nginx, over_tls, printed};

const LOCATIONS: &str = "location / { dav_methods PUT DELETE; create_full_put_path on; } \
    location = /empty { return 204; } \
    location = /trailers { add_header Trailer X-Sum; add_trailer X-Sum $request_method-$status; try_files /small =404; }";

/// How curl is to speak to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    Http1,
    Http1OverTls,
    /// Agreed upon by ALPN.
    Http2OverTls,
    /// With prior knowledge, in plain text.
    Http2,
}

const ALL: [Speaks; 4] = [Speaks::Http1, Speaks::Http1OverTls, Speaks::Http2OverTls, Speaks::Http2];

/// nginx, behind a listener in plain text and one with TLS.
struct Web {
    nginx: Peer,
    authority: Authority,
    plain: Tidegate,
    tls: Tidegate,
}

impl Web {
    /// `version` is that of requests to nginx.
    fn start(version: &str) -> Web {
        let nginx = nginx(if version == "2" { "http2" } else { "" }, LOCATIONS);
        fs::write(nginx.directory.path().join("small"), "small").unwrap();
        let authority = Authority::new();
        let issued = authority.issue(&["127.0.0.1"]);
        let pool = format!("http: {{ version: {version} }}");
        let of = |listener: &str| observed(&balance_requests(&[nginx.place()], listener, &pool));
        let (plain, tls) = (of(""), of(&over_tls(&issued)));
        Web { nginx, authority, plain, tls }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.nginx.directory.path().join(name)
    }

    fn url(&self, how: Speaks, path: &str) -> String {
        match how {
            Speaks::Http1 | Speaks::Http2 => format!("http://{}{path}", self.plain.at("in")),
            Speaks::Http1OverTls | Speaks::Http2OverTls => format!("https://{}{path}", self.tls.at("in")),
        }
    }

    fn arguments(&self, how: Speaks) -> Vec<String> {
        let version = match how {
            Speaks::Http1 | Speaks::Http1OverTls => "--http1.1",
            Speaks::Http2OverTls => "--http2",
            Speaks::Http2 => "--http2-prior-knowledge",
        };
        vec![version.to_owned(), "--cacert".to_owned(), self.authority.file().display().to_string()]
    }

    /// What curl prints of one URL, and behind it the status and the version.
    fn curl(&self, how: Speaks, path: &str, more: &[&str]) -> String {
        let (arguments, url) = (self.arguments(how), self.url(how, path));
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(["-w", "%{http_code} %{http_version}"]);
        all.extend(more);
        all.push(&url);
        curl(&all)
    }
}

fn ending(how: Speaks, status: u16) -> String {
    let version = if matches!(how, Speaks::Http1 | Speaks::Http1OverTls) { "1.1" } else { "2" };
    format!("{status} {version}")
}

fn large(path: &Path, seed: u64, size: u64) -> Sum {
    send(&mut File::create(path).unwrap(), seed, size).unwrap()
}

fn sum(path: &Path) -> Sum {
    receive(&mut File::open(path).unwrap()).unwrap()
}

#[test]
fn a_download_of_fifty_megabytes_is_unchanged() {
    for version in ["1.1", "2"] {
        let web = Web::start(version);
        let sent = large(&web.file("large"), 7, 50_000_000);
        for how in ALL {
            let got = web.file("got");
            let said = web.curl(how, "/large", &["-o", got.to_str().unwrap()]);
            assert_eq!((said, sum(&got)), (ending(how, 200), sent.clone()), "{how:?}, {version}");
        }
    }
}

#[test]
fn uploads_are_unchanged_with_a_length_and_without() {
    for version in ["1.1", "2"] {
        let web = Web::start(version);
        let source = web.file("source");
        let sent = large(&source, 8, 5_000_000);
        let source = source.to_str().unwrap();
        for (number, how) in ALL.into_iter().enumerate() {
            let path = format!("/put/length-{number}");
            let said = web.curl(how, &path, &["-T", source, "-H", "Expect:"]);
            assert_eq!(said, ending(how, 201), "{how:?}, {version}");
            assert_eq!(sum(&web.file(&path[1..])), sent, "{how:?}, {version}");
            // Chunks over HTTP/1.1, and over HTTP/2 no Content-Length.
            let path = format!("/put/chunked-{number}");
            let (arguments, url) = (web.arguments(how), web.url(how, &path));
            let mut command = Command::new("curl");
            command.args(["-sS", "--max-time", "60", "-T", "-", "-H", "Expect:", "-w", "%{http_code}"]).args(arguments);
            let output = command.arg(&url).stdin(Stdio::from(File::open(source).unwrap())).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "201", "{how:?}, {version}: {output:?}");
            assert_eq!(sum(&web.file(&path[1..])), sent, "{how:?}, {version}");
        }
    }
}

#[test]
fn an_upload_that_waits_for_100_continue_gets_it_and_one_that_is_refused_sends_nothing() {
    let web = Web::start("1.1");
    let source = web.file("source");
    let sent = large(&source, 9, 3_000_000);
    let source = source.to_str().unwrap();
    for (number, how) in ALL.into_iter().enumerate() {
        let path = format!("/put/continue-{number}");
        // Longer than the test may take: nothing is sent for want of an answer.
        let expects = ["-H", "Expect: 100-continue", "--expect100-timeout", "600"];
        let said = web.curl(how, &path, &[&expects[..], &["-T", source]].concat());
        assert_eq!(said, ending(how, 201), "{how:?}");
        assert_eq!(sum(&web.file(&path[1..])), sent, "{how:?}");
    }
    // nginx answers at once that it takes no POST.
    let posts = ["-H", "Expect: 100-continue", "--expect100-timeout", "600", "-o", "/dev/null", "--data-binary"];
    let source = format!("@{source}");
    let url = web.url(Speaks::Http1, "/small");
    let said = curl(&[&posts[..], &[&source, "-w", "%{http_code} %{size_upload}", &url]].concat());
    assert_eq!(said, "405 0");
}

#[test]
fn answers_without_a_body_have_none_and_the_connection_goes_on() {
    let web = Web::start("1.1");
    let mut asked = 0;
    for how in ALL {
        let head = web.curl(how, "/small", &["--head"]);
        assert!(head.to_lowercase().contains("\r\ncontent-length: 5\r\n"), "{how:?}: {head}");
        assert!(head.ends_with(&format!("\r\n\r\n{}", ending(how, 200))), "{how:?}: {head}");
        assert_eq!(web.curl(how, "/empty", &[]), ending(how, 204), "{how:?}");
        let tag = head.lines().find_map(|line| line.to_lowercase().strip_prefix("etag: ").map(str::to_owned));
        let condition = format!("If-None-Match: {}", tag.expect("an ETag"));
        assert_eq!(web.curl(how, "/small", &["-H", &condition]), ending(how, 304), "{how:?}");
        assert_eq!(web.curl(how, "/small", &[]), format!("small{}", ending(how, 200)), "{how:?}");
        assert_eq!(web.curl(how, "/small", &["-r", "1-3"]), format!("mal{}", ending(how, 206)), "{how:?}");
        asked += 5;
    }
    // On one connection, where a body too many would be taken for the next answer.
    let [empty, small] = ["/empty", "/small"].map(|path| web.url(Speaks::Http1, path));
    let said = curl(&["-w", "%{http_code} %{num_connects};", &empty, &small, &empty, &small]);
    assert_eq!(said, "204 1;small200 0;204 0;small200 0;");
    asked += 4;
    assert_eq!(answered(&web.nginx), asked);
    let plain = seen_by_listener(&web.plain);
    let wanted = responses(&[("GET 2xx", 10), ("GET 3xx", 2), ("HEAD 2xx", 2)]);
    assert_eq!(plain, Seen { requests: 14, responses: wanted, ..Seen::default() });
    assert_eq!(seen_by_listener(&web.tls).requests, 10);
}

#[test]
fn trailers_come_through() {
    let web = Web::start("1.1");
    for how in ALL {
        // curl prints trailers where it prints headers.
        let said = web.curl(how, "/trailers", &["-i", "-H", "TE: trailers"]).to_lowercase();
        assert!(said.contains("x-sum: get-200\r\n"), "{how:?}: {said}");
        assert!(said.contains("small"), "{how:?}: {said}");
    }
    let backend = printed("curl", "curl", &["-sS", "-i", &format!("http://{}/trailers", web.nginx.place())]);
    assert!(backend.to_lowercase().contains("x-sum: get-200\r\n"), "{backend}");
}
