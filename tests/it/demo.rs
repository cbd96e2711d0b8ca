//! `tidegate demo`, run as a new user runs it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Who needs port 8080 taken has it for itself; those who do not care where the demo listens share it.
static PORT_8080: RwLock<()> = RwLock::new(());

macro_rules! any_port {
    () => {
        PORT_8080.read().unwrap_or_else(PoisonError::into_inner)
    };
}

/// A running demo; ended by force if the test does not see its end.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    /// Lines read so far.
    seen: Vec<String>,
    /// Where it says that it listens.
    address: SocketAddr,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let mut child = spawn(arguments);
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut demo = Demo { child, lines, seen: Vec::new(), address: ([0, 0, 0, 0], 0).into() };
        let title = demo.read_until(|line| line.starts_with("tidegate demo: "));
        demo.address = title.rsplit_once("http://").unwrap().1.trim_end_matches('/').parse().unwrap();
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

    /// Reads the first of the lines that come once a second.
    fn read_live_line(&mut self) -> String {
        self.read_until(|line| line.contains(" s ") && line.contains("/s"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; its exit code, all of stdout and stderr.
    fn finish(mut self) -> (ExitStatus, String, String) {
        let status = wait(&mut self.child);
        self.seen.extend(self.lines.iter());
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status, std::mem::take(&mut self.seen).join("\n"), stderr)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
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

/// The rows of the summary's table by name, each with its words.
fn table(stdout: &str) -> BTreeMap<&str, Vec<&str>> {
    let after = stdout.split_once("\nAfter ").unwrap_or_else(|| panic!("no summary:\n{stdout}")).1;
    let words = |line: &str| ["backend", "quick", "slow", "heavy", "total"].iter().any(|name| line.starts_with(name));
    after
        .lines()
        .map(str::trim)
        .filter(|line| words(line))
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            (name, rest.split_whitespace().collect())
        })
        .collect()
}

fn sh(command: &str) -> String {
    let output = Command::new("timeout").args(["20", "sh", "-c", command]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn three_seconds_of_it() {
    let _port = any_port!();
    let demo = Demo::start(&["--seconds", "3"]);
    let address = demo.address;
    let (status, stdout, stderr) = demo.finish();
    assert_eq!(status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(stderr.lines().all(|line| line.starts_with("note: ")), "no log lines: {stderr}");
    assert!(address.ip().is_loopback());
    assert!(stdout.contains(&format!("curl http://{address}/")), "{stdout}");
    assert!(stdout.contains(&format!("bind: {address}")), "{stdout}");

    let live: Vec<Vec<&str>> = stdout
        .lines()
        .filter(|line| line.contains(" s ") && line.contains("/s"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!((2..=3).contains(&live.len()), "a line a second: {stdout}");
    for line in &live {
        assert!(line[2].parse::<u64>().unwrap() > 0 && line.len() == 9, "{line:?}");
        assert_eq!(line[8], "0", "errors: {line:?}");
    }

    let table = table(&stdout);
    // Bytes have a unit, p50 and p99 too.
    assert_eq!(table["backend"].join(" "), "connections bytes in bytes out errors p50 p99");
    let connections = |name: &str| table[name][0].parse::<i64>().unwrap();
    let total = connections("total");
    assert_eq!(total, connections("quick") + connections("slow") + connections("heavy"), "{stdout}");
    assert!(total >= 20, "{stdout}");
    for (name, share) in [("quick", total / 4), ("slow", total / 4), ("heavy", total / 2)] {
        assert!((connections(name) - share).abs() <= 2, "{name} is not given its share:\n{stdout}");
    }
    for name in ["quick", "slow", "heavy", "total"] {
        let row = &table[name];
        assert!(row[1] != "0" && row[3] != "0", "bytes: {row:?}");
        assert_eq!(row[5], "0", "errors: {row:?}");
        let (p50, p99) = (row[6].parse::<f64>().unwrap(), row[8].parse::<f64>().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{row:?}");
    }
    assert!(table["slow"][6].parse::<f64>().unwrap() >= 20.0, "it answers after 20 ms:\n{stdout}");
    assert!(stdout.contains(&format!("had {total} requests answered, each as expected")), "{stdout}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 100), "{stdout}");
}

#[test]
fn every_command_that_it_proposes_works() {
    let _port = any_port!();
    let mut demo = Demo::start(&[]);
    demo.read_live_line();
    let commands: Vec<String> =
        demo.seen.iter().filter(|line| line.contains("curl ")).map(|line| line.trim().to_owned()).collect();
    let [one, twenty, on_one_connection] = &commands[..] else { panic!("{commands:?}") };

    let known = ["hello from quick", "hello from slow", "hello from heavy"];
    assert!(known.contains(&sh(one).trim_end()));

    let counts: BTreeMap<String, u32> = sh(twenty)
        .lines()
        .map(|line| line.trim().split_once(' ').unwrap())
        .map(|(count, greeting)| (greeting.to_owned(), count.parse().unwrap()))
        .collect();
    assert_eq!(counts.values().sum::<u32>(), 20);
    assert!(counts.keys().all(|greeting| known.contains(&greeting.as_str())), "{counts:?}");

    let answers = sh(on_one_connection);
    let answers: Vec<&str> = answers.lines().collect();
    assert!(answers.len() == 3 && answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let url = format!("http://{}/", demo.address);
    let connects = sh(&format!("curl -s -o /dev/null -o /dev/null -w '%{{num_connects}} ' {url} {url}"));
    assert_eq!(connects, "1 0 ", "the second request is on the first one's connection");

    demo.signal(Signal::INT);
    let (status, stdout, stderr) = demo.finish();
    assert_eq!(status.code(), Some(0), "{stdout}\n{stderr}");
}

#[test]
fn another_port_if_8080_is_taken() {
    let _mine = PORT_8080.write().unwrap_or_else(PoisonError::into_inner);
    // If that fails, somebody else has it, which is as good.
    let _taken = TcpListener::bind("127.0.0.1:8080");
    let demo = Demo::start(&["--seconds", "1"]);
    let address = demo.address;
    assert_ne!(address.port(), 8080);
    let greeting = sh(&format!("curl -s http://{address}/"));
    assert!(greeting.starts_with("hello from "), "{greeting}");
    let (status, stdout, stderr) = demo.finish();
    assert_eq!(status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(stdout.contains("(127.0.0.1:8080 is not available, so this is another port)"), "{stdout}");
    assert!(stderr.contains("note: listener demo: cannot listen on 127.0.0.1:8080: it is in use"), "{stderr}");
    assert_eq!(table(&stdout)["total"][5], "0", "{stdout}");
}

#[test]
fn a_signal_ends_it_with_the_summary() {
    let _port = any_port!();
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Demo::start(&[]);
        demo.read_live_line();
        demo.signal(signal);
        let (status, stdout, stderr) = demo.finish();
        assert_eq!(status.code(), Some(0), "{signal:?}: {stdout}\n{stderr}");
        let table = table(&stdout);
        assert_ne!(table["total"][0], "0", "{stdout}");
        assert_eq!(table["total"][5], "0", "{stdout}");
        assert!(!stdout.contains("Cut at the end"), "{stdout}");
        assert_eq!(stderr.lines().filter(|line| !line.starts_with("note: ")).count(), 0, "{stderr}");
    }
}

#[test]
fn an_idle_keep_alive_connection_does_not_hold_up_the_end() {
    let _port = any_port!();
    let demo = Demo::start(&[]);
    let mut client = TcpStream::connect(demo.address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n").unwrap();
    let mut answer = String::new();
    let mut reader = BufReader::new(&client);
    while !answer.ends_with('\n') || !answer.contains("hello from ") {
        assert_ne!(reader.read_line(&mut answer).unwrap(), 0, "{answer}");
    }
    assert!(answer.contains("Connection: keep-alive"), "{answer}");

    demo.signal(Signal::INT);
    assert_eq!(reader.read_line(&mut answer).unwrap(), 0, "closed in order");
    drop(client);
    let (status, stdout, _) = demo.finish();
    assert_eq!(status.code(), Some(0));
    assert!(!stdout.contains("Cut at the end"), "{stdout}");
}

#[test]
fn a_second_signal_does_not_wait_for_open_connections() {
    let _port = any_port!();
    let mut demo = Demo::start(&[]);
    // Never asks for anything: the drain waits for it.
    let _idle = TcpStream::connect(demo.address).unwrap();
    demo.read_live_line();
    demo.signal(Signal::INT);
    let draining = demo.read_until(|line| line.starts_with("Draining: "));
    assert!(draining.contains("1 connection is still open, for 5s at most"), "{draining}");
    let told = Instant::now();
    demo.signal(Signal::INT);
    let (status, stdout, _) = demo.finish();
    assert!(told.elapsed() < Duration::from_secs(4), "it waited: {:?}", told.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(stdout.contains("Cut at the end: 1."), "{stdout}");
}

#[test]
fn it_ends_when_nobody_reads_it_any_more() {
    let _port = any_port!();
    let mut child = spawn(&[]);
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap(); // and the pipe is closed
    assert!(first.starts_with("tidegate demo: "), "{first}");
    let status = wait(&mut child);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.lines().filter(|line| !line.starts_with("note: ")).count(), 0, "{stderr}");
}

#[test]
fn no_time_at_all_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["demo", "--seconds", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("invalid value '0' for '--seconds <N>'"), "{stderr}");
}
