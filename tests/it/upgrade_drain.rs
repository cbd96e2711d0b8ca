//! Connections of processes that upgrades have replaced: listed, ended and waited for by the one that serves.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate::admin::connections::ConnectionsAnswer;
use tidegate::net::{memory_file, passing};

use crate::support::backend::{Backend, HealthPage};
use crate::support::client::{End, connect, echoes, read_to_end, talking};
use crate::support::process::require;
use crate::support::stats::{ADMIN_SOCKET, get};
use crate::support::tidegate::{Access, Line, Tidegate, forward};
use crate::support::{DEADLINE, eventually, proc};
use crate::upgrade::{HELLO, Program, READY, script};

/// Listener `in` to pool `p` with backends `a` and `b`.
fn two_backends(backends: &[Backend; 2]) -> String {
    let [a, b] = [0, 1].map(|place| backends[place].place());
    format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: \"{a}\" }}, {{ name: b, address: \"{b}\" }}] }}]\n"
    )
}

fn list(tidegate: &Tidegate, query: &str) -> ConnectionsAnswer {
    let answer = tidegate.call("GET", &format!("/api/connections?{query}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn ended(tidegate: &Tidegate, method: &str, path: &str) -> Value {
    let answer = tidegate.call(method, path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Takes the client of a connection out of a list.
fn client_of(clients: &mut Vec<TcpStream>, address: &str) -> TcpStream {
    let place = clients.iter().position(|it| it.local_addr().unwrap().to_string() == address);
    clients.remove(place.unwrap_or_else(|| panic!("no client {address}")))
}

/// Process ids and connections that they have left, the last one first.
fn predecessors(tidegate: &Tidegate) -> Vec<(u32, usize)> {
    tidegate.view().predecessors.iter().map(|it| (it.pid, it.connections)).collect()
}

/// By the command, on the process that serves.
fn run(tidegate: &Tidegate, arguments: &[&str]) -> crate::support::stats::Ran {
    let admin = tidegate.stats_port().to_string();
    tidegate.command(&[arguments, &["--admin", &admin]].concat())
}

#[test]
fn connections_of_a_replaced_process_are_listed_ended_and_waited_for() {
    let backends = [Backend::echo(), Backend::echo()];
    let mut tidegate = Tidegate::start(&two_backends(&backends));
    let (place, old) = (tidegate.at("in"), tidegate.pid());
    let mut clients: Vec<TcpStream> = (0..4).map(|_| talking(&place)).collect();
    let new = tidegate.upgrade();
    // Until then it may accept, as both have the same sockets.
    eventually(DEADLINE, "the old one drains", || predecessors(&tidegate) == [(old, 4)]);
    clients.extend((0..2).map(|_| talking(&place)));

    let all = list(&tidegate, "");
    let pids: Vec<u32> = all.connections.iter().map(|row| row.pid).collect();
    assert_eq!((pids, all.matched, all.more), (vec![old, old, old, old, new, new], 6, false));
    assert!(all.unreached.is_empty());
    let oldest = list(&tidegate, "limit=1");
    assert_eq!((&oldest.connections[0].id, oldest.matched, oldest.more), (&all.connections[0].id, 6, true));
    let of_a = list(&tidegate, "backend=a");
    assert_eq!((of_a.matched, of_a.connections[0].pid, of_a.connections[2].pid), (3, old, new));
    let table = run(&tidegate, &["connections"]);
    let (first, last) = table.printed().split_once('\n').unwrap();
    assert!(first.ends_with("PROCESS") && last.lines().next().unwrap().ends_with(&old.to_string()), "{table:?}");

    // What would end, first.
    let dry = tidegate.call("DELETE", "/api/connections?backend=a&dry_run=true", "");
    assert_eq!((dry.status, dry.json()), (200, json!({ "dry_run": true, "connections": 3 })));
    let dry = tidegate.call("POST", "/api/pools/p/backends/b/cut?dry_run=true", "");
    assert_eq!((dry.status, dry.json()), (200, json!({ "dry_run": true, "connections": 3 })));
    // One of the old process's, by its id.
    let row = all.connections.iter().find(|row| row.backend.as_deref() == Some("a")).unwrap();
    let path = format!("/api/connections/{}", row.id);
    let dry = tidegate.call("DELETE", &format!("{path}?dry_run=true"), "");
    assert_eq!((dry.status, dry.json()), (200, json!({ "dry_run": true, "connections": 1 })));
    clients.iter_mut().for_each(echoes);
    assert_eq!(run(&tidegate, &["kill", &row.id]).printed(), "1 connection ended\n");
    assert_eq!(read_to_end(&mut client_of(&mut clients, &row.client)), (Vec::new(), End::Reset));
    eventually(DEADLINE, "it has left", || tidegate.call("DELETE", &path, "").status == 404);
    assert_eq!(tidegate.call("DELETE", &format!("{path}?dry_run=true"), "").status, 404);
    clients.iter_mut().for_each(echoes);

    // A backend, in both processes; the other one's connections go on.
    assert_eq!(ended(&tidegate, "POST", "/api/pools/p/backends/b/cut"), json!({ "ended": 3 }));
    for row in list(&tidegate, "backend=b").connections.iter().chain(&all.connections) {
        if row.backend.as_deref() == Some("b") && row.pid == old {
            assert_eq!(read_to_end(&mut client_of(&mut clients, &row.client)).1, End::Reset);
        }
    }
    let audited = tidegate.wait_for_log("the cut", |line| line.field("action").ends_with("backends/b/cut"));
    assert_eq!(audited.number("connections"), 3);
    eventually(DEADLINE, "they have left", || list(&tidegate, "").matched == 2);

    // A removed backend is gone when no process has connections to it, whatever there is to others.
    let removed = |path: &str| {
        let answer = tidegate.call("DELETE", path, "");
        (answer.status, answer.json()["state"].as_str().unwrap().to_owned(), answer.json()["connections"].clone())
    };
    assert_eq!(removed("/api/pools/p/backends/b?wait=60s"), (200, "gone".to_owned(), json!(0)));
    let drain = run(&tidegate, &["drain", "p/a", "--wait", "100ms"]);
    assert_eq!(drain.code, Some(1), "{drain:?}");
    let said = "2 connections left, of which 1 in processes that an upgrade has replaced";
    assert!(drain.err.starts_with(said) && drain.err.ends_with(": the backend stays drained\n"), "{drain:?}");
    let of_pool = tidegate.resource("/api/pools/p/backends");
    let left = json!([{ "name": "a", "connections": 1 }]);
    assert_eq!(of_pool["predecessors"][0]["backends"], left, "{of_pool}");
    assert_eq!(of_pool["predecessors"][0]["pid"], old);
    assert_eq!(of_pool["backends"][0]["connections"], 1, "its own alone");
    let ours = list(&tidegate, "backend=a").connections.into_iter().find(|row| row.pid == new).unwrap();
    drop(client_of(&mut clients, &ours.client));
    eventually(DEADLINE, "it has left", || list(&tidegate, "").matched == 1);
    assert_eq!(removed("/api/pools/p/backends/a?wait=100ms"), (202, "leaving".to_owned(), json!(1)));
    // It is not known here any more, but there.
    assert_eq!(run(&tidegate, &["cut", "p/a"]).printed(), "1 connections ended\n");
    assert_eq!(read_to_end(&mut clients[0]).1, End::Reset);
    assert!(tidegate.wait().success(), "it has drained");
    eventually(DEADLINE, "the new process is alone", || tidegate.view().predecessors.is_empty());
    assert_eq!(tidegate.call("POST", "/api/pools/p/backends/a/cut", "").status, 404);
}

#[test]
fn removal_that_cuts_and_filters_reach_a_replaced_process() {
    let backends = [Backend::echo(), Backend::echo()];
    let mut tidegate = Tidegate::start(&two_backends(&backends));
    let mut clients: Vec<TcpStream> = (0..4).map(|_| talking(&tidegate.at("in"))).collect();
    tidegate.upgrade();
    let answer = ended(&tidegate, "DELETE", "/api/pools/p/backends/a?cut=true&wait=60s");
    assert_eq!((&answer["state"], &answer["ended"], &answer["connections"]), (&json!("gone"), &json!(2), &json!(0)));
    assert_eq!(run(&tidegate, &["kill", "--client", "127.0.0.0/8"]).printed(), "2 connections ended\n");
    clients.iter_mut().for_each(|client| assert_eq!(read_to_end(client).1, End::Reset));
    assert!(tidegate.wait().success());
}

/// Clients that have no backend yet when the upgrade comes: their PROXY header is still to come.
#[test]
fn backend_out_of_service_gets_no_client_of_a_replaced_process() {
    let backends = [Backend::named_and_open("a"), Backend::named_and_open("b")];
    let yaml = two_backends(&backends)
        .replace("pool: p }]", "pool: p, proxy_protocol: { trusted: [127.0.0.0/8] }, timeouts: { sniff: 10m } }]");
    let tidegate = Tidegate::start(&yaml);
    let mut waiting: Vec<TcpStream> = (0..6).map(|_| connect(&tidegate.at("in"))).collect();
    eventually(DEADLINE, "all are accepted", || list(&tidegate, "").matched == 6);
    let goes_to = |mut client: TcpStream| {
        client.write_all(b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 2000\r\n").unwrap();
        let mut name = [0];
        client.read_exact(&mut name).unwrap();
        name[0]
    };
    tidegate.upgrade();
    let next = |waiting: &mut Vec<TcpStream>| [(); 2].map(|()| goes_to(waiting.pop().unwrap()));
    let mut of_both = next(&mut waiting);
    of_both.sort_unstable();
    assert_eq!(of_both, *b"ab");
    eventually(DEADLINE, "they have left", || list(&tidegate, "").matched == 4);
    run(&tidegate, &["drain", "p/a", "--wait", "60s"]).printed();
    assert_eq!(next(&mut waiting), *b"bb", "not the one that is said to be empty");
    run(&tidegate, &["ready", "p/a"]).printed();
    assert_eq!(tidegate.call("DELETE", "/api/pools/p/backends/b?wait=60s", "").status, 200);
    assert_eq!(next(&mut waiting), *b"aa");
}

/// Of backends that were taken out of service meanwhile too: their checks go on.
#[test]
fn replaced_process_cuts_the_connections_of_a_backend_that_goes_down() {
    let (backends, page) = ([Backend::echo(), Backend::echo()], HealthPage::start());
    let health = format!("health: {{ http: {{ path: / }}, port: {}, interval: 20ms, fall: 1 }}", page.port());
    let yaml =
        two_backends(&backends).replace("name: p, backends", &format!("name: p, on_down: cut, {health}, backends"));
    let mut tidegate = Tidegate::start(&yaml);
    tidegate.wait_for_up("a");
    tidegate.wait_for_up("b");
    let mut clients: Vec<TcpStream> = (0..2).map(|_| talking(&tidegate.at("in"))).collect();
    tidegate.upgrade();
    run(&tidegate, &["drain", "p/a"]).printed();
    assert_eq!(tidegate.call("DELETE", "/api/pools/p/backends/b", "").status, 202);
    clients.iter_mut().for_each(echoes);
    page.answer(503);
    clients.iter_mut().for_each(|client| assert_eq!(read_to_end(client), (Vec::new(), End::Reset)));
    assert!(tidegate.wait().success(), "it has drained");
    let ends: Vec<String> = tidegate.access().iter().map(Access::end).collect();
    assert_eq!(ends, ["backend down", "backend down"]);
}

/// Three processes: the oldest one's connections are known to the last, whatever becomes of the one between.
#[test]
fn chain_of_replaced_processes_is_reported_whole() {
    let backends = [Backend::echo(), Backend::echo()];
    let mut tidegate = Tidegate::start(&two_backends(&backends));
    let place = tidegate.at("in");
    let oldest = tidegate.pid();
    let [mut first, mut second] = [(), ()].map(|()| talking(&place));
    let middle = tidegate.upgrade();
    let of_middle = [talking(&place), talking(&place), talking(&place)];
    let last = tidegate.upgrade();
    let mut of_last = talking(&place);

    eventually(DEADLINE, "both are known", || predecessors(&tidegate) == [(middle, 3), (oldest, 2)]);
    let metrics = get(&tidegate.stats_port(), "/metrics").text();
    assert!(metrics.contains("\ntidegate_upgrade_draining 2\n"), "{metrics}");
    assert!(metrics.contains("\ntidegate_upgrade_draining_connections 5\n"), "{metrics}");
    let pids: Vec<u32> = list(&tidegate, "").connections.iter().map(|row| row.pid).collect();
    assert_eq!(pids, [oldest, oldest, middle, middle, middle, last]);
    let of_a = list(&tidegate, "backend=a").matched;
    let waits = run(&tidegate, &["drain", "p/a", "--wait", "100ms"]);
    let here = list(&tidegate, "backend=a").connections.iter().filter(|row| row.pid == last).count();
    let said = format!("{of_a} connections left, of which {} in processes", of_a - here);
    assert!(waits.err.starts_with(&said), "{said}: {waits:?}");

    drop(of_middle);
    eventually(DEADLINE, "the middle one has ended", || !proc::runs(middle));
    eventually(DEADLINE, "the oldest is left", || predecessors(&tidegate) == [(oldest, 2)]);
    [&mut first, &mut second].into_iter().for_each(echoes);
    assert!(tidegate.runs());
    let row = list(&tidegate, "limit=1").connections.remove(0);
    assert_eq!(row.pid, oldest);
    assert_eq!(ended(&tidegate, "DELETE", &format!("/api/connections/{}", row.id)), json!({ "ended": 1 }));
    eventually(DEADLINE, "it has left", || predecessors(&tidegate) == [(oldest, 1)]);
    // A third upgrade passes it on once more.
    tidegate.upgrade();
    eventually(DEADLINE, "the oldest is known", || predecessors(&tidegate).contains(&(oldest, 1)));
    echoes(&mut of_last);
    drop((first, second));
    assert!(tidegate.wait().success(), "it has drained");
    eventually(DEADLINE, "it is gone", || predecessors(&tidegate) == [(last, 1)]);
    let errors: Vec<Line> = tidegate.logs().into_iter().filter(|line| line.level() == "ERROR").collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// The process that has taken over: told to end, or killed.
#[test]
fn end_of_the_serving_process_is_an_error_only_if_it_is_none_of_its_own() {
    for (signal, is_error) in [(Signal::TERM, false), (Signal::KILL, true)] {
        let backends = [Backend::echo(), Backend::echo()];
        let tidegate = Tidegate::start(&two_backends(&backends));
        let mut client = talking(&tidegate.at("in"));
        tidegate.upgrade();
        let last = tidegate.upgrade();
        proc::signal(last, signal);
        let ended = |line: &Line| {
            line.is("the process that has taken over has ended") || line.is("the process that has taken over ends")
        };
        let line = tidegate.wait_for_log("how it has ended", ended);
        assert_eq!((line.number("pid"), line.level() == "ERROR"), (u64::from(last), is_error), "{line:?}");
        echoes(&mut client);
    }
}

/// Stopped, it answers nothing: everything else is answered all the same.
#[test]
fn replaced_process_that_does_not_answer_is_named() {
    let backends = [Backend::echo(), Backend::echo()];
    let tidegate = Tidegate::start(&two_backends(&backends));
    let old = tidegate.pid();
    let mut client = talking(&tidegate.at("in"));
    tidegate.upgrade();
    let _new = talking(&tidegate.at("in"));
    eventually(DEADLINE, "its connection is known", || predecessors(&tidegate) == [(old, 1)]);
    tidegate.signal(Signal::STOP);
    let all = list(&tidegate, "");
    assert_eq!((all.matched, all.unreached.len()), (1, 1));
    assert_eq!((all.unreached[0].pid, all.unreached[0].connections), (old, 1));
    assert!(all.unreached[0].reason.contains("does not answer within"), "{:?}", all.unreached);
    let ran = run(&tidegate, &["connections"]);
    let named = format!("warning: process {old}, which an upgrade has replaced, has 1 connection left");
    assert!(ran.err.contains(&named) && ran.printed().lines().count() == 2, "{ran:?}");
    // The second time it is not waited for, and not asked.
    let again = list(&tidegate, "");
    assert!(again.unreached[0].reason.contains("has not answered the last call"), "{:?}", again.unreached);
    let cut = run(&tidegate, &["kill", "--client", "127.0.0.1"]);
    assert!(cut.err.contains(&named) && cut.printed() == "1 connection ended\n", "{cut:?}");
    let missing = run(&tidegate, &["kill", "8000000000000000"]);
    assert!(missing.code == Some(1) && missing.err.contains(&named[9..]), "{missing:?}");
    tidegate.signal(Signal::CONT);
    eventually(DEADLINE, "it answers again", || {
        let all = list(&tidegate, "");
        all.unreached.is_empty() && all.connections.iter().any(|row| row.pid == old)
    });
    echoes(&mut client);
}

/// This test, as an old process of a version that only reports.
struct OlderProcess(OwnedFd);

impl OlderProcess {
    /// Starts a process that takes over.
    fn replaced_by(yaml: &str) -> (Tidegate, OlderProcess) {
        let (own, others) = passing::pair().unwrap();
        fcntl_setfd(&others, FdFlags::empty()).unwrap();
        let state = memory_file::write(b"{\"verdicts\":[],\"overlay\":{}}").unwrap();
        passing::send(&own, b"{\"message\":\"state\"}", &[state.as_fd()]).unwrap();
        let variable = format!("{}:{}", std::process::id(), others.as_raw_fd());
        let tidegate = Tidegate::with(yaml).environment("TIDEGATE_UPGRADE", variable).start();
        let old = OlderProcess(own);
        assert_eq!(old.hears()["message"], "hello");
        assert_eq!(old.hears()["message"], "ready");
        old.says("{\"message\":\"go\"}");
        assert_eq!(old.hears()["message"], "serving");
        (tidegate, old)
    }

    fn says(&self, text: &str) {
        passing::send(&self.0, text.as_bytes(), &[]).unwrap();
    }

    fn hears(&self) -> Value {
        let mut heard = None;
        eventually(DEADLINE, "a message", || {
            heard = passing::receive(&self.0).ok().flatten();
            heard.is_some()
        });
        serde_json::from_slice(&heard.unwrap().0).unwrap()
    }
}

#[test]
fn old_process_of_an_older_version_is_waited_for_as_a_whole() {
    let backend = Backend::echo();
    let yaml = format!("{ADMIN_SOCKET}{}", forward(backend.place(), "", ""));
    let (tidegate, old) = OlderProcess::replaced_by(&yaml);
    old.says("{\"message\":\"draining\",\"connections\":3}");
    let pid = std::process::id();
    eventually(DEADLINE, "its connections are known", || predecessors(&tidegate) == [(pid, 3)]);
    let all = list(&tidegate, "");
    assert_eq!((all.matched, all.unreached[0].connections), (0, 3));
    assert!(all.unreached[0].reason.contains("its version can only be waited for"), "{:?}", all.unreached);
    let waits = run(&tidegate, &["drain", "p/b", "--wait", "100ms"]);
    let said = format!("those of process {pid} are to any backend: its version can only be waited for");
    assert!(waits.code == Some(1) && waits.err.contains(&said), "{waits:?}");
    let removed = tidegate.call("DELETE", "/api/pools/p/backends/b?wait=100ms", "");
    assert_eq!((removed.status, &removed.json()["connections"]), (202, &json!(3)));
    assert!(passing::receive(&old.0).is_err(), "it was asked nothing");
    drop(old);
    eventually(DEADLINE, "it has ended", || predecessors(&tidegate).is_empty());
    assert_eq!(tidegate.count_logs(|line| line.level() == "ERROR"), 0);
}

/// A new process that knows only reports: it reports all connections, those of earlier predecessors too.
#[test]
fn new_process_of_an_older_version_gets_the_sum() {
    require("bash", "bash");
    let (backend, program) = (Backend::echo(), Program::new());
    let tidegate = Tidegate::with(&forward(backend.place(), "", "")).program(&program.path).start();
    let mut of_oldest = [talking(&tidegate.at("in")), talking(&tidegate.at("in"))];
    let middle = tidegate.upgrade();
    let of_middle = talking(&tidegate.at("in"));
    let heard = tidegate.directory().join("heard");
    let serves = "printf '{\"message\":\"serving\"}' >&$n\n";
    let reads =
        format!("while true; do dd bs=65536 count=1 <&$n >>{} 2>/dev/null || sleep 0.05; done\n", heard.display());
    program.replace(&script(&format!("{HELLO}{READY}{serves}{reads}")), 0o755);
    proc::signal(middle, Signal::USR2);
    let said = || fs::read_to_string(&heard).unwrap_or_default();
    eventually(DEADLINE, "the sum", || said().contains("{\"message\":\"draining\",\"connections\":3}"));
    drop(of_middle);
    eventually(DEADLINE, "the middle one has ended", || !proc::runs(middle));
    tidegate.wait_for_log("that nobody knows of the oldest any more", |line| {
        line.is("the process that has taken over ends") && line.number("pid") == u64::from(middle)
    });
    assert!(!said().contains("predecessors") && !said().contains("call"), "{}", said());
    of_oldest.iter_mut().for_each(echoes);
    let errors = tidegate.count_logs(|line| line.level() == "ERROR");
    assert_eq!(errors, 0);
}
