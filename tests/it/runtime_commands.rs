//! The commands that change a running process, and what of it outlives a restart.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::backend::{Backend, HealthPage};
use crate::support::client::{End, connect, echoes, read_to_end, talking};
use crate::support::stats::Ran;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

const ADMIN: &str = "admin: { bind: \"unix:DIRECTORY/admin.sock\", state_file: DIRECTORY/state.json }\n";

fn yaml(backends: &[Backend], a: &str, pool: &str) -> String {
    let [of_a, of_b] = [0, 1].map(|place| backends[place].place());
    format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools:\n- name: p\n  backends:\n  - {{ name: a, address: \"{of_a}\"{a} }}\n  - {{ name: b, address: \"{of_b}\" }}\n{pool}"
    )
}

/// By the configuration file, as an operator on the host does.
fn run(tidegate: &Tidegate, arguments: &[&str]) -> Ran {
    let config = tidegate.config_file();
    tidegate.command(&[arguments, &["--config", config.to_str().unwrap()]].concat())
}

/// A command that waits, once it has said that it does.
fn waiting(tidegate: &Tidegate, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).arg("--config").arg(tidegate.config_file()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert_eq!(line, "1 connection left\n", "{arguments:?}");
    (child, err)
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    (child.wait().unwrap().code(), out)
}

fn backend(tidegate: &Tidegate, name: &str) -> Value {
    tidegate.resource(&format!("/api/pools/p/backends/{name}"))
}

fn state(tidegate: &Tidegate, name: &str) -> String {
    backend(tidegate, name)["state"].as_str().unwrap().to_owned()
}

#[test]
fn drain_waits_for_the_last_connection() {
    let backends = [Backend::echo(), Backend::echo()];
    let tidegate = Tidegate::start(&yaml(&backends, "", ""));
    assert_eq!(run(&tidegate, &["drain", "p/b"]).printed(), "pools.p.backends.b.state: ready -> drain\n");
    let mut client = talking(&tidegate.at("in"));
    assert_eq!(run(&tidegate, &["ready", "p/b"]).printed(), "pools.p.backends.b.state: drain -> ready\n");

    let impatient = run(&tidegate, &["drain", "p/a", "--wait", "100ms"]);
    assert!(impatient.code == Some(1) && impatient.err.ends_with(": the backend stays drained\n"), "{impatient:?}");
    let (mut child, _err) = waiting(&tidegate, &["drain", "p/a", "--wait"]);
    assert_eq!(state(&tidegate, "a"), "drain");
    (0..4).for_each(|_| drop(talking(&tidegate.at("in"))));
    assert_eq!([0, 1].map(|place| backends[place].accepted()), [1, 4], "new ones go elsewhere");
    echoes(&mut client);
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    drop(client);
    let (code, out) = ended(child);
    assert_eq!((code, out.as_str()), (Some(0), "nothing changes\np/a has no connections\n"));
    assert_eq!(state(&tidegate, "a"), "drain", "until it is made ready");
}

#[test]
fn maintenance_stops_the_checks() {
    let (backends, page) = ([Backend::echo(), Backend::echo()], HealthPage::start());
    let health = format!("  health: {{ http: {{ path: / }}, port: {}, interval: 20ms, fall: 1 }}\n", page.port());
    let tidegate = Tidegate::start(&yaml(&backends, "", &health));
    tidegate.wait_for_up("a");
    tidegate.wait_for_up("b");
    for name in ["p/a", "p/b"] {
        assert_eq!(run(&tidegate, &["maintenance", name]).code, Some(0));
    }
    // One that was under way may still come in.
    let mut asked = page.asked();
    eventually(DEADLINE, "the checks have ended", || {
        let before = std::mem::replace(&mut asked, page.asked());
        std::thread::sleep(std::time::Duration::from_millis(200));
        before == asked && page.asked() == asked
    });
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"", "no backend takes connections");
    assert_eq!(backend(&tidegate, "a")["status"], "maintenance");
    page.answer(503);
    assert_eq!(run(&tidegate, &["ready", "p/a"]).code, Some(0));
    tidegate.wait_for_down("a");
    page.answer(200);
    eventually(DEADLINE, "it is up", || backend(&tidegate, "a")["health"]["up"] == true);
    drop(talking(&tidegate.at("in")));
    assert_eq!(state(&tidegate, "b"), "maintenance");
}

