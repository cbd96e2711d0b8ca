//! The map in src/lib.rs, held by reading the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and those it may use. `config::model` is a room of its own inside config.
const MAY_USE: [(&str, &[&str]); 17] = [
    ("net", &[]),
    ("threads", &[]),
    ("stats", &[]),
    ("sniff", &["net", "sniff", "stats"]),
    ("config/model.rs", &["net"]),
    ("config", &["config", "net"]),
    ("balance", &["config::model"]),
    ("limits", &["config::model"]),
    ("relay", &["stats"]),
    ("log", &["config::model", "net", "stats"]),
    ("tls", &["config", "log", "net", "relay", "threads", "tls", "worker"]),
    ("worker", &["net", "relay", "threads"]),
    ("pool", &["balance", "config::model", "log", "net", "pool", "stats"]),
    ("health", &["config::model", "log", "net", "pool", "sniff", "stats"]),
    (
        "server",
        &[
            "balance",
            "config::model",
            "limits",
            "log",
            "net",
            "pool",
            "relay",
            "server",
            "sniff",
            "stats",
            "tls",
            "worker",
        ],
    ),
    (
        "admin",
        &[
            "admin",
            "config::files",
            "config::model",
            "log",
            "net",
            "pool",
            "server",
            "sniff",
            "stats",
            "threads",
            "tls",
        ],
    ),
    ("app", &["admin", "config", "health", "log", "net", "pool", "relay", "server", "stats", "tls", "worker"]),
];

/// Rooms that get bytes and `now` and give decisions: no clock, no descriptors.
const PURE: [&str; 5] = ["balance", "health/verdict.rs", "limits", "pool/resolve/schedule.rs", "sniff"];

#[test]
fn imports_run_downwards() {
    let mut seen = 0;
    for file in sources() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(room, _)| is_in(&file, room)) else { continue };
        for used in uses(&code_of(&file)) {
            seen += 1;
            let fits = |room: &&str| used == **room || used.starts_with(&format!("{room}::"));
            assert!(allowed.iter().any(fits), "{} uses crate::{used}", file.display());
        }
    }
    assert!(seen > 50, "only {seen} imports were found: does this test still read them?");
}

#[test]
fn every_room_is_on_the_map() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rooms: Vec<&str> = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(rooms.len() >= 10, "{rooms:?}");
    for room in rooms {
        assert!(map.contains(&format!("//! | [`{room}`] |")), "{room} is not in the table of src/lib.rs");
        assert!(MAY_USE.iter().any(|(known, _)| *known == room), "{room} is not in this test's table");
    }
}

#[test]
fn unsafe_has_one_home() {
    let homes: Vec<PathBuf> = sources().into_iter().filter(|file| code_of(file).contains("unsafe {")).collect();
    assert_eq!(homes, [PathBuf::from("net/sys.rs")]);
}

#[test]
fn pure_rooms_read_no_clock_and_do_no_io() {
    let mut read = 0;
    for file in sources().into_iter().filter(|file| PURE.iter().any(|room| is_in(file, room))) {
        read += 1;
        let code = code_of(&file);
        for forbidden in ["Instant::now", "SystemTime", "std::fs", "std::net::Tcp", "tokio", "rustix"] {
            assert!(!code.contains(forbidden), "{} names {forbidden}", file.display());
        }
    }
    assert!(read >= 7, "{read} files");
}

/// There, poll_fn is the worker's own, or what is pending would not wake a combinator's waker.
#[test]
fn code_on_workers_polls_by_the_workers_poll_fn() {
    let mut read = 0;
    for file in sources().into_iter().filter(|file| ["server", "tls", "worker"].iter().any(|room| is_in(file, room))) {
        let code = code_of(&file);
        read += usize::from(code.contains("poll_fn"));
        let others = code.lines().filter(|line| line.contains("std::future") && line.contains("poll_fn")).count();
        let allowed = usize::from(file == Path::new("worker/mod.rs"));
        assert_eq!(others, allowed, "{} uses std::future::poll_fn", file.display());
    }
    assert!(read >= 8, "{read} files");
}

#[test]
fn a_room_is_no_hall() {
    for file in sources() {
        let lines = fs::read_to_string(root().join("src").join(&file)).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines: is it one room, or several?", file.display());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_in(file: &Path, room: &str) -> bool {
    file.starts_with(room) || file == Path::new(room).with_extension("rs")
}

/// Every Rust file below src, relative to it.
fn sources() -> Vec<PathBuf> {
    let src = root().join("src");
    let (mut folders, mut files) = (vec![src.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(&src).unwrap().to_owned());
            }
        }
    }
    assert!(files.len() > 40, "{files:?}");
    files
}

/// A file without its comments and its tests.
fn code_of(file: &Path) -> String {
    if file.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing") {
        return String::new();
    }
    let text = fs::read_to_string(root().join("src").join(file)).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths after `crate::`, as far as they matter.
fn uses(code: &str) -> Vec<String> {
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_' || c == ':').collect())
        .collect()
}
