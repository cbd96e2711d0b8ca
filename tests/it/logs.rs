//! The log must never hold up traffic.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, read_to_end, try_connect};
use crate::support::process::{Process, bound};
use crate::support::{DEADLINE, eventually};

/// More lines than the pipe and the queue of 4 MiB take together.
const CONNECTIONS: u64 = 14_000;

#[test]
fn a_log_that_nobody_reads_holds_up_nobody_and_what_is_dropped_is_counted() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, socket) = (folder.path().join("tidegate.yaml"), folder.path().join("in.sock"));
    let backend = Backend::named("b");
    let yaml = format!(
        "log: {{ format: json, access: stderr }}\n\
         listeners: [{{ name: in, bind: \"unix:{}\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
        socket.display(),
        backend.place()
    );
    fs::write(&file, yaml).expect("write the configuration");
    let mut command = bound(env!("CARGO_BIN_EXE_tidegate"), "KILL");
    command.arg("run").arg("--config").arg(&file).env_remove("RUST_LOG").stderr(Stdio::piped());
    let began = Instant::now();
    let mut process = Process::start(command, Signal::KILL);
    let stderr = process.child().stderr.take().expect("piped");
    let place = Place::Unix(socket);
    eventually(DEADLINE, "the first connection", || {
        try_connect(&place).is_ok_and(|mut client| read_to_end(&mut client).0 == b"b")
    });
    for _ in 1..CONNECTIONS {
        assert_eq!(read_to_end(&mut connect(&place)).0, b"b");
    }

    // Only now something reads. What was not dropped is there, and together it is all.
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let (mut access, mut dropped) = (0, 0);
    while access + dropped < CONNECTIONS {
        let line = lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{access} + {dropped}, and nothing more"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("a cut line: {line}"));
        access += u64::from(line.get("bytes_in").is_some());
        if let Some(total) = line.get("total") {
            dropped = total.as_u64().expect("a number");
        }
    }
    assert!(dropped > 0);
    // A report of dropped lines, one every five seconds, is dropped like any other line.
    let reports = began.elapsed().as_secs() / 5;
    assert!((CONNECTIONS..=CONNECTIONS + reports).contains(&(access + dropped)), "{access} + {dropped}");
    process.signal(Signal::TERM);
    assert!(process.wait(DEADLINE).expect("it ends").success());
}
