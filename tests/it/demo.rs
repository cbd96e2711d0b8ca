//! `tidegate demo`, run as a new user runs it.

use std::collections::BTreeMap;
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

#[test]
fn three_seconds_of_it() {
    let mut demo = Demo::start(&["--seconds", "3"]);
    demo.read_welcome();
    let (address, config) = (demo.address, demo.file("tidegate.yaml").display().to_string());
    let stdout = demo.finish_well();
    assert!(address.ip().is_loopback());
    assert!(stdout.contains(&format!("curl http://{address}/")), "{stdout}");
    assert!(stdout.contains(&format!("bind: {address}")), "{stdout}");
    assert!(stdout.contains(&format!("The configuration that it runs with, {config}:")), "{stdout}");
    assert!(stdout.contains("80 requests a second") && stdout.contains("ends after 3 s"), "{stdout}");

    let live: Vec<Vec<&str>> =
        stdout.lines().filter(|line| is_live(line)).map(|line| line.split_whitespace().collect()).collect();
    assert!((2..=3).contains(&live.len()), "a line a second: {stdout}");
    for line in &live {
        assert!(line.len() == 8 && line[3] == "0", "failed: {line:?}");
    }

    let seen = clients(&stdout);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), ["all are in service", "total"]);
    let total = &seen["total"];
    assert!(total.requests >= 20 && total.requests == total.connections && total.failed == 0, "{total:?}");
    // The load is light: no more than a request in 50 ms of each of four clients, and those at the beginning.
    assert!(total.requests <= 80 * 3 + 8, "{total:?}");
    let share = |of: u64| total.requests / of;
    for (answers, share) in total.answers.into_iter().zip([share(4), share(4), share(2)]) {
        assert!(answers.abs_diff(share) <= 3, "not by weight: {total:?}");
    }
    assert!(stdout.contains(&format!("All {} requests were answered as expected.", total.requests)), "{stdout}");
    let missed = STEPS[1..].join("; ");
    assert!(stdout.contains(&format!("Not reached before the end: {missed}.")), "{stdout}");

    let counted = counted(&stdout);
    assert_eq!(counted["backend"].join(" "), "connections bytes in bytes out refused broken p50 p99");
    // Bytes have a unit, p50 and p99 too.
    let connections = |name: &str| counted[name][0].parse::<u64>().unwrap();
    assert_eq!(connections("total"), total.connections, "{stdout}");
    for name in ["quick", "slow", "heavy", "total"] {
        let row = &counted[name];
        assert!(row[1] != "0" && row[3] != "0", "bytes: {row:?}");
        assert_eq!(row[5..7], ["0", "0"], "refused, broken: {row:?}");
        let (p50, p99) = (row[7].parse::<f64>().unwrap(), row[9].parse::<f64>().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{row:?}");
    }
    assert!(counted["slow"][7].parse::<f64>().unwrap() >= 20.0, "it answers after 20 ms:\n{stdout}");
}

