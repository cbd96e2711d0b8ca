//! Listeners with ranges of ports, and backends that take the port of the client.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, echoes, expect, talking};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, proc};

/// The first of `count` ports in a row that are free now, at both addresses.
fn free_ports(count: u16) -> u16 {
    // Below the ports that the kernel gives to connections.
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(10_000..30_000));
    let is_free = |first: &u16| {
        let ports = *first..*first + count;
        let hosts = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
        let held: Vec<_> = ports.flat_map(|port| hosts.map(|host| TcpListener::bind((host, port)))).collect();
        held.iter().all(Result::is_ok)
    };
    candidates.find(is_free).expect("there is no end of them")
}

fn at(port: u16) -> Place {
    Place::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// A listener with a range, and a pool with one backend.
fn ranged(range: &str, backend: &str, more: &str) -> String {
    format!(
        "{ADMIN_SOCKET}workers: 2\nlisteners: [{{ name: in, bind: \"127.0.0.1:{range}\", pool: p, {more} }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{backend}\" }}] }}]\n"
    )
}

/// The sockets that listen on a port.
fn sockets(port: u16) -> BTreeSet<String> {
    proc::listening((Ipv4Addr::LOCALHOST, port).into())
}

fn listens(port: u16) -> bool {
    !sockets(port).is_empty()
}

#[test]
fn each_port_of_a_range_goes_to_the_same_port_of_the_backend() {
    let first = free_ports(6);
    let backends: Vec<Backend> = (first..first + 5)
        .map(|port| Backend::named_at((Ipv4Addr::new(127, 0, 0, 2), port).into(), &format!("port {port}")))
        .collect();
    let tidegate = Tidegate::start(&ranged(&format!("{first}-{}", first + 4), "127.0.0.2:*", ""));
    for port in first..first + 5 {
        expect(&mut connect(&at(port)), format!("port {port}").as_bytes());
    }
    assert!(backends.iter().all(|backend| backend.accepted() == 1));
    assert!(!listens(first + 5));
    let view = tidegate.view();
    assert_eq!(view.listeners[0].addresses, [format!("127.0.0.1:{first}-{}", first + 4)], "shown as one");
    assert_eq!(view.pools[0].backends[0].address, "127.0.0.2:*");
    let lines = tidegate.count_logs(|line| line.is("listening"));
    assert_eq!(lines, 1, "one line for all");
    // Nothing listens on that port of the backend.
    let nobody = free_ports(1);
    tidegate.rewrite(&ranged(&format!("{nobody}-{}", nobody), "127.0.0.2:*", ""));
    tidegate.call("POST", "/api/reload", "");
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, nobody)).unwrap());
    let line = tidegate.wait_for_log("why", |line| line.is("connect failed"));
    assert!(line.field("reason").starts_with(&format!("127.0.0.2:{nobody}: ")), "{line:?}");
}

#[test]
fn port_is_that_of_the_socket_and_not_of_a_proxy_header() {
    let first = free_ports(2);
    let backend = Backend::named_at((Ipv4Addr::new(127, 0, 0, 2), first + 1).into(), "it");
    let more = "proxy_protocol: { trusted: [127.0.0.1] }";
    let _tidegate = Tidegate::start(&ranged(&format!("{first}-{}", first + 1), "127.0.0.2:*", more));
    let mut client = connect(&at(first + 1));
    client.write_all(format!("PROXY TCP4 192.0.2.7 192.0.2.8 1000 {first}\r\n").as_bytes()).unwrap();
    expect(&mut client, b"it");
    assert_eq!(backend.accepted(), 1);
}

/// Each address of the name is a backend, which has the port of the client too.
#[test]
fn host_name_has_the_clients_port_at_each_of_its_addresses() {
    let first = free_ports(2);
    let hosts = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let backends = hosts.map(|host| Backend::named_at((host, first + 1).into(), "it"));
    let yaml = ranged(&format!("{first}-{}", first + 1), "ports.example:*", "");
    let tidegate =
        Tidegate::with(&yaml).hosts("127.0.0.1 localhost\n127.0.0.2 ports.example\n127.0.0.3 ports.example\n").start();
    for _ in 0..4 {
        expect(&mut connect(&at(first + 1)), b"it");
    }
    assert!(backends.iter().all(|backend| backend.accepted() == 2));
    let view = tidegate.view();
    let shown: Vec<_> = view.pools[0].backends.iter().map(|it| (it.name.as_str(), it.address.as_str())).collect();
    assert_eq!(shown, [("b@127.0.0.2:*", "127.0.0.2:*"), ("b@127.0.0.3:*", "127.0.0.3:*")]);
}

#[test]
fn workers_that_come_and_leave_accept_from_a_range() {
    let first = free_ports(6);
    let backend = Backend::echo();
    let range = ranged(&format!("{first}-{}", first + 5), &backend.address().to_string(), "");
    let tidegate = Tidegate::start(&range);
    let before: Vec<_> = (first..first + 6).map(sockets).collect();
    let mut clients: Vec<TcpStream> = (first..first + 6).map(|port| talking(&at(port))).collect();
    for workers in [5, 1, 3] {
        tidegate.rewrite(&range.replace("workers: 2", &format!("workers: {workers}")));
        assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
        for port in first..first + 6 {
            clients.push(talking(&at(port)));
        }
        assert_eq!((first..first + 6).map(sockets).collect::<Vec<_>>(), before, "one socket for each port");
        clients.iter_mut().for_each(echoes);
    }
}

