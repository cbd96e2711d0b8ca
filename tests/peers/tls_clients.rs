//! Clients of other makers against a listener with TLS: openssl, curl, redis-cli, and the two that look for weak spots.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::backend::{Backend, in_thread};
use crate::support::client::Place;
use crate::support::process::{bound, require};
use crate::support::redis::Redis;
use crate::support::tidegate::Tidegate;
use crate::support::tls::{Authority, s_client, terminate};

/// What the backends say; openssl prints nothing like it of its own.
const GREETING: &str = "greetings from behind";

/// A listener with a certificate for a.example.
struct Served {
    tidegate: Tidegate,
    connections: Cell<usize>,
    _authority: Authority,
    _backend: Backend,
}

impl Served {
    /// `tls` is more keys of its TLS.
    fn new(tls: &str) -> Served {
        let authority = Authority::new();
        let backend = Backend::named(GREETING);
        let certificate = authority.issue(&["a.example"]);
        let tidegate = Tidegate::start(&terminate(backend.place(), &[&certificate], tls, ""));
        Served { tidegate, connections: Cell::new(0), _authority: authority, _backend: backend }
    }

    fn place(&self) -> Place {
        self.tidegate.at("in")
    }

    /// openssl gets what the backend says.
    fn accepts(&self, arguments: &[&str]) -> String {
        let text = accepts(&self.place(), arguments);
        self.ended(arguments, "backend closed");
        text
    }

    /// It does not, and this is the end of its access line.
    fn refuses(&self, arguments: &[&str], end: &str) -> String {
        let (text, _) = s_client(&self.place(), arguments);
        assert!(!text.contains(GREETING), "{arguments:?}: {text}");
        self.ended(arguments, end);
        text
    }

    fn ended(&self, arguments: &[&str], end: &str) {
        self.connections.set(self.connections.get() + 1);
        let all = || self.tidegate.access();
        self.tidegate.wait_for_access("another one", |_| all().len() == self.connections.get());
        assert_eq!(all().pop().expect("a line").end(), end, "{arguments:?}");
    }

    /// Why a client was refused, in the log.
    fn tells(&self, why: &str) {
        self.tidegate.wait_for_log(why, |line| line.text.contains("client rejected") && line.text.contains(why));
    }
}

fn accepts(place: &Place, arguments: &[&str]) -> String {
    let (text, _) = s_client(place, arguments);
    assert!(text.contains(GREETING), "{arguments:?}: {text}");
    text
}

fn has(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in: {text}");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in Unicode")
}

#[test]
fn openssl_gets_the_certificate_for_the_name() {
    let (authority, backend) = (Authority::new(), Backend::named(GREETING));
    let certificates = [&["a.example"][..], &["*.b.example"], &["c.example"]].map(|names| authority.issue(names));
    let tidegate = Tidegate::start(&terminate(backend.place(), &certificates.each_ref(), "", ""));
    let ca = authority.file();
    for (arguments, subject) in [
        (&["-servername", "a.example"][..], "a.example"),
        (&["-servername", "A.EXAMPLE"], "a.example"),
        (&["-servername", "a.example."], "a.example"),
        (&["-servername", "one.b.example"], "*.b.example"),
        (&["-servername", "One.B.Example."], "*.b.example"),
        (&["-servername", "c.example"], "c.example"),
        // A wildcard stands for one label; whoever fits none gets the first.
        (&["-servername", "two.one.b.example"], "a.example"),
        (&["-servername", "unknown.example"], "a.example"),
        (&["-noservername"], "a.example"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let arguments = [arguments, &[version, "-CAfile", path(&ca)]].concat();
            let text = accepts(&tidegate.at("in"), &arguments);
            assert!(text.contains(&format!("subject=CN = {subject}\n")), "{arguments:?}: {text}");
            has(&text, "Verify return code: 0 (ok)");
        }
    }
}

#[test]
fn openssl_and_a_name_that_is_refused() {
    let served = Served::new("unknown_sni: refuse");
    served.accepts(&["-servername", "A.example"]);
    for arguments in [&["-servername", "b.example"][..], &["-noservername"]] {
        has(&served.refuses(arguments, "rejected: unknown server name"), "tlsv1 unrecognized name");
    }
    served.tells("b.example");
}

#[test]
fn openssl_and_versions() {
    let served = Served::new("");
    has(&served.accepts(&["-tls1_2"]), "New, TLSv1.2, Cipher is ECDHE-");
    has(&served.accepts(&["-tls1_3"]), "New, TLSv1.3, Cipher is TLS_");
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    has(&served.refuses(&old, "TLS handshake failed"), "SSL alert number");

    let served = Served::new("min_version: \"1.3\"");
    has(&served.accepts(&[]), "New, TLSv1.3");
    has(&served.refuses(&["-tls1_2"], "TLS handshake failed"), "alert protocol version");
}

