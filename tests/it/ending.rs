//! How the process starts and ends, what it logs, and what it does when files run out.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::backend::{Backend, Scripted, in_thread};
use crate::support::client::{End, Place, connect, expect, read_to_end, try_connect};
use crate::support::proc::{TICKS_PER_SECOND, cpu_ticks, open_files_limit};
use crate::support::tidegate::{Access, Tidegate, forward};
use crate::support::{DEADLINE, eventually, free_port};

#[test]
fn sigterm_lets_connections_finish() {
    drains(Signal::TERM);
}

#[test]
fn sigint_does_the_same() {
    drains(Signal::INT);
}

fn drains(signal: Signal) {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&format!("shutdown: {{ drain: 1h }}\n{}", forward(backend.place(), "", "")));
    let mut client = talking(&tidegate);
    let address = client.local_addr().unwrap().to_string();
    tidegate.signal(signal);
    assert_eq!(tidegate.wait_for_log("draining", |line| line.is("draining")).number("connections"), 1);
    refuses(&tidegate.at("in"));

    client.write_all(b"not cut").unwrap();
    expect(&mut client, b"not cut");
    assert!(tidegate.runs());
    drop(client);
    assert_eq!(tidegate.wait().code(), Some(0));
    tidegate.wait_for_log("drained", |line| line.is("drain complete"));
    // Those that asked whether connects are refused may have a line too.
    let line = tidegate.wait_for_access("of the client", |line| line.field("client") == address);
    assert_eq!((line.end(), line.bytes()), ("client closed".to_owned(), (12, 12)));
}

#[test]
fn without_connections_it_ends_at_once() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&format!("shutdown: {{ drain: 1h }}\n{}", forward(backend.place(), "", "")));
    tidegate.terminate();
    assert_eq!(tidegate.wait().code(), Some(0));
}

#[test]
fn at_the_deadline_connections_are_cut() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&format!("shutdown: {{ drain: 300ms }}\n{}", forward(backend.place(), "", "")));
    let mut clients = [talking(&tidegate), talking(&tidegate)];
    tidegate.terminate();
    for client in &mut clients {
        assert_eq!(read_to_end(client).0, b"");
    }
    // A service manager must not take this for a failure.
    assert!(tidegate.wait().success());
    let exceeded = tidegate.wait_for_log("the deadline", |line| line.is("drain deadline exceeded"));
    assert_eq!(exceeded.number("connections"), 2);
    let ends: Vec<String> = tidegate.access().iter().map(Access::end).collect();
    assert_eq!(ends, ["drain deadline exceeded", "drain deadline exceeded"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&format!("shutdown: {{ drain: 1h }}\n{}", forward(backend.place(), "", "")));
    let mut client = talking(&tidegate);
    tidegate.terminate();
    tidegate.wait_for_log("draining", |line| line.is("draining"));
    tidegate.terminate();
    assert!(tidegate.wait().success());
    assert_eq!(read_to_end(&mut client).0, b"");
    let aborted = tidegate.wait_for_log("that the drain was aborted", |line| line.is("drain aborted"));
    assert_eq!(aborted.number("connections"), 1);
    assert_eq!(tidegate.count_logs(|line| line.text.contains("deadline exceeded")), 0, "its deadline was an hour away");
    assert_eq!(tidegate.only_access().end(), "drain aborted");
}

/// Its client, a pool of connections, would send its own FIN only when it uses the connection again.
#[test]
fn a_drain_does_not_wait_for_clients_whose_backend_has_finished() {
    let scripted = Scripted::start();
    let listener = forward(scripted.place(), "timeouts: { half_close: 1h }", "");
    let mut tidegate = Tidegate::start(&format!("shutdown: {{ drain: 1h }}\n{listener}"));
    let mut client = connect(&tidegate.at("in"));
    let backend = scripted.accept();
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).0, b"");
    tidegate.terminate();
    assert!(tidegate.wait().success());
    tidegate.wait_for_log("drained", |line| line.is("drain complete"));
    assert_eq!(tidegate.only_access().end(), "half-close timeout");
}