/// Once the demo's own steps are over.
fn every_command_that_it_proposes_works(demo: &mut Demo, commands: &[String]) {
    assert_eq!(commands.len(), 16, "{commands:#?}");
    let mut next = commands.iter().map(|command| {
        let command = command.replacen("curl ", "curl --fail --show-error ", 1);
        // It wants a terminal.
        if command.contains(" top ") { command + " --once" } else { command }
    });
    let mut run = || sh(&next.next().unwrap());

    assert!(KNOWN.contains(&run().trim_end()));
    let twenty = run();
    let counts = twenty.lines().map(|line| line.trim().split_once(' ').unwrap());
    let counts: BTreeMap<&str, u32> = counts.map(|(count, greeting)| (greeting, count.parse().unwrap())).collect();
    assert_eq!(counts.values().sum::<u32>(), 20);
    assert!(counts.keys().all(|greeting| KNOWN.contains(greeting)), "{counts:?}");
    let answers = run();
    let answers: Vec<&str> = answers.lines().collect();
    assert!(answers.len() == 3 && answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let url = format!("http://{}/", demo.address);
    let connects = sh(&format!("curl -s -o /dev/null -o /dev/null -w '%{{num_connects}} ' {url} {url}"));
    assert_eq!(connects, "1 0 ", "the second request is on the first one's connection");

    let quick = |demo: &Demo| backend(&demo.stats(), "quick").clone();
    assert_eq!(run(), "quick refuses connections\n");
    eventually(DEADLINE, "its checks fail", || quick(demo).reason.is_some_and(|why| why.contains("refused")));
    assert_eq!(run(), "quick resets connections\n");
    eventually(DEADLINE, "it breaks connections", || {
        quick(demo).checks.unwrap().last.unwrap().reason.is_some_and(|why| why.contains("reset"))
    });
    assert_eq!(run(), "quick answers\n");
    eventually(DEADLINE, "it is up again", || quick(demo).up);

    let state = |demo: &Demo, name: &str| demo.resource(&format!("/api/pools/demo/backends/{name}"));
    let mut changes = Vec::new();
    for round in ["curl", "tidegate"] {
        let printed = [run(), run(), run()];
        let said = ["ready -> drain", "drain -> ready", if round == "curl" { "-> 4" } else { "" }];
        for (printed, said) in printed.iter().zip(said) {
            assert!(printed.contains(said), "{round}: {printed}");
        }
        assert_eq!(state(demo, "slow")["weight"], 4);
        let path = demo.file("tidegate.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let weight = if round == "curl" { 7 } else { 8 };
        let now = if round == "curl" { "weight: 2" } else { "weight: 7" };
        assert!(text.contains(now), "{text}");
        fs::write(&path, text.replace(now, &format!("weight: {weight}"))).unwrap();
        changes.push(run());
        assert_eq!(state(demo, "heavy")["weight"], weight, "{changes:?}");
    }
    assert!(run().contains("heavy"), "top");
    assert!(run().contains("at listener demo"), "explain");
    // Of the user's changes it says whose they are.
    demo.read_until(|line| line.contains("heavy.weight: 7 -> 8") && line.contains("POST /api/reload by unix uid="));
}

/// Each step is in the output and in what the admin interface says, and the report is honest about it. In the time that is
/// left, a user does the same.
#[test]
fn every_step_is_seen_and_can_be_done_by_hand() {
    let mut demo = Demo::start(&["--seconds", "600"]);
    demo.read_welcome();
    let commands = demo.commands();
    for step in STEPS {
        demo.read_until(|line| line.ends_with(&format!("* == {step} ==")));
    }
    demo.read_until(|line| line.ends_with("* == the rest of the time =="));
    let stats = demo.stats();
    let mut transitions: Vec<(&str, bool)> =
        stats.transitions.iter().map(|change| (change.backend.as_str(), change.up)).collect();
    transitions.reverse();
    let expected = [("quick", false), ("quick", true), ("slow", false), ("slow", true)];
    assert!(transitions.ends_with(&expected), "{transitions:?}");
    let reasons: Vec<&str> = stats.transitions.iter().rev().filter_map(|change| change.reason.as_deref()).collect();
    assert!(reasons[0].contains("refused") && reasons[1].contains("reset"), "{reasons:?}");
    assert!(backend(&stats, "quick").connect_failures > 0, "connects were refused, and others tried");
    assert_eq!(backend(&stats, "quick").connect_failures, backend(&stats, "quick").retries);
    assert!(backend(&stats, "slow").failures > 0, "connections were reset");
    assert_eq!(backend(&stats, "quick").weight, 3);
    let pools = demo.resource("/api/pools");
    assert!(pools.to_string().contains("heavy"), "{pools}");
    // drain, ready, reload
    assert_eq!(stats.config.generation, 4);
    assert!(fs::read_to_string(demo.file("tidegate.yaml")).unwrap().contains("weight: 3"));
    every_command_that_it_proposes_works(&mut demo, &commands);
    demo.read_live_line();
    demo.signal(Signal::INT);
    let stdout = demo.finish_well();

    let mut rest = stdout.as_str();
    for line in [
        "* quick is down: ",
        "* quick is up: its health checks pass",
        "* slow is down: ",
        "* slow is up: its health checks pass",
        "* changed: pools.demo.backends.heavy.state: ready -> drain",
        "* changed: pools.demo.backends.heavy.state: drain -> ready",
        "* changed: pools.demo.backends.quick.weight: 1 -> 3",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("no {line:?} in its turn:\n{stdout}"));
        rest = &rest[at..];
    }
    let seen = clients(&stdout);
    for step in
        ["all are in service", "quick is back", "slow answers again", "heavy is drained", "heavy is ready again"]
    {
        assert_eq!(seen[step].failed, 0, "{step}: {seen:#?}");
    }
    for (step, quick, slow, heavy) in [
        ("quick goes away", false, true, true),
        ("quick is back", true, true, true),
        ("slow resets connections", true, false, true),
        ("heavy is drained", true, true, false),
        ("a reload: quick has weight 3", true, true, true),
    ] {
        let Seen { answers, requests, .. } = &seen[step];
        for (answers, is_served) in answers.iter().zip([quick, slow, heavy]) {
            // Those that were under way when the step began.
            assert_eq!(*answers > requests / 16, is_served, "{step}: {seen:#?}");
        }
    }
    let Seen { answers: [quick, slow, heavy], .. } = seen["a reload: quick has weight 3"];
    assert!(quick > heavy && heavy > slow, "{seen:#?}");
    let resets = &seen["slow resets connections"];
    assert!(resets.failed > 0 && resets.pause >= 50, "it says so: {resets:?}");
    assert!(stdout.contains("First failure while \"slow resets connections\": "), "{stdout}");
    for step in STEPS {
        let is_noticed = ["quick goes away", "quick is back", "slow resets connections", "slow answers again"];
        assert_eq!(seen[step].noticed.is_some(), is_noticed.contains(&step), "{step}: {seen:#?}");
    }
    let total = &seen["total"];
    let of_steps = || seen.iter().filter(|(name, _)| **name != "total").map(|(_, seen)| seen);
    assert_eq!(total.requests, of_steps().map(|seen| seen.requests).sum::<u64>());
    assert_eq!(total.failed, of_steps().map(|seen| seen.failed).sum::<u64>());
    assert_ne!(counted(&stdout)["slow"][6], "0", "broken: {stdout}");
    assert!(!stdout.contains("Not reached"), "{stdout}");
}

#[test]
fn tls_is_terminated_and_the_load_speaks_it() {
    let mut demo = Demo::start(&["--tls", "--seconds", "600"]);
    demo.read_welcome();
    let commands = demo.commands();
    let [one, twenty, on_one_connection] = &commands[..3] else { panic!("{commands:#?}") };
    assert!(one.contains("--cacert ") && one.contains("https://"), "{one}");
    assert!(KNOWN.contains(&sh(one).trim_end()));
    assert_eq!(sh(twenty).lines().filter(|line| KNOWN.iter().any(|known| line.ends_with(known))).count(), 3);
    assert_eq!(sh(on_one_connection).lines().count(), 3);
    let plain = Command::new("curl").args(["-s", &format!("http://{}/", demo.address)]).output().unwrap();
    assert!(!plain.status.success(), "no plain text");
    eventually(DEADLINE, "handshakes of the load", || {
        demo.stats().listeners[0].handshakes.is_some_and(|it| it.full + it.resumed > 100)
    });
    let key = fs::metadata(demo.file("key.pem")).unwrap().permissions().mode() & 0o777;
    assert_eq!(key, 0o600);
    demo.signal(Signal::INT);
    let stdout = demo.finish_well();
    assert!(stdout.contains("tls: { certificates: [{ cert: \""), "{stdout}");
    let seen = &clients(&stdout)["all are in service"];
    assert!(seen.failed == 0 && seen.requests == seen.connections, "{seen:?}");
}

#[test]
fn http_is_watched() {
    let mut demo = Demo::start(&["--http", "--seconds", "600"]);
    demo.read_welcome();
    let commands = demo.commands();
    for (command, answer) in commands[3..5].iter().zip(["404 from ", "503 from "]) {
        assert!(sh(command).starts_with(answer), "{command}");
    }
    let class = |stats: &Snapshot, class: StatusClass| {
        let http = stats.listeners[0].http.clone().expect("HTTP is watched");
        http.responses.iter().filter(|it| it.class == class).map(|it| it.count).sum::<u64>()
    };
    let classes = [StatusClass::Successful, StatusClass::ClientError, StatusClass::ServerError];
    // Also without those of curl.
    eventually(DEADLINE, "responses of each class", || {
        let stats = demo.stats();
        classes.into_iter().all(|of| class(&stats, of) > 1)
    });
    demo.signal(Signal::INT);
    let stdout = demo.finish_well();
    assert!(stdout.contains("sniff: http"), "{stdout}");
    let seen = &clients(&stdout)["total"];
    assert!(seen.failed == 0 && seen.requests > 4 * seen.connections, "several on a connection: {seen:?}");
}

#[test]
fn http_over_tls_is_watched_too() {
    let mut demo = Demo::start(&["--tls", "--http", "--seconds", "600"]);
    demo.read_welcome();
    eventually(DEADLINE, "requests", || demo.stats().listeners[0].http.as_ref().is_some_and(|http| http.requests > 40));
    assert!(demo.stats().listeners[0].tls);
    demo.signal(Signal::INT);
    let seen = clients(&demo.finish_well()).remove("total").unwrap();
    assert!(seen.failed == 0 && seen.requests > seen.connections, "{seen:?}");
}

#[test]
fn another_port_if_one_is_taken() {
    // If that fails, somebody else has it, which is as good.
    let _taken = [8080, 9900].map(|port| TcpListener::bind(("127.0.0.1", port)));
    let mut demo = Demo::start(&["--seconds", "1"]);
    let address = demo.address;
    assert_ne!(address.port(), 8080);
    let greeting = sh(&format!("curl -s http://{address}/"));
    assert!(greeting.starts_with("hello from "), "{greeting}");
    let dashboard = demo.read_until(|line| line.starts_with("The dashboard"));
    let url = dashboard.rsplit_once(' ').unwrap().1.to_owned();
    assert!(url.starts_with("http://127.0.0.1:") && !url.contains(":9900/"), "{dashboard}");
    assert!(sh(&format!("curl -s {url}")).contains("<html"));
    let stdout = demo.finish_well();
    assert!(stdout.contains("(127.0.0.1:8080 is in use: the demo has another port)"), "{stdout}");
    assert!(stdout.contains("(127.0.0.1:9900 is in use: the dashboard has another port)"), "{stdout}");
}

#[test]
fn dashboard_port_is_the_one_given_or_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = command(&["--dashboard-port", &port]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with(&format!("error: cannot listen on 127.0.0.1:{port}: ")), "{stderr}");
    drop(taken);
    let mut demo = Demo::start(&["--dashboard-port", &port, "--seconds", "1"]);
    let line = demo.read_until(|line| line.starts_with("The dashboard"));
    assert!(line.ends_with(&format!("http://127.0.0.1:{port}/")), "{line}");
    demo.finish_well();
}

