//! Messages to a service manager (sd_notify(3)), and the unit file.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::support::backend::{Backend, Scripted};
use crate::support::client::{connect, expect, try_connect};
use crate::support::notify::NotifySocket;
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

#[test]
fn service_manager_hears_of_start_state_and_end() {
    for socket in [NotifySocket::new(), NotifySocket::abstract_name()] {
        let backend = Backend::echo();
        let yaml = format!("shutdown: {{ drain: 7s }}\n{}", forward(backend.place(), "", ""));
        let mut tidegate = Tidegate::with(&yaml).environment("NOTIFY_SOCKET", socket.name()).start();
        assert_eq!(socket.next(), ["READY=1", "STATUS=1 listener, 1 of 1 backend up, 0 connections"]);
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"on").unwrap();
        expect(&mut client, b"on");
        assert_eq!(socket.next(), ["STATUS=1 listener, 1 of 1 backend up, 1 connection"], "and nothing in between");
        tidegate.terminate();
        assert_eq!(socket.next(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=12000000", "STATUS=draining"]);
        assert_eq!(socket.next(), ["STATUS=draining: 1 connection left"]);
        drop(client);
        assert!(tidegate.wait().success());
    }
}

#[test]
fn watchdog_is_fed_until_the_end() {
    let (scripted, socket) = (Scripted::start(), NotifySocket::new());
    let launch = Tidegate::with(&forward(scripted.place(), "", "")).environment("NOTIFY_SOCKET", socket.name());
    let mut tidegate = launch.environment("WATCHDOG_USEC", "40000").start();
    for _ in 0..5 {
        socket.wait_for(|line| line == "WATCHDOG=1");
    }
    let client = connect(&tidegate.at("in"));
    let _backend = scripted.accept();
    tidegate.terminate();
    socket.wait_for(|line| line == "STOPPING=1");
    // As long as there is a connection, the process is there, and it is not hung.
    for _ in 0..5 {
        socket.wait_for(|line| line == "WATCHDOG=1");
    }
    drop(client);
    assert!(tidegate.wait().success());
}

#[test]
fn unreachable_service_manager_is_a_warning() {
    let backend = Backend::named("b");
    for (name, why) in [("/nowhere/notify", "No such file"), ("vsock:2:1", "neither an absolute path")] {
        let tidegate = Tidegate::with(&forward(backend.place(), "", "")).environment("NOTIFY_SOCKET", name).start();
        let line =
            tidegate.wait_for_log("a warning", |line| line.is("cannot notify the service manager at NOTIFY_SOCKET"));
        assert!(line.field("error").contains(why), "{}", line.text);
    }
}

#[test]
fn shutdown_delay_says_not_ready_and_still_accepts() {
    let backend = Backend::echo();
    let yaml = format!("shutdown: {{ delay: 1h, drain: 1h }}\n{ADMIN}{}", forward(backend.place(), "", ""));
    let mut tidegate = Tidegate::start(&yaml);
    let (place, admin) = (tidegate.at("in"), tidegate.stats_port());
    tidegate.terminate();
    tidegate.wait_for_log("the delay", |line| line.is("shutting down"));
    let answer = get(&admin, "/readyz");
    assert_eq!((answer.status, &*answer.text()), (503, "draining: tidegate is shutting down\n"));
    let mut client = connect(&place);
    client.write_all(b"on").unwrap();
    expect(&mut client, b"on");
    // A second signal ends the delay, and not the connection.
    tidegate.terminate();
    tidegate.wait_for_log("the drain", |line| line.is("draining"));
    eventually(DEADLINE, "nothing is accepted", || try_connect(&place).is_err());
    client.write_all(b"still").unwrap();
    expect(&mut client, b"still");
    // A third one ends the connection.
    tidegate.terminate();
    assert!(tidegate.wait().success());
    tidegate.wait_for_log("the cut", |line| line.is("drain aborted"));
}

#[test]
fn shutdown_delay_ends_by_itself() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&format!("shutdown: {{ delay: 100ms }}\n{}", forward(backend.place(), "", "")));
    tidegate.terminate();
    assert!(tidegate.wait().success());
    let at = |message: &str| tidegate.logs().iter().position(|line| line.is(message)).expect("a line");
    assert!(at("shutting down") < at("draining") && at("draining") < at("drain complete"));
}

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)).expect("a unit file")
}

/// Section, key and value of each line.
fn settings(text: &str) -> Vec<(String, String, String)> {
    let (mut section, mut settings) = (String::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => name.clone_into(&mut section),
            None => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no setting: {line}"));
                settings.push((section.clone(), key.to_owned(), value.to_owned()));
            }
        }
    }
    settings
}

#[test]
fn unit_file_calls_the_program_as_it_is() {
    let settings = settings(&unit("tidegate.service"));
    let value = |key: &str| {
        let values: Vec<&str> = settings.iter().filter(|it| it.1 == key).map(|it| &*it.2).collect();
        assert_eq!(values.len(), 1, "{key}: {values:?}");
        values[0]
    };
    assert_eq!((value("Type"), value("NotifyAccess"), value("DynamicUser")), ("notify", "main", "yes"));
    assert_eq!(value("AmbientCapabilities"), "CAP_NET_BIND_SERVICE");
    assert_eq!(value("CapabilityBoundingSet"), "CAP_NET_BIND_SERVICE");
    for (key, subcommand) in [("ExecStart", "run"), ("ExecReload", "reload")] {
        assert_eq!(value(key), format!("/usr/bin/tidegate {subcommand} --config /etc/tidegate/config.yaml"));
        let help = Command::new(env!("CARGO_BIN_EXE_tidegate")).args([subcommand, "--help"]).output().expect("it runs");
        let text = String::from_utf8_lossy(&help.stdout);
        assert!(help.status.success() && text.contains("--config"), "{help:?}");
    }
}

/// systemd knows each section, key and value, where there is one.
#[test]
fn unit_files_are_known_to_systemd() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else { return };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version: u32 = version.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a version");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let unit_file = folder.path().join("tidegate.service");
    let text = unit("tidegate.service").replace("/usr/bin/tidegate", env!("CARGO_BIN_EXE_tidegate"));
    fs::write(&unit_file, text).expect("write");
    if version >= 253 {
        let drop_ins = folder.path().join("tidegate.service.d");
        fs::create_dir(&drop_ins).expect("mkdir");
        fs::write(drop_ins.join("notify-reload.conf"), unit("tidegate.service.d/notify-reload.conf")).expect("write");
    }
    let output =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit_file).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    // Of other units of this host, there may be complaints too.
    let own: Vec<&str> = told.lines().filter(|line| line.contains("tidegate.service")).collect();
    assert!(own.is_empty(), "{own:#?}");
    let drop_in = settings(&unit("tidegate.service.d/notify-reload.conf"));
    let drop_in: Vec<(&str, &str, &str)> = drop_in.iter().map(|(a, b, c)| (&**a, &**b, &**c)).collect();
    assert_eq!(drop_in, [("Service", "Type", "notify-reload"), ("Service", "ExecReload", "")]);
}