#[test]
fn openssl_and_protocols() {
    let served = Served::new("alpn: [h2, http/1.1]");
    has(&served.accepts(&["-alpn", "http/1.1,h2"]), "ALPN protocol: h2");
    has(&served.accepts(&["-alpn", "http/1.1"]), "ALPN protocol: http/1.1");
    has(&served.accepts(&[]), "No ALPN negotiated");
    has(&served.refuses(&["-alpn", "smtp"], "TLS handshake failed"), "alert no application protocol");
    served.tells("ALPN");
}

#[test]
fn openssl_resumes_sessions() {
    let served = Served::new("");
    let folder = tempfile::tempdir().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let session = folder.path().join(version);
        has(&served.accepts(&[version, "-sess_out", path(&session)]), "New, ");
        has(&served.accepts(&[version, "-sess_in", path(&session)]), "Reused, ");
    }
}

#[test]
fn without_tickets_openssl_resumes_nothing() {
    let served = Served::new("session_tickets: false");
    let folder = tempfile::tempdir().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let session = folder.path().join(version);
        let text = served.accepts(&[version, "-sess_out", path(&session)]);
        assert!(!text.contains("TLS session ticket:"), "{text}");
        // In TLS 1.3 there is no session without a ticket.
        if session.exists() {
            has(&served.accepts(&[version, "-sess_in", path(&session)]), "New, ");
        }
    }
}

#[test]
fn openssl_shows_its_certificate() {
    let (authority, other_authority) = (Authority::new(), Authority::new());
    let (good, revoked) = (authority.issue_client("good"), authority.issue_client("bad"));
    let stranger = other_authority.issue_client("stranger");
    let crl = authority.revoke(&[&revoked]);
    let rules =
        |mode| format!("client_auth: {{ mode: {mode}, ca: {}, crl: {} }}", authority.file().display(), crl.display());
    let [good, revoked, stranger] =
        [&good, &revoked, &stranger].map(|issued| ["-cert", path(&issued.cert), "-key", path(&issued.key)]);
    // A listener for each, as the log tells only the first of many refusals at once.
    for (shown, why) in [
        (&revoked[..], "the certificate was revoked"),
        (&stranger, "the certificate was issued by an unknown authority"),
        (&[], "the peer sent no certificate"),
    ] {
        let required = Served::new(&rules("required"));
        let optional = Served::new(&rules("optional"));
        for version in ["-tls1_2", "-tls1_3"] {
            let (good, shown) = ([&[version], &good[..]].concat(), [&[version], shown].concat());
            required.accepts(&good);
            required.refuses(&shown, "TLS handshake failed");
            optional.accepts(&good);
            match shown.len() {
                1 => _ = optional.accepts(&shown),
                _ => _ = optional.refuses(&shown, "TLS handshake failed"),
            }
        }
        required.tells(why);
    }
    let off = Served::new("client_auth: { mode: off }");
    off.accepts(&stranger);
}

/// Else whoever was never asked for a certificate could come in where one is required.
#[test]
fn a_session_is_resumed_only_where_it_began() {
    let (authority, backend) = (Authority::new(), Backend::named(GREETING));
    let certificate = authority.issue(&["a.example"]);
    let listener = |name: &str, more: &str| {
        format!(
            "{{ name: {name}, bind: 127.0.0.1:0, pool: p, tls: {{ certificates: [{}], {more} }} }}",
            certificate.yaml()
        )
    };
    let tidegate = Tidegate::start(&format!(
        "listeners: [{}, {}]\npools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]",
        listener("open", ""),
        listener("strict", &format!("client_auth: {{ mode: required, ca: {} }}", authority.file().display())),
        backend.place()
    ));
    let folder = tempfile::tempdir().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let session = folder.path().join(version);
        accepts(&tidegate.at("open"), &[version, "-sess_out", path(&session)]);
        let (text, _) = s_client(&tidegate.at("strict"), &[version, "-sess_in", path(&session)]);
        assert!(!text.contains("Reused, ") && !text.contains(GREETING), "{text}");
        has(&accepts(&tidegate.at("open"), &[version, "-sess_in", path(&session)]), "Reused, ");
    }
}

/// An answer to whatever is asked, with the backend's name.
fn web_server(name: &str) -> Backend {
    let name = name.to_owned();
    Backend::start(in_thread(move |mut stream: TcpStream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let length = name.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
        _ = stream.write_all(answer.as_bytes());
    }))
}

/// Each certificate is for one name alone, and curl verifies it.
#[test]
fn curl_to_three_names() {
    require("curl", "curl");
    let (authority, backend) = (Authority::new(), web_server("hello"));
    let names = ["a.example", "b.example", "c.example"];
    let certificates = names.map(|name| authority.issue(&[name]));
    let tidegate = Tidegate::start(&terminate(backend.place(), &certificates.each_ref(), "alpn: [http/1.1]", ""));
    let port = tidegate.at("in").tcp().port();
    let curl = |names: &[&str]| {
        let mut command = bound("curl", "KILL");
        command.args(["-sS", "--fail", "--cacert"]).arg(authority.file());
        for name in names {
            command.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), &format!("https://{name}:{port}/")]);
        }
        command.output().expect("curl")
    };
    let output = curl(&names);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hellohellohello");
    let output = curl(&["d.example"]);
    has(&String::from_utf8_lossy(&output.stderr), "d.example");
    assert!(!output.status.success(), "a name that is in no certificate");
}