#[test]
fn every_command_does_what_its_call_does() {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let tidegate = Tidegate::start(&yaml(&backends, "", ""));
    let new = backends[2].place().to_string();
    for (arguments, printed) in [
        (&["weight", "p/a", "7"][..], "pools.p.backends.a.weight: 1 -> 7\n"),
        (&["weight", "p/a", "7"], "nothing changes\n"),
        (&["maintenance", "p/a"], "pools.p.backends.a.state: ready -> maintenance\n"),
        (&["ready", "p/a"], "pools.p.backends.a.state: maintenance -> ready\n"),
        (&["add", "p", "c", &new, "--weight", "3"], "pools.p.backends.c: added\n"),
        (&["remove", "p/c"], "pools.p.backends.c: removed\n"),
        (&["add", "p", "c", &new], "pools.p.backends.c: added\n"),
        (&["pause", "in"], "listeners.in.state: ready -> paused\n"),
        (&["resume", "in"], "listeners.in.state: paused -> ready\n"),
        (&["diff"], "nothing changes\n"),
        (&["reload"], "nothing changes\n"),
    ] {
        assert_eq!(run(&tidegate, arguments).printed(), printed, "{arguments:?}");
    }
    // What was changed at run time stays over a reload that changes something else.
    tidegate.rewrite(&yaml(&backends, "", "  retries: 1\n"));
    assert_eq!(run(&tidegate, &["diff"]).printed(), "pools.p.retries: 2 -> 1\n");
    assert_eq!(run(&tidegate, &["reload"]).printed(), "pools.p.retries: 2 -> 1\n");
    assert_eq!(backend(&tidegate, "a")["weight"], 7);

    // Of another file.
    let other = tidegate.directory().join("other.yaml");
    fs::write(&other, tidegate.contents(&yaml(&backends, "", "  retries: 5\n"))).unwrap();
    let other = other.to_str().unwrap();
    let diff = run(&tidegate, &["diff", other]);
    assert_eq!((diff.printed(), diff.err.as_str()), ("pools.p.retries: 1 -> 5\n", ""));
    let own = run(&tidegate, &["diff"]);
    assert_eq!((own.printed(), own.err.as_str()), ("nothing changes\n", ""), "it was only asked");
    assert_eq!(run(&tidegate, &["diff", "nowhere.yaml"]).code, Some(1));
    // One that names the same process only says where that is, to both commands.
    for command in ["diff", "reload"] {
        let ran = tidegate.command(&[command, "--config", other]);
        assert_eq!(ran.printed(), "nothing changes\n", "{command}");
        let file = tidegate.config_file();
        assert!(ran.err.contains(&format!("the running instance reads {}", file.display())), "{ran:?}");
        assert!(ran.err.contains(&format!("`tidegate diff {other}`")), "{ran:?}");
    }

    let mut clients: Vec<TcpStream> = (0..3).map(|_| talking(&tidegate.at("in"))).collect();
    let of = |name: &str| {
        let list = tidegate.resource(&format!("/api/connections?backend={name}"));
        let rows = list["connections"].as_array().unwrap().clone();
        rows.into_iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row["client"].clone())).collect::<Vec<_>>()
    };
    let (id, client) = of("a").remove(0);
    assert_eq!(run(&tidegate, &["kill", &id]).printed(), "1 connection ended\n");
    let mut killed =
        clients.remove(clients.iter().position(|it| client == it.local_addr().unwrap().to_string()).unwrap());
    assert_eq!(read_to_end(&mut killed), (Vec::new(), End::Reset));
    let left: usize = ["a", "b", "c"].iter().map(|name| of(name).len()).sum();
    assert_eq!(left, 2);
    let of_c = of("c").len();
    assert_eq!(run(&tidegate, &["cut", "p/c"]).printed(), format!("{of_c} connections ended\n"));
    assert_eq!(run(&tidegate, &["kill", "--client", "127.0.0.0/8"]).code, Some(0));
    clients.iter_mut().for_each(|client| assert_eq!(read_to_end(client).1, End::Reset));

    for (arguments, code, part) in [
        (&["weight", "p/nobody", "1"][..], 1, "there is no backend `nobody` in pool p"),
        (&["weight", "p/a", "1001"], 2, "1001"),
        (&["weight", "a", "1"], 2, "write POOL/BACKEND"),
        (&["drain", "q/a"], 1, "there is no pool `q`"),
        (&["pause", "nobody"], 1, "there is no listener `nobody`"),
        (&["add", "p", "d", "nowhere"], 1, "address"),
        (&["cut", "p/nobody"], 1, "there is no backend `nobody`"),
        (&["kill", "8000000000000000"], 1, ""),
    ] {
        let ran = run(&tidegate, arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(part) && !ran.err.is_empty(), "{arguments:?}: {}", ran.err);
    }
}

