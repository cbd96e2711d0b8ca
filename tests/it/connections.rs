//! `/api/connections` and `tidegate connections`: who is connected, to what, since when.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tidegate::admin::connections::{ConnectionRow, ConnectionsAnswer};

use crate::support::authority::{Authority, client_connection};
use crate::support::backend::{Backend, Dead, Scripted};
use crate::support::client::{End, connect, connect_from, expect, read_to_end};
use crate::support::proc::allow_open_files;
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Tls, client_hello, terminate};
use crate::support::{DEADLINE, eventually};

fn list(tidegate: &Tidegate, query: &str) -> ConnectionsAnswer {
    let answer = get(&tidegate.stats_port(), &format!("/api/connections?{query}"));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// The only connection, once `condition` holds of it.
fn only(tidegate: &Tidegate, what: &str, condition: impl Fn(&ConnectionRow) -> bool) -> ConnectionRow {
    let mut found = None;
    eventually(DEADLINE, what, || {
        let list = list(tidegate, "");
        assert_eq!((list.matched, list.more), (list.connections.len(), false));
        found = list.connections.into_iter().next().filter(&condition);
        found.is_some()
    });
    found.unwrap()
}

fn clients(list: &ConnectionsAnswer) -> Vec<&str> {
    list.connections.iter().map(|row| row.client.as_str()).collect()
}

fn own_address(client: &TcpStream) -> String {
    client.local_addr().unwrap().to_string()
}

#[test]
fn row_says_who_is_connected_to_what_since_when() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(scripted.place(), "", "")));
    let mut client = connect(&tidegate.at("in"));
    let mut backend = scripted.accept();
    client.write_all(b"question").unwrap();
    expect(&mut backend, b"question");
    backend.write_all(b"the answer").unwrap();
    expect(&mut client, b"the answer");

    let row = only(&tidegate, "both have been counted", |row| row.bytes_out > 0);
    assert_eq!((row.listener.as_str(), row.client.as_str()), ("in", own_address(&client).as_str()));
    assert_eq!((row.pool.as_deref(), row.backend.as_deref(), row.sni.as_deref()), (Some("p"), Some("b"), None));
    assert_eq!((row.bytes_in, row.bytes_out), (8, 10));
    assert!(row.idle_s <= row.age_s && row.since.ends_with('Z'), "{row:?}");

    // Silence counts from the last byte, age from the beginning.
    let later = only(&tidegate, "a silence", |row| row.idle_s >= 0.05);
    assert!(later.age_s > row.age_s && later.id == row.id, "{later:?}");
    client.write_all(b"!").unwrap();
    let again = only(&tidegate, "the byte", |row| row.bytes_in == 9);
    assert!(again.idle_s < again.age_s, "{again:?}");

    drop((client, backend));
    assert_eq!(tidegate.only_access().field("id"), row.id, "the same one in the access log");
    eventually(DEADLINE, "it has left the list", || list(&tidegate, "").matched == 0);
}

#[test]
fn without_a_backend_there_is_none_and_a_half_closed_connection_is_open() {
    let scripted = Scripted::start();
    let routed = "routes: [{ match: { sni: [a.example] }, pool: p }]";
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(scripted.place(), routed, "")));
    let mut client = connect(&tidegate.at("in"));
    // It may still ask for the other pool.
    let row = only(&tidegate, "it is there", |_| true);
    assert_eq!((row.pool, row.backend, row.bytes_in), (None, None, 0));
    let hello = client_hello(&mut client_connection(&Authority::new().client(), "a.example"));
    client.write_all(&hello).unwrap();
    let backend = scripted.accept();
    let row = only(&tidegate, "it has a backend", |row| row.bytes_in == hello.len() as u64);
    assert_eq!(
        (row.pool.as_deref(), row.backend.as_deref(), row.sni.as_deref()),
        (Some("p"), Some("b"), Some("a.example"))
    );
    let before = only(&tidegate, "a silence", |row| row.idle_s >= 0.05);
    backend.shutdown(Shutdown::Write).unwrap();
    let last_moved = |row: &ConnectionRow| row.age_s - row.idle_s;
    only(&tidegate, "its FIN has moved", |row| last_moved(row) >= last_moved(&before) + 0.04);
}

