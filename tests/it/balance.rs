//! Who gets which connection, as the clients see it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::support::backend::{Backend, Scripted};
use crate::support::client::{End, connect, connect_from, read_to_end};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

#[test]
fn equal_weights_share_equally() {
    for workers in [1, 2] {
        let backends = [Backend::named("a"), Backend::named("b")];
        let tidegate = balanced(workers, "", &[("a", &backends[0], ""), ("b", &backends[1], "")]);
        assert_eq!(count(&names(&tidegate, 30)), [("a".to_owned(), 15), ("b".to_owned(), 15)].into());
    }
}

#[test]
fn weights_share_in_proportion() {
    for workers in [1, 2] {
        let backends = [Backend::named("a"), Backend::named("b")];
        let tidegate = balanced(workers, "", &[("a", &backends[0], ""), ("b", &backends[1], "weight: 2")]);
        assert_eq!(count(&names(&tidegate, 30)), [("a".to_owned(), 10), ("b".to_owned(), 20)].into());
    }
}

/// Smooth: a heavy backend's turns are spread, not in a row. One order for all workers together.
#[test]
fn weights_5_1_1_come_in_the_smooth_order() {
    for workers in [1, 2] {
        let backends = [Backend::named("a"), Backend::named("b"), Backend::named("c")];
        let tidegate = balanced(
            workers,
            "",
            &[("a", &backends[0], "weight: 5"), ("b", &backends[1], ""), ("c", &backends[2], "")],
        );
        assert_eq!(names(&tidegate, 21).concat(), "aabacaaaabacaaaabacaa", "workers: {workers}");
    }
}

#[test]
fn weight_0_gets_no_connection() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let tidegate = balanced(2, "", &[("a", &backends[0], "weight: 0"), ("b", &backends[1], "")]);
    assert_eq!(count(&names(&tidegate, 10)), [("b".to_owned(), 10)].into());
}

#[test]
fn least_connections_by_weight() {
    let backends = [Backend::named_and_open("a"), Backend::named_and_open("b")];
    let tidegate =
        balanced(2, "balance: least_connections", &[("a", &backends[0], ""), ("b", &backends[1], "weight: 2")]);
    let mut open: Vec<(TcpStream, String)> = (0..30).map(|_| open_one(&tidegate)).collect();
    let names = |open: &[(TcpStream, String)]| count(&open.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>());
    assert_eq!(names(&open), [("a".to_owned(), 10), ("b".to_owned(), 20)].into());

    // Those that leave make room where they were.
    open.retain(|(_, name)| name == "b");
    tidegate.wait_for_access("all of a left", |_| tidegate.access().len() == 10);
    open.extend((0..10).map(|_| open_one(&tidegate)));
    assert_eq!(names(&open), [("a".to_owned(), 10), ("b".to_owned(), 20)].into());
}

/// Two workers that pick at the same moment do not overrun a backend together.
#[test]
fn a_backends_max_connections_is_never_exceeded() {
    const CLIENTS: usize = 40;
    const ROUNDS: usize = 50;
    let limits = [("a", 3), ("b", 7), ("c", 1), ("d", 1), ("e", 1), ("f", 1), ("g", 1), ("h", 1)];
    let all = limits.iter().map(|(_, limit)| limit).sum::<usize>();
    let backends =
        limits.map(|(name, limit)| (name, Backend::named_and_open(name), format!("max_connections: {limit}")));
    let listed: Vec<(&str, &Backend, &str)> =
        backends.iter().map(|(name, backend, limit)| (*name, backend, limit.as_str())).collect();
    let tidegate = balanced(2, "", &listed);
    let place = tidegate.at("in");
    let mut refused = 0;
    for round in 1..=ROUNDS {
        let start = Barrier::new(CLIENTS);
        let mut open: Vec<(TcpStream, String)> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        name_or_nothing(connect(&place))
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        open.retain(|(_, name)| !name.is_empty());
        refused += CLIENTS - open.len();
        if round == 1 {
            assert_eq!(open.len(), all, "all places are taken");
        }
        let on = |open: &[(TcpStream, String)], name: &str| open.iter().filter(|(_, other)| other == name).count();
        for (name, limit) in limits {
            assert!(on(&open, name) <= limit, "round {round}: {} connections on {name}", on(&open, name));
        }

        // The last of the round before may have been about to leave; then there is room now, and never for one more.
        eventually(DEADLINE, "all places are taken", || {
            let one = name_or_nothing(connect(&place));
            let served = !one.1.is_empty();
            refused += usize::from(!served);
            if served {
                open.push(one);
            }
            !served && open.len() >= all
        });
        for (name, limit) in limits {
            assert_eq!(on(&open, name), limit, "round {round}: {name}");
        }
    }
    tidegate.wait_for_access("the refused", |_| {
        tidegate.access().iter().filter(|line| line.end() == "rejected: no backend").count() == refused
    });
}

/// Full is as good as down.
#[test]
fn a_backup_serves_only_when_nobody_else_can() {
    let (main, backup) = (Backend::named_and_open("m"), Backend::named_and_open("k"));
    let tidegate = balanced(2, "", &[("main", &main, "max_connections: 1"), ("backup", &backup, "backup: true")]);
    let on_main = open_one(&tidegate);
    assert_eq!(on_main.1, "m");
    let on_backup = open_one(&tidegate);
    assert_eq!(on_backup.1, "k");
    drop(on_main);
    eventually(DEADLINE, "main again", || open_one(&tidegate).1 == "m");
}