/// The file says where the instance will be after the reload.
#[test]
fn command_says_that_the_address_may_have_changed() {
    let backends = [Backend::echo(), Backend::echo()];
    let tidegate = Tidegate::start(&yaml(&backends, "", ""));
    let moved = yaml(&backends, "", "").replace("admin.sock", "moved.sock");
    tidegate.rewrite(&moved);
    let ran = run(&tidegate, &["reload"]);
    let file = tidegate.config_file();
    let help =
        format!("If `admin.bind` in {} has changed since it read the file, name the old address", file.display());
    assert!(ran.code == Some(1) && ran.err.contains(&help) && ran.err.contains("--admin ADDRESS"), "{ran:?}");
    let old = tidegate.stats_port().to_string();
    assert!(tidegate.command(&["reload", "--admin", &old]).printed().contains("admin"));
    assert_eq!(run(&tidegate, &["reload"]).printed(), "nothing changes\n");
}

#[test]
fn remove_waits_for_the_last_connection() {
    let backends = [Backend::echo(), Backend::echo()];
    let tidegate = Tidegate::start(&yaml(&backends, "", ""));
    assert_eq!(run(&tidegate, &["drain", "p/b"]).code, Some(0));
    let mut client = talking(&tidegate.at("in"));
    assert_eq!(run(&tidegate, &["ready", "p/b"]).code, Some(0));
    let (mut child, _err) = waiting(&tidegate, &["remove", "p/a", "--wait"]);
    drop(talking(&tidegate.at("in")));
    echoes(&mut client);
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    drop(client);
    let (code, out) = ended(child);
    assert!(code == Some(0) && out.starts_with("pools.p.backends.a: removed\n"), "{code:?} {out}");
    assert_eq!(tidegate.resource("/api/pools/p/backends")["backends"].as_array().unwrap().len(), 1);
}

/// Makes one change of each kind that is kept.
fn change_all(tidegate: &Tidegate, new: &Backend) {
    let new = new.place().to_string();
    for arguments in
        [&["weight", "p/a", "7"][..], &["maintenance", "p/a"], &["add", "p", "c", &new], &["remove", "p/b"]]
    {
        run(tidegate, arguments).printed();
    }
    assert_eq!(tidegate.call("PATCH", "/api/pools/p", "{\"balance\": \"random\"}").status, 200);
}

