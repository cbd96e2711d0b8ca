//! A tidegate that has met what is counted: traffic, TLS, retries, refusals, health checks that fail.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::authority::Authority;
use super::backend::{self, Backend, Dead};
use super::client::{Place, connect, expect, read_to_end};
use super::mmdb::Mmdb;
use super::stats::{ADMIN, Answer, get, listener};
use super::tidegate::Tidegate;
use super::tls::Tls;
use super::{DEADLINE, eventually};

/// How many connections each of its listeners had: what they carried was echoed.
pub(crate) const PLAIN: u64 = 10;
pub(crate) const SECURE: u64 = 3;
pub(crate) const RETRIED: u64 = 4;
pub(crate) const REFUSED: u64 = 2;
/// Bytes of each, in either direction.
pub(crate) const BYTES: u64 = 5;

/// HTTP of the listener `web`: method, status, how many. All of these were on one connection.
pub(crate) const ANSWERED: [(&str, u16, u64); 7] = [
    ("GET", 200, 5),
    ("GET", 201, 1),
    ("GET", 302, 1),
    ("GET", 404, 2),
    ("HEAD", 200, 1),
    ("POST", 503, 3),
    ("PURGE", 501, 1),
];
/// Connections whose only request got no answer, and those that became another protocol.
pub(crate) const UNANSWERED: u64 = 2;
pub(crate) const OPAQUE: u64 = 1;

/// Responses of `web` by the request's method, as it is counted, and the class.
pub(crate) fn responses() -> BTreeMap<(String, String), u64> {
    let mut responses = BTreeMap::from([(("GET".to_owned(), "1xx".to_owned()), OPAQUE)]);
    for (method, status, count) in ANSWERED {
        let method = if method == "PURGE" { "other" } else { method };
        *responses.entry((method.to_owned(), format!("{}xx", status / 100))).or_default() += count;
    }
    responses
}

/// Requests of `web`.
pub(crate) fn requests() -> u64 {
    responses().values().sum::<u64>() + UNANSWERED
}

/// Its listeners are `plain` and `secure` to pool `p`, `retried` to `q`, of whose backends one is gone, `refused`
/// to `r`, which has none but that, `checked` to `c`, where `down` has failed its health checks, and `web`, whose HTTP is
/// watched, to `w`.
pub(crate) struct Observed {
    pub(crate) tidegate: Tidegate,
    pub(crate) port: Place,
    backends: Vec<Backend>,
    _dead: Dead,
    _countries: tempfile::TempDir,
    authority: Authority,
}

impl Observed {
    pub(crate) fn start() -> Observed {
        let (authority, dead) = (Authority::new(), Dead::start());
        let mut backends = vec![Backend::start(backend::in_thread(answer))];
        backends.extend((0..4).map(|_| Backend::echo()));
        let [web, a, b, up, down] = &backends[..] else { unreachable!("five") };
        let [web, a, b, up, down] = [web, a, b, up, down].map(Backend::place);
        let dead_at = dead.address();
        let certificate = authority.issue(&["localhost"]).yaml();
        let folder = tempfile::tempdir().expect("a temporary directory");
        let countries = folder.path().join("country.mmdb");
        std::fs::write(&countries, Mmdb::new(false).country("127.0.0.0/8", "DE").to_bytes()).expect("a database");
        let countries = countries.display();
        let tidegate = Tidegate::start(&format!(
            "{ADMIN}geoip: {{ database: \"{countries}\" }}\n\
             listeners:\n\
             - {{ name: plain, bind: 127.0.0.1:0, pool: p }}\n\
             - {{ name: secure, bind: 127.0.0.1:0, pool: p, tls: {{ certificates: [{certificate}] }} }}\n\
             - {{ name: retried, bind: 127.0.0.1:0, pool: q, max_connections: 100 }}\n\
             - {{ name: refused, bind: 127.0.0.1:0, pool: r }}\n\
             - {{ name: checked, bind: 127.0.0.1:0, pool: c }}\n\
             - {{ name: web, bind: 127.0.0.1:0, pool: w, sniff: http }}\n\
             pools:\n\
             - {{ name: p, persist: {{}}, backends: [{{ name: a, address: \"{a}\" }}] }}\n\
             - {{ name: q, backends: [{{ name: gone, address: \"{dead_at}\" }}, {{ name: b, address: \"{b}\", max_connections: 50 }}] }}\n\
             - {{ name: r, backends: [{{ name: gone, address: \"{dead_at}\" }}] }}\n\
             - {{ name: c, backends: [{{ name: up, address: \"{up}\", weight: 3 }}, {{ name: down, address: \"{down}\", backup: true }}], \
                  health: {{ tcp: {{}}, interval: 100ms, fall: 1 }} }}\n\
             - {{ name: w, backends: [{{ name: site, address: \"{web}\" }}] }}\n"
        ));
        let port = tidegate.stats_port();
        let mut observed = Observed { tidegate, port, backends, _dead: dead, _countries: folder, authority };
        observed.talk();
        observed
    }