/// A client that is still waiting for its backend when the drain begins is not left hanging.
#[test]
fn connections_that_wait_to_be_accepted_are_not_forgotten() {
    let scripted = Scripted::start();
    let yaml = format!("shutdown: {{ drain: 1h }}\n{}", forward(scripted.place(), "max_connections: 1", ""));
    let mut tidegate = Tidegate::start(&yaml);
    let served = connect(&tidegate.at("in"));
    let backend = scripted.accept();
    let mut waiting = connect(&tidegate.at("in"));
    tidegate.terminate();
    // Its connection is closed by the kernel together with the listening socket.
    assert_eq!(read_to_end(&mut waiting).0, b"");
    drop((served, backend));
    assert_eq!(tidegate.wait().code(), Some(0));
}

#[test]
fn a_bad_configuration_exits_with_2_and_all_errors() {
    let (status, stderr) = Tidegate::with(
        "listeners: [{ name: in, bind: \"127.0.0.1:0\", pool: nowhere }]\n\
         pools: [{ name: p, blance: random, backends: [{ address: \"127.0.0.1:1\", weight: 1001 }] }]\n",
    )
    .run_to_end();
    assert_eq!(status.code(), Some(2), "{stderr}");
    for expected in ["nowhere", "blance", "1001", "tidegate.yaml:2:", "tidegate.yaml:3:"] {
        assert!(stderr.contains(expected), "no {expected:?} in {stderr}");
    }
}

#[test]
fn a_port_in_use_names_the_port_and_the_listener() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for workers in [1, 2] {
        let (status, stderr) = Tidegate::with(&format!(
            "workers: {workers}\n\
             listeners: [{{ name: the-shop, bind: \"127.0.0.1:{port}\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ address: \"127.0.0.1:1\" }}] }}]\n"
        ))
        .run_to_end();
        assert!(!status.success(), "{stderr}");
        assert!(stderr.contains(&port.to_string()) && stderr.contains("the-shop"), "{stderr}");
    }
}

/// A second instance does not take half of the first one's connections.
#[test]
fn a_second_instance_finds_the_port_in_use() {
    let backend = Backend::echo();
    let first = Tidegate::start(&forward(backend.place(), "", ""));
    let port = first.at("in").tcp().port();
    let (status, stderr) =
        Tidegate::with(&forward(backend.place(), "", "").replace("127.0.0.1:0", &format!("127.0.0.1:{port}")))
            .run_to_end();
    assert!(!status.success(), "{stderr}");
    assert!(stderr.contains(&port.to_string()) && stderr.contains("in"), "{stderr}");
    talking(&first);
}

/// The socket file of an instance that was killed does not keep the next one from starting; that of a living one does.
#[test]
fn a_unix_socket_left_behind() {
    let backend = Backend::echo();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("in.sock");
    let yaml = forward(backend.place(), "", "").replace("127.0.0.1:0", &format!("unix:{}", socket.display()));

    let first = Tidegate::start(&yaml);
    let (status, stderr) = Tidegate::with(&yaml).run_to_end();
    assert!(!status.success() && stderr.contains("in.sock"), "{stderr}");
    talking(&first);

    drop(first); // SIGKILL
    assert!(socket.exists());
    let mut second = Tidegate::start(&yaml);
    drop(talking(&second));
    second.terminate();
    assert_eq!(second.wait().code(), Some(0));
    assert!(!socket.exists(), "an instance that ends by itself takes its socket along");
}

#[test]
fn a_configuration_in_the_current_directory_is_found() {
    let backend = Backend::echo();
    let tidegate = Tidegate::with(&forward(backend.place(), "", "")).without_argument().start();
    talking(&tidegate);
    let told = tidegate.logs();
    assert!(told.iter().any(|line| line.text.contains("tidegate.yaml")), "it says which file it took: {told:?}");
}

#[test]
fn logs_as_json() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), "", "health: { tcp: {}, interval: 1s, timeout: 1s }"));
    tidegate.wait_for_up("b");
    for line in tidegate.logs() {
        assert!(line.is_json(), "not JSON: {:?}", line.text);
        assert!(line.field("time").contains('T') && !line.level().is_empty(), "{line:?}");
    }
    let up = tidegate.wait_for_log("up", |line| line.is("backend up"));
    assert_eq!((up.field("pool"), up.field("backend"), up.level()), ("p".into(), "b".into(), "INFO".into()));
    let listening = tidegate.wait_for_log("listening", |line| line.is("listening"));
    assert_eq!(listening.field("listener"), "in");
}