#[test]
fn redis_cli_over_tls_to_a_plain_redis() {
    require("redis-cli", "redis-tools");
    let (authority, redis) = (Authority::new(), Redis::start());
    let certificate = authority.issue(&["cache.example"]);
    let tidegate = Tidegate::start(&terminate(format!("127.0.0.1:{}", redis.port()), &[&certificate], "", ""));
    let port = tidegate.at("in").tcp().port().to_string();
    let redis_cli = |arguments: &[&str]| {
        let mut command = bound("redis-cli", "KILL");
        command.args(["-h", "127.0.0.1", "-p", &port, "--tls", "--sni", "cache.example", "--cacert"]);
        command.arg(authority.file()).args(arguments);
        command
    };
    let run = |command: &mut Command| {
        let output = command.output().expect("redis-cli");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(run(&mut redis_cli(&["ping"])), b"PONG\n");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    let value: Vec<u8> = std::iter::repeat_with(|| fastrand::alphanumeric() as u8).take(1 << 20).collect();
    fs::write(&file, &value).unwrap();
    assert_eq!(run(redis_cli(&["-x", "set", "key"]).stdin(File::open(&file).unwrap())), b"OK\n");
    let got = run(&mut redis_cli(&["get", "key"]));
    assert!(got.strip_suffix(b"\n") == Some(&value[..]), "{} bytes came back", got.len());
}

#[test]
fn sslscan_finds_nothing_weak() {
    require("sslscan", "sslscan");
    let (authority, backend) = (Authority::new(), web_server("hello"));
    let certificate = authority.issue(&["a.example"]);
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&certificate], "", ""));
    let output = bound("sslscan", "KILL")
        .args(["--no-colour", "--show-sigs", "--sni-name=a.example", &tidegate.at("in").to_string()])
        .output()
        .expect("sslscan");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let state = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    for protocol in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        assert_eq!(state(protocol), "disabled", "{protocol}");
    }
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        assert_eq!(state(protocol), "enabled", "{protocol}");
    }
    let is_cipher = |line: &&str| line.starts_with("Preferred ") || line.starts_with("Accepted ");
    let ciphers: Vec<&str> = text.lines().filter(is_cipher).collect();
    assert!(ciphers.len() >= 6, "{text}");
    for line in ciphers {
        let name = line.split_whitespace().nth(4).unwrap_or_default();
        let fresh_keys = name.starts_with("TLS_") || name.starts_with("ECDHE-");
        let authenticated = name.contains("GCM") || name.contains("CHACHA20");
        assert!(fresh_keys && authenticated, "a weak cipher: {line}");
    }
    for line in text.lines().filter(|line| line.contains("vulnerable")) {
        assert!(line.contains("not vulnerable"), "{line}");
    }
    for weak in ["MD5", "SHA1 ", "sha1", "1024 bits"] {
        assert!(!text.contains(weak), "{weak}: {text}");
    }
}

/// All that testssl checks but for what is the operator's to choose, which is the certificate. What it rates as LOW or better
/// is no finding.
#[test]
fn testssl_finds_nothing() {
    require("testssl", "testssl.sh");
    let (authority, backend) = (Authority::new(), web_server("hello"));
    let certificate = authority.issue(&["localhost"]);
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&certificate], "", ""));
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("findings.json");
    let output = bound("testssl", "KILL")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1"])
        // Protocols, categories of ciphers, forward secrecy, preferences of the server; and every vulnerability.
        .args(["-p", "-s", "-f", "-P", "-U", "--jsonfile", path(&json)])
        .arg(format!("localhost:{}", tidegate.at("in").tcp().port()))
        .output()
        .expect("testssl");
    let text = String::from_utf8_lossy(&output.stdout);
    let findings: Value = serde_json::from_str(&fs::read_to_string(&json).expect("findings")).expect("JSON");
    let findings = findings.as_array().expect("a list");
    let of =
        |id: &str| findings.iter().find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("no {id}: {text}"));
    for id in ["SSLv2", "SSLv3", "TLS1", "TLS1_1"] {
        assert_eq!(of(id)["finding"], "not offered", "{id}");
    }
    assert_eq!(of("TLS1_2")["severity"], "OK");
    assert_eq!(of("TLS1_3")["severity"], "OK");
    for id in ["heartbleed", "ticketbleed", "ROBOT", "secure_client_renego", "CRIME_TLS", "LUCKY13", "SWEET32", "RC4"] {
        assert_eq!(of(id)["severity"], "OK", "{}", of(id));
    }
    let bad = |finding: &&Value| {
        let severity = finding["severity"].as_str().expect("a severity");
        // A warning of testssl about the openssl that it runs with itself.
        finding["id"] != "engine_problem" && !["OK", "INFO", "LOW", "DEBUG"].contains(&severity)
    };
    let bad: Vec<&Value> = findings.iter().filter(bad).collect();
    assert!(bad.is_empty(), "{bad:#?}\n{text}");
    assert!(findings.len() > 30, "{} findings: {text}", findings.len());
}
