//! `tidegate explain`: what it says is what then happens.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output};

use rustix::process::Signal;
use tempfile::TempDir;
use tidegate::admin::explain::{AtListener, Explanation};

use crate::support::backend::{Backend, Dead};
use crate::support::client::{Place, connect, connect_from, expect, read_to_end};
use crate::support::process::{Process, bound};
use crate::support::stats::ADMIN;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, read_all, send_name_over_tls, tls_backend};
use crate::support::{DEADLINE, eventually, free_port};

fn run(arguments: &[&str]) -> Output {
    // Where no configuration is found.
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("explain").args(arguments).current_dir(folder.path()).output().unwrap()
}

fn text(tidegate: &Tidegate, arguments: &[&str]) -> String {
    let stats = tidegate.stats_port().to_string();
    let output = run(&[&["--stats", &stats], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn explain(tidegate: &Tidegate, arguments: &[&str]) -> Vec<AtListener> {
    let text = text(tidegate, &[arguments, &["--json"]].concat());
    let explanation: Explanation = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    explanation.listeners
}

/// At the only listener.
fn one(tidegate: &Tidegate, arguments: &[&str]) -> AtListener {
    let mut all = explain(tidegate, arguments);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// One listener; backends with more keys of each.
fn balanced(pool: &str, backends: &[(&str, &Backend, &str)]) -> Tidegate {
    let listed: Vec<String> = backends
        .iter()
        .map(|(name, backend, keys)| format!("{{ name: {name}, address: \"{}\", {keys} }}", backend.address()))
        .collect();
    let listed = listed.join(", ");
    Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\npools: [{{ name: p, {pool}, backends: [{listed}] }}]\n"
    ))
}

#[test]
fn request_has_its_route_and_earlier_ones_say_what_does_not_match() {
    let pool = |name: &str| format!("{{ name: {name}, backends: [{{ name: {name}-1, address: 127.0.0.1:1 }}] }}");
    let routes = "
        { name: login, match: { path: [/login], method: [POST] }, pool: a },
        { match: { host: [api.example], header: { X-Beta: \"1\" } }, pool: b },
        { match: { path_prefix: [/api] }, pool: c }, { name: no, match: { path: [/no] }, refuse: true }";
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, protocol: http, pool: d, routes: [{routes}] }}]\npools: [{}]\n",
        ["a", "b", "c", "d"].map(pool).join(", ")
    ));
    let asked = |more: &[&str]| {
        let said = one(&tidegate, &[&["--client", "127.0.0.1"], more].concat());
        let skipped: Vec<String> =
            said.skipped.iter().map(|it| format!("{}: {}", it.route, it.unmet.join(" "))).collect();
        (said.backend, said.route, skipped.join(", "))
    };
    let (backend, route, skipped) = asked(&["--method", "POST", "--path", "/login?next=/"]);
    assert_eq!((backend.as_deref(), &*skipped), (Some("a-1"), ""));
    assert_eq!(route, "routes[0] (login) matches: path: [/login], method: [POST]");
    let (backend, _, skipped) = asked(&["--host", "API.example", "--header", "x-beta: 1", "--header", "a: b"]);
    assert_eq!((backend.as_deref(), &*skipped), (Some("b-1"), "routes[0] (login): path method"));
    let (backend, _, skipped) = asked(&["--path", "/api/x", "--header", "X-Beta: 2", "--host", "api.example"]);
    assert_eq!((backend.as_deref(), &*skipped), (Some("c-1"), "routes[0] (login): path method, routes[1]: header"));
    let (backend, _, skipped) = asked(&["--path", "/apis"]);
    let all = "routes[0] (login): path method, routes[1]: host header, routes[2]: path_prefix, routes[3] (no): path";
    assert_eq!((backend.as_deref(), &*skipped), (Some("d-1"), all));
    let said = one(&tidegate, &["--client", "127.0.0.1", "--path", "/no"]);
    assert_eq!(said.rejected.as_deref(), Some("routes[3] (no) refuses it"));
    let said = text(&tidegate, &["--client", "127.0.0.1", "--path", "/api"]);
    assert!(said.contains("  skipped   routes[0] (login): no match by path, method\n"), "{said}");
}

