//! A recipe does what its page says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::backend::{Backend, in_thread};
use crate::support::client::{End, connect, expect, read_to_end};
use crate::support::docs::yaml;
use crate::support::tidegate::Tidegate;

/// Patroni's REST API of a member.
fn rest_api(address: SocketAddr, is_leader: &Arc<AtomicBool>) -> Backend {
    let is_leader = Arc::clone(is_leader);
    let serve = in_thread(move |mut stream| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let leads = is_leader.load(Ordering::SeqCst);
        let passes =
            (head.starts_with(b"GET /primary ") && leads) || (head.starts_with(b"GET /replica?lag=16MB ") && !leads);
        let status = if passes { "200 OK" } else { "503 Service Unavailable" };
        _ = stream.write_all(format!("HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    });
    Backend::bind(address, serve)
}

/// A server that says its name and keeps the session.
fn server(address: SocketAddr, member: u8) -> Backend {
    let serve = in_thread(move |mut stream| {
        _ = stream.write_all(format!("pg-{member}").as_bytes());
        _ = stream.read(&mut [0]);
    });
    Backend::bind(address, serve)
}

/// The primary's pool follows the leader, and sessions of the old one are cut.
#[test]
fn patroni_switchover_moves_the_primary_and_cuts_its_sessions() {
    let leaders: Vec<_> = [true, false, false].map(|leads| Arc::new(AtomicBool::new(leads))).into();
    let at = |last: u8, port: u16| SocketAddr::from((Ipv4Addr::new(127, 0, 71, last), port));
    // One port of each kind on three addresses.
    let first = [server(at(1, 0), 1), rest_api(at(1, 0), &leaders[0])];
    let [database, rest] = [first[0].address().port(), first[1].address().port()];
    let _others: Vec<Backend> = [2, 3]
        .into_iter()
        .flat_map(|member| {
            [server(at(member, database), member), rest_api(at(member, rest), &leaders[usize::from(member) - 1])]
        })
        .collect();
    let recipe = yaml("patroni.yaml")
        .replace("127.0.0.1:5000", "127.0.0.1:0")
        .replace("127.0.0.1:5001", "127.0.0.1:0")
        .replace("port: 8008", &format!("port: {rest}"))
        .replace("10.0.0.1", "127.0.71.")
        .replace(":5432", &format!(":{database}"))
        .replace("interval: 1s", "interval: 100ms");
    let tidegate = Tidegate::start(&recipe);
    let up = |pool: &str, backend: &str| {
        tidegate.wait_for_log(&format!("{pool}/{backend} is up"), |line| {
            line.is("backend up") && line.field("pool") == pool && line.field("backend") == backend
        });
    };
    up("primary", "pg-1");
    up("replicas", "pg-2");
    let mut session = connect(&tidegate.at("write"));
    expect(&mut session, b"pg-1");

    leaders[0].store(false, Ordering::SeqCst);
    leaders[2].store(true, Ordering::SeqCst);
    up("primary", "pg-3");
    tidegate.wait_for_log("primary/pg-1 is down", |line| {
        line.is("backend down") && line.field("pool") == "primary" && line.field("backend") == "pg-1"
    });
    assert_eq!(read_to_end(&mut session).1, End::Reset);
    expect(&mut connect(&tidegate.at("write")), b"pg-3");
}
