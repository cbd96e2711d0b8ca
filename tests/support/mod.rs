//! What the tests stand on: the balancer as a child process, real servers, scripted backends, clients.
//!
//! Nothing here waits for time to pass: it waits for a condition, under a deadline that is only reached when the test fails.

#![allow(dead_code, reason = "each test target uses its part")]

pub(crate) mod authority;
pub(crate) mod backend;
pub(crate) mod browser;
pub(crate) mod checked;
pub(crate) mod client;
pub(crate) mod data;
pub(crate) mod docs;
pub(crate) mod http;
pub(crate) mod http1;
pub(crate) mod machine;
pub(crate) mod mariadb;
pub(crate) mod mmdb;
pub(crate) mod mysqlwire;
pub(crate) mod notify;
pub(crate) mod observed;
pub(crate) mod peer;
pub(crate) mod pgwire;
pub(crate) mod postgres;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod python;
pub(crate) mod queries;
pub(crate) mod redis;
pub(crate) mod rfc5424;
pub(crate) mod starttls;
pub(crate) mod stats;
pub(crate) mod syslog;
pub(crate) mod terminal;
pub(crate) mod tidegate;
pub(crate) mod tls;
pub(crate) mod web;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes that works.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds; fails the test when it does not within `deadline`.
pub(crate) fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    assert!(holds_within(deadline, &mut condition), "not within {deadline:?}: {what}");
}

/// Whether `condition` comes true within `limit`.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Shows a measurement, also when the test passes: this is not captured.
pub(crate) fn tell(text: &str) {
    _ = writeln!(std::io::stderr(), "{text}");
}

/// Fails the test unless most of five runs of a measurement agree with another. A shared machine can disturb some runs; a
/// measurement that is wrong disagrees in most. A run returns whether it agrees, and its figures.
#[track_caller]
pub(crate) fn most_runs_agree(what: &str, run: impl Fn() -> (bool, String)) {
    const MAJORITY: usize = 3;
    let (mut agree, mut disagree) = (Vec::new(), Vec::new());
    while agree.len() < MAJORITY {
        let (agrees, figures) = run();
        if agrees { &mut agree } else { &mut disagree }.push(figures);
        assert!(disagree.len() < MAJORITY, "{what}: {disagree:#?} disagree, {agree:#?} agree");
    }
    tell(&format!(
        "{what}: {} of {} runs disagree {disagree:?}; {}",
        disagree.len(),
        MAJORITY + disagree.len(),
        agree[0]
    ));
}

/// An address of this host for one backend alone, as every address in 127.0.0.0/8 is one. Ports on 127.0.0.1 find new
/// owners within a test run, and somebody may still connect to the old one: a health check whose server was killed.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // Several test processes may run at a time; those that share an address still have different ports.
    let process = 16 + (std::process::id() % 224) as u8;
    Ipv4Addr::new(127, process, high, low)
}

/// A port that was free a moment ago. Only for servers that cannot bind port 0; they try again when it was taken.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
