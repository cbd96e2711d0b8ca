//! What it needs to start: ports, rights, switches.

use super::*;

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