/// Who reads JSON reads a warning about the configuration as JSON too.
#[test]
fn warnings_about_the_configuration_as_json() {
    let backend = Backend::echo();
    // A check that may take longer than until the next one is warned about.
    let tidegate = Tidegate::start(&forward(backend.place(), "", "health: { tcp: {}, interval: 100ms, timeout: 1s }"));
    tidegate.wait_for_log("the warning", |line| line.text.contains("interval"));
    for line in tidegate.logs() {
        assert!(line.is_json(), "not JSON: {:?}", line.text);
    }
}

#[test]
fn logs_as_text_with_access_lines_on_stderr() {
    let (tidegate, client) = text_to("stderr");
    let line = tidegate.wait_for_log("the access line", |line| line.text.contains("reason=\"client closed\""));
    assert_eq!(tidegate.count_logs(|line| line.text.contains("reason=")), 1);
    assert_text_access(&line.text, &client);
    assert!(tidegate.logs().iter().all(|line| !line.is_json()));
    assert!(tidegate.logs().iter().any(|line| line.text.contains("started")));
}

#[test]
fn logs_as_text_with_access_lines_in_a_file() {
    let (tidegate, client) = text_to("./access.log"); // relative to the working directory
    let mut text = String::new();
    eventually(DEADLINE, "the access line", || {
        text = fs::read_to_string(tidegate.access_file()).unwrap_or_default();
        text.ends_with('\n')
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_text_access(&text, &client);
    assert_eq!(tidegate.count_logs(|line| line.text.contains("reason=")), 0, "not among the other lines");
}

/// One connection with five bytes up and down; its client's address.
fn text_to(access: &str) -> (Tidegate, String) {
    let backend = Backend::echo();
    let port = free_port();
    let yaml = forward(backend.place(), "", "").replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let tidegate = Tidegate::with(&yaml).log(&format!("{{ format: text, access: {access} }}")).start();
    let mut client = connect(&Place::Tcp(([127, 0, 0, 1], port).into()));
    client.write_all(b"hello").unwrap();
    expect(&mut client, b"hello");
    let address = client.local_addr().unwrap().to_string();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Fin));
    (tidegate, address)
}

/// The fields of HAProxy's tcplog, told by their place as its readers do.
fn assert_text_access(line: &str, client: &str) {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [process, from, accepted, listener, server, times, bytes, code, open, queues, rest @ ..] = fields.as_slice()
    else {
        panic!("{line:?}")
    };
    assert!(process.starts_with("tidegate[") && process.ends_with("]:"), "{line:?}");
    assert_eq!((*from, *listener, *server), (client, "in", "p/b"), "{line:?}");
    assert!(accepted.starts_with('[') && accepted.ends_with(']') && accepted.contains("/20"), "{line:?}");
    let times: Vec<i64> = times.split('/').map(|time| time.parse().unwrap()).collect();
    assert!(times.len() == 3 && times.iter().all(|time| *time >= 0) && times[2] >= times[1], "{line:?}");
    assert_eq!((*bytes, *code, *open, *queues), ("5", "--", "1/1/1/1/0", "0/0"), "{line:?}");
    let id = rest.get(1).and_then(|field| field.strip_prefix("id=")).unwrap_or_default();
    assert!(id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{line:?}");
    assert_eq!(rest.join(" "), format!("bytes_in=5 id={id} reason=\"client closed\""), "{line:?}");
}

#[test]
fn access_off_writes_none() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::with(&forward(backend.place(), "", "")).log("{ format: json, access: off }").start();
    drop(talking(&tidegate));
    tidegate.terminate();
    assert!(tidegate.wait().success());
    tidegate.wait_for_log("the last line", |line| line.is("drain complete"));
    assert_eq!(tidegate.count_logs(|line| line.text.contains("client closed")), 0);
}