#[test]
fn server_name_is_shown_where_tls_ends() {
    let (backend, authority) = (Backend::echo(), Authority::new());
    let issued = authority.issue(&["localhost"]);
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", terminate(backend.place(), &[&issued], "", "")));
    let _client = Tls::connect(&tidegate.at("in"), &authority.client(), "localhost");
    let row = only(&tidegate, "it has a backend", |row| row.backend.is_some());
    assert_eq!(row.sni.as_deref(), Some("localhost"));
}

#[test]
fn filters_show_what_fits_all_of_them() {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let mut yaml = format!("{ADMIN}workers: 2\nlisteners:\n");
    for name in ["a", "b", "c"] {
        writeln!(yaml, "  - {{ name: {name}, bind: \"127.0.0.1:0\", pool: p{name} }}").unwrap();
    }
    yaml.push_str("pools:\n");
    for (name, backend) in ["a", "b", "c"].iter().zip(&backends) {
        writeln!(yaml, "  - {{ name: p{name}, backends: [{{ name: x{name}, address: \"{}\" }}] }}", backend.place())
            .unwrap();
    }
    let tidegate = Tidegate::start(&yaml);
    let mut held = Vec::new();
    for (listener, last) in [("a", 1), ("a", 2), ("b", 1), ("c", 3)] {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 9, last));
        let mut client = connect_from(from, tidegate.at(listener).tcp());
        client.write_all(b"x").unwrap();
        expect(&mut client, b"x");
        held.push(client);
    }
    let all: Vec<String> = held.iter().map(own_address).collect();
    let shown = |query: &str| {
        let list = list(&tidegate, query);
        assert_eq!(list.matched, list.connections.len(), "{query}");
        let place = |client: &str| all.iter().position(|known| *known == client).unwrap();
        clients(&list).into_iter().map(place).collect::<Vec<usize>>()
    };
    let cases: [(&str, &[usize]); 12] = [
        ("", &[0, 1, 2, 3]),
        ("listener=a", &[0, 1]),
        ("pool=pb", &[2]),
        ("backend=xc", &[3]),
        ("client=127.0.9.1", &[0, 2]),
        ("client=127.0.9.2/31", &[1, 3]),
        ("client=127.0.9.0/24&listener=a", &[0, 1]),
        ("client=127.0.9.1&pool=pb", &[2]),
        ("client=10.0.0.0/8", &[]),
        ("backend=nobody", &[]),
        ("older=1h", &[]),
        ("older=0s&backend=xa", &[0, 1]),
    ];
    for (query, places) in cases {
        assert_eq!(shown(query), places, "the oldest first: {query}");
    }
    let id = &list(&tidegate, "").connections[2].id;
    assert_eq!(shown(&format!("id={id}")), [2]);
    assert!(shown("id=8000000000000000").is_empty());

    let some = list(&tidegate, "limit=2");
    assert_eq!((clients(&some), some.matched, some.more), (vec![all[0].as_str(), &all[1]], 4, true));

    for (query, error) in [
        ("pol=p", "`pol` is not known"),
        ("client=me", "client: `me` is no address"),
        ("older=5", "older: `5` has no unit"),
        ("limit=x", "limit: `x` is no number"),
    ] {
        let answer = get(&tidegate.stats_port(), &format!("/api/connections?{query}"));
        let said = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && said.starts_with(error), "{query}: {} {said}", answer.status);
    }
}

/// Those that stay are in every list, once, however others come and go between its portions.
#[test]
fn connection_that_stays_is_listed_exactly_once() {
    const STAYING: usize = 700;
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("{ADMIN}workers: 2\n{}", forward(backend.place(), "", "")));
    let at = tidegate.at("in");
    let come_and_go = |staying: bool| {
        let mut client = connect(&at);
        client.write_all(b"x").unwrap();
        expect(&mut client, b"x");
        staying.then_some(client)
    };
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    come_and_go(false);
                }
            });
        }
        let held: Vec<TcpStream> = (0..STAYING).map(|_| come_and_go(true).unwrap()).collect();
        let staying: Vec<String> = held.iter().map(own_address).collect();
        for _ in 0..20 {
            let list = list(&tidegate, "");
            let mut times: HashMap<&str, usize> = HashMap::new();
            clients(&list).into_iter().for_each(|client| *times.entry(client).or_default() += 1);
            assert!(staying.iter().all(|client| times.get(client.as_str()) == Some(&1)));
            assert!(list.matched >= STAYING && list.matched == list.connections.len() && !list.more);
        }
        ended.store(true, Ordering::Relaxed);
    });
}

fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn command_prints_a_table_or_json() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), "", "")));
    let stats = tidegate.stats_port().to_string();
    let run = |more: &[&str]| command(&[&["connections", "--stats", &stats], more].concat());
    let echoed = |_| {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"x").unwrap();
        expect(&mut client, b"x");
        client
    };
    // One after the other: the oldest is the first.
    let held: Vec<TcpStream> = (0..3).map(echoed).collect();

    let (code, table, note) = run(&["--pool", "p", "--client", "127.0.0.0/8"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, note.as_str(), lines.len()), (Some(0), "", 4), "{table}");
    assert_eq!(lines[0], ["ID", "LISTENER", "CLIENT", "POOL", "BACKEND", "AGE", "IDLE", "IN", "OUT", "SNI"]);
    assert_eq!(lines[1][1..5], ["in", &own_address(&held[0]), "p", "b"]);

    let (_, json, _) = run(&["--json", "--older", "0s"]);
    let answer: ConnectionsAnswer = serde_json::from_str(&json).unwrap();
    assert_eq!((answer.matched, answer.connections[0].id.as_str()), (3, lines[1][0]));

    let (code, table, note) = run(&["--limit", "1"]);
    assert_eq!((code, table.lines().count()), (Some(0), 2));
    assert!(note.starts_with("1 of 3 connections, the oldest"), "{note}");
    assert_eq!(run(&["--older", "1h"]).1.lines().count(), 1, "the headings");
    assert_eq!(run(&["--backend", "p/b"]).1.lines().count(), 4, "as other commands name it");
    for (filter, error) in [
        (["--backend", "nobody"], "error: there is no backend `nobody`: there are p/b\n"),
        (["--backend", "q/b"], "error: there is no pool `q`: there are p\n"),
        (["--pool", "q"], "error: there is no pool `q`: there are p\n"),
        (["--listener", "out"], "error: there is no listener `out`: there are in\n"),
    ] {
        assert_eq!(run(&filter), (Some(1), String::new(), error.to_owned()));
    }

    for (arguments, part) in [
        (&["--client", "me"][..], "write an address, such as 10.0.0.7"),
        (&["--older", "5"], "has no unit: write 5s for seconds"),
        (&["--limit", "10001"], "10001 is not in 1..=10000"),
    ] {
        let (code, _, error) = run(arguments);
        assert!(code == Some(2) && error.contains(part), "{arguments:?}: {code:?} {error}");
    }
}

#[test]
fn kill_wants_to_know_which() {
    let (code, _, error) = command(&["kill"]);
    assert!(code == Some(2) && error.contains("required arguments were not provided"), "{error}");
    let (code, _, error) = command(&["kill", "8000000000000abc", "--pool", "p"]);
    assert!(code == Some(2) && error.contains("cannot be used with"), "{error}");
    let dead = Dead::start();
    let (code, _, error) = command(&["kill", "--pool", "p", "--stats", &dead.address().to_string()]);
    assert!(code == Some(1) && error.contains("cannot be reached"), "{error}");
}

#[test]
fn list_of_thousands_is_whole() {
    const OPEN: usize = 3_000;
    allow_open_files(16_000);
    let backend = Scripted::start();
    let tidegate = Tidegate::start(&format!("{ADMIN}workers: 2\n{}", forward(backend.place(), "", "")));
    let held: Vec<(TcpStream, TcpStream)> =
        (0..OPEN).map(|_| (connect(&tidegate.at("in")), backend.accept())).collect();
    eventually(DEADLINE, "they have a backend", || list(&tidegate, "backend=b&limit=1").matched == OPEN);
    assert_eq!(list(&tidegate, "").connections.len(), 1_000, "unless more are asked for");
    let list = list(&tidegate, "limit=10000");
    let shown: Vec<&str> = clients(&list);
    let expected: Vec<String> = held.iter().map(|(client, _)| own_address(client)).collect();
    assert!(list.matched == OPEN && shown == expected, "all, the oldest first");
}

