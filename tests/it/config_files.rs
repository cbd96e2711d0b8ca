//! Configurations in several files and with variables, while tidegate runs.

use std::fs;
use std::process::Command;

use crate::support::backend::Backend;
use crate::support::client::{End, connect, echoes, read_to_end, talking};
use crate::support::stats::{ADMIN_SOCKET, Ran};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

fn main_file(more: &str) -> String {
    format!("{ADMIN_SOCKET}include: conf.d/*.yaml\n{more}")
}

fn listener(name: &str) -> String {
    format!("listeners: [{{ name: {name}, bind: \"127.0.0.1:0\", pool: {name} }}]\n")
}

fn pool(name: &str, backend: &Backend, weight: u32) -> String {
    format!(
        "pools: [{{ name: {name}, backends: [{{ name: b, address: \"{}\", weight: {weight} }}] }}]\n",
        backend.place()
    )
}

/// With a file in conf.d.
fn include(tidegate: &Tidegate, name: &str, text: &str) {
    let path = tidegate.directory().join("conf.d").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let next = tidegate.directory().join("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}

fn command(tidegate: &Tidegate, arguments: &[&str]) -> Ran {
    let file = tidegate.config_file();
    tidegate.command(&[arguments, &["--config", file.to_str().unwrap()]].concat())
}

fn file_differs(tidegate: &Tidegate) -> bool {
    tidegate.view().config.file_differs.is_some()
}

#[test]
fn included_files_are_reloaded_and_compared() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&main_file(&format!("{}{}", listener("in"), pool("in", &backend, 1))));
    let mut client = talking(&tidegate.at("in"));
    assert!(!file_differs(&tidegate));

    include(&tidegate, "a.yaml", &format!("{}{}", listener("more"), pool("more", &backend, 2)));
    eventually(DEADLINE, "a new file is noticed", || file_differs(&tidegate));
    assert_eq!(command(&tidegate, &["diff"]).printed(), "listeners.more: added\npools.more: added\n");
    assert_eq!(command(&tidegate, &["reload"]).printed(), "listeners.more: added\npools.more: added\n");
    assert!(!file_differs(&tidegate));
    echoes(&mut connect(&tidegate.at("more")));

    include(&tidegate, "a.yaml", &format!("{}{}", listener("more"), pool("more", &backend, 1001)));
    let refused = command(&tidegate, &["reload"]);
    assert!(refused.err.contains("pools[0].backends[0].weight: 1001 is out of range"), "{}", refused.err);
    assert!(refused.err.contains("conf.d/a.yaml:2:"), "{}", refused.err);
    let check = command(&tidegate, &["check"]);
    assert!(check.err.contains("conf.d/a.yaml:2:"), "{}", check.err);
    let errors = tidegate.call("POST", "/api/reload", "").json();
    assert!(errors["errors"][0]["file"].as_str().unwrap().ends_with("conf.d/a.yaml"), "{errors}");
    assert_eq!(errors["errors"][0]["line"], 2);

    fs::remove_file(tidegate.directory().join("conf.d/a.yaml")).unwrap();
    assert_eq!(command(&tidegate, &["reload"]).printed(), "listeners.more: removed\npools.more: removed\n");
    echoes(&mut client);
    let put = tidegate.call("PUT", "/api/config", &tidegate.contents(&main_file("")));
    assert!(put.status == 422 && put.text().contains("this configuration is no file"), "{}", put.text());
}

/// Another file, which the instance cannot read: the command sends it with what it includes.
#[test]
fn diff_of_another_file_has_what_it_includes() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&main_file(&format!("{}{}", listener("in"), pool("in", &backend, 1))));
    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("other.yaml");
    let text = fs::read_to_string(tidegate.config_file()).unwrap();
    fs::create_dir(other.path().join("conf.d")).unwrap();
    fs::write(other.path().join("conf.d/x.yaml"), pool("y", &backend, 1)).unwrap();
    let changed = text.replace("weight: 1", "weight: \"${NO_SUCH_WEIGHT:-7}\"");
    fs::write(&path, &changed).unwrap();
    let config = tidegate.config_file();
    let diff = || tidegate.command(&["diff", path.to_str().unwrap(), "--config", config.to_str().unwrap()]);
    let ran = diff();
    assert_eq!(ran.printed(), "pools.in.backends.b.weight: 1 -> 7\npools.y: added\n", "{}", ran.err);
    fs::write(&path, changed.replace("NO_SUCH_WEIGHT:-7", "NO_SUCH_WEIGHT:-x")).unwrap();
    let ran = diff();
    assert!(ran.err.contains("expected a whole number, found `x` (from ${NO_SUCH_WEIGHT})"), "{}", ran.err);
    assert!(ran.err.contains("other.yaml:"), "the line says where it is from: {}", ran.err);
}

#[test]
fn watched_files_are_those_that_are_included_and_those_that_come() {
    let backend = Backend::echo();
    let tidegate =
        Tidegate::start(&main_file(&format!("reload: {{ watch: on }}\n{}{}", listener("in"), pool("in", &backend, 1))));
    let weight =
        |pool: &str| tidegate.call("GET", &format!("/api/pools/{pool}/backends/b"), "").json()["weight"].clone();
    // Neither the directory nor the file was there.
    include(&tidegate, "new.yaml", &pool("new", &backend, 2));
    eventually(DEADLINE, "a file that comes", || weight("new") == 2);
    include(&tidegate, "new.yaml", &pool("new", &backend, 3));
    eventually(DEADLINE, "a file that is replaced", || weight("new") == 3);
    fs::write(tidegate.directory().join("conf.d/new.yaml"), pool("new", &backend, 4)).unwrap();
    eventually(DEADLINE, "a file that is written in place", || weight("new") == 4);
    include(&tidegate, "new.txt", "not: [even yaml");
    fs::remove_file(tidegate.directory().join("conf.d/new.yaml")).unwrap();
    eventually(DEADLINE, "a file that goes", || weight("new").is_null());
    assert_eq!(
        tidegate.count_logs(|line| line.field("actor") == "reload.watch" && line.field("result") != "applied"),
        0
    );
}

