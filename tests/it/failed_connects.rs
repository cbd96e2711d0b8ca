//! Connects to backends that fail: what is tried next, and what the logs say of each.

use std::env;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::net::{AddressFamily, SocketType, sockopt};
use serde_json::{Value, json};

use crate::support::backend::{Backend, Dead};
use crate::support::client::{Place, connect, expect, read_to_end, reset, with_deadline};
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::{Access, Tidegate, forward};
use crate::support::{DEADLINE, eventually, tell};

/// An address of documentation (RFC 5737), and so of no host.
const FOREIGN: &str = "192.0.2.1";

fn failed_connects(line: &Access) -> Value {
    match line.has("failed_connects") {
        true => serde_json::from_str(&line.field("failed_connects")).expect("a list"),
        false => json!([]),
    }
}

fn warnings(tidegate: &Tidegate, backend: &str) -> usize {
    tidegate.count_logs(|line| line.is("connect failed") && line.field("backend") == backend)
}

#[test]
fn every_backend_that_failed_is_named_with_its_reason() {
    let (a, b) = (Dead::start(), tempfile::tempdir().unwrap());
    let missing = b.path().join("none.sock");
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, retries: 3, backends: [{{ name: a, address: \"{}\" }}, \
         {{ name: b, address: \"unix:{}\" }}] }}]\n",
        a.address(),
        missing.display()
    ));
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    let line = tidegate.only_access();
    assert_eq!((line.end().as_str(), line.number("retries")), ("rejected: connect failed", Some(1.0)));
    let of_a = format!("{}: connection refused", a.address());
    let of_b = format!("unix:{}: there is no such socket file", missing.display());
    let mut failed = failed_connects(&line).as_array().expect("a list").clone();
    failed.sort_by_key(|entry| entry["backend"].to_string());
    assert_eq!(failed, [json!({ "backend": "a", "reason": of_a }), json!({ "backend": "b", "reason": of_b })]);

    let summary = tidegate.wait_for_log("both in one", |line| line.is("no backend could be reached: closed"));
    let reason = summary.field("reason");
    assert!(reason.contains(&format!("a: {of_a}")) && reason.contains(&format!("b: {of_b}")), "{reason}");
    // Within a second: a throttle that they shared would have kept one of them back.
    assert_eq!((warnings(&tidegate, "a"), warnings(&tidegate, "b")), (1, 1));
}

#[test]
fn half_of_the_clients_meet_the_dead_backend_first() {
    let (alive, dead) = (Backend::named("alive"), Dead::start());
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: dead, address: \"{}\" }}, {{ name: alive, address: \"{}\" }}] }}]\n",
        dead.address(),
        alive.place()
    ));
    for _ in 0..20 {
        assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"alive");
    }
    eventually(DEADLINE, "all have ended", || tidegate.access().len() == 20);
    let retried = tidegate.access().iter().filter(|line| line.number("retries") == Some(1.0)).count();
    assert_eq!(retried, 10);
    for line in tidegate.access() {
        let failed = failed_connects(&line);
        assert_eq!(failed.as_array().map(Vec::len), line.number("retries").map(|count| count as usize), "{line:?}");
        assert!(failed.as_array().is_some_and(|list| list.iter().all(|entry| entry["backend"] == "dead")), "{failed}");
    }
}

#[test]
fn a_source_that_cannot_be_used_gives_way_to_the_next() {
    let backend = Backend::named("b");
    let tidegate = Tidegate::start(&forward(backend.place(), "", &format!("source: [{FOREIGN}, 127.0.0.1]")));
    for _ in 0..4 {
        assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"b");
    }
    assert_eq!(warnings(&tidegate, "b"), 0);
}

/// The backend has no part in a wrong source: the next one is tried, and it counts no failed connect.
#[test]
fn a_local_address_without_use_is_not_the_backends_fault() {
    let (tcp, folder) = (Backend::named("tcp"), tempfile::tempdir().unwrap());
    let unix = Backend::bind_unix(&folder.path().join("b.sock"), |mut stream| _ = stream.write_all(b"unix"));
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, source: [{FOREIGN}], backends: [{{ name: tcp, address: \"{}\" }}, \
         {{ name: unix, address: \"{}\", backup: true }}] }}]\n",
        tcp.place(),
        unix.place()
    ));
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"unix");
    let line = tidegate.only_access();
    assert_eq!(line.backend(), Some("unix"));
    let failed = failed_connects(&line);
    let reason = failed[0]["reason"].as_str().expect("a reason");
    assert!(failed[0]["backend"] == "tcp" && reason.contains("not an address of this host"), "{failed}");
    let servers = get(&tidegate.stats_port(), "/api/metrics/servers").json();
    assert_eq!(servers["data"][0]["failedRequests"], 0, "{servers}");
}

