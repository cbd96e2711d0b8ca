//! `tidegate init`: configurations to start from.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::authority::{Authority, write_key};
use crate::support::backend::Backend;
use crate::support::client::{connect, echoes};
use crate::support::tidegate::Tidegate;

/// Each purpose, and the addresses of its backends.
const PURPOSES: [(&str, &[&str]); 6] = [
    ("postgres", &["127.0.0.1:5432", "127.0.0.1:5433"]),
    ("mysql", &["127.0.0.1:3306", "127.0.0.1:3307"]),
    ("redis", &["127.0.0.1:6379", "127.0.0.1:6378"]),
    ("web", &["127.0.0.1:3001", "127.0.0.1:3002", "127.0.0.1:3003"]),
    ("game", &["127.0.0.1:7801", "127.0.0.1:7802"]),
    ("tls", &["127.0.0.1:3001", "127.0.0.1:3002"]),
];

fn tidegate(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).current_dir(directory).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn printed(purpose: &str) -> String {
    let output = tidegate(Path::new("."), &["init", "--for", purpose]);
    assert!(output.status.success(), "{purpose}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A directory with the certificate that `tls` names.
fn with_certificate() -> TempDir {
    let directory = TempDir::new().unwrap();
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    fs::copy(&issued.cert, directory.path().join("server.pem")).unwrap();
    write_key(&directory.path().join("server.key"), &fs::read_to_string(&issued.key).unwrap());
    directory
}

#[test]
fn every_purpose_is_accepted_by_check() {
    for (purpose, _) in PURPOSES {
        let directory = with_certificate();
        let written = tidegate(directory.path(), &["init", "--for", purpose, "--output", "x.yaml"]);
        assert!(written.status.success() && written.stdout.is_empty(), "{purpose}: {written:?}");
        let text = fs::read_to_string(directory.path().join("x.yaml")).unwrap();
        assert_eq!(text, printed(purpose));
        assert!((10..=35).contains(&text.lines().count()), "{purpose}: {} lines", text.lines().count());
        let checked = tidegate(directory.path(), &["check", "x.yaml"]);
        assert!(checked.status.success(), "{purpose}: {}", stderr(&checked));
        // The server's settings decide whether MySQL blocks this host: that warning stays.
        assert_eq!(stderr(&checked).matches("warning:").count(), 0, "{}", stderr(&checked));
    }
}

/// With backends that echo, and checks that only connect.
#[test]
fn every_purpose_forwards_connections() {
    for (purpose, addresses) in PURPOSES {
        let mut text = printed(purpose);
        let backends: Vec<Backend> = addresses.iter().map(|_| Backend::echo()).collect();
        for (address, backend) in addresses.iter().zip(&backends) {
            assert_eq!(text.matches(address).count(), 1, "{purpose}: {address}");
            text = text.replace(address, &backend.address().to_string());
        }
        let bind = text.lines().find_map(|line| line.trim().strip_prefix("bind: ")).unwrap().to_owned();
        text = text.replace(&bind, "127.0.0.1:0");
        let talks = |line: &&str| ["http:", "exchange:", "mysql:"].iter().any(|kind| line.trim().starts_with(kind));
        if let Some(line) = text.lines().find(talks).map(str::to_owned) {
            text = text.replace(&line, "      tcp: {}");
        }
        if let Some((before, after)) = text.clone().split_once("    tls:\n") {
            // What TLS carries is the concern of others.
            let (_, after) = after.split_once("\n\n").unwrap();
            text = format!("{before}\n{after}");
        }
        let tidegate = Tidegate::start(&text);
        tidegate.wait_for_log("a backend is up", |line| line.is("backend up"));
        let name = text.lines().find_map(|line| line.strip_prefix("  - name: ")).unwrap();
        echoes(&mut connect(&tidegate.at(name)));
    }
}

#[test]
fn the_default_is_web() {
    let output = tidegate(Path::new("."), &["init"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed("web"));
}

#[test]
fn an_unknown_purpose_lists_the_possible_ones() {
    let output = tidegate(Path::new("."), &["init", "--for", "mongo"]);
    assert_eq!(output.status.code(), Some(2));
    for (purpose, _) in PURPOSES {
        assert!(stderr(&output).contains(purpose), "{}", stderr(&output));
    }
}

#[test]
fn a_file_that_exists_is_kept_without_force() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.yaml");
    fs::write(&path, "mine, and longer than nothing").unwrap();
    let refused = tidegate(directory.path(), &["init", "--output", "x.yaml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("x.yaml exists") && stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine, and longer than nothing");
    let forced = tidegate(directory.path(), &["init", "--output", "x.yaml", "--force"]);
    assert!(forced.status.success(), "{}", stderr(&forced));
    assert_eq!(fs::read_to_string(&path).unwrap(), printed("web"));
    let nowhere = tidegate(directory.path(), &["init", "--output", "none/x.yaml"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("cannot write none/x.yaml"), "{}", stderr(&nowhere));
}
