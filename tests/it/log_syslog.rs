//! `log.access: syslog:…`: access lines as messages of RFC 5424, through real sockets.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, Dead};
use crate::support::client::{Place, connect, read_to_end};
use crate::support::rfc5424::{Message, parse};
use crate::support::stats::{ADMIN_SOCKET, get};
use crate::support::syslog::Receiver;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

const NAME: &str = "a \"b\" ] ä";

fn yaml(backend: &Backend) -> String {
    format!(
        "{ADMIN_SOCKET}listeners: [{{ name: '{NAME}', bind: \"unix:DIRECTORY/in.sock\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
        backend.place()
    )
}

fn log(format: &str, target: &str) -> String {
    format!("{{ format: {format}, access: \"{target}\" }}")
}

fn talk(place: &Place) {
    assert_eq!(read_to_end(&mut connect(place)).0, b"b");
}

fn entrance(tidegate: &Tidegate) -> Place {
    Place::Unix(tidegate.directory().join("in.sock"))
}

fn reload(tidegate: &mut Tidegate, yaml: &str, log: &str) {
    tidegate.set_log(log);
    tidegate.rewrite(yaml);
    tidegate.command(&["reload", "--config", tidegate.config_file().to_str().unwrap()]).printed();
}

fn metric(tidegate: &Tidegate, name: &str) -> u64 {
    let text = get(&Place::Unix(tidegate.directory().join("admin.sock")), "/metrics").text();
    let name = format!("tidegate_log_{name}_total{{log=\"access\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |value| value.parse().expect("a number"))
}

/// The connection's id, in either format.
fn id(message: &Message) -> String {
    match serde_json::from_str::<Value>(&message.text) {
        Ok(line) => line["id"].as_str().expect("an id").to_owned(),
        Err(_) => message.text.split(" id=").nth(1).expect("an id")[..16].to_owned(),
    }
}

#[test]
fn each_transport_gets_messages_of_rfc_5424_and_a_reload_changes_it() {
    let (backend, folder) = (Backend::named("b"), tempfile::tempdir().unwrap());
    let receivers = [
        Receiver::udp(),
        Receiver::tcp(None),
        Receiver::unix_datagram(&folder.path().join("datagram")),
        Receiver::unix_stream(&folder.path().join("stream")),
    ];
    let yaml = yaml(&backend);
    let mut tidegate = Tidegate::with(&yaml).log(&log("json", &receivers[0].target)).start();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for receiver in &receivers {
        for format in ["json", "text"] {
            let before = receiver.messages().len();
            reload(&mut tidegate, &yaml, &log(format, &receiver.target));
            talk(&entrance(&tidegate));
            let messages = receiver.wait_for(before + 1);
            let Message { priority, time, host: sender, application, process, id, text } = messages[before].clone();
            // local0, informational.
            assert_eq!(priority, 16 * 8 + 6);
            assert_eq!(sender.as_deref(), Some(&*host));
            assert_eq!(application.as_deref(), Some("tidegate"));
            assert_eq!(process, Some(tidegate.pid().to_string()));
            assert_eq!(id.as_deref(), Some("access"));
            if format == "json" {
                let line: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!((&line["listener"], line["time"].as_str()), (&NAME.into(), time.as_deref()));
            } else {
                assert!(text.starts_with("unix:") && text.contains("] a__b__]_ä p/b "), "{text}");
                assert!(text.ends_with("reason=\"backend closed\""), "{text}");
            }
        }
    }
    assert_eq!(receivers.map(|receiver| receiver.close().len()), [2; 4]);
}

#[test]
fn change_of_the_target_under_load_loses_no_line() {
    let (backend, folder) = (Backend::named("b"), tempfile::tempdir().unwrap());
    let receivers = [
        Receiver::tcp(None),
        Receiver::unix_datagram(&folder.path().join("datagram")),
        Receiver::unix_stream(&folder.path().join("stream")),
        Receiver::tcp(None),
    ];
    let yaml = yaml(&backend);
    let mut tidegate = Tidegate::with(&yaml).log(&log("json", &receivers[0].target)).start();
    let (place, stop) = (entrance(&tidegate), AtomicBool::new(false));
    let connections: usize = thread::scope(|scope| {
        let client = || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                talk(&place);
                count += 1;
            }
            count
        };
        let clients = [scope.spawn(client), scope.spawn(client)];
        for round in 0..3 {
            for (number, receiver) in receivers.iter().enumerate() {
                let before = receiver.messages().len();
                reload(&mut tidegate, &yaml, &log(["json", "text"][(round + number) % 2], &receiver.target));
                receiver.wait_for(before + 20);
            }
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let messages = || receivers.iter().flat_map(Receiver::messages).collect::<Vec<_>>();
    eventually(DEADLINE, "every line", || messages().len() >= connections);
    let ids: BTreeSet<String> = messages().iter().map(id).collect();
    assert_eq!((messages().len(), ids.len()), (connections, connections));
    assert_eq!([metric(&tidegate, "dropped_lines"), metric(&tidegate, "write_errors")], [0, 0]);
}

#[test]
fn tcp_server_that_goes_away_and_comes_back_misses_no_line() {
    let backend = Backend::named("b");
    let first = Receiver::tcp(None);
    let target = first.target.clone();
    let tidegate = Tidegate::with(&yaml(&backend)).log(&log("json", &target)).start();
    let place = entrance(&tidegate);
    (0..10).for_each(|_| talk(&place));
    first.wait_for(10);
    let mut messages = first.close();

    (0..10).for_each(|_| talk(&place));
    let line = tidegate.wait_for_log("it says so", |line| line.is("log cannot be written"));
    assert_eq!((line.level(), line.field("log"), line.number("lost_lines")), ("ERROR".into(), "access".into(), 0));
    assert!(line.field("error").starts_with(&format!("{target}: ")), "{line:?}");
    let access = tidegate.view().logs.into_iter().find(|log| log.name == "access").expect("the access log");
    assert!(access.error.is_some_and(|error| error.starts_with(&target)));

    let address = target.strip_prefix("syslog+tcp:").unwrap().parse().unwrap();
    let second = Receiver::tcp(Some(address));
    second.wait_for(10);
    eventually(DEADLINE, "it is reached again", || tidegate.view().logs.iter().all(|log| log.error.is_none()));
    (0..10).for_each(|_| talk(&place));
    second.wait_for(20);
    messages.extend(second.close());
    assert_eq!(messages.iter().map(id).collect::<BTreeSet<_>>().len(), 30);
    assert_eq!([metric(&tidegate, "dropped_lines"), metric(&tidegate, "write_errors")], [0, 0]);
    assert_eq!(tidegate.count_logs(|line| line.is("log cannot be written")), 1, "once");
}

#[test]
fn server_that_reads_nothing_holds_up_nobody_and_what_is_dropped_is_counted() {
    /// More lines than the queue of 4 MiB takes.
    const CONNECTIONS: u64 = 12_000;
    let (backend, folder) = (Backend::named("b"), tempfile::tempdir().unwrap());
    let path = folder.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    let tidegate = Tidegate::with(&yaml(&backend)).log(&log("json", &format!("syslog:{}", path.display()))).start();
    let place = entrance(&tidegate);
    (0..CONNECTIONS).for_each(|_| talk(&place));
    // Only now something reads.
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut buffer = vec![0; 65_536];
    let mut received = 0;
    let dropped = metric(&tidegate, "dropped_lines");
    assert!(dropped > 0);
    while received + dropped < CONNECTIONS {
        let length = socket.recv(&mut buffer).expect("every line that was not dropped");
        parse(&buffer[..length]).unwrap();
        received += 1;
    }
    assert_eq!([metric(&tidegate, "dropped_lines"), metric(&tidegate, "write_errors")], [dropped, 0]);
    tidegate.wait_for_log("it says so", |line| line.is("lines dropped"));
}

#[test]
fn udp_port_that_nothing_has_costs_lines_which_are_counted() {
    let backend = Backend::named("b");
    let receiver = Receiver::udp();
    let target = receiver.target.clone();
    receiver.close();
    let tidegate = Tidegate::with(&yaml(&backend)).log(&log("text", &target)).start();
    let place = entrance(&tidegate);
    // The answer to a datagram is seen with the next one.
    (0..5).for_each(|_| talk(&place));
    eventually(DEADLINE, "four are counted", || metric(&tidegate, "write_errors") == 4);
    assert_eq!(metric(&tidegate, "dropped_lines"), 0);
}

#[test]
fn message_that_is_too_long_is_cut_and_counted() {
    let dead: Vec<Dead> = (0..16).map(|_| Dead::start()).collect();
    let receiver = Receiver::udp();
    let backends: Vec<String> = dead
        .iter()
        .enumerate()
        .map(|(number, dead)| {
            let name = format!("{number:02}{}", "\u{1f600}".repeat(126));
            format!("{{ name: \"{name}\", address: \"{}\" }}", dead.address())
        })
        .collect();
    let tidegate = Tidegate::with(&format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"unix:DIRECTORY/in.sock\", pool: p }}]\n\
         pools: [{{ name: p, retries: 16, backends: [{}] }}]\n",
        backends.join(", ")
    ))
    .log(&log("json", &receiver.target))
    .start();
    read_to_end(&mut connect(&entrance(&tidegate)));
    let messages = receiver.wait_for(1);
    assert!(messages[0].text.starts_with("{\"time\":") && messages[0].text.len() > 8000, "{}", messages[0].text.len());
    eventually(DEADLINE, "it is counted", || metric(&tidegate, "truncated_lines") == 1);
    tidegate.wait_for_log("it says so", |line| line.is("a line was longer than the largest message, and was cut"));
    assert_eq!(metric(&tidegate, "write_errors"), 0);
}

#[test]
fn server_that_is_not_there_holds_up_neither_start_nor_end() {
    let backend = Backend::named("b");
    let mut tidegate = Tidegate::with(&yaml(&backend)).log(&log("json", "syslog:/nonexistent/log")).start();
    talk(&entrance(&tidegate));
    tidegate.wait_for_log("it says so", |line| line.is("log cannot be written"));
    tidegate.signal(Signal::TERM);
    assert!(tidegate.wait().success());
    assert!(!fs::exists("/nonexistent").unwrap());
}
