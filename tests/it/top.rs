//! `tidegate top`, in a terminal and without one.

use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, Dead};
use crate::support::client::{connect, read_to_end};
use crate::support::stats::ADMIN;
use crate::support::terminal::Terminal;
use crate::support::tidegate::Tidegate;

fn start(backends: &[(&str, String)]) -> Tidegate {
    let listed: Vec<String> =
        backends.iter().map(|(name, address)| format!("{{ name: {name}, address: \"{address}\" }}")).collect();
    Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, health: {{ tcp: {{}}, interval: 100ms }}, backends: [{}] }}]\n",
        listed.join(", ")
    ))
}

fn once(tidegate: &Tidegate, arguments: &[&str]) -> Output {
    let stats = tidegate.stats_port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["top", "--once", "--stats", &stats]).args(arguments).output().unwrap()
}

fn in_terminal(stats: &str, arguments: &[&str]) -> Terminal {
    let arguments = [&["top", "--stats", stats], arguments].concat();
    Terminal::start(env!("CARGO_BIN_EXE_tidegate"), &arguments, 80, 24)
}

/// The terminal is as it was.
fn is_restored(terminal: &Terminal) {
    assert!(!terminal.is_alternate() && terminal.shows_cursor() && terminal.is_cooked(), "{}", terminal.text());
}

#[test]
fn once_prints_a_table_and_ends() {
    let (a, dead) = (Backend::named("a"), Dead::start());
    let tidegate = start(&[("a", a.address().to_string()), ("dead", dead.address().to_string())]);
    tidegate.wait_for_down("dead");
    (0..5).for_each(|_| assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"a"));
    tidegate.wait_for_access("all", |_| tidegate.access().len() == 5);

    let output = once(&tidegate, &["--sort", "state", "--stage", "connect", "--window", "all"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(text.starts_with("tidegate 0.") && text.lines().next().unwrap().ends_with(", ready"), "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("connect, since the start;"), "{text}");
    assert_eq!(lines[2], ["BACKEND", "STATE", "OPEN", "CONN/S", "IN", "OUT", "FAIL", "P50", "P99", "MAX"]);
    assert_eq!(lines[3][..3], ["p", "1/2", "part"]);
    assert_eq!((lines[4][0], lines[4][1], lines[5][0], lines[5][1]), ("dead", "DOWN", "a", "up"), "sorted by state");
    assert_eq!((lines[5][5], lines[5][6]), ("5", "0"), "5 bytes out, no failures: {text}");
    assert!(lines[5][7].ends_with('s') && lines[4][7] == "-", "{text}");
    assert!(!text.contains('\x1b'), "no escape codes");

    let output = once(&tidegate, &["--json", "--stage", "connect", "--window", "all"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["rows"][1]["backend"], &json["rows"][1]["bytes_out"]), (&"a".into(), &5.into()));
    assert!(json["rows"][1]["max_us"].as_u64().is_some(), "{json}");
}

#[test]
fn without_a_terminal_or_a_stats_port_it_says_so() {
    let nobody = Dead::start().address().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.arg("top").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = run(&["--once", "--stats", &nobody]);
    assert!(code == Some(1) && told.contains("cannot be reached") && told.contains("admin.bind"), "{told}");
    let (code, told) = run(&["--stats", &nobody]);
    assert!(code == Some(2) && told.contains("no terminal") && told.contains("--once"), "{told}");
    assert_eq!(run(&["--once", "--stage", "nonsense"]).0, Some(2));
}

#[test]
fn keys_do_what_they_are_for_and_q_restores_the_terminal() {
    let backends = ["one", "two"].map(Backend::named_and_open);
    let tidegate = start(&[("one", backends[0].address().to_string()), ("two", backends[1].address().to_string())]);
    tidegate.wait_for_up("two");
    let mut terminal = in_terminal(&tidegate.stats_port().to_string(), &[]);
    terminal.wait_for("p 2/2");
    assert!(terminal.is_alternate() && !terminal.is_cooked(), "{}", terminal.text());
    terminal.wait_for("turnaround, last 10s");

    // What happens is seen by itself.
    let open: Vec<_> = (0..4).map(|_| connect(&tidegate.at("in"))).collect();
    terminal.wait_for("connections 4 of");
    drop(open);
    terminal.wait_for("connections 0 of");

    terminal.press("t");
    terminal.wait_for("session, last 10s");
    terminal.press("ww");
    terminal.wait_for("session, last 5m");
    terminal.press("sr");
    terminal.wait_for("by name, reversed");
    let order = |screen: &str| screen.find("  two").zip(screen.find("  one")).is_some_and(|(two, one)| two < one);
    terminal.wait_until("two before one", order);
    terminal.press("/on");
    terminal.wait_for("/on_  1 found");
    terminal.wait_until("two is gone", |screen| !screen.contains("  two"));
    terminal.press("\r");
    terminal.wait_for("? help");
    terminal.press("?");
    terminal.wait_for("reverse the order");
    terminal.press("?");
    terminal.wait_until("help is gone", |screen| !screen.contains("reverse the order"));
    terminal.press("\x1b[B");
    terminal.wait_for("one: up for");

    terminal.resize(120, 40);
    terminal.wait_for("one: up for");
    assert!(terminal.text().lines().nth(39).unwrap().starts_with("q quit"), "{}", terminal.text());

    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
    is_restored(&terminal);
}

#[test]
fn a_backend_is_changed_by_keys_after_a_question() {
    let backend = Backend::named_and_open("a");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"unix:{}\" }}\nlisteners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: \"{}\" }}] }}]\n",
        socket.display(),
        backend.address()
    ));
    let open = connect(&tidegate.at("in"));
    let mut terminal = in_terminal(&format!("unix:{}", socket.display()), &[]);
    terminal.wait_for("connections 1 of");
    terminal.press("d");
    terminal.wait_for("FAILED select a backend");
    terminal.press("\x1b[B");
    terminal.wait_for("a: unchecked");
    terminal.press("d");
    terminal.wait_for("drain p/a? y/n   its open connection stays");
    terminal.press("n");
    terminal.wait_for("q quit");
    assert_eq!(tidegate.count_logs(|line| line.is("audit")), 0, "nothing was confirmed");
    terminal.press("\rdy");
    terminal.wait_for("pools.p.backends.a.state: ready -> drain");
    terminal.wait_for("a: drained, takes no new connections");
    assert_eq!(tidegate.count_logs(|line| line.is("audit")), 1);
    terminal.press("\rry");
    terminal.wait_for("a: unchecked");
    terminal.press("\rw12\r");
    terminal.wait_for("weight 12 for p/a? y/n");
    terminal.press("y");
    terminal.wait_for("pools.p.backends.a.weight: 1 -> 12");
    terminal.press("m");
    terminal.press("y");
    terminal.wait_for("a: in maintenance");
    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
    is_restored(&terminal);
    drop(open);
}