#[test]
fn the_next_in_turn() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let all = [("a", &backends[0], "weight: 2"), ("b", &backends[1], ""), ("c", &backends[2], "")];
    let tidegate = balanced("balance: round_robin", &all);
    let mut order = String::new();
    for _ in 0..8 {
        let said = one(&tidegate, &["--client", "127.0.0.1"]);
        assert_eq!(one(&tidegate, &["--client", "127.0.0.1"]).backend, said.backend, "asking changes nothing");
        assert_eq!(said.why, "round_robin: next in turn");
        let (name, _) = read_to_end(&mut connect(&tidegate.at("in")));
        assert_eq!(said.backend, Some(String::from_utf8(name).unwrap()));
        order.push_str(&said.backend.unwrap());
    }
    assert_eq!(order, "abcaabca");
}

#[test]
fn where_a_client_is_placed() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let all = [("a", &backends[0], ""), ("b", &backends[1], ""), ("c", &backends[2], "")];
    let tidegate = balanced("balance: ip_hash", &all);
    let mut seen = std::collections::BTreeSet::new();
    for number in 1..=24 {
        let client = Ipv4Addr::new(127, 0, 7, number);
        let said = one(&tidegate, &["--client", &client.to_string()]);
        assert_eq!(said.why, format!("ip_hash: {client}/32 is placed there"));
        let (name, _) = read_to_end(&mut connect_from(IpAddr::V4(client), tidegate.at("in").tcp()));
        assert_eq!(said.backend, Some(String::from_utf8(name.clone()).unwrap()));
        seen.insert(name);
    }
    assert_eq!(seen.len(), 3, "all of them were named");
}

#[test]
fn the_fewest_connections() {
    let backends = ["a", "b"].map(Backend::named_and_open);
    let all = [("a", &backends[0], ""), ("b", &backends[1], "weight: 2, max_connections: 4")];
    let tidegate = balanced("balance: least_connections", &all);
    let mut open = Vec::new();
    let mut whys = Vec::new();
    for _ in 0..8 {
        let said = one(&tidegate, &["--client", "127.0.0.1"]);
        let mut client = connect(&tidegate.at("in"));
        expect(&mut client, said.backend.as_ref().unwrap().as_bytes());
        open.push(client);
        whys.push(said.why);
    }
    assert_eq!(whys[0], "least_connections: no connections, the fewest per weight; of equals, next in turn");
    assert!(whys.contains(&"least_connections: 1 connection, the fewest per weight".to_owned()), "{whys:?}");
    let full = one(&tidegate, &["--client", "127.0.0.1"]);
    assert_eq!(full.why, "least_connections: the only one that takes connections");
    assert_eq!(full.backends[1].why, "full: 4 of 4 connections");
}

#[test]
fn a_backend_that_is_down_and_why() {
    let (up, backup) = (Backend::named("up"), Backend::named("spare"));
    let (dead, dead2) = (Dead::start(), Dead::start());
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}, {{ name: dark, bind: 127.0.0.1:0, pool: q }}]\n\
         pools:\n\
         \x20 - name: p\n    health: {{ tcp: {{}}, interval: 100ms }}\n    backends:\n\
         \x20     - {{ name: dead, address: \"{}\" }}\n      - {{ name: up, address: \"{}\" }}\n\
         \x20     - {{ name: spare, address: \"{}\", backup: true }}\n      - {{ name: off, address: \"{}\", weight: 0 }}\n\
         \x20 - {{ name: q, health: {{ tcp: {{}} }}, backends: [{{ address: \"{}\" }}] }}\n",
        dead.address(),
        up.address(),
        backup.address(),
        up.address(),
        dead2.address(),
    ));
    tidegate.wait_for_down("dead");
    tidegate.wait_for_up("spare");
    let said = one(&tidegate, &["--client", "127.0.0.1", "--listener", "in"]);
    assert_eq!(
        (said.backend.as_deref(), said.why.as_str()),
        (Some("up"), "round_robin: the only one that takes connections")
    );
    let whys: Vec<&str> = said.backends.iter().map(|backend| backend.why.as_str()).collect();
    assert!(whys[0].starts_with("down since 20") && whys[0].ends_with("Z: connection refused"), "{whys:?}");
    assert_eq!(
        whys[1..],
        ["up, no connections", "backup: used when no other takes connections", "weight 0: gets no new connections"]
    );
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"up");

    drop(up);
    tidegate.wait_for_down("up");
    let said = one(&tidegate, &["--client", "127.0.0.1", "--listener", "in"]);
    assert_eq!(said.backend.as_deref(), Some("spare"));
    assert_eq!(said.why, "round_robin: a backup, as no other takes connections, and the only one that does");
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"spare");

    let all = explain(&tidegate, &["--client", "127.0.0.1"]);
    assert_eq!((all.len(), all[1].listener.as_str(), &all[1].backend), (2, "dark", &None));
    assert_eq!(all[1].why, "rejected: all 1 backends are down".replace("all 1 backends are", "the only backend is"));
    let told = text(&tidegate, &["--client", "127.0.0.1"]);
    assert!(told.contains(": spare\n") && told.contains(": no backend\n") && told.contains("  > spare"), "{told}");
}