#[test]
fn an_access_line_has_every_field() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), "", ""));
    let client = talking(&tidegate);
    let address = client.local_addr().unwrap().to_string();
    drop(client);
    let line = tidegate.only_access();
    for name in ["time", "listener", "client", "pool", "backend", "queue_ms", "connect_ms", "tls_handshake_ms"]
        .into_iter()
        .chain(["backend_tls_handshake_ms", "first_byte_ms", "turnaround_ms", "turnarounds", "duration_ms"])
        .chain(["retries", "bytes_in", "bytes_out", "reason", "side", "code"])
    {
        assert!(line.has(name), "no {name} in {line:?}");
    }
    assert_eq!((line.field("listener"), line.field("client")), ("in".to_owned(), address));
    assert_eq!((line.field("side"), line.field("reason")), ("client".to_owned(), "client closed".to_owned()));
    assert_eq!((line.backend(), line.bytes()), (Some("b"), (5, 5)));
    let (connect, duration) = (line.number("connect_ms").unwrap(), line.number("duration_ms").unwrap());
    assert!((0.0..=duration).contains(&connect), "{line:?}");
}

/// What comes from outside may hold anything: a line stays a line, and a terminal is not told what to do.
#[test]
fn control_characters_are_escaped() {
    let evil = "evil\u{1b}[31m\r\nINFO a line of its own";
    let printable = |text: &str| text.chars().all(|character| !character.is_control());

    // What a backend answers to a health check stands in the reason.
    let backend = Backend::start(in_thread(move |mut stream| {
        _ = stream.write_all(evil.as_bytes());
        _ = stream.read(&mut [0]);
    }));
    let check = r#"health: { exchange: { expect: "OK" }, interval: 1s, timeout: 1s, fall: 1, initial: up }"#;
    for format in ["text", "json"] {
        let tidegate =
            Tidegate::with(&forward(backend.place(), "", check)).log(&format!("{{ format: {format} }}")).start();
        tidegate.wait_for_log("the reason", |line| line.text.contains("evil"));
        for line in tidegate.logs() {
            assert!(printable(&line.text), "{line:?}");
            assert!(!line.text.starts_with("INFO a line"), "{line:?}");
        }
    }

    // So do the names of a configuration in its errors.
    let yaml = forward("127.0.0.1:1", "", "").replace("pool: p", "pool: \"evil\\e[31m\\nerror: a line\"");
    let (status, stderr) = Tidegate::with(&yaml).run_to_end();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("evil"), "{stderr}");
    assert!(stderr.lines().all(|line| printable(line) && !line.starts_with("error: a line")), "{stderr:?}");
}

#[test]
fn the_soft_limit_of_open_files_is_raised() {
    let backend = Backend::echo();
    let tidegate = Tidegate::with(&forward(backend.place(), "", "")).open_files(100, 1000).start();
    assert_eq!(open_files_limit(tidegate.pid()), 1000);
    let capacity = tidegate.wait_for_log("started", |line| line.is("started")).number("connection_capacity");
    assert!((300..=500).contains(&capacity), "1000 files are not enough for {capacity} connections, or for many more");
    assert_eq!(tidegate.count_logs(|line| line.level() == "WARN"), 0);
}

#[test]
fn a_limit_beyond_the_capacity_is_warned_about() {
    let backend = Backend::echo();
    let tidegate = Tidegate::with(&forward(backend.place(), "max_connections: 600", "")).open_files(100, 1000).start();
    let warning = tidegate.wait_for_log("the warning", |line| line.level() == "WARN");
    for expected in ["max_connections", "600"] {
        assert!(warning.text.contains(expected), "{warning:?}");
    }
    talking(&tidegate);
}

/// More connections than the limit of open files allows: they wait.
#[test]
fn more_connections_than_fit() {
    let backend = Backend::echo();
    let tidegate =
        Tidegate::with(&format!("workers: 2\n{}", forward(backend.place(), "", ""))).open_files(64, 64).start();
    let at_start = tidegate.open_files();
    let clients = knock(&tidegate, 100);
    tidegate.wait_for_log("the limit of open files", |line| line.text.contains("open files"));
    assert_quiet(&tidegate);
    let served = clients.iter().filter(|client| answered(client)).count();
    assert!((5..40).contains(&served), "{served} of 100 are served");
    drop(clients);
    recovers(&tidegate, at_start);
}

