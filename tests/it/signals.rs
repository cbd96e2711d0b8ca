//! What signals do to a running balancer, and what it does when the system has no threads for it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::{Signal, geteuid};

use crate::support::backend::Backend;
use crate::support::client::{connect, expect, read_to_end};
use crate::support::process::{Process, bound, require};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

#[test]
fn signals_without_a_meaning_leave_a_line_and_nothing_else() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&forward(backend.place(), "", ""));
    let mut client = connect(&tidegate.at("in"));
    for (signal, name) in
        [(Signal::ALARM, "SIGALRM ignored"), (Signal::VTALARM, "SIGVTALRM ignored"), (Signal::PROF, "SIGPROF ignored")]
    {
        tidegate.signal(signal);
        tidegate.wait_for_log(name, |line| line.level() == "WARN" && line.is(name));
        client.write_all(b"on").unwrap();
        expect(&mut client, b"on");
    }
    assert!(tidegate.runs());
}

#[test]
fn sigusr1_opens_the_access_log_again() {
    let backend = Backend::named("b");
    let tidegate = Tidegate::start(&forward(backend.place(), "", ""));
    let connection = || assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"b");
    connection();
    eventually(DEADLINE, "the first line", || tidegate.access().len() == 1);
    let moved = tidegate.access_file().with_extension("1");
    fs::rename(tidegate.access_file(), &moved).expect("rename");
    tidegate.signal(Signal::USR1);
    tidegate.wait_for_log("reopened", |line| line.is("log reopened"));
    connection();
    eventually(DEADLINE, "the second line, in a new file", || tidegate.access().len() == 1);
    assert_eq!(fs::read_to_string(moved).expect("the moved file").lines().count(), 1);
}

#[test]
fn sigquit_ends_at_once() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&format!("shutdown: {{ drain: 1h }}\n{}", forward(backend.place(), "", "")));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"on").unwrap();
    expect(&mut client, b"on");
    tidegate.signal(Signal::QUIT);
    assert!(tidegate.wait().success());
    tidegate.wait_for_log("SIGQUIT", |line| line.is("SIGQUIT"));
}

/// With one thread more each time, until it runs: every step in between is a message that names the thread.
#[test]
fn without_threads_it_ends_with_a_message() {
    if !geteuid().is_root() {
        // A user of its own is needed, whose threads are counted.
        return;
    }
    require("setpriv", "util-linux");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("tidegate.yaml");
    let backend = Backend::named("b");
    fs::write(&file, format!("workers: 2\nadmin: {{ bind: \"127.0.0.1:0\" }}\n{}", forward(backend.place(), "", "")))
        .expect("write");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open).expect("chmod");
    let (mut refusals, mut threads) = (0, 1);
    loop {
        assert!(threads < 40, "it does not start with {threads} threads");
        // prlimit first: a limit of root does not bind, and the user is changed afterwards.
        let mut command = bound("prlimit", "KILL");
        command.arg(format!("--nproc={threads}")).args(["setpriv", "--reuid=61234", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_tidegate")).arg("run").arg("--config").arg(&file);
        command.env_remove("RUST_LOG").stderr(Stdio::piped());
        let mut process = Process::start(command, Signal::KILL);
        let mut stderr = process.child().stderr.take().expect("piped");
        let mut text = String::new();
        let mut piece = [0; 4096];
        while !text.contains("started") {
            match stderr.read(&mut piece).expect("text") {
                0 => break,
                count => text.push_str(&String::from_utf8_lossy(&piece[..count])),
            }
        }
        assert!(!text.contains("panicked") && !text.contains("a defect"), "{threads}: {text}");
        if text.contains("started") {
            break;
        }
        let status = process.wait(DEADLINE).expect("it ends");
        assert_eq!(status.code(), Some(1), "{threads}: {text}");
        assert!(text.contains("thread"), "{threads}: {text}");
        refusals += 1;
        threads += 1;
    }
    assert!(refusals > 2, "the limit binds");
}
