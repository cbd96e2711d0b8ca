//! `protocol: http` with many connections that are kept, and many streams: what each costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::http::{seen_by_listener, stats};
use crate::support::proc::allow_open_files;
use crate::support::python::Script;
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;
use crate::support::web::{balance_requests, nginx_named, printed};
use crate::support::{DEADLINE, eventually, tell};

/// tidegate reserves two files for each, of 20,000.
const CONNECTIONS: usize = 9_000;
const STREAMS: usize = 1_000;
/// Bytes of tidegate's for a connection that is kept, idle, after a request. A generous bound.
const MOST_OF_A_CONNECTION: usize = 64 * 1024;
/// Bytes of tidegate's for a stream that waits for its response, with the connection to its backend. A generous bound.
const MOST_OF_A_STREAM: usize = 128 * 1024;

fn start(at: impl std::fmt::Display) -> Tidegate {
    let yaml = format!("{ADMIN}workers: 2\n{}", balance_requests(&[at], "http: { keep_alive: 10m }", ""));
    Tidegate::with(&yaml).open_files(20_000, 20_000).start()
}

/// A request, and its response as far as the body `one`.
fn ask(client: &mut TcpStream) {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
    while !seen.ends_with(b"\r\n\r\none") {
        let count = client
            .read(&mut buffer)
            .unwrap_or_else(|error| panic!("{error}, after {:?}", String::from_utf8_lossy(&seen)));
        assert_ne!(count, 0, "{:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&seen));
}

#[test]
fn nine_thousand_kept_connections_are_idle_and_then_go_on() {
    allow_open_files(CONNECTIONS as u64 + 500);
    let nginx = nginx_named("one", "");
    let tidegate = start(nginx.place());
    let at = tidegate.at("in");
    // Caches and pools are full.
    (0..100).for_each(|_| ask(&mut connect(&at)));
    let before = tidegate.resident();
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = connect(&at);
            ask(&mut client);
            client
        })
        .collect();
    let of_each = tidegate.resident().saturating_sub(before) as usize / CONNECTIONS;
    assert_eq!(stats(&tidegate)["listeners"][0]["open"], CONNECTIONS);
    clients.iter_mut().for_each(ask);
    let again = tidegate.resident().saturating_sub(before) as usize / CONNECTIONS;
    tell(&format!("{CONNECTIONS} kept connections: {of_each} bytes each, {again} after a second request"));
    drop(clients);
    assert_eq!(seen_by_listener(&tidegate).requests, 100 + 2 * CONNECTIONS as u64);
    assert!(of_each < MOST_OF_A_CONNECTION && again < MOST_OF_A_CONNECTION, "{of_each}, {again}");
}

/// Opens a hundred streams on each of ten connections, tells of it, and waits for their answers.
const STREAMS_CLIENT: &str = r#"
import socket, sys
import h2.config, h2.connection, h2.events
address = sys.stdin.readline().strip()
host, port = address.split(':')
def receive(sock, conn, answered):
    data = sock.recv(65536)
    assert data, 'the connection ended'
    for event in conn.receive_data(data):
        if isinstance(event, h2.events.StreamEnded):
            answered.add(event.stream_id)
        assert not isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)), event
    sock.sendall(conn.data_to_send())
conns = []
for _ in range(10):
    sock = socket.create_connection((host, int(port)), timeout=60)
    conn = h2.connection.H2Connection(h2.config.H2Configuration())
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    answered = set()
    # Until the server has said how many streams it takes.
    while conn.remote_settings.max_concurrent_streams != 100:
        receive(sock, conn, answered)
    for _ in range(100):
        stream = conn.get_next_available_stream_id()
        conn.send_headers(stream, [(':method', 'GET'), (':scheme', 'http'), (':authority', address), (':path', '/')], end_stream=True)
    sock.sendall(conn.data_to_send())
    conns.append((sock, conn, answered))
print('open', flush=True)
for sock, conn, answered in conns:
    while len(answered) < 100:
        receive(sock, conn, answered)
print(sum(len(answered) for _, _, answered in conns))
"#;

#[test]
fn a_thousand_streams_wait_at_once_and_all_are_answered() {
    allow_open_files(STREAMS as u64 * 2 + 500);
    let held = Arc::new(Mutex::new(Vec::new()));
    let backend = Backend::start({
        let held = Arc::clone(&held);
        move |stream| held.lock().unwrap().push(stream)
    });
    let tidegate = start(backend.place());
    let before = tidegate.resident();
    let clients = Script::start(STREAMS_CLIENT, &tidegate.at("in").to_string());
    eventually(DEADLINE, "each stream has a connection to the backend", || held.lock().unwrap().len() == STREAMS);
    let of_each = tidegate.resident().saturating_sub(before) as usize / STREAMS;
    tell(&format!("{STREAMS} streams under way, each with a connection to the backend: {of_each} bytes each"));
    for stream in held.lock().unwrap().iter_mut() {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").unwrap();
    }
    assert_eq!(clients.finish().trim(), STREAMS.to_string());
    assert!(of_each < MOST_OF_A_STREAM, "{of_each}");
}

#[test]
fn a_thousand_streams_queue_on_one_connection_and_all_are_answered() {
    let nginx = nginx_named("one", "");
    let tidegate = start(nginx.place());
    // It holds back what is above the limit of streams that tidegate announces.
    let url = format!("http://{}/", tidegate.at("in"));
    let said = printed("h2load", "nghttp2-client", &["-n", "1000", "-c", "1", "-m", "1000", &url]);
    assert!(said.contains("status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    assert_eq!(seen_by_listener(&tidegate).requests, 1_000);
    assert_eq!(stats(&tidegate)["listeners"][0]["accepted"], 1);
}
