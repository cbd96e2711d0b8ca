//! The map in src/lib.rs, held by reading the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and those it may use. `config::model` is a room of its own inside config.
const MAY_USE: [(&str, &[&str]); 23] = [
    ("net", &[]),
    ("mysql", &["mysql"]),
    ("notices", &["threads"]),
    ("threads", &[]),
    ("stats", &[]),
    ("udp", &[]),
    ("sniff", &["net", "sniff", "stats"]),
    ("http", &["config::model"]),
    ("config/model.rs", &["net"]),
    ("config", &["config", "net"]),
    ("geoip", &["config", "net", "notices", "threads"]),
    ("control", &["config", "control", "net"]),
    ("balance", &["config::model"]),
    ("limits", &["config::model", "net"]),
    ("relay", &["stats"]),
    ("log", &["config::model", "net", "stats"]),
    ("tls", &["config", "log", "net", "notices", "relay", "threads", "tls", "worker"]),
    ("worker", &["net", "relay", "threads"]),
    ("pool", &["balance", "config::model", "log", "net", "pool", "stats"]),
    (
        "health",
        &[
            "config::files",
            "config::model",
            "health",
            "log",
            "mysql",
            "net",
            "pool",
            "sniff",
            "stats",
            "threads",
            "tls",
        ],
    ),
    (
        "server",
        &[
            "balance",
            "config::model",
            "geoip",
            "http",
            "limits",
            "log",
            "mysql",
            "net",
            "pool",
            "relay",
            "server",
            "sniff",
            "stats",
            "tls",
            "udp",
            "worker",
        ],
    ),
    (
        "admin",
        &[
            "admin", "config", "control", "geoip", "limits", "log", "net", "pool", "server", "sniff", "stats",
            "threads", "tls",
        ],
    ),
    (
        "app",
        &[
            "admin", "config", "control", "geoip", "health", "log", "net", "notices", "pool", "relay", "server",
            "stats", "threads", "tls", "worker",
        ],
    ),
];

/// Rooms that get bytes and `now` and give decisions: no clock, no descriptors.
const PURE: [&str; 13] = [
    "balance",
    "health/database/client.rs",
    "health/database/mysql",
    "health/database/postgres.rs",
    "health/database/redis.rs",
    "health/database/scram.rs",
    "health/rise_fall.rs",
    "http",
    "limits",
    "mysql",
    "pool/resolve/schedule.rs",
    "sniff",
    "udp",
];

#[test]
fn imports_run_downwards() {
    let mut seen = 0;
    for file in sources() {
        let Some((room, allowed)) = MAY_USE.iter().find(|(room, _)| is_in(&file, room)) else { continue };
        let own = module_of(&file);
        for path in paths(&own, &code_of(&file)) {
            let used = path.join("::");
            if path.starts_with(&module_of(Path::new(room))) {
                continue;
            }
            seen += 1;
            let fits = |room: &&str| used == **room || used.starts_with(&format!("{room}::"));
            assert!(allowed.iter().any(fits), "{} uses crate::{used}", file.display());
        }
    }
    assert!(seen > 50, "only {seen} imports were found: does this test still read them?");
}

#[test]
fn no_circle_of_files() {
    let files: BTreeMap<Vec<String>, PathBuf> = sources().into_iter().map(|file| (module_of(&file), file)).collect();
    let mut imports: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (own, file) in &files {
        let used = paths(own, &code_of(file)).into_iter().filter_map(|path| defining_file(&files, &path));
        imports.insert(file, used.map(PathBuf::as_path).filter(|used| used != file).collect());
    }
    let known: usize = imports.values().map(BTreeSet::len).sum();
    assert!(known > 300, "only {known} imports were found: does this test still read them?");
    let reaches_itself = |file: &Path| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![file]);
        while let Some(from) = next.pop() {
            next.extend(imports[from].iter().copied().filter(|used| seen.insert(*used)));
        }
        seen.contains(file)
    };
    let left: Vec<&Path> = imports.keys().copied().filter(|file| reaches_itself(file)).collect();
    assert!(left.is_empty(), "files that import each other: {left:#?}");
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
        let allowed = usize::from(file == Path::new("worker/waiter.rs"));
        assert_eq!(others, allowed, "{} uses std::future::poll_fn", file.display());
    }
    assert!(read >= 8, "{read} files");
}

