//! `tidegate demo`, run as a new user runs it.

mod end;
mod protocols;
mod start;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use tidegate::admin::snapshot_model::Snapshot;
use tidegate::stats::http::StatusClass;

use crate::support::client::Place;
use crate::support::stats::{Answer, backend, call, get};
use crate::support::{DEADLINE, eventually};

const KNOWN: [&str; 3] = ["hello from quick", "hello from slow", "hello from heavy"];

/// The steps by their names, in their order.
const STEPS: [&str; 8] = [
    "all are in service",
    "quick goes away",
    "quick is back",
    "slow resets connections",
    "slow answers again",
    "heavy is drained",
    "heavy is ready again",
    "a reload: quick has weight 3",
];

/// A running demo; ended by force if the test does not see its end.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    /// Lines read so far.
    seen: Vec<String>,
    /// Where it says that it listens.
    address: SocketAddr,
    /// Its TMPDIR, which nothing else uses.
    temporary: tempfile::TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        Demo::start_with(arguments, |_| {})
    }

    fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Demo {
        let temporary = tempfile::tempdir().unwrap();
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = command(arguments);
        command.env("TMPDIR", temporary.path());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut demo = Demo { child, lines, seen: Vec::new(), address: ([0, 0, 0, 0], 0).into(), temporary };
        let title = demo.read_until(|line| line.starts_with("tidegate demo: "));
        demo.address = title.rsplit_once("://").unwrap().1.trim_end_matches('/').parse().unwrap();
        demo
    }

    /// Reads on until a line is as wanted, and returns it.
    fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no such line within {DEADLINE:?}, only:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Reads the whole welcome.
    fn read_welcome(&mut self) {
        self.read_until(|line| line.starts_with("The steps that now follow"));
    }

    /// Reads the first of the lines that come once a second.
    fn read_live_line(&mut self) {
        self.read_until(is_live);
    }

    /// The commands that it has proposed so far.
    fn commands(&self) -> Vec<String> {
        let commands = self.seen.iter().filter_map(|line| line.strip_prefix("    "));
        let is_command = |line: &&str| {
            ["curl ", "for ", env!("CARGO_BIN_EXE_tidegate")].iter().any(|beginning| line.starts_with(beginning))
        };
        commands.filter(is_command).map(str::to_owned).collect()
    }

    /// A file in its directory.
    fn file(&self, name: &str) -> PathBuf {
        let mut directories = fs::read_dir(self.temporary.path()).unwrap();
        directories.next().expect("a directory of the demo").unwrap().path().join(name)
    }

    fn admin(&self) -> Place {
        Place::Unix(self.file("admin.sock"))
    }

    /// What its admin interface says.
    fn stats(&self) -> Snapshot {
        serde_json::from_slice(&get(&self.admin(), "/stats").body).unwrap()
    }

    fn resource(&self, path: &str) -> Value {
        get(&self.admin(), path).json()
    }

    fn change(&self, method: &str, path: &str, body: &str) -> Answer {
        call(&self.admin(), method, path, body)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, in which it has left nothing. Its exit code, all of stdout and stderr.
    fn finish(mut self) -> (ExitStatus, String, String) {
        let status = wait(&mut self.child);
        self.seen.extend(self.lines.iter());
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let left: Vec<_> = fs::read_dir(self.temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        (status, std::mem::take(&mut self.seen).join("\n"), stderr)
    }

    /// As [`Demo::finish`], of a demo that ends well: stdout.
    fn finish_well(self) -> String {
        let (status, stdout, stderr) = self.finish();
        assert_eq!(status.code(), Some(0), "{stdout}\n{stderr}");
        assert_eq!(stderr, "", "{stdout}");
        stdout
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A line that comes once a second: a time in whole seconds, and numbers.
fn is_live(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.len() >= 8 && words[1] == "s" && words[0].parse::<u64>().is_ok()
}

/// The rows of a table whose header begins so, by name: what follows the name.
fn table<'o>(stdout: &'o str, header: &str, names: &[&'o str]) -> BTreeMap<&'o str, Vec<&'o str>> {
    let begin = stdout.find(header).unwrap_or_else(|| panic!("no table {header:?}:\n{stdout}"));
    let rows = stdout[begin..].lines().take_while(|line| !line.is_empty()).map(str::trim);
    let named = |line: &'o str| {
        let name = names.iter().find(|name| line.starts_with(*name))?;
        Some((*name, line[name.len()..].split_whitespace().collect()))
    };
    rows.filter_map(named).collect()
}

/// What the clients saw in a step: requests, connections, failures, pause in ms, noticed after ("-" or seconds), answers of
/// quick, slow and heavy.
#[derive(Debug)]
struct Seen {
    requests: u64,
    connections: u64,
    failed: u64,
    pause: u64,
    noticed: Option<f64>,
    answers: [u64; 3],
}

fn clients(stdout: &str) -> BTreeMap<&str, Seen> {
    let names: Vec<&str> = STEPS.into_iter().chain(["the rest of the time", "total"]).collect();
    let rows = table(stdout, "  step  ", &names);
    let read = |(name, words): (_, Vec<&str>)| {
        let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("{words:?}"));
        assert_eq!(words[4], "ms");
        let after = words.len() - 3;
        let noticed = words[5].parse().ok();
        let answers = [number(after), number(after + 1), number(after + 2)];
        (
            name,
            Seen { requests: number(0), connections: number(1), failed: number(2), pause: number(3), noticed, answers },
        )
    };
    rows.into_iter().map(read).collect()
}

/// What tidegate counted: by backend, and in total.
fn counted(stdout: &str) -> BTreeMap<&str, Vec<&str>> {
    table(stdout, "  backend  ", &["backend", "quick", "slow", "heavy", "total"])
}

fn sh(command: &str) -> String {
    let output = Command::new("timeout").args(["20", "sh", "-c", command]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
