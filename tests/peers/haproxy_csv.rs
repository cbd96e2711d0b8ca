//! The table of HAProxy: its columns are those of Debian's haproxy, and what reads them reads tidegate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use rustls::ClientConfig;

use crate::support::authority::write_key;
use crate::support::backend::{Backend, HealthPage, in_thread};
use crate::support::client::{Place, connect, expect, read_to_end, reset};
use crate::support::observed::{BYTES, Observed, PLAIN, REFUSED, RETRIED, SECURE, requests, responses};
use crate::support::peer::Peer;
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::Tidegate;
use crate::support::tls::{Authority, Tls};
use crate::support::{DEADLINE, eventually, free_port};

/// A row as Telegraf's plugin for HAProxy reads it: by the names of the first line, empty ones left out.
pub(crate) type Row = BTreeMap<String, String>;

/// The rows of a stats port.
pub(crate) fn rows(port: &Place) -> Vec<Row> {
    table(&get(port, "/stats;csv").text()).1
}

/// RFC 4180, as far as it goes here: no value has more than one line.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted, mut cell) = (Vec::new(), false, String::new());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => cell.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            other => cell.push(other),
        }
    }
    assert!(!quoted, "{line}");
    cells.push(cell);
    cells
}

/// The names in order, and the rows.
fn table(text: &str) -> (Vec<String>, Vec<Row>) {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let names = cells(lines.next().and_then(|line| line.strip_prefix("# ")).expect("a line of names"));
    let row = |line: &str| {
        let cells = cells(line);
        assert_eq!(cells.len(), names.len(), "{line}");
        names.iter().cloned().zip(cells).filter(|(_, cell)| !cell.is_empty()).collect()
    };
    (names.clone(), lines.map(row).collect())
}

fn row<'a>(rows: &'a [Row], proxy: &str, server: &str) -> &'a Row {
    let mut found = rows.iter().filter(|row| row["pxname"] == proxy && row["svname"] == server);
    let row = found.next().unwrap_or_else(|| panic!("no row {proxy} {server}"));
    assert!(found.next().is_none(), "two rows {proxy} {server}");
    row
}

