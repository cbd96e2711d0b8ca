//! `tidegate healthcheck`.

use std::fs;
use std::process::{Command, Output};

use crate::support::backend::{Backend, Dead};
use crate::support::stats::ADMIN;
use crate::support::tidegate::{Tidegate, forward};

fn healthcheck(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let Output { status, stdout, stderr } = command.arg("healthcheck").args(arguments).output().unwrap();
    assert!(stdout.is_empty());
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn healthcheck_follows_readiness() {
    let address = Dead::start().address();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(address, "", "health: { tcp: {}, interval: 50ms }")));
    let admin = format!("http://{}", tidegate.stats_port());
    let (code, told) = healthcheck(&["--admin", &admin]);
    assert_eq!((code, &*told), (Some(1), "not ready: listener in: no backend of pool p is up\n"));
    let _backend = Backend::named_at(address, "b");
    tidegate.wait_for_log("that it is ready", |line| line.is("ready"));
    assert_eq!(healthcheck(&["--admin", &admin]), (Some(0), String::new()));
}

/// By the file that `run` has, over a unix socket, also where the token may not be read.
#[test]
fn healthcheck_finds_the_instance_by_its_configuration() {
    let (backend, folder) = (Backend::named("b"), tempfile::tempdir().unwrap());
    let (socket, token, file) =
        (folder.path().join("admin.sock"), folder.path().join("token"), folder.path().join("t.yaml"));
    fs::write(&token, "a token of this test\n").unwrap();
    let yaml = format!(
        "admin: {{ bind: \"unix:{}\", token_file: {} }}\n{}",
        socket.display(),
        token.display(),
        forward(backend.place(), "", "")
    );
    fs::write(&file, &yaml).unwrap();
    let file = file.to_str().unwrap();
    let (code, told) = healthcheck(&["--config", file]);
    assert_eq!(code, Some(1));
    assert!(told.contains("cannot be reached"), "{told}");
    let tidegate = Tidegate::start(&yaml);
    assert_eq!(healthcheck(&["--config", file]), (Some(0), String::new()));
    assert_eq!(healthcheck(&["--admin", &format!("unix:{}", socket.display())]).0, Some(0));
    fs::remove_file(&token).unwrap();
    assert_eq!(healthcheck(&["--config", file, "--token-file", token.to_str().unwrap()]), (Some(0), String::new()));
    drop(tidegate);
}

#[test]
fn every_failure_of_healthcheck_is_exit_code_1() {
    let nobody = Dead::start().address().to_string();
    for arguments in [&["--admin", &*nobody][..], &["--admin", "nonsense"], &["--config", "/nowhere/t.yaml"]] {
        let (code, told) = healthcheck(arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(!told.is_empty(), "{arguments:?}");
    }
}