#[test]
fn nobody_comes_in_while_it_drains() {
    let backend = Backend::named_and_open("a");
    let tidegate = balanced("retries: 1", &[("a", &backend, "")]);
    let mut open = connect(&tidegate.at("in"));
    expect(&mut open, b"a");
    assert_eq!(one(&tidegate, &["--client", "127.0.0.1"]).rejected, None);
    tidegate.terminate();
    tidegate.wait_for_log("it drains", |line| line.is("draining"));
    let refused = || one(&tidegate, &["--client", "127.0.0.1"]).rejected;
    eventually(DEADLINE, "it says so", || refused().as_deref() == Some("it drains: no new connection is accepted"));
}

#[test]
fn chance_is_told_as_chance() {
    let backends = ["a", "b"].map(Backend::named);
    let tidegate = balanced("balance: random", &[("a", &backends[0], "weight: 3"), ("b", &backends[1], "")]);
    let said = one(&tidegate, &["--client", "127.0.0.1"]);
    assert_eq!((said.backend.as_ref(), said.why.as_str()), (None, "random: drawn by weight: a 75 %, b 25 %"));
    assert_eq!(said.backends[1].chance, Some(0.25));
    let told = text(&tidegate, &["--client", "127.0.0.1"]);
    assert!(told.contains("one of several\n") && told.contains("75 % likely"), "{told}");
}

#[test]
fn routes_by_name_and_protocol() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example", "other.example"]);
    let [by_name, by_protocol, otherwise] =
        ["a", "h2", "p"].map(|name| tls_backend(certificate.server_for(&["h2"]), send_name_over_tls(name)));
    let pool = |name: &str, backend: &Backend| {
        format!("  - {{ name: {name}, backends: [{{ name: {name}, address: \"{}\" }}] }}\n", backend.address())
    };
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners:\n  - name: in\n    bind: 127.0.0.1:0\n    pool: p\n    routes:\n\
         \x20     - {{ match: {{ sni: [a.example] }}, pool: a }}\n      - {{ match: {{ alpn: [h2] }}, pool: h2 }}\n\
         pools:\n{}{}{}",
        pool("a", &by_name),
        pool("h2", &by_protocol),
        pool("p", &otherwise),
    ));
    for (name, protocols, route) in [
        ("A.example", &[][..], "routes[0] matches: sni: [a.example]"),
        ("other.example", &["h2"], "routes[1] matches: alpn: [h2]"),
        ("other.example", &[], "none matches: the listener's own pool"),
    ] {
        let mut arguments = vec!["--client", "127.0.0.1", "--sni", name];
        protocols.iter().for_each(|protocol| arguments.extend(["--alpn", protocol]));
        let said = one(&tidegate, &arguments);
        assert_eq!(said.route, route);
        let client = Tls::connect(&tidegate.at("in"), &authority.client_offering(protocols), name);
        assert_eq!(said.backend, Some(read_all(&client)));
        client.finish();
    }
    let unasked = one(&tidegate, &["--client", "127.0.0.1"]);
    assert_eq!(unasked.notes, ["it has routes by server name, and none was asked for: --sni NAME"]);
}