#[test]
fn what_may_not_be_changed_is_said() {
    let backend = Backend::named("a");
    let tidegate = start(&[("a", backend.address().to_string())]);
    let mut terminal = in_terminal(&tidegate.stats_port().to_string(), &[]);
    terminal.wait_for("p 1/1");
    terminal.press("\x1b[Bdy");
    terminal.wait_for("FAILED changes over TCP require admin.token_file");
    terminal.wait_for("a: up");
    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn signals_restore_the_terminal_too() {
    let backend = Backend::named("a");
    let tidegate = start(&[("a", backend.address().to_string())]);
    for signal in [Signal::TERM, Signal::INT] {
        let mut terminal = in_terminal(&tidegate.stats_port().to_string(), &[]);
        terminal.wait_for("p 1/1");
        terminal.signal(signal);
        assert_eq!(terminal.wait().code(), Some(0));
        is_restored(&terminal);
    }
}

#[test]
fn a_stats_port_that_goes_and_comes_is_waited_for() {
    let backend = Backend::named("a");
    let free = crate::support::free_port();
    let yaml = format!(
        "admin: {{ bind: \"127.0.0.1:{free}\" }}\nlisteners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: \"{}\" }}] }}]\n",
        backend.address()
    );
    let mut terminal = in_terminal(&format!("127.0.0.1:{free}"), &[]);
    terminal.wait_for("NO ANSWER");
    terminal.wait_for("cannot be reached");
    let tidegate = Tidegate::start(&yaml);
    terminal.wait_for("p 1/1");
    drop(tidegate);
    terminal.wait_for("NO ANSWER");
    assert!(terminal.text().contains("p 1/1"), "what was seen last stays: {}", terminal.text());
    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
    is_restored(&terminal);
}
