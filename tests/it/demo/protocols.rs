//! TLS and HTTP.

use super::*;

#[test]
fn tls_is_terminated_and_the_load_speaks_it() {
    let mut demo = Demo::start(&["--tls", "--seconds", "600"]);
    demo.read_welcome();
    let commands = demo.commands();
    let [one, twenty, on_one_connection] = &commands[..3] else { panic!("{commands:#?}") };
    assert!(one.contains("--cacert ") && one.contains("https://"), "{one}");
    assert!(KNOWN.contains(&sh(one).trim_end()));
    // The load takes its turns between these twenty, and may take one backend's each time.
    let mut seen = BTreeSet::new();
    eventually(DEADLINE, "all backends", || {
        let counted = sh(twenty);
        seen.extend(KNOWN.into_iter().filter(|known| counted.lines().any(|line| line.ends_with(known))));
        seen.len() == KNOWN.len()
    });
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