#[test]
fn type_names_are_unique() {
    let mut homes: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in sources() {
        let text = fs::read_to_string(root().join("src").join(&file)).unwrap();
        for line in text.lines() {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let is_alias = !line.starts_with(' ') && words.contains(&"type");
            let keyword =
                words.iter().position(|word| ["struct", "enum", "trait"].contains(word) || is_alias && *word == "type");
            let is_code = line.trim_start().starts_with(|c: char| c.is_alphabetic());
            // What comes before the keyword says who sees it, and nothing else.
            let Some(keyword) = keyword.filter(|at| is_code && words[..*at].iter().all(|word| SEEN_BY.contains(word)))
            else {
                continue;
            };
            if let Some(name) = words.get(keyword + 1).filter(|name| name.starts_with(char::is_uppercase)) {
                homes.entry((*name).to_owned()).or_default().push(file.clone());
            }
        }
    }
    assert!(homes.len() > 300, "only {} types were found", homes.len());
    let twice: Vec<_> = homes.into_iter().filter(|(_, homes)| homes.len() > 1).collect();
    assert!(twice.is_empty(), "names of more than one type: {twice:#?}");
}

/// Words of a visibility.
const SEEN_BY: [&str; 6] = ["", "pub", "super", "crate", "in", "admin"];

#[test]
fn a_room_is_no_hall() {
    for file in sources() {
        let lines = fs::read_to_string(root().join("src").join(&file)).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines: is it one room, or several?", file.display());
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
    if file.with_extension("").iter().any(|part| part == "tests" || part == "testing") {
        return String::new();
    }
    let text = fs::read_to_string(root().join("src").join(file)).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The module that a file is: `tls/mod.rs` and `tls.rs` are `tls`.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// The file of the deepest module on a path. A module's own `pub use` is not followed: who imports a file by way of its
/// parent imports the parent.
fn defining_file<'f>(files: &'f BTreeMap<Vec<String>, PathBuf>, path: &[String]) -> Option<&'f PathBuf> {
    (1..=path.len()).rev().find_map(|length| files.get(&path[..length]))
}

/// What the code of the module `own` names, in imports or in place, as paths from the crate's root. Of a path that names
/// no file of the crate, nothing comes of it later on.
fn paths(own: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut inline = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("use ") {
        let (before, after) = rest.split_at(start);
        inline.push_str(before);
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        let is_import = ["", "pub"].contains(&line) || (line.starts_with("pub(") && line.ends_with(')'));
        let end = if is_import { after.find(';').unwrap_or(after.len()) } else { "use ".len() };
        match is_import {
            true => tree(&[], &after["use ".len()..end], &mut found),
            false => inline.push_str(&after[..end]),
        }
        rest = &after[end..];
    }
    inline.push_str(rest);
    // `pub(super)` and `pub(in crate::server)` say who may see, not what is used.
    for word in inline.replace("pub(in crate::", "").split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        if word.contains("::") {
            found.push(word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
    }
    found.iter().filter_map(|path| absolute(own, path)).collect()
}

/// The paths of `a::{b, c::{d, e}}`.
fn tree(prefix: &[String], text: &str, found: &mut Vec<Vec<String>>) {
    let (path, group) = match text.split_once('{') {
        Some((path, group)) => (path, group.rsplit_once('}').map(|(inner, _)| inner)),
        None => (text.split(" as ").next().unwrap_or_default(), None),
    };
    let mut full = prefix.to_vec();
    full.extend(path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    let Some(group) = group else { return found.push(full) };
    let (mut depth, mut start) = (0, 0);
    for (place, letter) in group.char_indices().chain([(group.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..place].trim().is_empty() {
                    tree(&full, &group[start..place], found);
                }
                start = place + 1;
            }
            _ => {}
        }
    }
}

/// A path from the root of the crate. A path that begins with a name is one of a child, or of no interest.
fn absolute(own: &[String], path: &[String]) -> Option<Vec<String>> {
    let first = path.first()?.as_str();
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (base, rest) = match first {
        "crate" => (&own[..0], &path[1..]),
        "self" => (own, &path[1..]),
        "super" => (&own[..own.len().checked_sub(ups)?], &path[ups..]),
        _ => {
            let child = root().join("src").join(own.iter().collect::<PathBuf>()).join(first);
            let is_child = child.is_dir() || child.with_extension("rs").is_file();
            return is_child.then(|| own.iter().chain(path).cloned().collect());
        }
    };
    Some(base.iter().chain(rest.iter().filter(|part| *part != "self")).cloned().collect())
}
