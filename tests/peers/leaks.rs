//! What a connection took is given back: files, leases, counts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::support::backend::{Backend, Unreachable, echo, in_thread};
use crate::support::client::{End, connect, read_to_end, reset};
use crate::support::proc::allow_open_files;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

#[test]
fn after_20000_short_connections() {
    const MAX_CONNECTIONS: usize = 200;
    let backend = Backend::bind("127.0.0.1:0".parse().unwrap(), in_thread(echo));
    let yaml = format!(
        "workers: 2\n\
         listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\", max_connections: {MAX_CONNECTIONS} }}] }}]\n",
        backend.place()
    );
    let mut tidegate = Tidegate::start(&yaml);
    let place = tidegate.at("in");
    let at_start = tidegate.open_files();

    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..2_500 {
                    let mut client = connect(&place);
                    client.write_all(b"short").unwrap();
                    if round % 10 == 9 {
                        reset(client); // leaves without waiting for anything
                        continue;
                    }
                    client.shutdown(Shutdown::Write).unwrap();
                    assert_eq!(read_to_end(&mut client), (b"short".to_vec(), End::Fin));
                }
            });
        }
    });
    eventually(DEADLINE, "open files are back at their start", || tidegate.open_files() == at_start);

    // Every lease came back: the limit's worth of connections fits, and not one more.
    let mut open: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| talking(&tidegate)).collect();
    assert_eq!(read_to_end(&mut connect(&place)).0, b"", "one too many");
    open.pop();
    open.push(talking(&tidegate));
    drop(open);
    eventually(DEADLINE, "open files are back at their start", || tidegate.open_files() == at_start);

    tidegate.terminate();
    let draining = tidegate.wait_for_log("draining", |line| line.is("draining"));
    assert_eq!(draining.number("connections"), 0, "the count of connections is back too");
    assert!(tidegate.wait().success());
}

/// A connection that is served. The one that made room for it may just be about to leave, so it tries until it is.
fn talking(tidegate: &Tidegate) -> TcpStream {
    let mut served = None;
    eventually(DEADLINE, "a place is free", || {
        let mut client = connect(&tidegate.at("in"));
        let answered = client.write_all(b"hello").is_ok() && client.read_exact(&mut [0; 5]).is_ok();
        served = answered.then_some(client);
        answered
    });
    served.expect("served")
}

/// Clients that go, by FIN or RST, with and without having sent something, while the backend is still being dialled.
#[test]
fn after_2000_that_left_in_mid_connect() {
    const ROUND: usize = 500;
    allow_open_files(16_000);
    let backend = Unreachable::start();
    let mut tidegate = Tidegate::start(&format!(
        "workers: 2\n{}",
        forward(backend.address(), "", "timeouts: { connect: 4s }, retries: 0")
    ));
    let at_start = tidegate.open_files();
    for _ in 0..4 {
        let clients: Vec<TcpStream> = (0..ROUND).map(|_| connect(&tidegate.at("in"))).collect();
        eventually(DEADLINE, "all are being dialled", || tidegate.open_files() >= at_start + 2 * ROUND);
        for (index, mut client) in clients.into_iter().enumerate() {
            if index % 4 >= 2 {
                client.write_all(b"something").unwrap();
            }
            if index % 2 == 0 {
                drop(client);
            } else {
                reset(client);
            }
        }
        eventually(DEADLINE, "open files are back at their start", || tidegate.open_files() == at_start);
    }
    tidegate.terminate();
    let draining = tidegate.wait_for_log("draining", |line| line.is("draining"));
    assert_eq!(draining.number("connections"), 0);
    assert!(tidegate.wait().success());
}