#[test]
fn clients_wait_for_room_in_a_full_unix_queue() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.sock");
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    let to = Place::Unix(path);
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(&to, "", "timeouts: { connect: 50s }")));
    let mut clients: Vec<TcpStream> = (0..200)
        .map(|number: u32| {
            let mut client = connect(&tidegate.at("in"));
            client.write_all(&number.to_be_bytes()).unwrap();
            client
        })
        .collect();
    // The one that tries is among those that leave, wherever the queue's end is.
    clients.drain(..20).for_each(reset);
    eventually(DEADLINE, "those that left and had no place are gone", || {
        tidegate.access().iter().filter(|line| line.end() == "client left").count() >= 10
    });
    let (mut served, mut sessions) = (0, Vec::new());
    while served < clients.len() {
        let mut next = None;
        eventually(DEADLINE, "the next one comes", || {
            next = listener.accept().ok();
            next.is_some()
        });
        let (mut session, _) = next.unwrap();
        session.set_nonblocking(false).unwrap();
        session.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut number = [0; 4];
        if session.read_exact(&mut number).is_ok() {
            let left = u32::from_be_bytes(number) < 20;
            assert!(session.write_all(&number).is_ok() || left);
            sessions.push(session);
            served += usize::from(u32::from_be_bytes(number) >= 20);
        }
    }
    for (number, client) in (20u32..).zip(&mut clients) {
        expect(client, &number.to_be_bytes());
    }
}

#[test]
fn a_queue_that_stays_full_is_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.sock");
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let tidegate = Tidegate::start(&forward(Place::Unix(path.clone()), "", "retries: 0, timeouts: { connect: 200ms }"));
    let _clients: Vec<TcpStream> = (0..20).map(|_| connect(&tidegate.at("in"))).collect();
    let line = tidegate.wait_for_access("one without room", |line| line.end() == "rejected: connect failed");
    let reason = format!("unix:{}: its listen queue was full for 200ms", path.display());
    assert_eq!(failed_connects(&line), json!([{ "backend": "b", "reason": reason }]));
}

/// Runs the test again in a network namespace of its own whose connects have the ports 40000 to 40007. False in the process
/// that is to do nothing more.
fn has_eight_ports(test: &str) -> bool {
    const MARK: &str = "TIDEGATE_TEST_NAMESPACE";
    if env::var_os(MARK).is_some() {
        return true;
    }
    let script = "ip link set lo up && echo 40000 40007 >/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
    let user = if rustix::process::geteuid().is_root() { "-n" } else { "-rn" };
    if !Command::new("unshare").args([user, "true"]).status().expect("unshare").success() {
        tell(&format!("{test}: no network namespace to be had, not run"));
        return false;
    }
    let output = Command::new("unshare")
        .args([user, "sh", "-c", script, "sh"])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .output()
        .expect("unshare");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// A client whose own port is none of those.
fn client_from(port: u16, to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("socket");
    sockopt::set_socket_reuseaddr(&socket, true).expect("option");
    rustix::net::bind(&socket, &SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), port)).expect("bind");
    rustix::net::connect(&socket, &to).expect("connect");
    let stream = TcpStream::from(socket);
    with_deadline(&stream).expect("timeouts");
    stream
}

#[test]
fn a_connect_that_met_itself_is_refused() {
    if !has_eight_ports("failed_connects::a_connect_that_met_itself_is_refused") {
        return;
    }
    let tidegate = Tidegate::start(
        "listeners: [{ name: in, bind: \"127.0.0.1:8000\", pool: p }]\n\
         pools: [{ name: p, retries: 0, backends: [{ name: b, address: \"127.0.0.1:40002\" }] }]\n",
    );
    let Place::Tcp(listener) = tidegate.at("in") else { panic!("a port") };
    let met_itself = || tidegate.access().iter().any(|line| failed_connects(line).to_string().contains("met itself"));
    let mut ports = 9000..;
    eventually(DEADLINE, "a connect meets itself", || {
        let mut client = client_from(ports.next().expect("a port"), listener);
        _ = client.write_all(b"SELECT 1");
        assert_eq!(read_to_end(&mut client).0, b"", "the client got its own bytes");
        met_itself()
    });
    let line = tidegate.wait_for_access("of that one", |line| failed_connects(line).to_string().contains("met itself"));
    assert_eq!(line.end(), "rejected: connect failed");
    // Nothing holds the port: its owner can come back.
    eventually(DEADLINE, "its owner is back", || TcpListener::bind("127.0.0.1:40002").is_ok());
}

#[test]
fn ports_that_are_used_up_towards_one_backend_leave_the_other() {
    if !has_eight_ports("failed_connects::ports_that_are_used_up_towards_one_backend_leave_the_other") {
        return;
    }
    let at = |address: &str| {
        Backend::bind(format!("{address}:7000").parse().unwrap(), crate::support::backend::in_thread(echo_one))
    };
    let (first, second) = (at("127.0.0.1"), at("127.0.0.2"));
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:8000\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: first, address: \"{}\" }}, \
         {{ name: second, address: \"{}\", backup: true }}] }}]\n",
        first.place(),
        second.place()
    ));
    let Place::Tcp(listener) = tidegate.at("in") else { panic!("a port") };
    let mut clients: Vec<TcpStream> = (0..14)
        .map(|number| {
            let mut client = client_from(9000 + number, listener);
            client.write_all(b"x").unwrap();
            expect(&mut client, b"x");
            client
        })
        .collect();
    assert_eq!((first.accepted(), second.accepted()), (8, 6));
    drop(clients.pop());
    let failed = failed_connects(&tidegate.only_access());
    assert_eq!(failed[0]["backend"], "first");
    assert!(failed[0]["reason"].as_str().is_some_and(|reason| reason.contains("no local port is left")), "{failed}");
}

fn echo_one(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}
