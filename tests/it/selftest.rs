//! What the other tests rely on, checked without a balancer.

use std::cell::Cell;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, test_kill_process};

use crate::support::backend::{Backend, Dead, HealthPage, Scripted, Unreachable};
use crate::support::client::{End, Place, connect, expect, read_to_end, reset};
use crate::support::data::{Summing, receive, send};
use crate::support::process::{Process, bound};
use crate::support::{DEADLINE, eventually, holds_within, most_runs_agree};

#[test]
fn an_unreachable_backend_hangs_until_it_accepts() {
    let mut backend = Unreachable::start();
    let limit = Duration::from_millis(300);
    assert_eq!(TcpStream::connect_timeout(&backend.address(), limit).unwrap_err().kind(), ErrorKind::TimedOut);
    let address = Place::Tcp(backend.address());
    let client = thread::spawn(move || connect(&address).write_all(b"late"));
    assert_eq!(read_to_end(&mut backend.accept_next()), (b"late".to_vec(), End::Fin));
    client.join().unwrap().unwrap();
}

#[test]
fn a_dead_backend_refuses() {
    let error = TcpStream::connect(Dead::start().address()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_dropped_backend_refuses_and_its_address_can_be_had_again() {
    let backend = Backend::named("first");
    let address = backend.address();
    assert_eq!(read_to_end(&mut connect(&Place::Tcp(address))), (b"first".to_vec(), End::Fin));
    drop(backend);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let again = Backend::named_at(address, "second");
    assert_eq!(read_to_end(&mut connect(again.place())), (b"second".to_vec(), End::Fin));
}

#[test]
fn streams_tell_fin_from_rst() {
    let scripted = Scripted::start();
    for end in [End::Fin, End::Reset] {
        let mut client = connect(scripted.place());
        client.write_all(b"before").unwrap();
        match end {
            End::Fin => drop(client),
            End::Reset => reset(client),
        }
        assert_eq!(read_to_end(&mut scripted.accept()), (b"before".to_vec(), end));
    }
}

#[test]
fn a_health_page_answers_what_it_is_told() {
    let page = HealthPage::start();
    page.answer(503);
    let mut client = connect(&Place::Tcp(([127, 0, 0, 1], page.port()).into()));
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    expect(&mut client, b"HTTP/1.1 503 ");
}

#[test]
fn sums_notice_a_changed_a_missing_and_a_moved_byte() {
    let mut original = Vec::new();
    let sum = send(&mut original, 1, 300_000).unwrap();
    assert_eq!(receive(&mut &original[..]).unwrap(), sum);
    let mut changed = original.clone();
    changed[200_000] ^= 1;
    let mut moved = original.clone();
    moved.swap(10, 11);
    for broken in [&changed, &moved, &original[1..].to_vec()] {
        let mut summing = Summing::default();
        summing.add(broken);
        assert_ne!(summing.sum(), sum);
    }
}

/// Also a test that never gets to its drops, because it was killed, leaves no process behind: the kernel sees to it when the
/// thread ends that started one.
#[test]
fn children_end_with_the_thread_that_started_them() {
    let pid = thread::spawn(|| {
        let mut command = bound("sleep", "KILL");
        command.arg("1000");
        let process = Process::start(command, Signal::KILL);
        let pid = process.pid();
        let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        eventually(DEADLINE, "setpriv has become sleep", || name().trim() == "sleep");
        std::mem::forget(process);
        pid
    })
    .join()
    .unwrap();
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // Nobody waits for it, so what is left is a zombie.
    eventually(DEADLINE, "the child is gone", || test_kill_process(pid).is_err() || state().contains(") Z "));
    assert!(!holds_within(Duration::ZERO, || state().contains(") S ")));
}

#[test]
fn a_measurement_that_mostly_agrees_passes() {
    let runs = Cell::new(0);
    most_runs_agree("test", || {
        runs.set(runs.get() + 1);
        (runs.get() % 2 == 1, runs.get().to_string())
    });
    assert_eq!(runs.get(), 5);
}

#[test]
#[should_panic(expected = "disagree")]
fn a_measurement_that_mostly_disagrees_fails() {
    let runs = Cell::new(0);
    most_runs_agree("test", || {
        runs.set(runs.get() + 1);
        (runs.get() % 2 == 0, runs.get().to_string())
    });
}