#[test]
fn changes_outlive_a_kill() {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let tidegate = Tidegate::start(&yaml(&backends, "", ""));
    change_all(&tidegate, &backends[2]);
    let pools = |tidegate: &Tidegate| {
        let mut pools = tidegate.resource("/api/pools");
        let list = pools["pools"][0]["backends"].as_array_mut().unwrap();
        list.iter_mut().for_each(|it| drop(it.as_object_mut().unwrap().remove("health")));
        pools
    };
    let before = pools(&tidegate);
    assert_eq!(before["pools"][0]["balance"], "random");
    let names: Vec<&Value> = before["pools"][0]["backends"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, [&json!("a"), &json!("c")]);
    let mut tidegate = tidegate.kill_and_start();
    assert_eq!(pools(&tidegate), before);
    let restored = tidegate.wait_for_log("how many changes there are", |line| line.is("runtime changes restored"));
    assert_eq!((restored.number("changes"), restored.number("dropped")), (5, 0));
    assert!(restored.field("source").ends_with("state.json"), "{restored:?}");
    drop(talking(&tidegate.at("in")));
    assert_eq!(backends[2].accepted(), 1);

    // Once undone, they are gone from the file as well.
    for arguments in [
        &["weight", "p/a", "1"][..],
        &["ready", "p/a"],
        &["remove", "p/c"],
        &["add", "p", "b", &backends[1].place().to_string()],
    ] {
        run(&tidegate, arguments).printed();
    }
    assert_eq!(tidegate.call("PATCH", "/api/pools/p", "{\"balance\": \"round_robin\"}").status, 200);
    let state = fs::read_to_string(tidegate.directory().join("state.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&state).unwrap(), json!({ "version": 1 }));
    tidegate = tidegate.kill_and_start();
    assert_eq!(run(&tidegate, &["diff"]).printed(), "nothing changes\n");
    assert_eq!(tidegate.resource("/api/pools/p")["backends"].as_array().unwrap().len(), 2);
}

#[test]
fn reset_goes_back_to_the_file() {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let mut tidegate = Tidegate::start(&yaml(&backends, ", max_connections: 9, backup: true", ""));
    let file = tidegate.directory().join("state.json");
    let address = backends[0].place().to_string();
    // By name, and by the address alone.
    run(&tidegate, &["remove", "p/a"]).printed();
    assert_eq!(run(&tidegate, &["add", "p", "a", &address]).printed(), "pools.p.backends.a: added\n");
    assert_eq!(
        (&backend(&tidegate, "a")["backup"], &backend(&tidegate, "a")["max_connections"]),
        (&json!(true), &json!(9))
    );
    run(&tidegate, &["remove", "p/a"]).printed();
    let (host, port) = address.rsplit_once(':').unwrap();
    let server = format!("{{\"host\": \"{host}\", \"port\": {port}}}");
    assert_eq!(tidegate.call("POST", "/api/servers", &server).status, 201);
    assert_eq!(backend(&tidegate, "a")["backup"], true, "it is the one of the file");
    assert_eq!(run(&tidegate, &["diff"]).printed(), "nothing changes\n");

    let change = |tidegate: &Tidegate| {
        change_all(tidegate, &backends[2]);
        run(tidegate, &["pause", "in"]).printed();
    };
    change(&tidegate);
    for (arguments, printed) in [
        (&["reset", "p/a"][..], "pools.p.backends.a.state: maintenance -> ready\npools.p.backends.a.weight: 7 -> 1\n"),
        (&["reset", "p/a"], "nothing changes\n"),
        (&["reset", "p/b"], "pools.p.backends.b: added\n"),
        (&["reset", "p/c"], "pools.p.backends.c: removed\n"),
        (&["reset", "p"], "pools.p.balance: random -> round_robin\n"),
        (&["reset", "--listener", "in"], "listeners.in.state: paused -> ready\n"),
        (&["reset", "--all"], "nothing changes\n"),
    ] {
        assert_eq!(run(&tidegate, arguments).printed(), printed, "{arguments:?}");
    }
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap(), json!({ "version": 1 }));
    change(&tidegate);
    let dry = tidegate.call("POST", "/api/reset?dry_run=true", "").json();
    let reset = tidegate.call("POST", "/api/reset", "").json();
    assert_eq!((&dry["changes"], reset["changes"].as_array().unwrap().len()), (&reset["changes"], 6));
    for arguments in [&["reset"][..], &["reset", "p/a", "--all"], &["reset", "--listener", "in", "--all"]] {
        assert_eq!(run(&tidegate, arguments).code, Some(2), "{arguments:?}");
    }
    for (arguments, part) in [
        (&["reset", "p/nobody"][..], "there is no backend `nobody` in pool p"),
        (&["reset", "nobody"], "there is no pool `nobody`"),
        (&["reset", "--listener", "nobody"], "there is no listener `nobody`"),
    ] {
        let ran = run(&tidegate, arguments);
        assert!(ran.code == Some(1) && ran.err.contains(part), "{ran:?}");
    }
    tidegate = tidegate.kill_and_start();
    assert_eq!(run(&tidegate, &["diff"]).printed(), "nothing changes\n");
    assert_eq!(backend(&tidegate, "a")["weight"], 1);
}

#[test]
fn configured_value_that_has_changed_since_wins_and_the_log_says_so() {
    let backends = [Backend::echo(), Backend::echo()];
    let mut tidegate = Tidegate::start(&yaml(&backends, "", ""));
    run(&tidegate, &["weight", "p/a", "7"]).printed();
    run(&tidegate, &["drain", "p/a"]).printed();
    let dropped = |line: &crate::support::tidegate::Line| {
        line.level() == "WARN"
            && line.text.contains(
                "pools.p.backends.a.weight: changed at run time from 1 to 7; the file now says 5, which is in effect",
            )
    };
    tidegate.rewrite(&yaml(&backends, ", weight: 5", ""));
    let reload = tidegate.call("POST", "/api/reload", "");
    assert_eq!(reload.json()["warnings"].as_array().unwrap().len(), 1, "{}", reload.text());
    tidegate.wait_for_log("what was dropped", dropped);
    assert_eq!((backend(&tidegate, "a")["weight"].clone(), state(&tidegate, "a").as_str()), (json!(5), "drain"));

    // The same at a start, and for good.
    run(&tidegate, &["weight", "p/a", "7"]).printed();
    tidegate.rewrite(&yaml(&backends, ", weight: 3", ""));
    tidegate = tidegate.kill_and_start();
    tidegate.wait_for_log("what was dropped", |line| line.text.contains("from 5 to 7; the file now says 3"));
    let restored = tidegate.logs().into_iter().rfind(|line| line.is("runtime changes restored")).unwrap();
    assert_eq!((restored.number("changes"), restored.number("dropped")), (1, 1), "the drain, and the weight");
    assert_eq!((backend(&tidegate, "a")["weight"].clone(), state(&tidegate, "a").as_str()), (json!(3), "drain"));
    // The process serves before it has stored that.
    let file = tidegate.directory().join("state.json");
    eventually(DEADLINE, "it is stored", || !fs::read_to_string(&file).unwrap().contains("weight"));
    tidegate.rewrite(&yaml(&backends, ", weight: 5", ""));
    tidegate = tidegate.kill_and_start();
    assert_eq!((backend(&tidegate, "a")["weight"].clone(), state(&tidegate, "a").as_str()), (json!(5), "drain"));
}

#[test]
fn state_file_that_cannot_be_read_is_left_alone() {
    let backends = [Backend::echo(), Backend::echo()];
    let mut tidegate = Tidegate::start(&yaml(&backends, "", ""));
    let file = tidegate.directory().join("state.json");
    for broken in ["no state", "{\"version\": 99, \"pools\": {}}"] {
        fs::write(tidegate.directory().join("state.json"), broken).unwrap();
        tidegate = tidegate.kill_and_start();
        tidegate.wait_for_log("why", |line| {
            line.level() == "WARN"
                && line.text.contains("state.json cannot be read")
                && line.text.contains("not in effect")
        });
        assert_eq!(backend(&tidegate, "a")["weight"], 1);
        let ran = run(&tidegate, &["weight", "p/a", "7"]);
        assert!(ran.printed().contains("1 -> 7") && ran.err.contains("will not outlive the process"), "{ran:?}");
        assert_eq!(fs::read_to_string(tidegate.directory().join("state.json")).unwrap(), broken, "it is left alone");
    }
    // Until somebody has moved it.
    fs::remove_file(&file).unwrap();
    // The same change once more is stored, though nothing changes.
    assert_eq!(run(&tidegate, &["weight", "p/a", "7"]).printed(), "nothing changes\n");
    assert!(fs::read_to_string(&file).unwrap().contains("weight"));
    let ran = run(&tidegate, &["weight", "p/a", "8"]);
    assert_eq!((ran.printed(), ran.err.as_str()), ("pools.p.backends.a.weight: 7 -> 8\n", ""));
    tidegate = tidegate.kill_and_start();
    assert_eq!(backend(&tidegate, "a")["weight"], 8);
}