pub(crate) fn number(row: &Row, name: &str) -> u64 {
    row.get(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {name}: {row:?}"))
}

/// The table of Debian's haproxy, in whose place tidegate stands.
fn of_haproxy() -> (Vec<String>, Vec<Row>) {
    let haproxy = Peer::haproxy(|at| {
        let port = at.port();
        let host = at.ip();
        format!(
            "frontend stats\n mode http\n bind {at}\n stats enable\n stats uri /\n stats show-legends\n\
             frontend plain\n mode tcp\n bind {host}:9\n default_backend p\n\
             backend p\n mode tcp\n server checked {host}:{port} check\n server unchecked {host}:{port}\n\
             frontend web\n mode http\n bind {host}:10\n default_backend w\n\
             backend w\n mode http\n server unchecked {host}:{port}\n"
        )
    });
    table_of(&haproxy)
}

/// What a haproxy says now whose stats are at `/`.
fn table_of(haproxy: &Peer) -> (Vec<String>, Vec<Row>) {
    let output = Command::new("curl").args(["-sS", "--fail", &format!("http://{}/;csv", haproxy.address)]).output();
    let output = output.expect("curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    table(&String::from_utf8(output.stdout).unwrap())
}

/// Columns that HAProxy fills, and tidegate not, or not in every row: it has no such thing, or keeps no such count.
const LESS: &str = "agg_check_status agg_server_check_status agg_server_status cache_hits cache_lookups comp_byp \
    comp_in comp_out comp_rsp dreq dresp eint h1_bytes_in h1_bytes_out h1_open_connections h1_open_streams \
    h1_spliced_bytes_in h1_spliced_bytes_out h1_total_connections h1_total_streams h2_backend_open_streams \
    h2_backend_total_streams h2_data_rcvd h2_detected_conn_protocol_errors h2_detected_strm_protocol_errors \
    h2_goaway_rcvd h2_goaway_resp h2_headers_rcvd h2_open_connections h2_rst_stream_rcvd h2_rst_stream_resp \
    h2_settings_rcvd h2_total_connections idle_conn_cur intercepted need_conn_est reuse safe_conn_cur slim \
    srv_icur ssl_failed_handshake wrew";

#[test]
fn the_shape_is_that_of_haproxy() {
    let observed = Observed::start();
    let (names, rows) = table(&observed.get("/stats;csv").text());
    let (wanted, theirs) = of_haproxy();
    assert_eq!(names, wanted);

    let filled = |row: &Row| row.keys().cloned().collect::<BTreeSet<String>>();
    let kinds = [
        ("plain FRONTEND", row(&rows, "plain", "FRONTEND"), row(&theirs, "plain", "FRONTEND")),
        ("c up", row(&rows, "c", "up"), row(&theirs, "p", "checked")),
        ("p a", row(&rows, "p", "a"), row(&theirs, "p", "unchecked")),
        ("p BACKEND", row(&rows, "p", "BACKEND"), row(&theirs, "p", "BACKEND")),
        ("web FRONTEND", row(&rows, "web", "FRONTEND"), row(&theirs, "web", "FRONTEND")),
        ("w site", row(&rows, "w", "site"), row(&theirs, "w", "unchecked")),
        ("w BACKEND", row(&rows, "w", "BACKEND"), row(&theirs, "w", "BACKEND")),
    ];
    let mut less = BTreeSet::new();
    for (kind, ours, theirs) in kinds {
        let (ours, theirs) = (filled(ours), filled(theirs));
        let more: Vec<_> = ours.difference(&theirs).collect();
        assert!(more.is_empty(), "{kind}: HAProxy leaves {more:?} empty");
        less.extend(theirs.difference(&ours).cloned());
    }
    assert_eq!(less, LESS.split(' ').map(str::to_owned).collect::<BTreeSet<String>>());
}

#[test]
fn the_numbers_are_those_of_the_traffic() {
    let observed = Observed::start();
    let rows = rows(&observed.port);
    let mut kinds = BTreeMap::new();
    for row in &rows {
        *kinds.entry(row["type"].clone()).or_insert(0) += 1;
        // What Telegraf parses as numbers is numbers.
        for (name, value) in row {
            let is_text =
                ["pxname", "svname", "status", "check_status", "last_chk", "check_desc", "addr", "mode", "algo", "-"];
            assert!(is_text.contains(&name.as_str()) || value.parse::<i64>().is_ok(), "{name} is {value}");
        }
    }
    assert_eq!(kinds, BTreeMap::from([("0".to_owned(), 6), ("1".to_owned(), 5), ("2".to_owned(), 7)]));

    for (listener, count) in [("plain", PLAIN), ("secure", SECURE), ("retried", RETRIED), ("refused", REFUSED)] {
        let row = row(&rows, listener, "FRONTEND");
        let bytes = if listener == "refused" { 0 } else { count * BYTES };
        assert_eq!(
            ["stot", "bin", "bout", "scur"].map(|name| number(row, name)),
            [count, bytes, bytes, 0],
            "{listener}"
        );
        assert_eq!((row["status"].as_str(), row["mode"].as_str()), ("OPEN", "tcp"));
    }
    assert_eq!(number(row(&rows, "retried", "FRONTEND"), "slim"), 100);
    let kinds = ["ssl_sess", "ssl_reused_sess"];
    assert_eq!(kinds.map(|name| number(row(&rows, "secure", "FRONTEND"), name)), [SECURE, 0]);
    assert_eq!(kinds.map(|name| number(row(&rows, "plain", "FRONTEND"), name)), [0, 0]);
    let a = row(&rows, "p", "a");
    assert_eq!(
        ["stot", "bin", "lbtot", "econ"].map(|name| number(a, name)),
        [PLAIN + SECURE, (PLAIN + SECURE) * BYTES, PLAIN + SECURE, 0]
    );
    assert_eq!(a["status"], "no check");
    let whole = row(&rows, "p", "BACKEND");
    assert_eq!(
        ["stot", "bin", "act", "bck"].map(|name| number(whole, name)),
        [PLAIN + SECURE, (PLAIN + SECURE) * BYTES, 1, 0]
    );
    assert_eq!(whole["status"], "UP");

    let (gone, b) = (row(&rows, "q", "gone"), row(&rows, "q", "b"));
    assert_eq!(number(b, "stot"), RETRIED);
    assert_eq!(number(b, "slim"), 50);
    assert_eq!(number(gone, "stot"), 0);
    assert!(number(gone, "econ") >= 1 && number(gone, "econ") == number(gone, "wredis"));
    assert_eq!(number(row(&rows, "q", "BACKEND"), "econ"), number(gone, "econ"));
    let refused = row(&rows, "r", "BACKEND");
    assert_eq!((number(refused, "stot"), number(refused, "lbtot")), (REFUSED, 0));
    assert_eq!((refused["lastsess"].as_str(), gone["lastsess"].as_str()), ("-1", "-1"));
    assert!(number(b, "lastsess") < 3600);

    let (up, down) = (row(&rows, "c", "up"), row(&rows, "c", "down"));
    assert_eq!((up["status"].as_str(), up["check_status"].as_str(), number(up, "weight")), ("UP", "L4OK", 3));
    assert_eq!((down["status"].as_str(), down["check_status"].as_str()), ("DOWN", "L4CON"));
    assert_eq!((number(down, "chkdown"), number(down, "bck"), number(down, "act")), (1, 1, 0));
    assert!(number(down, "chkfail") >= 1);
    assert_eq!(down["last_chk"], "connection refused");
    let whole = row(&rows, "c", "BACKEND");
    assert_eq!(["act", "bck", "weight", "chkdown", "downtime"].map(|name| number(whole, name)), [1, 0, 3, 0, 0]);
}

#[test]
fn http_is_counted_where_it_is_watched() {
    let observed = Observed::start();
    let rows = rows(&observed.port);
    for (proxy, server) in [("web", "FRONTEND"), ("w", "site"), ("w", "BACKEND")] {
        let row = row(&rows, proxy, server);
        for class in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
            let responses: u64 = responses().iter().filter(|((_, of), _)| of == class).map(|(_, count)| count).sum();
            assert_eq!(number(row, &format!("hrsp_{class}")), responses, "{proxy} {server} {class}");
        }
        assert_eq!(number(row, "hrsp_other"), 0);
        assert_eq!(row["mode"], "http");
        assert_eq!(number(row, "req_tot"), requests(), "{proxy} {server}");
        if server == "FRONTEND" {
            assert!((1..=requests()).contains(&number(row, "req_rate_max")), "{row:?}");
        }
    }
    for (proxy, server) in [("plain", "FRONTEND"), ("p", "a"), ("p", "BACKEND")] {
        assert!(!row(&rows, proxy, server).contains_key("hrsp_2xx"), "{proxy} {server}");
    }
}

const CLIENTS: usize = 6;
const RESETS: usize = 2;

/// One side of the comparison: where it listens, in plain and with TLS, and what its table says.
struct Side<'a> {
    plain: Place,
    secure: Place,
    rows: Box<dyn Fn() -> Vec<Row> + 'a>,
    health: HealthPage,
}