#[test]
fn kill_ends_what_fits_and_says_how_many() {
    let (backend, folder) = (Backend::echo(), tempfile::tempdir().unwrap());
    let socket = format!("unix:{}", folder.path().join("admin.sock").display());
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"{socket}\" }}\nworkers: 2\n{}",
        forward(backend.place(), "", "balance: round_robin")
    ));
    let mut clients = [1, 2, 2, 3, 4].map(|last| {
        let mut client = connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 9, last)), tidegate.at("in").tcp());
        client.write_all(b"x").unwrap();
        expect(&mut client, b"x");
        client
    });
    let run = |more: &[&str]| command(&[&["kill", "--stats", &socket], more].concat());
    let id = list(&tidegate, "client=127.0.9.1").connections[0].id.clone();
    assert_eq!(run(&[&id]), (Some(0), "1 connection ended\n".to_owned(), String::new()));
    assert_eq!(read_to_end(&mut clients[0]), (Vec::new(), End::Reset));
    let line = tidegate.only_access();
    assert_eq!(
        (line.field("id"), line.end(), line.field("code")),
        (id.clone(), "killed by an administrator".to_owned(), "KD".to_owned())
    );
    let audit = tidegate.wait_for_log("what was done", |line| line.field("target") == "audit" || line.is("audit"));
    assert_eq!(audit.number("connections"), 1);

    let unknown = "error: there is no backend `nope`: there are p/b\n";
    assert_eq!(run(&["--backend", "p/nope"]), (Some(1), String::new(), unknown.to_owned()));
    assert_eq!(run(&["--client", "127.0.9.2", "--backend", "p/b"]).1, "2 connections ended\n");
    for client in &mut clients[1..3] {
        assert_eq!(read_to_end(client), (Vec::new(), End::Reset));
    }
    for client in &mut clients[3..] {
        client.write_all(b"still there").unwrap();
        expect(client, b"still there");
    }
    assert_eq!(run(&["--older", "1h"]), (Some(0), "0 connections ended\n".to_owned(), String::new()));
    let none = format!("error: no open connection has the id {id}\n");
    assert_eq!(run(&[&id]), (Some(1), String::new(), none));
    let (code, _, error) = run(&["7"]);
    assert!(code == Some(1) && error.starts_with("error: `7` is no connection's id"), "{error}");
    assert_eq!(list(&tidegate, "").matched, 2);
}

/// As its name says, and no other: a backend of the same name in another pool is another one.
#[test]
fn cutting_a_backend_ends_its_connections_alone() {
    let (backend, folder) = (Backend::echo(), tempfile::tempdir().unwrap());
    let socket = format!("unix:{}", folder.path().join("admin.sock").display());
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"{socket}\" }}\nworkers: 2\n\
         listeners: [{{ name: a, bind: \"127.0.0.1:0\", pool: p }}, {{ name: b, bind: \"127.0.0.1:0\", pool: q }}]\n\
         pools:\n  - {{ name: p, backends: [{{ name: db, address: \"{0}\" }}] }}\n\
         \x20 - {{ name: q, backends: [{{ name: db, address: \"{0}\" }}] }}\n",
        backend.place()
    ));
    let mut clients = ["a", "b", "a"].map(|listener| {
        let mut client = connect(&tidegate.at(listener));
        client.write_all(b"x").unwrap();
        expect(&mut client, b"x");
        client
    });
    let (code, _, error) = command(&["cut", "p/db", "--stats", &socket]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    for client in [0, 2] {
        assert_eq!(read_to_end(&mut clients[client]), (Vec::new(), End::Reset));
    }
    clients[1].write_all(b"still there").unwrap();
    expect(&mut clients[1], b"still there");
    // The backend stays.
    let mut again = connect(&tidegate.at("a"));
    again.write_all(b"x").unwrap();
    expect(&mut again, b"x");
}
