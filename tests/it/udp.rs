//! `protocol: udp`: sessions over real sockets.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// A server that answers each datagram by its name and what it got.
struct Echo {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn named(name: &str) -> Echo {
        Echo::at(name, "127.0.0.1:0", |name, datagram| vec![[name, datagram].concat()])
    }

    /// One that answers as `answers` says.
    fn at(name: &str, address: &str, answers: fn(&[u8], &[u8]) -> Vec<Vec<u8>>) -> Echo {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (address, stopped) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let (name, end) = (name.as_bytes().to_vec(), Arc::clone(&stopped));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while !end.load(Ordering::Relaxed) {
                let Ok((count, client)) = socket.recv_from(&mut buffer) else { continue };
                for answer in answers(&name, &buffer[..count]) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Echo { address, stopped, thread: Some(thread) }
    }
}

impl Drop for Echo {
    /// Its port is closed when this returns.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn client(address: &str, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(server).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 65_536];
    let count = socket.recv(&mut buffer).unwrap();
    buffer[..count].to_vec()
}

fn ask(socket: &UdpSocket, text: &str) -> String {
    socket.send(text.as_bytes()).unwrap();
    String::from_utf8(receive(socket)).unwrap()
}

/// Whether nothing comes, once what was sent before has been seen to at the server.
fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let received = socket.recv(&mut [0; 2000]);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    matches!(received, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A listener of datagrams, with more keys of it and of its pool.
fn yaml(backends: &[&Echo], listener: &str, pool: &str) -> String {
    let entries: Vec<String> = backends.iter().map(|it| format!("{{ address: \"{}\" }}", it.address)).collect();
    format!(
        "{ADMIN_SOCKET}workers: 2\nlisteners: [{{ name: in, protocol: udp, bind: \"127.0.0.1:0\", pool: p, {listener} }}]\n\
         pools: [{{ name: p, backends: [{}], {pool} }}]\n",
        entries.join(", ")
    )
}

#[test]
fn datagrams_go_both_ways_and_sessions_keep_their_backend() {
    let (one, two) = (Echo::named("a"), Echo::named("b"));
    let tidegate = Tidegate::start(&yaml(&[&one, &two], "", ""));
    let server = tidegate.at("in").tcp();
    let clients: Vec<UdpSocket> = (0..20).map(|_| client("127.0.0.1", server)).collect();
    let first: Vec<String> = clients.iter().map(|client| ask(client, "1")).collect();
    assert_eq!(first.iter().filter(|name| *name == "a1").count(), 10, "in turn: {first:?}");
    for text in ["", "2", &"x".repeat(60_000)] {
        for (client, name) in clients.iter().zip(&first) {
            assert_eq!(ask(client, text), format!("{}{text}", &name[..1]));
        }
    }
    let connections = tidegate.call("GET", "/api/connections?listener=in", "").json();
    assert_eq!(connections["connections"].as_array().unwrap().len(), 20, "{connections}");
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let echo = Echo::named("a");
    for (any, addresses) in
        [("0.0.0.0:0", vec!["127.0.0.1", "127.0.0.7"]), ("[::]:0", vec!["::1", "127.0.0.1", "127.0.0.9"])]
    {
        let tidegate =
            Tidegate::start(&yaml(&[&echo], "", "").replace("127.0.0.1:0\", pool", &format!("{any}\", pool")));
        let port = tidegate.at("in").tcp().port();
        for address in addresses {
            let from = if address == "::1" { "::1" } else { "127.0.0.1" };
            // A connected socket takes datagrams from there only.
            let socket = client(from, SocketAddr::new(address.parse().unwrap(), port));
            assert_eq!(ask(&socket, address), format!("a{address}"));
        }
    }
}

#[test]
fn idle_session_ends_with_a_line_and_a_later_datagram_begins_another() {
    let echo = Echo::named("a");
    let tidegate = Tidegate::start(&yaml(&[&echo], "udp: { idle: 300ms }", ""));
    let socket = client("127.0.0.1", tidegate.at("in").tcp());
    ask(&socket, "12");
    ask(&socket, "345");
    let line = tidegate.only_access();
    let numbers = ["bytes_in", "bytes_out", "datagrams_in", "datagrams_out"].map(|key| line.field(key));
    assert_eq!(numbers, ["5", "7", "2", "2"], "{line:?}");
    assert_eq!((line.end().as_str(), line.field("turnarounds").as_str()), ("idle timeout", "2"), "{line:?}");
    assert_eq!(ask(&socket, "again"), "aagain");
}

#[test]
fn session_ends_with_its_last_response() {
    let echo = Echo::at("a", "127.0.0.1:0", |_, datagram| vec![datagram.to_vec(); 2]);
    let tidegate = Tidegate::start(&yaml(&[&echo], "udp: { responses: 2 }", ""));
    let socket = client("127.0.0.1", tidegate.at("in").tcp());
    assert_eq!((ask(&socket, "1"), receive(&socket)), ("1".to_owned(), b"1".to_vec()));
    let line = tidegate.only_access();
    assert_eq!(line.end(), "backend closed");
    assert_eq!(ask(&socket, "2"), "2");
}

#[test]
fn forged_address_gets_no_more_than_it_could_send() {
    let echo = Echo::at("a", "127.0.0.1:0", |_, datagram| vec![datagram.repeat(100); 5]);
    let tidegate = Tidegate::start(&yaml(&[&echo], "", ""));
    let socket = client("127.0.0.1", tidegate.at("in").tcp());
    assert_eq!(ask(&socket, "0123456789").len(), 1000, "an answer to each");
    assert!(is_silent(&socket), "and no more");
    assert_eq!(ask(&socket, "0123456789").len(), 1000);
    assert_eq!([(); 4].map(|()| receive(&socket).len()), [1000; 4], "it has sent after a reply");
    let off = Tidegate::start(&yaml(&[&echo], "udp: { amplification: 0 }", ""));
    let socket = client("127.0.0.1", off.at("in").tcp());
    ask(&socket, "0123456789");
    assert_eq!([(); 4].map(|()| receive(&socket).len()), [1000; 4]);
}

#[test]
fn those_who_converse_keep_their_sessions_when_there_are_too_many() {
    let echo = Echo::named("a");
    let tidegate = Tidegate::start(&yaml(&[&echo], "udp: { max_sessions: 4 }", "").replace("workers: 2", "workers: 1"));
    let server = tidegate.at("in").tcp();
    let clients: Vec<UdpSocket> = (0..3).map(|_| client("127.0.0.1", server)).collect();
    for client in &clients {
        ask(client, "1");
        ask(client, "2");
    }
    let others: Vec<UdpSocket> = (0..50).map(|_| client("127.0.0.1", server)).collect();
    for other in &others {
        assert_eq!(ask(other, "x"), "ax", "the one before makes room");
    }
    let open = tidegate.call("GET", "/api/connections?listener=in", "").json();
    let open: HashSet<String> =
        open["connections"].as_array().unwrap().iter().map(|it| it["client"].as_str().unwrap().to_owned()).collect();
    assert_eq!(open.len(), 4);
    assert!(clients.iter().all(|client| open.contains(&client.local_addr().unwrap().to_string())));
    let evicted = tidegate.wait_for_access("of one that made room", |_| true);
    assert_eq!(evicted.end(), "evicted");
}

#[test]
fn access_and_limits_hold_for_new_sessions() {
    let echo = Echo::named("a");
    let rules = "access: { deny: [127.0.0.2] }, limits: { connections_per_ip: 2 }, \
                 routes: [{ match: { client: [127.0.0.3] }, refuse: true }]";
    let tidegate = Tidegate::start(&yaml(&[&echo], rules, ""));
    let server = tidegate.at("in").tcp();
    let denied = ["127.0.0.2", "127.0.0.3"].map(|address| client(address, server));
    for denied in &denied {
        denied.send(b"x").unwrap();
    }
    let clients: Vec<UdpSocket> = (0..3).map(|_| client("127.0.0.1", server)).collect();
    assert_eq!([ask(&clients[0], "1"), ask(&clients[1], "1")], ["a1", "a1"]);
    clients[2].send(b"1").unwrap();
    assert!(is_silent(&clients[2]) && denied.iter().all(is_silent));
    assert_eq!(ask(&clients[0], "2"), "a2", "those that have one go on");
    assert_eq!(tidegate.call("DELETE", "/api/connections?listener=in", "").json()["ended"], 2);
    eventually(DEADLINE, "its place is free", || {
        clients[2].send(b"3").unwrap();
        !is_silent(&clients[2])
    });
}

#[test]
fn proxy_header_is_that_of_datagrams_and_on_the_first_only() {
    let echo = Echo::at("a", "127.0.0.1:0", |_, datagram| vec![datagram.to_vec()]);
    let tidegate = Tidegate::start(&yaml(&[&echo], "", "send_proxy: v2"));
    let socket = client("127.0.0.1", tidegate.at("in").tcp());
    socket.send(b"hello").unwrap();
    let first = receive(&socket);
    assert_eq!(&first[..12], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(first[12..14], [0x21, 0x12]);
    let port = socket.local_addr().unwrap().port().to_be_bytes();
    assert_eq!(first[16..26], [127, 0, 0, 1, 127, 0, 0, 1, port[0], port[1]]);
    assert!(first.ends_with(b"hello"));
    assert_eq!(ask(&socket, "second"), "second");
}

#[test]
fn refused_datagrams_go_to_another_backend() {
    let (one, two) = (Echo::named("a"), Echo::named("b"));
    let tidegate =
        Tidegate::start(&yaml(&[&one, &two], "", "outlier: { failures: 2, ejection: 1h, max_ejected: 100% }"));
    let server = tidegate.at("in").tcp();
    let sockets: Vec<UdpSocket> = (0..8).map(|_| client("127.0.0.1", server)).collect();
    let first: Vec<String> = sockets.iter().map(|socket| ask(socket, "1")).collect();
    drop(one);
    // The first datagram after is lost, which its ICMP error says.
    for (socket, before) in sockets.iter().zip(&first) {
        socket.send(b"lost").unwrap();
        if before == "b1" {
            assert_eq!(receive(socket), b"blost");
        }
    }
    for socket in &sockets {
        eventually(DEADLINE, "the other one answers", || {
            socket.send(b"2").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut buffer = [0; 100];
            matches!(socket.recv(&mut buffer), Ok(2)) && buffer.starts_with(b"b2")
        });
    }
    let backends = tidegate.call("GET", "/api/pools/p/backends", "").text();
    assert!(backends.contains("ejected for 3600s"), "passive health: {backends}");
}

/// A first datagram is sent to another backend when it is refused: its client notices nothing.
#[test]
fn first_datagram_is_not_lost_at_a_backend_that_is_gone() {
    let (gone, two) = (Echo::named("a"), Echo::named("b"));
    let config = yaml(&[&gone, &two], "", "");
    drop(gone);
    let tidegate = Tidegate::start(&config);
    for _ in 0..10 {
        let socket = client("127.0.0.1", tidegate.at("in").tcp());
        assert_eq!(ask(&socket, "1"), "b1");
        assert_eq!(ask(&socket, "2"), "b2");
    }
}

#[test]
fn sessions_survive_reloads_and_their_order_is_kept() {
    let (one, two) = (Echo::named("a"), Echo::named("b"));
    let tidegate = Tidegate::start(&yaml(&[&one, &two], "", ""));
    let server = tidegate.at("in").tcp();
    let sockets: Vec<UdpSocket> = (0..20).map(|_| client("127.0.0.1", server)).collect();
    let names: Vec<String> = sockets.iter().map(|socket| ask(socket, "")).collect();
    for round in 0..10 {
        let text = yaml(&[&one, &two], &format!("udp: {{ idle: {}m }}", 2 + round), "balance: least_connections");
        tidegate.rewrite(&text);
        assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
        for number in 0..10 {
            for socket in &sockets {
                socket.send(format!("{number:03}").as_bytes()).unwrap();
            }
        }
        for (socket, name) in sockets.iter().zip(&names) {
            for number in 0..10 {
                assert_eq!(String::from_utf8(receive(socket)).unwrap(), format!("{name}{number:03}"));
            }
        }
    }
}

#[test]
fn fewer_workers_keep_the_sessions() {
    let (one, two) = (Echo::named("a"), Echo::named("b"));
    let text = yaml(&[&one, &two], "", "").replace("workers: 2", "workers: 4");
    let tidegate = Tidegate::start(&text);
    let server = tidegate.at("in").tcp();
    let sockets: Vec<UdpSocket> = (0..40).map(|_| client("127.0.0.1", server)).collect();
    let names: Vec<String> = sockets.iter().map(|socket| ask(socket, "")).collect();
    for workers in ["workers: 1", "workers: 3"] {
        tidegate.rewrite(&text.replace("workers: 4", workers));
        assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
        for (socket, name) in sockets.iter().zip(&names) {
            assert_eq!(ask(socket, workers), format!("{name}{workers}"));
        }
        let newcomers: Vec<UdpSocket> = (0..20).map(|_| client("127.0.0.1", server)).collect();
        assert!(newcomers.iter().all(|socket| ask(socket, "new").ends_with("new")));
    }
}

#[test]
fn drain_waits_for_sessions_and_takes_no_new_ones() {
    let echo = Echo::named("a");
    let text = format!("{}shutdown: {{ drain: 1m }}\n", yaml(&[&echo], "udp: { idle: 2s }", ""));
    let mut tidegate = Tidegate::start(&text);
    let server = tidegate.at("in").tcp();
    let socket = client("127.0.0.1", server);
    ask(&socket, "1");
    tidegate.terminate();
    tidegate.wait_for_log("a drain", |line| line.is("draining"));
    assert_eq!(ask(&socket, "2"), "a2");
    // Workers hear of it one after the other.
    eventually(DEADLINE, "new sessions are refused", || {
        let late = client("127.0.0.1", server);
        late.send(b"3").unwrap();
        let is_refused = is_silent(&late);
        assert_eq!(ask(&socket, "4"), "a4");
        is_refused
    });
    assert!(tidegate.wait().success());
    assert!(!tidegate.access().is_empty());
    assert!(tidegate.access().iter().all(|line| line.end() == "idle timeout"));
}

#[test]
fn killed_session_ends_and_may_begin_again() {
    let echo = Echo::named("a");
    let tidegate = Tidegate::start(&yaml(&[&echo], "", ""));
    let socket = client("127.0.0.1", tidegate.at("in").tcp());
    ask(&socket, "1");
    let ended = tidegate.call("DELETE", "/api/connections?client=127.0.0.1", "").json();
    assert_eq!(ended["ended"], 1, "{ended}");
    let line = tidegate.only_access();
    assert_eq!(line.end(), "killed by an administrator");
    assert_eq!(ask(&socket, "2"), "a2");
}

#[test]
fn upgrade_hands_sessions_over_with_their_sockets() {
    let (one, two) = (Echo::named("a"), Echo::named("b"));
    let tidegate = Tidegate::start(&yaml(&[&one, &two], "", ""));
    let server = tidegate.at("in").tcp();
    let sockets: Vec<UdpSocket> = (0..100).map(|_| client("127.0.0.1", server)).collect();
    let names: Vec<String> = sockets.iter().map(|socket| ask(socket, "")).collect();
    for round in 0..2 {
        tidegate.upgrade();
        for (socket, name) in sockets.iter().zip(&names) {
            assert_eq!(ask(socket, &round.to_string()), format!("{name}{round}"));
        }
        let open = tidegate.call("GET", "/api/connections?listener=in", "").json();
        assert_eq!(open["connections"].as_array().unwrap().len(), 100, "none was opened again");
        assert_eq!(tidegate.view().listeners[0].accepted, 100);
    }
    let newcomer = client("127.0.0.1", server);
    assert!(ask(&newcomer, "x").ends_with('x'));
}

#[test]
fn exchange_asks_by_datagrams_and_takes_out_what_is_silent() {
    let answers: fn(&[u8], &[u8]) -> Vec<Vec<u8>> =
        |name, datagram| if datagram == b"ping" { vec![b"pong".to_vec()] } else { vec![[name, datagram].concat()] };
    let silent: fn(&[u8], &[u8]) -> Vec<Vec<u8>> =
        |name, datagram| if datagram == b"ping" { Vec::new() } else { vec![[name, datagram].concat()] };
    let (well, ill) = (Echo::at("a", "127.0.0.1:0", answers), Echo::at("b", "127.0.0.1:0", silent));
    let health = "health: { exchange: { send: ping, expect: pong }, interval: 100ms, timeout: 1s, rise: 1, fall: 1 }";
    let tidegate = Tidegate::start(&yaml(&[&well, &ill], "", health));
    eventually(DEADLINE, "the silent one is down", || {
        let backends: Vec<bool> = tidegate.view().pools[0].backends.iter().map(|it| it.up).collect();
        backends == [true, false]
    });
    let server = tidegate.at("in").tcp();
    assert!((0..6).all(|_| ask(&client("127.0.0.1", server), "1") == "a1"));
}