    /// What its stats port answers.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(&self.port, path)
    }

    fn talk(&mut self) {
        for (listener, count) in [("plain", PLAIN), ("retried", RETRIED)] {
            for _ in 0..count {
                let mut client = connect(&self.tidegate.at(listener));
                client.write_all(b"hello").expect("write");
                expect(&mut client, b"hello");
            }
        }
        for _ in 0..SECURE {
            let client = Tls::connect(&self.tidegate.at("secure"), &self.authority.client(), "localhost");
            (&client).write_all(b"hello").expect("write");
            (&client).read_exact(&mut [0; BYTES as usize]).expect("read");
            client.finish();
        }
        for _ in 0..REFUSED {
            read_to_end(&mut connect(&self.tidegate.at("refused")));
        }
        self.talk_http();
        self.tidegate.wait_for_up("down");
        self.backends.truncate(4);
        self.tidegate.wait_for_down("down");
        let web = 1 + UNANSWERED + OPAQUE;
        let counts = [("plain", PLAIN), ("secure", SECURE), ("retried", RETRIED), ("refused", REFUSED), ("web", web)];
        for (name, count) in counts {
            eventually(DEADLINE, &format!("{count} connections of {name} have ended"), || {
                let view = self.tidegate.view();
                let listener = listener(&view, name);
                listener.ended == count && listener.open == 0
            });
        }
    }
    fn talk_http(&self) {
        let at = self.tidegate.at("web");
        let request = |method: &str, path: &str| format!("{method} /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut client = connect(&at);
        for (method, status, count) in ANSWERED {
            for _ in 0..count {
                client.write_all(request(method, &status.to_string()).as_bytes()).expect("write");
                expect(&mut client, head_of(&status.to_string()).as_bytes());
            }
        }
        for _ in 0..UNANSWERED {
            let mut client = connect(&at);
            client.write_all(request("GET", "nothing").as_bytes()).expect("write");
            assert_eq!(read_to_end(&mut client).0, b"");
        }
        for _ in 0..OPAQUE {
            let mut client = connect(&at);
            let upgrade = "GET /101 HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
            client.write_all(upgrade.as_bytes()).expect("write");
            expect(&mut client, head_of("101").as_bytes());
            client.write_all(b"hello").expect("write");
            expect(&mut client, b"hello");
        }
    }
}

/// An HTTP server, whose answer has the status that a request has as its path; one without a status gets none. From 101
/// on it echoes.
fn answer(stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let status = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
        if status.parse::<u16>().is_err() || !lines.by_ref().any(|line| line.is_empty()) {
            return;
        }
        _ = (&stream).write_all(head_of(status).as_bytes());
        if status == "101" {
            return backend::echo(stream);
        }
    }
}

fn head_of(status: &str) -> String {
    let length = if status == "101" { "Connection: upgrade\r\nUpgrade: echo" } else { "Content-Length: 0" };
    format!("HTTP/1.1 {status} So\r\n{length}\r\n\r\n")
}
