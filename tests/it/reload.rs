//! The ways to a reload, and what refuses one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::support::authority::Authority;
use crate::support::backend::{Backend, Dead};
use crate::support::client::{echoes, talking};
use crate::support::stats::{ADMIN_SOCKET, Ran};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// With a backend of this weight.
fn weighted(backend: &Backend, weight: u32) -> String {
    format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\", weight: {weight} }}] }}]\n",
        backend.place()
    )
}

fn watched(backend: &Backend, weight: u32) -> String {
    format!("reload: {{ watch: on }}\n{}", weighted(backend, weight))
}

fn weight(tidegate: &Tidegate) -> u64 {
    tidegate.resource("/api/pools/p/backends/b")["weight"].as_u64().unwrap()
}

fn reload(tidegate: &Tidegate) -> Ran {
    tidegate.command(&["reload", "--config", tidegate.config_file().to_str().unwrap()])
}

/// What `check` says of the file, in the directory in which tidegate runs.
fn check(tidegate: &Tidegate) -> Ran {
    tidegate.command(&["check", "--config", tidegate.config_file().to_str().unwrap()])
}

#[test]
fn signal_command_and_call_apply_the_file() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&weighted(&backend, 1));
    let mut client = talking(&tidegate.at("in"));

    tidegate.rewrite(&weighted(&backend, 2));
    assert_eq!(weight(&tidegate), 1, "not by itself");
    tidegate.signal(Signal::HUP);
    eventually(DEADLINE, "SIGHUP", || weight(&tidegate) == 2);
    tidegate.wait_for_log("by whom", |line| line.field("actor") == "SIGHUP" && line.field("result") == "applied");

    tidegate.rewrite(&weighted(&backend, 3));
    let ran = reload(&tidegate);
    assert_eq!((ran.printed(), ran.err.as_str()), ("pools.p.backends.b.weight: 2 -> 3\n", ""));
    assert_eq!(weight(&tidegate), 3, "in effect when the command ends");
    assert_eq!(reload(&tidegate).printed(), "nothing changes\n");

    tidegate.rewrite(&weighted(&backend, 4));
    let answer = tidegate.call("POST", "/api/reload", "");
    assert_eq!((answer.status, answer.header("etag")), (200, "\"4\""));
    let changes = ["pools.p.backends.b.weight: 3 -> 4"];
    let expected = json!({ "generation": 4, "changes": changes, "warnings": [], "file": tidegate.config_file() });
    assert_eq!(answer.json(), expected);
    assert_eq!((weight(&tidegate), tidegate.generation()), (4, 4));
    echoes(&mut client);
}

#[test]
fn watched_file_that_is_renamed_into_place() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&watched(&backend, 1));
    for next in [2, 3] {
        tidegate.rewrite(&watched(&backend, next));
        eventually(DEADLINE, "it is applied", || weight(&tidegate) == u64::from(next));
    }
    // Removed for a while, as some editors do.
    fs::remove_file(tidegate.config_file()).unwrap();
    assert_eq!(weight(&tidegate), 3);
    tidegate.rewrite(&watched(&backend, 4));
    eventually(DEADLINE, "it is applied", || weight(&tidegate) == 4);
    assert_eq!(tidegate.count_logs(|line| line.field("result") == "refused"), 0);
}

/// Opening a pipe waits for a writer, and a device has no end: neither may hold up the changes that come after.
#[test]
fn file_that_is_no_file_is_refused_at_once() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&watched(&backend, 1));
    let whole = fs::read(tidegate.config_file()).unwrap();
    fs::remove_file(tidegate.config_file()).unwrap();
    symlink("/dev/zero", tidegate.config_file()).unwrap();
    let answer = tidegate.call("POST", "/api/reload", "");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("is no regular file"), "{}", answer.text());
    fs::remove_file(tidegate.config_file()).unwrap();
    let made = Command::new("mkfifo").arg(tidegate.config_file()).status().unwrap();
    assert!(made.success());
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 409);
    fs::remove_file(tidegate.config_file()).unwrap();
    fs::write(tidegate.config_file(), whole).unwrap();
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    tidegate.rewrite(&watched(&backend, 2));
    eventually(DEADLINE, "changes are still noticed", || weight(&tidegate) == 2);
}

