//! What `tidegate check` says of a file, the calls that change a running process say too.

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::stats::{ADMIN_SOCKET, Answer};
use crate::support::tidegate::Tidegate;

/// Listener `in` to pool `p`, with what else its backends and the file have.
fn start(bind: &str, backends: &str, more: &str) -> Tidegate {
    Tidegate::start(&format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: {bind}, pool: p }}]\n\
         pools: [{{ name: p, backends: [{backends}] }}{more}]\n"
    ))
}

fn put(tidegate: &Tidegate, name: &str, address: &str) -> Answer {
    tidegate.call("PUT", &format!("/api/pools/p/backends/{name}"), &json!({ "address": address }).to_string())
}

fn warnings(answer: &Answer) -> Vec<String> {
    serde_json::from_value(answer.json()["warnings"].clone()).unwrap()
}

#[track_caller]
fn is_refused(answer: &Answer, status: u16, why: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.json()["error"].as_str().unwrap().contains(why), "{}", answer.text());
}

/// `check` warns of a host name, as the resolver may say something else.
#[test]
fn loop_by_a_host_name_is_warned_of_in_every_call() {
    let backend = Backend::echo();
    let tidegate = start("\"127.0.0.1:0\"", &format!("{{ name: a, address: \"{}\" }}", backend.place()), "");
    let port = tidegate.at("in").tcp().port();
    let here = "possible forwarding loop: this may be the address of listener `in`";
    let added = put(&tidegate, "b", &format!("localhost:{port}"));
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(warnings(&added).len(), 1, "{}", added.text());
    assert!(warnings(&added)[0].starts_with(&format!("pools.p.backends.b.address: {here}")), "{}", added.text());

    let body = json!({ "host": "x.localhost", "port": port }).to_string();
    let dry = tidegate.call("POST", "/api/servers?dry_run=true", &body);
    assert!(warnings(&dry)[0].contains(here), "{}", dry.text());
    let posted = tidegate.call("POST", "/api/servers", &body);
    assert_eq!((posted.status, posted.json()["success"].clone()), (201, json!(true)), "{}", posted.text());
    assert!(warnings(&posted)[0].contains(here), "{}", posted.text());

    // What was said once is not said of another change.
    let other = tidegate.call("PATCH", "/api/pools/p/backends/a", "{\"weight\": 3}");
    assert_eq!((other.status, warnings(&other)), (200, Vec::<String>::new()), "{}", other.text());
    let removed = tidegate.call("DELETE", "/api/pools/p/backends/a", "");
    assert_eq!(warnings(&removed), [""; 0], "{}", removed.text());

    // A whole configuration, in which the port of the listener is that of the kernel.
    let whole = format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: c, address: \"127.0.0.1:{port}\" }}] }}]\n"
    );
    let whole = tidegate.contents(&whole);
    is_refused(
        &tidegate.call("PUT", "/api/config", &whole),
        422,
        "forwarding loop: this is the address of listener `in`",
    );
}

#[test]
fn loop_by_an_address_is_refused_in_every_call() {
    let backend = Backend::echo();
    let place = backend.place();
    let tidegate = start(
        "\"0.0.0.0:0\"",
        &format!("{{ name: a, address: \"{place}\" }}"),
        &format!(", {{ name: q, backends: [{{ name: a, address: \"{place}\" }}] }}"),
    );
    let port = tidegate.at("in").tcp().port();
    let why = "forwarding loop: this is the address of listener `in`";
    is_refused(&put(&tidegate, "b", &format!("127.0.0.1:{port}")), 409, why);
    // A wildcard takes what comes to any address of this host.
    is_refused(&put(&tidegate, "b", &format!("127.0.0.9:{port}")), 409, why);
    is_refused(&put(&tidegate, "a", &format!("[::ffff:127.0.0.1]:{port}")), 409, why);
    let body = json!({ "host": "127.0.0.1", "port": port, "pool": "p" }).to_string();
    is_refused(&tidegate.call("POST", "/api/servers", &body), 409, why);
    is_refused(&tidegate.call("POST", "/api/servers?dry_run=true", &body), 409, why);
    // With weight 0, it takes no connections, and so for a file.
    let without = json!({ "address": format!("127.0.0.1:{port}"), "weight": 0 }).to_string();
    assert_eq!(tidegate.call("PUT", "/api/pools/p/backends/b", &without).status, 201);
    is_refused(&tidegate.call("PATCH", "/api/pools/p/backends/b", "{\"weight\": 1}"), 409, why);
    is_refused(&tidegate.call("PUT", "/api/servers/b/weight", "{\"weight\": 1}"), 409, why);
    let shown = tidegate.resource("/api/pools/p/backends/b");
    assert_eq!(shown["weight"], 0, "nothing has changed");
    // A pool that no listener leads to cannot close the circle.
    let unused = json!({ "address": format!("127.0.0.1:{port}") }).to_string();
    assert_eq!(tidegate.call("PUT", "/api/pools/q/backends/b", &unused).status, 201);
}

#[test]
fn port_of_the_client_is_refused_behind_a_unix_socket() {
    let backend = Backend::echo();
    let a = format!("{{ name: a, address: \"{}\" }}", backend.place());
    let tidegate = start("[\"127.0.0.1:0\", \"unix:DIRECTORY/in.sock\"]", &a, "");
    let why = "pools.p.backends.b.address: clients of the unix socket of listener `in` connect to no port";
    for address in ["127.0.0.9:*", "ports.example:*"] {
        is_refused(&put(&tidegate, "b", address), 409, why);
    }
    assert_eq!(tidegate.generation(), 1);
    let tcp = start("\"127.0.0.1:0\"", &a, "");
    assert_eq!(put(&tcp, "b", "127.0.0.9:*").status, 201);
}

/// A reload must not bring back what a call would refuse; and what a restart brings back is warned of.
#[test]
fn reload_that_a_runtime_change_makes_wrong_is_refused() {
    let backend = Backend::echo();
    let a = format!("{{ name: a, address: \"{}\" }}", backend.place());
    let yaml = |bind: &str| {
        format!(
            "admin: {{ bind: \"unix:DIRECTORY/admin.sock\", state_file: DIRECTORY/state.json }}\n\
             listeners: [{{ name: in, bind: {bind}, pool: p }}]\npools: [{{ name: p, backends: [{a}] }}]\n"
        )
    };
    let tidegate = Tidegate::start(&yaml("\"127.0.0.1:0\""));
    assert_eq!(put(&tidegate, "b", "127.0.0.9:*").status, 201);
    tidegate.rewrite(&yaml("[\"127.0.0.1:0\", \"unix:DIRECTORY/in.sock\"]"));
    let why = "clients of the unix socket of listener `in` connect to no port";
    is_refused(&tidegate.call("POST", "/api/reload?dry_run=true", ""), 422, why);
    is_refused(&tidegate.call("POST", "/api/reload", ""), 422, why);
    assert_eq!(tidegate.generation(), 2);
    let restarted = tidegate.kill_and_start();
    let line = restarted.wait_for_log("a warning", |line| line.field("message").contains(why));
    assert_eq!(line.level(), "WARN");
    // An operator can go back.
    assert_eq!(restarted.call("DELETE", "/api/pools/p/backends/b", "").json()["warnings"], Value::Array(Vec::new()));
    assert_eq!(restarted.call("POST", "/api/reload", "").status, 200);
}