#[test]
fn variables_are_those_of_the_process_also_on_reload() {
    let backend = Backend::echo();
    let yaml = |weight: &str| {
        format!(
            "{ADMIN_SOCKET}listeners: [{{ name: \"${{NAME}}\", bind: \"${{HOST:-127.0.0.1}}:0\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ name: b, address: \"${{BACKEND}}\", weight: \"{weight}\" }}] }}]\n"
        )
    };
    let tidegate = Tidegate::with(&yaml("${WEIGHT:-1}"))
        .environment("NAME", "in")
        .environment("BACKEND", backend.address().to_string())
        .environment("OTHER", "5")
        .environment("LB_ALGORITHM", "least-connections")
        .start();
    echoes(&mut connect(&tidegate.at("in")));
    assert_eq!(tidegate.resource("/api/pools/p")["balance"], "least_connections");
    tidegate.rewrite(&yaml("${OTHER}"));
    let answer = tidegate.call("POST", "/api/reload", "");
    assert_eq!(answer.json()["changes"], serde_json::json!(["pools.p.backends.b.weight: 1 -> 5"]));
    tidegate.rewrite(&yaml("${UNSET}"));
    let answer = tidegate.call("POST", "/api/reload", "");
    assert!(
        answer.status == 422 && answer.text().contains("the environment has no variable UNSET"),
        "{}",
        answer.text()
    );
    // What is in effect is shown as a file that means it.
    let shown = &tidegate.resource("/api/config")["data"];
    assert_eq!(shown["pools"][0]["balance"], "least_connections", "{shown}");
}

#[test]
fn environment_names_the_file_and_the_level() {
    let backend = Backend::echo();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("elsewhere.yaml");
    fs::write(&path, format!("{}{}", listener("in"), pool("in", &backend, 1))).unwrap();
    let check = |file: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.arg("check").current_dir(directory.path()).env("LB_CONFIG", file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = check(path.to_str().unwrap());
    assert!(code == Some(0) && text.contains("elsewhere.yaml: ok"), "{text}");
    let (code, text) = check("nowhere.yaml");
    assert!(code == Some(2) && text.contains("cannot read nowhere.yaml"), "{text}");

    let yaml = pool("in", &backend, 1).replace(&backend.place().to_string(), "127.0.0.1:1");
    let yaml = yaml.replace(" }] }]", " }], health: { tcp: {}, interval: 20ms, timeout: 20ms } }]");
    let tidegate = Tidegate::with(&format!("{}{yaml}", listener("in"))).environment("LB_DEBUG", "1").start();
    tidegate.wait_for_log("at level debug", |line| line.is("health check failed"));
}

#[test]
fn pool_without_backends_refuses_its_clients_until_there_are_some() {
    let backend = Backend::echo();
    let yaml = |backends: &str| {
        format!(
            "{ADMIN_SOCKET}listeners:\n  - {{ name: in, bind: \"127.0.0.1:0\", pool: empty }}\n  - {{ name: other, bind: \"127.0.0.1:0\", pool: full }}\n\
             pools:\n  - {{ name: empty, health: {{ tcp: {{}} }}, backends: [{backends}] }}\n  - {{ name: full, backends: [{{ address: \"{}\" }}] }}\n",
            backend.place()
        )
    };
    let tidegate = Tidegate::start(&yaml(""));
    echoes(&mut connect(&tidegate.at("other")));
    let refused = || {
        let (bytes, end) = read_to_end(&mut connect(&tidegate.at("in")));
        assert!(bytes.is_empty() && matches!(end, End::Reset | End::Fin), "{end:?}");
    };
    refused();
    let line = tidegate.wait_for_log("why", |line| line.is("no backend for a connection: closed"));
    assert_eq!(line.field("reason"), "the pool has no backends");
    tidegate.wait_for_access("of the client", |line| line.end() == "rejected: no backend");
    eventually(DEADLINE, "it is counted", || tidegate.view().pools[0].rejected == 1);
    let explained = command(&tidegate, &["explain", "--client", "127.0.0.1", "--listener", "in"]);
    assert!(explained.printed().contains("the pool has no backends"), "{}", explained.printed());
    let warned = command(&tidegate, &["check"]);
    assert!(
        warned.err.contains("pools[0].backends: no backends: connections are closed until some are added"),
        "{}",
        warned.err
    );

    let place = backend.address().to_string();
    assert_eq!(command(&tidegate, &["add", "empty", "b", &place]).printed(), "pools.empty.backends.b: added\n");
    tidegate.wait_for_up("b");
    echoes(&mut connect(&tidegate.at("in")));
    command(&tidegate, &["remove", "empty/b", "--wait", "10s"]);
    refused();
    tidegate.rewrite(&yaml(&format!("{{ name: c, address: \"{place}\" }}")));
    assert_eq!(command(&tidegate, &["reload"]).printed(), "pools.empty.backends.c: added\n");
    tidegate.wait_for_up("c");
    echoes(&mut connect(&tidegate.at("in")));
}