impl Side<'_> {
    fn is(&self, status: &str) {
        eventually(DEADLINE, status, || {
            let rows = (self.rows)();
            ["a", "b", "BACKEND"].iter().all(|server| row(&rows, "p", server)["status"] == status)
        });
    }

    fn is_idle(&self) {
        eventually(DEADLINE, "all have ended", || {
            let rows = (self.rows)();
            ["plain", "secure"].iter().all(|proxy| number(row(&rows, proxy, "FRONTEND"), "scur") == 0)
        });
    }

    /// The same for both.
    fn talk(&self, client: &ClientConfig) {
        self.is("UP");
        let rows = (self.rows)();
        assert!(["a", "b", "BACKEND"].iter().all(|server| row(&rows, "p", server)["lastsess"] == "-1"), "{rows:?}");
        let greeted = || {
            let mut client = connect(&self.plain);
            client.write_all(b"hello").expect("write");
            expect(&mut client, b"hello");
            client
        };
        let held: Vec<TcpStream> = (0..CLIENTS).map(|_| greeted()).collect();
        drop(held);
        self.is_idle();
        (0..RESETS).for_each(|_| reset(greeted()));
        for _ in 0..RESETS {
            let mut client = greeted();
            client.write_all(b"!").expect("write");
            read_to_end(&mut client);
        }
        self.is_idle();
        for _ in 0..CLIENTS {
            let client = Tls::connect(&self.secure, client, "localhost");
            (&client).write_all(b"hello").expect("write");
            (&client).read_exact(&mut [0; 5]).expect("read");
            client.finish();
        }
        self.is_idle();
        self.health.answer(503);
        self.is("DOWN");
        read_to_end(&mut connect(&self.plain));
        self.health.answer(200);
        self.is("UP");
        self.is_idle();
    }
}