/// One socket for each port, with a duplicate for its worker: they count among the open files.
#[test]
fn range_is_as_many_sockets_as_it_has_ports() {
    let first = free_ports(40);
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let tidegate = Tidegate::start(&ranged(&format!("{first}"), &address, ""));
    let (files, capacity) = (tidegate.open_files(), capacity(&tidegate));
    tidegate.rewrite(&ranged(&format!("{first}-{}", first + 39), &address, ""));
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    eventually(DEADLINE, "two descriptors for each of 39 ports more", || tidegate.open_files() == files + 2 * 39);
    assert_eq!(self::capacity(&tidegate), capacity - 39);
    for port in [first, first + 17, first + 39] {
        echoes(&mut connect(&at(port)));
    }
}

fn capacity(tidegate: &Tidegate) -> usize {
    tidegate.view().plane.capacity
}

#[test]
fn range_that_grows_and_shrinks_keeps_the_sockets_that_stay() {
    let first = free_ports(8);
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let range = |from: u16, to: u16| ranged(&format!("{}-{}", first + from, first + to), &address, "");
    let tidegate = Tidegate::start(&range(2, 4));
    let inodes = |from: u16, to: u16| (first + from..=first + to).map(sockets).collect::<Vec<_>>();
    let before = inodes(2, 4);
    assert!(before.iter().all(|sockets| sockets.len() == 1));
    let mut clients: Vec<TcpStream> = (2..=4).map(|port| talking(&at(first + port))).collect();
    for (from, to) in [(0, 7), (2, 4), (3, 3), (3, 6)] {
        tidegate.rewrite(&range(from, to));
        let answer = tidegate.call("POST", "/api/reload", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        for port in 0..8 {
            let is_open = (from..=to).contains(&port);
            eventually(DEADLINE, "open or closed", || listens(first + port) == is_open);
            if is_open {
                echoes(&mut connect(&at(first + port)));
            }
        }
        if (from, to) == (0, 7) || (from, to) == (2, 4) {
            assert_eq!(inodes(2, 4), before, "the same sockets");
        }
        // One port alone has a socket for each worker.
        assert!(sockets(first + 3).is_superset(&before[1]));
        clients.iter_mut().for_each(echoes);
    }
}

#[test]
fn upgrade_hands_a_range_over() {
    let first = free_ports(70);
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&ranged(&format!("{first}-{}", first + 69), &backend.address().to_string(), ""));
    let before = sockets(first + 69);
    let mut client = talking(&at(first));
    tidegate.upgrade();
    assert_eq!(sockets(first + 69), before);
    for port in [first, first + 35, first + 69] {
        echoes(&mut connect(&at(port)));
    }
    echoes(&mut client);
}

/// More ports than the soft limit of open files has room for.
#[test]
fn soft_limit_of_open_files_is_raised_before_a_range_is_bound() {
    let first = free_ports(300);
    let backend = Backend::echo();
    let yaml = ranged(&format!("{first}-{}", first + 299), &backend.address().to_string(), "");
    let _tidegate = Tidegate::with(&yaml).open_files(128, 4096).start();
    echoes(&mut connect(&at(first + 299)));
}

#[test]
fn backend_with_the_clients_port_is_checked_at_its_own() {
    let first = free_ports(1);
    let backend = Backend::named_at((Ipv4Addr::new(127, 0, 0, 2), first).into(), "it");
    let other = Backend::echo();
    let health = |more: &str| {
        format!(
            "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:{first}\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ name: b, address: \"127.0.0.2:*\" }}], health: {{ tcp: {{}}{more} }} }}]\n"
        )
    };
    let (status, text) = Tidegate::with(&health("")).run_to_end();
    assert!(status.code() == Some(2) && text.contains("backend `b` has no port of its own to check"), "{text}");
    drop(other);
    let tidegate = Tidegate::start(&health(&format!(", port: {}", first)));
    tidegate.wait_for_up("b");
    expect(&mut connect(&at(first)), b"it");
    drop(backend);
    let without = "listeners: [{ name: in, bind: \"127.0.0.1:0\", pool: p }]\n\
                   pools: [{ name: p, backends: [], health: { tcp: {} } }]\n";
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}{without}"));
    let answer = tidegate.call("PUT", "/api/pools/p/backends/x", "{\"address\": \"127.0.0.2:*\"}");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("backend `x` has no port of its own to check"), "{}", answer.text());
}

#[test]
fn backend_that_would_be_its_own_listener_is_refused() {
    let first = free_ports(2);
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&ranged(&format!("{first}-{}", first + 1), &backend.address().to_string(), ""));
    let put =
        |address: &str| tidegate.call("PUT", "/api/pools/p/backends/x", &format!("{{\"address\": \"{address}\"}}"));
    assert_eq!(put("127.0.0.1:*").status, 409);
    assert_eq!(put(&format!("127.0.0.1:{}", first + 1)).status, 409);
    assert_eq!(put("127.0.0.2:*").status, 201);
}
