//! How it ends.

use super::*;

/// Nothing is left: no file, no process, and no listener.
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