#[test]
fn a_name_that_no_certificate_fits_is_refused() {
    let (authority, backend) = (Authority::new(), Backend::named("b"));
    let issued = authority.issue(&["a.example"]);
    let tls = format!("tls: {{ certificates: [{}], unknown_sni: refuse, alpn: [h2, http/1.1] }}", issued.yaml());
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), &tls, "")));
    let known = one(&tidegate, &["--client", "127.0.0.1", "--sni", "a.example"]);
    assert_eq!((known.rejected, known.backend.as_deref()), (None, Some("b")));
    let unknown = one(&tidegate, &["--client", "127.0.0.1", "--sni", "b.example"]);
    let why = "no certificate fits the server name b.example (unknown_sni: refuse)";
    assert_eq!(unknown.rejected.as_deref(), Some(why));
    let other = one(&tidegate, &["--client", "127.0.0.1", "--sni", "a.example", "--alpn", "smtp"]);
    assert_eq!(other.rejected.as_deref(), Some("client and listener have no protocol in common (ALPN)"));
    let told = text(&tidegate, &["--client", "127.0.0.1", "--sni", "b.example"]);
    assert!(told.contains(": rejected\n") && !told.contains("because"), "{told}");
    drop(Tls::try_connect(&tidegate.at("in"), &authority.client(), "b.example").err().expect("refused"));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let nobody = Dead::start().address().to_string();
    let (code, told) = failure(&["--client", "10.0.0.1", "--stats", &nobody]);
    assert_eq!(code, Some(1));
    assert!(
        told.contains(&format!("the stats port at {nobody} cannot be reached")) && told.contains("admin.bind"),
        "{told}"
    );
    let (code, told) = failure(&["--client", "10.0.0.1", "--stats", "nonsense"]);
    assert!(code == Some(2) && told.contains("`nonsense` is no address"), "{told}");
    assert_eq!(failure(&["--client", "somebody"]).0, Some(2));

    let backend = Backend::named("a");
    let tidegate = balanced("retries: 1", &[("a", &backend, "")]);
    let stats = tidegate.stats_port().to_string();
    let (code, told) = failure(&["--client", "10.0.0.1", "--stats", &stats, "--listener", "out"]);
    assert_eq!((code, told.as_str()), (Some(1), "error: there is no listener `out`: there are in\n"));
}

/// Where the stats port is, and its token, come from the configuration; a certificate's key need not be readable.
#[test]
fn the_configuration_says_where_to_ask() {
    let (folder, backend) = (TempDir::new().unwrap(), Backend::named("a"));
    let at = |name: &str| folder.path().join(name);
    let (file, socket, token) = (at("tidegate.yaml"), at("stats.sock"), at("token"));
    let rest = format!(
        "listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: \"{}\" }}] }}]\n",
        backend.address()
    );
    // Two addresses: the unix socket needs no token.
    let (port, token_file) = (free_port(), token.display());
    let admin = format!(
        "admin: {{ bind: [\"unix:{}\", \"127.0.0.1:{port}\"], token_file: \"{token_file}\" }}\n",
        socket.display()
    );
    fs::write(&token, "open-sesame\n").unwrap();
    fs::write(&file, format!("{admin}{rest}")).unwrap();
    let mut command = bound(env!("CARGO_BIN_EXE_tidegate"), "KILL");
    command.args(["run", "--config"]).arg(&file);
    let _tidegate = Process::start(command, Signal::KILL);
    eventually(DEADLINE, "the stats port", || {
        crate::support::client::try_connect(&Place::Unix(socket.clone())).is_ok()
    });

    let mut found = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let found = found.args(["explain", "--client", "127.0.0.1"]).current_dir(folder.path()).output().unwrap();
    assert!(found.status.success(), "{found:?}");
    assert!(String::from_utf8_lossy(&found.stdout).contains(": a\n"), "{found:?}");

    let tcp = format!("127.0.0.1:{port}");
    let (code, told) = failure(&["--client", "127.0.0.1", "--stats", &tcp]);
    assert!(code == Some(1) && told.contains("wants another token: --token-file"), "{told}");
    let named = run(&["--client", "127.0.0.1", "--stats", &tcp, "--token-file", token.to_str().unwrap()]);
    assert!(named.status.success(), "{named:?}");

    let without = at("without.yaml");
    fs::write(&without, rest).unwrap();
    let (code, told) = failure(&["--client", "127.0.0.1", "--config", without.to_str().unwrap()]);
    assert!(code == Some(2) && told.contains("has no stats port") && told.contains("add `admin:"), "{told}");
}

/// The order of steps is another one.
#[test]
fn mysql_server_is_chosen_before_tls() {
    let (backend, authority) = (Backend::echo(), Authority::new());
    let certificate = authority.issue(&["db.example.test"]).yaml();
    let keys = format!("tls: {{ certificates: [{certificate}], starttls: mysql }}");
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.place(), &keys, "")));
    let found = one(&tidegate, &["--client", "192.0.2.1", "--sni", "db.example.test"]);
    let note = "its backend is connected before the client's TLS (starttls: mysql): the server speaks first, and the server name chooses a \
                certificate only";
    assert_eq!((found.notes.as_slice(), found.backend.as_deref()), (&[note.to_owned()][..], Some("b")));
}