/// Nothing is left: no file, no process, and nobody listens.
#[test]
fn a_signal_ends_it_with_the_summary() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut demo = Demo::start(&[]);
        demo.read_welcome();
        demo.read_live_line();
        let address = demo.address;
        demo.signal(signal);
        let stdout = demo.finish_well();
        assert_ne!(clients(&stdout)["total"].requests, 0, "{signal:?}: {stdout}");
        assert_eq!(clients(&stdout)["total"].failed, 0, "{signal:?}: {stdout}");
        assert!(!stdout.contains("Cut at the end"), "{stdout}");
        let backends = stdout.lines().filter(|line| line.contains("  weight ") && line.contains("answers "));
        let backends: Vec<SocketAddr> =
            backends.map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect();
        assert_eq!(backends.len(), 3, "{stdout}");
        for port in backends.iter().chain([&address]) {
            // Another test may have the fixed port by now.
            assert!(port.port() == 8080 || TcpStream::connect(port).is_err(), "{port}");
        }
    }
}

/// As under nohup(1).
#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let program = env!("CARGO_BIN_EXE_tidegate");
    let demo = Demo::start_with(&[], |command| {
        let environment: Vec<_> =
            command.get_envs().map(|(key, value)| (key.to_owned(), value.map(Into::into))).collect();
        *command = Command::new("sh");
        command.args(["-c", &format!("trap '' HUP; exec {program} demo --seconds 2")]);
        for (key, value) in environment {
            match value {
                Some(value) => command.env::<_, std::ffi::OsString>(key, value),
                None => command.env_remove(key),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    demo.signal(Signal::HUP);
    let stdout = demo.finish_well();
    assert!(stdout.lines().filter(|line| is_live(line)).count() >= 1, "{stdout}");
}

#[test]
fn it_needs_no_root() {
    if !geteuid().is_root() {
        // Then every test here shows it.
        return;
    }
    let mut demo = Demo::start_with(&["--tls", "--http", "--seconds", "2"], |command| {
        command.uid(65534).gid(65534);
    });
    demo.read_welcome();
    demo.finish_well();
}

#[test]
fn the_admin_interface_ends_it_but_does_not_upgrade_it() {
    let mut demo = Demo::start(&["--seconds", "600"]);
    demo.read_welcome();
    let answer = demo.change("POST", "/api/upgrade", "");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("a demo is not upgraded"), "{}", answer.text());
    demo.read_live_line();
    assert_eq!(demo.change("POST", "/api/drain", "").status, 202);
    let stdout = demo.finish_well();
    assert_eq!(clients(&stdout)["total"].failed, 0, "{stdout}");
}

/// What the user makes impossible is said, and the demo goes on.
#[test]
fn a_step_that_the_user_has_made_impossible_is_said() {
    let mut demo = Demo::start(&["--seconds", "600"]);
    demo.read_welcome();
    let removed = demo.change("DELETE", "/api/pools/demo/backends/heavy", "");
    assert!(removed.status < 300, "{}", removed.text());
    demo.read_until(|line| line.ends_with("== heavy is drained =="));
    demo.read_until(|line| line.contains("this did not work: ") && line.contains("heavy"));
    demo.signal(Signal::INT);
    let stdout = demo.finish_well();
    let counted = counted(&stdout);
    assert!(!counted.contains_key("heavy") && counted.contains_key("quick"), "{stdout}");
}

#[test]
fn switches_refuse_what_they_do_not_know() {
    let mut demo = Demo::start(&["--seconds", "600"]);
    demo.read_welcome();
    let switches = Place::Unix(demo.file("backends.sock"));
    for (method, path, status) in [
        ("GET", "/quick/stop", 405),
        ("POST", "/nobody/stop", 404),
        ("POST", "/quick/explode", 404),
        ("POST", "/", 404),
        ("POST", "/quick/start", 200),
    ] {
        let answer = call(&switches, method, path, "");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    let help = call(&switches, "POST", "/", "").text();
    assert_eq!(help, "the paths are /BACKEND/VERB: quick | slow | heavy / stop | start | reset\n");
    demo.signal(Signal::INT);
    demo.finish_well();
}

#[test]
fn an_idle_keep_alive_connection_does_not_hold_up_the_end() {
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
    let stdout = demo.finish_well();
    assert!(!stdout.contains("Cut at the end"), "{stdout}");
}

#[test]
fn a_second_signal_does_not_wait_for_open_connections() {
    let mut demo = Demo::start(&[]);
    // Never asks for anything: the drain waits for it.
    let _idle = TcpStream::connect(demo.address).unwrap();
    demo.read_live_line();
    demo.signal(Signal::INT);
    let draining = demo.read_until(|line| line.starts_with("Draining: "));
    assert!(draining.contains("1 connection is still open, for 5s at most"), "{draining}");
    let told = Instant::now();
    demo.signal(Signal::INT);
    let stdout = demo.finish_well();
    assert!(told.elapsed() < Duration::from_secs(4), "it waited: {:?}", told.elapsed());
    assert!(stdout.contains("Cut at the end: 1."), "{stdout}");
}

#[test]
fn it_ends_when_nobody_reads_it_any_more() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = command(&[]).env("TMPDIR", temporary.path()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap(); // and the pipe is closed
    assert!(first.starts_with("tidegate demo: "), "{first}");
    let status = wait(&mut child);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn no_directory_and_no_time_are_errors() {
    let output = command(&["--seconds", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("invalid value '0' for '--seconds <N>'"), "{stderr}");
    let output = command(&[]).env("TMPDIR", "/nowhere/at/all").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cannot make a directory in /nowhere/at/all") && stderr.contains("TMPDIR"), "{stderr}");
}