/// Kubernetes keeps a config map's files behind a symbolic link, `..data`, and points that elsewhere.
#[test]
fn watched_file_behind_a_symbolic_link_that_is_swapped() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&watched(&backend, 1));
    let folder = tidegate.directory();
    let put = |name: &str, weight: u32| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("tidegate.yaml"), tidegate.contents(&watched(&backend, weight))).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    put("..2", 2);
    symlink("..data/tidegate.yaml", folder.join("next")).unwrap();
    fs::rename(folder.join("next"), tidegate.config_file()).unwrap();
    eventually(DEADLINE, "it is applied", || weight(&tidegate) == 2);
    put("..3", 3);
    fs::remove_dir_all(folder.join("..2")).unwrap();
    eventually(DEADLINE, "it is applied", || weight(&tidegate) == 3);
}

#[test]
fn watched_file_that_is_written_in_two_parts() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&watched(&backend, 1));
    let text = tidegate.contents(&watched(&backend, 2));
    let (first, second) = text.split_at(text.len() - 40);
    fs::write(tidegate.config_file(), first).unwrap();
    // However long the writer takes: half a file is refused and changes nothing.
    tidegate
        .wait_for_log("half a file", |line| line.field("actor") == "reload.watch" && line.field("result") == "refused");
    assert_eq!((weight(&tidegate), tidegate.generation()), (1, 1));
    OpenOptions::new().append(true).open(tidegate.config_file()).unwrap().write_all(second.as_bytes()).unwrap();
    eventually(DEADLINE, "it is applied", || weight(&tidegate) == 2);
}

/// Who only asks what would change takes nothing from the watch.
#[test]
fn watched_file_that_is_asked_about_is_applied_all_the_same() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&watched(&backend, 1));
    let config = tidegate.config_file();
    for next in 2..6 {
        tidegate.rewrite(&watched(&backend, next));
        let diff = tidegate.command(&["diff", "--admin", &tidegate.stats_port().to_string()]);
        let lines = [format!("pools.p.backends.b.weight: {} -> {next}\n", next - 1), "nothing changes\n".to_owned()];
        assert!(lines.contains(&diff.printed().to_owned()), "{diff:?} of {}", config.display());
        eventually(DEADLINE, "it is applied", || weight(&tidegate) == u64::from(next));
    }
}

#[test]
fn hundred_signals_in_a_row_end_with_the_last_file() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&weighted(&backend, 0));
    tidegate.rewrite(&weighted(&backend, 1));
    tidegate.signal(Signal::HUP);
    eventually(DEADLINE, "the first", || weight(&tidegate) == 1);
    let mut client = talking(&tidegate.at("in"));
    for next in 2..=100 {
        tidegate.rewrite(&weighted(&backend, next));
        tidegate.signal(Signal::HUP);
        if next % 10 == 0 {
            echoes(&mut client);
        }
    }
    eventually(DEADLINE, "the last", || weight(&tidegate) == 100);
    assert_eq!(tidegate.count_logs(|line| line.field("result") == "refused"), 0);
    let view = tidegate.view();
    assert_eq!((view.listeners[0].accepted, view.listeners[0].open, view.plane.open), (1, 1, 1));
    echoes(&mut client);
}

/// Nothing has changed: neither what is in effect nor who is connected.
fn stands(tidegate: &Tidegate, client: &mut TcpStream, what: &str) {
    assert_eq!((tidegate.generation(), weight(tidegate)), (1, 1), "{what}");
    echoes(client);
    drop(talking(&tidegate.at("in")));
}