/// The same traffic through both, and the same numbers.
#[test]
fn the_numbers_are_those_of_haproxy() {
    let backends = [(); 2].map(|()| {
        Backend::start(in_thread(|mut stream: TcpStream| {
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                if bytes[..count].contains(&b'!') {
                    return reset(stream);
                }
                _ = stream.write_all(&bytes[..count]);
            }
        }))
    });
    let [a, b] = [&backends[0], &backends[1]].map(Backend::address);
    let authority = Authority::new();
    let certificate = authority.issue(&["localhost"]);

    let health = HealthPage::start();
    let port = health.port();
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}\
         listeners:\n\
         - {{ name: plain, bind: 127.0.0.1:0, pool: p }}\n\
         - {{ name: secure, bind: 127.0.0.1:0, pool: p, tls: {{ certificates: [{}] }} }}\n\
         pools:\n\
         - name: p\n  backends:\n  - {{ name: a, address: \"{a}\" }}\n  - {{ name: b, address: \"{b}\" }}\n  \
         health: {{ http: {{}}, port: {port}, interval: 50ms, timeout: 5s, fall: 1, rise: 1, initial: up }}\n",
        certificate.yaml()
    ));
    let ours = tidegate.stats_port();
    let ours = Side {
        plain: tidegate.at("plain"),
        secure: tidegate.at("secure"),
        rows: Box::new(move || rows(&ours)),
        health,
    };

    let health = HealthPage::start();
    let port = health.port();
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.pem");
    let parts = [&certificate.cert, &certificate.key].map(|part| fs::read_to_string(part).unwrap());
    write_key(&both, &parts.concat());
    let (plain, secure) = (free_port(), free_port());
    let haproxy = Peer::haproxy(|at| {
        let host = at.ip();
        format!(
            "frontend stats\n mode http\n bind {at}\n stats enable\n stats uri /\n\
             frontend plain\n mode tcp\n bind {host}:{plain}\n default_backend p\n\
             frontend secure\n mode tcp\n bind {host}:{secure} ssl crt {}\n default_backend p\n\
             backend p\n mode tcp\n balance roundrobin\n timeout check 5s\n option httpchk GET /\n\
             \x20default-server check port {port} inter 50ms fall 1 rise 1\n server a {a}\n server b {b}\n",
            both.display()
        )
    });
    let host = haproxy.address.ip();
    let at = |port: u16| Place::parse(&format!("{host}:{port}"));
    let theirs = Side { plain: at(plain), secure: at(secure), rows: Box::new(|| table_of(&haproxy).1), health };

    let [ours, theirs] = [ours, theirs].map(|side| {
        // Sessions of its own to resume.
        side.talk(&authority.client());
        let rows = (side.rows)();
        eventually(DEADLINE, "nothing has begun for a second", || {
            (side.rows)().iter().filter(|row| row["pxname"] != "stats").all(|row| number(row, "rate") == 0)
        });
        rows
    });
    let frontend = "stot scur bin bout conn_tot req_tot dcon dses ssl_sess ssl_reused_sess ssl_failed_handshake";
    let server = "stot scur smax bin bout lbtot cli_abrt srv_abrt eresp chkdown ssl_sess ssl_reused_sess";
    let backend = "stot scur smax bin bout lbtot cli_abrt srv_abrt eresp chkdown act bck ssl_sess ssl_reused_sess";
    for (proxy, whose, columns) in [
        ("plain", "FRONTEND", frontend),
        ("secure", "FRONTEND", frontend),
        ("p", "a", server),
        ("p", "b", server),
        ("p", "BACKEND", backend),
    ] {
        let (ours, theirs) = (row(&ours, proxy, whose), row(&theirs, proxy, whose));
        for column in columns.split(' ') {
            assert_eq!(ours.get(column), theirs.get(column), "{proxy} {whose} {column}\n{ours:?}\n{theirs:?}");
        }
        for row in [ours, theirs] {
            let most = number(row, "rate_max");
            assert!((1..=number(row, "stot")).contains(&most), "{proxy} {whose}: {row:?}");
            assert!(number(row, "rate") <= number(row, "stot"));
            match whose {
                "FRONTEND" => assert!((1..=number(row, "conn_tot")).contains(&number(row, "conn_rate_max")), "{row:?}"),
                _ => {
                    assert!(["lastsess", "lastchg", "downtime"].iter().all(|name| number(row, name) < 3600), "{row:?}");
                }
            }
        }
    }
    // And they are what was done.
    let (whole, count) = (row(&ours, "p", "BACKEND"), |name: &str| number(row(&ours, "p", "BACKEND"), name));
    assert_eq!(["smax", "cli_abrt", "srv_abrt", "chkdown"].map(count), [6, 2, 2, 1], "{whole:?}");
    let secure = row(&ours, "secure", "FRONTEND");
    assert_eq!(["ssl_sess", "ssl_reused_sess"].map(|name| number(secure, name)), [1, 5]);
}

/// What scrapers make of the address that they are given.
#[test]
fn it_is_found_where_scrapers_look() {
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}\
         listeners: [{{ name: 'in, \"quoted\"', bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: 127.0.0.1:9 }}] }}]\n",
    ));
    let port = tidegate.stats_port();
    for path in
        ["/stats;csv", "/stats;csv;norefresh", "/;csv", "/;csv;norefresh", "/stats/;csv", "/stats/;csv;norefresh"]
    {
        let answer = get(&port, path);
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain"), "{path}");
        let (_, rows) = table(&answer.text());
        assert_eq!(row(&rows, "in, \"quoted\"", "FRONTEND")["stot"], "0");
    }
    for path in ["/stats;json", "/;", "/stats;csvs", "/livez;csv"] {
        assert_eq!(get(&port, path).status, 404, "{path}");
    }
}
