//! Priorities for journald: only where stderr is a stream of the journal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, read_to_end};
use crate::support::tidegate::{Launch, Tidegate, forward};

/// The program, started as systemd does: JOURNAL_STREAM names stderr.
fn in_journal(folder: &tempfile::TempDir) -> PathBuf {
    let script = folder.path().join("in-journal");
    let program = env!("CARGO_BIN_EXE_tidegate");
    let text = format!("#!/bin/sh\nJOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec {program} \"$@\"\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// The lines of a run with one connection.
fn lines(launch: Launch) -> Vec<String> {
    let mut tidegate = launch.start();
    let address = match tidegate.logs()[0].is_json() {
        true => tidegate.at("in").tcp(),
        false => tidegate.at_text("in"),
    };
    assert_eq!(read_to_end(&mut connect(&Place::Tcp(address))).0, b"b");
    tidegate.wait_for_log("the access line", |line| line.text.contains("backend closed"));
    tidegate.terminate();
    assert!(tidegate.wait().success());
    tidegate.logs().into_iter().map(|line| line.text).collect()
}

fn launch(backend: &Backend, format: &str) -> Launch {
    let yaml = forward(backend.place(), "", "health: { tcp: {} }");
    Tidegate::with(&yaml).log(&format!("{{ level: debug, format: {format}, access: stderr }}"))
}

#[test]
fn text_lines_begin_with_their_priority_in_a_journal_and_nowhere_else() {
    let (backend, folder) = (Backend::named("b"), tempfile::tempdir().unwrap());
    let of_level = [("ERROR", "<3>"), ("WARN", "<4>"), ("INFO", "<6>"), ("DEBUG", "<7>")];
    let mut seen = 0;
    for line in lines(launch(&backend, "text").program(&in_journal(&folder))) {
        if line.contains("tidegate[") {
            assert!(line.starts_with("<6>tidegate["), "{line}");
            continue;
        }
        let level = line.split_whitespace().nth(1).expect("a level");
        let (_, priority) = of_level.iter().find(|(name, _)| *name == level).unwrap_or_else(|| panic!("{line}"));
        // Then the time, as elsewhere.
        assert!(line.starts_with(&format!("{priority}20")), "{line}");
        seen += 1;
    }
    assert!(seen >= 3);

    let elsewhere = lines(launch(&backend, "text").environment("JOURNAL_STREAM", "1:1"));
    let json = lines(launch(&backend, "json").program(&in_journal(&folder)));
    assert!(elsewhere.iter().all(|line| line.starts_with("20") || line.starts_with("tidegate[")), "{elsewhere:#?}");
    assert!(json.iter().all(|line| line.starts_with('{')), "{json:#?}");
}

#[test]
fn errors_that_end_a_start_have_a_priority_on_each_line() {
    let (taken, folder) = ([Backend::named("a"), Backend::named("b")], tempfile::tempdir().unwrap());
    let yaml = format!(
        "listeners:\n  - {{ name: a, bind: \"{}\", pool: p }}\n  - {{ name: b, bind: \"{}\", pool: p }}\n\
         pools: [{{ name: p, backends: [{{ address: 127.0.0.1:1 }}] }}]\n",
        taken[0].address(),
        taken[1].address(),
    );
    let (status, text) = Tidegate::with(&yaml).log("{ access: off }").program(&in_journal(&folder)).run_to_end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("<3>error: "), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<') && line.as_bytes().get(2) == Some(&b'>')), "{text}");
    assert!(text.lines().filter(|line| line.starts_with("<3>")).count() >= 2, "{text}");
}