#[test]
fn a_backup_takes_over_while_the_others_are_down() {
    let main = Backend::named("main");
    let backup = Backend::named("backup");
    let address = main.address();
    let tidegate = balanced(
        1,
        "health: { tcp: {}, interval: 100ms, rise: 1, fall: 1 }, retries: 0",
        &[("main", &main, ""), ("backup", &backup, "backup: true")],
    );
    tidegate.wait_for_up("main");
    tidegate.wait_for_up("backup");
    assert_eq!(count(&names(&tidegate, 10)), [("main".to_owned(), 10)].into());

    drop(main);
    tidegate.wait_for_down("main");
    assert_eq!(count(&names(&tidegate, 10)), [("backup".to_owned(), 10)].into());

    let _main = Backend::named_at(address, "main");
    eventually(DEADLINE, "main is up again", || {
        tidegate.count_logs(|line| line.is("backend up") && line.field("backend") == "main") == 2
    });
    assert_eq!(count(&names(&tidegate, 10)), [("main".to_owned(), 10)].into());
}

/// Over a listener's limit connections wait in the kernel's queue, and are served when others leave.
#[test]
fn a_listeners_max_connections_lets_the_others_wait() {
    for workers in [1, 2] {
        let scripted = Scripted::start();
        let tidegate = Tidegate::start(&format!(
            "workers: {workers}\n\
             listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, max_connections: 2 }}]\n\
             pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
            scripted.place()
        ));
        let mut clients: BTreeMap<u8, TcpStream> =
            (b'0'..b'5').map(|name| (name, connect(&tidegate.at("in")))).collect();
        for (name, client) in &mut clients {
            client.write_all(&[*name]).unwrap();
        }
        let mut served = vec![scripted.accept(), scripted.accept()];
        let mut leave_one = |served: &mut Vec<TcpStream>| {
            let mut name = [0];
            served.remove(0).read_exact(&mut name).unwrap();
            clients.remove(&name[0]).expect("each is served once");
        };
        // As long as two are open there is no third one; each that leaves lets one in.
        for _ in 0..3 {
            assert!(!scripted.accepts_within(Duration::from_millis(200)), "workers: {workers}: a third connection");
            leave_one(&mut served);
            served.push(scripted.accept());
        }
        leave_one(&mut served);
        leave_one(&mut served);
        assert!(clients.is_empty());
    }
}

/// The same client always comes to the same backend: on both workers, after a restart, and when another backend leaves.
#[test]
fn ip_hash_keeps_a_clients_backend() {
    let mut backends: Vec<(&str, Backend)> =
        ["a", "b", "c", "d", "e"].into_iter().map(|name| (name, Backend::named(name))).collect();
    let first = hashed(&backends);
    assert!(first.values().collect::<BTreeSet<_>>().len() >= 3, "40 clients share five backends: {first:?}");
    assert_eq!(hashed(&backends), first, "another instance places as the first one did");

    let gone = backends.remove(2).0;
    let moved = hashed(&backends);
    for (client, name) in &first {
        if name == gone {
            assert_ne!(moved[client], gone);
        }
    }
    let kept = first.iter().filter(|(client, name)| moved[*client] == **name).count();
    let on_gone = first.values().filter(|name| *name == gone).count();
    assert!(kept >= 40 - on_gone - 4, "{kept} of the {} on other backends stayed", 40 - on_gone);
}

fn hashed(backends: &[(&str, Backend)]) -> BTreeMap<IpAddr, String> {
    let backends: Vec<(&str, &Backend, &str)> = backends.iter().map(|(name, backend)| (*name, backend, "")).collect();
    let tidegate = balanced(2, "balance: ip_hash", &backends);
    let at = tidegate.at("in").tcp();
    let mut placed = BTreeMap::new();
    for _ in 0..3 {
        for last in 1..=40 {
            let client = IpAddr::V4(Ipv4Addr::new(127, 0, 3, last));
            let (name, end) = read_to_end(&mut connect_from(client, at));
            assert_eq!(end, End::Fin);
            let name = String::from_utf8(name).unwrap();
            assert_eq!(*placed.entry(client).or_insert_with(|| name.clone()), name, "{client}");
        }
    }
    placed
}

fn balanced(workers: usize, pool: &str, backends: &[(&str, &Backend, &str)]) -> Tidegate {
    let mut yaml = format!(
        "workers: {workers}\n\
         listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: ["
    );
    for (name, backend, keys) in backends {
        yaml += &format!("{{ name: {name}, address: \"{}\", {keys} }}, ", backend.place());
    }
    Tidegate::start(&format!("{yaml}], {pool} }}]\n"))
}

/// What so many clients, one after the other, were answered.
fn names(tidegate: &Tidegate, clients: usize) -> Vec<String> {
    (0..clients)
        .map(|_| {
            let (name, end) = read_to_end(&mut connect(&tidegate.at("in")));
            assert_eq!(end, End::Fin);
            String::from_utf8(name).unwrap()
        })
        .collect()
}

fn open_one(tidegate: &Tidegate) -> (TcpStream, String) {
    let (stream, name) = name_or_nothing(connect(&tidegate.at("in")));
    assert!(!name.is_empty(), "refused");
    (stream, name)
}

/// The one-letter name that the backend sends, or nothing when the connection was refused.
fn name_or_nothing(mut stream: TcpStream) -> (TcpStream, String) {
    let mut byte = [0];
    let name = match stream.read(&mut byte) {
        Ok(1) => char::from(byte[0]).to_string(),
        Ok(_) => String::new(),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("{error}"),
    };
    (stream, name)
}

fn count(names: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    counts
}
