//! What an idle connection costs.

use std::io::Write;
use std::net::TcpStream;

use crate::support::backend::Scripted;
use crate::support::client::{connect, expect};
use crate::support::proc::allow_open_files;
use crate::support::tell;
use crate::support::tidegate::{Tidegate, forward};

#[test]
fn idle_connections_cost_less_than_2_kib_each() {
    const CONNECTIONS: usize = 4_000;
    allow_open_files(16_000);
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 2\n{}", forward(scripted.place(), "", "")));
    // Warm: code that was never run and buffers that every worker has once are not what a connection costs.
    let warm = open(&tidegate, &scripted, 50);
    drop(warm);
    tidegate.wait_for_access("all of them left", |_| tidegate.access().len() == 50);
    let before = (tidegate.resident(), tidegate.open_files());

    let connections = open(&tidegate, &scripted, CONNECTIONS);
    let grown = tidegate.resident().saturating_sub(before.0);
    assert_eq!(tidegate.open_files(), before.1 + 2 * CONNECTIONS, "two sockets each, no pipe");
    let each = grown / CONNECTIONS as u64;
    tell(&format!("{each} bytes of process memory an idle connection"));
    assert!(each < 2048, "{each} bytes each");
    drop(connections);
}

/// Connections that have seen bytes in both directions, as those of a database pool have.
fn open(tidegate: &Tidegate, scripted: &Scripted, count: usize) -> Vec<(TcpStream, TcpStream)> {
    (0..count)
        .map(|_| {
            let mut client = connect(&tidegate.at("in"));
            let mut backend = scripted.accept();
            client.write_all(b"question").unwrap();
            expect(&mut backend, b"question");
            backend.write_all(b"answer").unwrap();
            expect(&mut client, b"answer");
            (client, backend)
        })
        .collect()
}