/// Files run out although there should be enough: accept and connect fail.
#[test]
fn files_run_out() {
    let backend = Backend::echo();
    let tidegate =
        Tidegate::with(&format!("workers: 2\n{}", forward(backend.place(), "", ""))).open_files(1000, 1000).start();
    let at_start = tidegate.open_files();
    let mut served: Vec<TcpStream> = (0..7).map(|_| talking(&tidegate)).collect();
    limit_open_files(&tidegate, tidegate.lowest_free_file()); // not one more
    let waiting = knock(&tidegate, 50);
    tidegate.wait_for_log("too many open files", |line| line.text.to_lowercase().contains("too many open files"));
    assert_quiet(&tidegate);
    for client in &mut served {
        client.write_all(b"as ever").unwrap();
        expect(client, b"as ever");
    }

    // Those that found no file are served once there are some.
    limit_open_files(&tidegate, 1000);
    eventually(DEADLINE, "all are served", || waiting.iter().all(answered));
    assert_eq!(tidegate.access().len(), 0, "nobody was refused: they waited in the kernel's queue");
    drop((served, waiting));
    recovers(&tidegate, at_start);
}

/// The last file goes to a client, and its connect to the backend has none: it waits, and nothing is accepted meanwhile that
/// would take the next one.
#[test]
fn connect_without_a_descriptor_waits_and_comes_before_new_connections() {
    let backend = Backend::echo();
    let tidegate =
        Tidegate::with(&format!("workers: 2\n{}", forward(backend.place(), "", ""))).open_files(1000, 1000).start();
    let at_start = tidegate.open_files();
    let ends_first = talking(&tidegate);
    let served = talking(&tidegate);
    limit_open_files(&tidegate, tidegate.lowest_free_file() + 1);
    let before = tidegate.open_files();
    let first = knock(&tidegate, 1);
    eventually(DEADLINE, "it has the last file", || tidegate.open_files() > before);
    let others = knock(&tidegate, 20);
    tidegate.wait_for_log("the pause", |line| line.text.contains("accepting pauses"));
    drop(ends_first);
    eventually(DEADLINE, "the first one is served", || first.iter().all(answered));

    limit_open_files(&tidegate, 1000);
    eventually(DEADLINE, "all are served", || others.iter().all(answered));
    assert!(tidegate.access().iter().all(|line| line.end() == "client closed"), "nobody was refused");
    drop((first, others, served));
    recovers(&tidegate, at_start);
}

/// So many clients that say hello, whether or not somebody hears it.
fn knock(tidegate: &Tidegate, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..count).map(|_| connect(&tidegate.at("in"))).collect();
    for client in &mut clients {
        _ = client.write_all(b"hello");
    }
    clients
}

/// No spinning, and one log line a second at most.
fn assert_quiet(tidegate: &Tidegate) {
    let (began, ticks, lines) = (Instant::now(), cpu_ticks(tidegate.pid()), tidegate.logs().len());
    thread::sleep(Duration::from_secs(3)); // what is measured is this time, not that something has happened after it
    let (used, seconds) = (cpu_ticks(tidegate.pid()) - ticks, began.elapsed().as_secs());
    assert!(used < 3 * TICKS_PER_SECOND / 2, "{used} ticks in {seconds} seconds: it spins");
    let logged = tidegate.logs().len() - lines;
    assert!(logged as u64 <= seconds + 1, "{logged} lines in {seconds} seconds");
}

/// Nothing is left of what was, and everything works.
fn recovers(tidegate: &Tidegate, at_start: usize) {
    eventually(DEADLINE, "everything is closed", || tidegate.open_files() == at_start);
    for _ in 0..5 {
        talking(tidegate);
    }
    eventually(DEADLINE, "everything is closed", || tidegate.open_files() == at_start);
}

fn limit_open_files(tidegate: &Tidegate, files: usize) {
    let status = Command::new("prlimit")
        .args(["--pid", &tidegate.pid().to_string(), &format!("--nofile={files}:1000")])
        .status()
        .expect("prlimit, which is part of util-linux");
    assert!(status.success());
}

/// Whether the answer to "hello" is there; those that wait for a free file get none yet.
fn answered(client: &TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match client.peek(&mut [0; 5]) {
        Ok(count) => count == 5,
        Err(error) => {
            assert!([ErrorKind::WouldBlock, ErrorKind::ConnectionReset].contains(&error.kind()), "{error}");
            false
        }
    }
}

fn refuses(place: &Place) {
    eventually(DEADLINE, "new connections are refused", || {
        try_connect(place).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

/// A connection on which bytes went both ways.
fn talking(tidegate: &Tidegate) -> TcpStream {
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"hello").unwrap();
    expect(&mut client, b"hello");
    client
}