#[test]
fn broken_file_is_refused_as_check_refuses_it() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&weighted(&backend, 1));
    let mut client = talking(&tidegate.at("in"));
    let admin = tidegate.stats_port().to_string();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    assert!(files.len() >= 70);
    for path in files {
        let name = path.display();
        // One of them names this folder.
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8(text).map(|text| text.replace("access: ../broken", "access: .").into_bytes());
        fs::write(tidegate.config_file(), text.unwrap_or_else(std::string::FromUtf8Error::into_bytes)).unwrap();
        let (said, refused) = (check(&tidegate), tidegate.command(&["reload", "--admin", &admin]));
        assert_eq!(said.code, Some(2), "{name}");
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{name}: {refused:?}");
        assert_eq!(refused.err, said.err, "{name}");
        // The file is wrong, and names the process to ask, or does not.
        assert_eq!(reload(&tidegate).code, Some(1), "{name}");
        let answer = tidegate.call("POST", "/api/reload", "");
        assert_eq!((answer.status, answer.header("content-type")), (422, "application/problem+json"), "{name}");
        assert_eq!(answer.json()["report"], said.err, "{name}");
    }
    stands(&tidegate, &mut client, "after all of them");
    tidegate.rewrite(&weighted(&backend, 5));
    assert_eq!(reload(&tidegate).printed(), "pools.p.backends.b.weight: 1 -> 5\n");
}

/// A file that is being edited does not keep commands from the running process.
#[test]
fn broken_file_names_the_process_to_ask_all_the_same() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&weighted(&backend, 1));
    tidegate.rewrite(&weighted(&backend, 2).replace("pool: p", "pool: nobody"));
    let config = tidegate.config_file();
    let (said, refused) = (check(&tidegate), reload(&tidegate));
    assert_eq!((refused.code, &refused.err), (Some(1), &said.err));
    let drain = tidegate.command(&["drain", "p/b", "--config", config.to_str().unwrap()]);
    assert_eq!(drain.printed(), "pools.p.backends.b.state: ready -> drain\n");
}

#[test]
fn taken_port_and_missing_certificate_change_nothing() {
    let (backend, dead) = (Backend::echo(), Dead::start());
    let tidegate = Tidegate::start(&weighted(&backend, 1));
    let mut client = talking(&tidegate.at("in"));
    let files = tidegate.open_files();

    let more =
        |listener: &str| weighted(&backend, 7).replace("pool: p }]\npools", &format!("pool: p }}, {listener}]\npools"));
    let taken = dead.address();
    tidegate.rewrite(&more(&format!(
        "{{ name: free, bind: \"127.0.0.1:0\", pool: p }}, {{ name: taken, bind: \"{taken}\", pool: p }}"
    )));
    let refused = reload(&tidegate);
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.starts_with(&format!("error: listener taken: cannot listen on {taken}: ")), "{}", refused.err);
    stands(&tidegate, &mut client, "taken port");

    let authority = Authority::new();
    let [issued, other] = [(); 2].map(|()| authority.issue(&["localhost"]));
    let tls = |cert: &Path, key: &Path| {
        let (cert, key) = (cert.display(), key.display());
        let certificates = format!("tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}");
        tidegate.rewrite(&more(&format!("{{ name: tls, bind: \"127.0.0.1:0\", pool: p, {certificates} }}")));
    };
    tls(&tidegate.directory().join("none.pem"), &issued.key);
    let (said, refused) = (check(&tidegate), reload(&tidegate));
    assert_eq!((refused.code, &refused.err), (Some(1), &said.err));
    assert!(refused.err.contains("none.pem"), "{}", refused.err);
    stands(&tidegate, &mut client, "missing certificate");

    tls(&issued.cert, &other.key);
    let (said, refused) = (check(&tidegate), reload(&tidegate));
    assert_eq!((refused.code, &refused.err), (Some(1), &said.err));
    stands(&tidegate, &mut client, "key of another");
    eventually(DEADLINE, "nothing is left open", || tidegate.open_files() == files);

    tls(&issued.cert, &issued.key);
    assert_eq!(reload(&tidegate).code, Some(0));
    assert_eq!((tidegate.generation(), weight(&tidegate)), (2, 7));
    echoes(&mut client);
}

#[test]
fn command_without_a_process_says_so() {
    let dead = Dead::start();
    let binary = env!("CARGO_BIN_EXE_tidegate");
    let output = Command::new(binary).args(["reload", "--admin", &dead.address().to_string()]).output().unwrap();
    let ran = Ran::of(&output);
    assert!(ran.code == Some(1) && ran.err.contains("cannot be reached"), "{ran:?}");
}
