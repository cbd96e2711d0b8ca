//! Many upgrades under load.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::backend::{Backend, echo, in_thread};
use crate::support::client::{Place, connect, expect};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually, proc, tell};

fn says(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    expect(stream, text);
}

/// Short connections without a pause over TCP and a unix socket, and one long one for each generation of the process: all go on
/// to their end, and each process ends when its own have.
#[test]
fn twenty_upgrades_under_load_lose_no_connection() {
    const CLIENTS: usize = 20;
    let upgrades: usize = std::env::var("UPGRADES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let (backend, folder) =
        (Backend::bind("127.0.0.1:0".parse().unwrap(), in_thread(echo)), tempfile::tempdir().unwrap());
    let path = folder.path().join("in.sock");
    let yaml = forward(backend.place(), "", "health: { tcp: {}, interval: 100ms }");
    let yaml = yaml.replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", \"unix:{}\"]", path.display()));
    let mut tidegate = Tidegate::start(&format!("workers: 2\nshutdown: {{ drain: 1h }}\n{yaml}"));
    let places = [tidegate.at("in"), Place::Unix(path)];
    let (ends, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut long = Vec::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (place, ends, served) = (&places[client % 2], &ends, &served);
                scope.spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        says(&mut connect(place), b"hello");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..upgrades {
            let before = served.load(Ordering::Relaxed);
            eventually(DEADLINE, "clients are served", || {
                served.load(Ordering::Relaxed) > before + 500
                    || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            });
            let mut client = connect(&places[0]);
            says(&mut client, b"long");
            long.push(client);
            tidegate.upgrade();
            long.iter_mut().for_each(|client| says(client, b"still"));
        }
        ends.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("no client has failed"));
    });
    tell(&format!("{} short connections, {upgrades} upgrades", served.load(Ordering::Relaxed)));
    let processes = tidegate.successors();
    assert_eq!(processes.len(), upgrades);
    let (last, drained) = processes.split_last().unwrap();
    assert!(processes.iter().all(|pid| proc::runs(*pid)), "each has a connection");
    drop(long);
    assert!(tidegate.wait().success());
    eventually(DEADLINE + Duration::from_secs(1), "all but the last end", || {
        !drained.iter().any(|pid| proc::runs(*pid))
    });
    assert!(proc::runs(*last));
    says(&mut connect(&places[1]), b"the last");
}
