//! Which clients may connect, and where routes send them, by their address and country.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate::admin::explain::{AtListener, Explanation};

use crate::support::backend::Backend;
use crate::support::client::{End, Place, connect, connect_from, read_to_end};
use crate::support::http::address;
use crate::support::mmdb::Mmdb;
use crate::support::stats::{ADMIN, ADMIN_SOCKET, counters, get, listener};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Tls, read_all, send_name_over_tls, terminate, tls_backend};
use crate::support::{DEADLINE, eventually};

const DENIED: &str = "rejected: access denied";
const REFUSED: &str = "rejected: refused by a route";

fn source(net: u8, last: u8) -> IpAddr {
    IpAddr::from([127, 0, net, last])
}

/// What a client of this address reads until the end: the name of a backend, or nothing.
fn name_for(tidegate: &Tidegate, client: IpAddr) -> String {
    let (bytes, _) = read_to_end(&mut connect_from(client, tidegate.at("in").tcp()));
    String::from_utf8(bytes).unwrap()
}

/// Pools of one backend each, named as they are.
fn pools(backends: &[(&str, &Backend)]) -> String {
    let mut yaml = String::from("pools:\n");
    for (name, backend) in backends {
        let place = backend.place();
        writeln!(yaml, "  - {{ name: {name}, backends: [{{ name: {name}, address: \"{place}\" }}] }}").unwrap();
    }
    yaml
}

/// At the only listener.
fn explained(tidegate: &Tidegate, query: &str) -> AtListener {
    let answer = get(&tidegate.stats_port(), &format!("/explain?{query}"));
    let explanation: Explanation = serde_json::from_value(answer.json()).unwrap();
    let [at]: [AtListener; 1] = explanation.listeners.try_into().unwrap();
    at
}

fn write_database(path: &Path, database: &Mmdb) {
    let new = path.with_extension("new");
    fs::write(&new, database.to_bytes()).unwrap();
    fs::rename(new, path).unwrap();
}

/// 127.0.1.0/24 is of one country, 127.0.2.0/24 of the other.
fn database(folder: &TempDir, countries: [&str; 2]) -> PathBuf {
    let path = folder.path().join("country.mmdb");
    write_database(&path, &two_countries(countries));
    path
}

fn two_countries([one, other]: [&str; 2]) -> Mmdb {
    Mmdb::new(true).country("127.0.1.0/24", one).country("127.0.2.0/24", other)
}

#[test]
fn denied_client_is_closed_before_a_byte_and_shows_everywhere() {
    let backend = Backend::named("a");
    let yaml = format!("{ADMIN}{}", forward(backend.place(), "access: { deny: [127.0.2.0/24, \"127.0.1.9\"] }", ""));
    let tidegate = Tidegate::start(&yaml);
    assert_eq!(name_for(&tidegate, source(1, 1)), "a");
    let mut denied = connect_from(source(2, 1), tidegate.at("in").tcp());
    assert_eq!(read_to_end(&mut denied), (Vec::new(), End::Fin), "closed at once: it has sent nothing");
    assert_eq!(name_for(&tidegate, source(1, 9)), "");

    let line = tidegate.wait_for_access("the denied one", |line| line.end() == DENIED);
    assert_eq!((line.backend(), line.bytes(), line.field("code")), (None, (0, 0), "PR".to_owned()));
    tidegate.wait_for_log("why", |line| line.is("client rejected: it is in access.deny (127.0.2.0/24)"));
    let view = tidegate.view();
    assert_eq!(listener(&view, "in").rejected, 2);
    assert_eq!(view.rejections[0].reason, "it is in access.deny (127.0.2.0/24)");
    let metrics = counters(&tidegate.stats_port());
    assert_eq!(metrics["tidegate_listener_rejections_total{listener=\"in\",reason=\"rejected: access denied\"}"], 2.0);
    assert_eq!(backend.accepted(), 1);
    let said = explained(&tidegate, "client=127.0.1.9");
    assert_eq!(said.rejected.unwrap(), "it is in access.deny (127.0.1.9)");
    assert_eq!(explained(&tidegate, "client=127.0.1.8").rejected, None);
}

#[test]
fn allow_list_refuses_all_others_and_applies_on_reload() {
    let backend = Backend::named("a");
    let yaml = |access: &str| format!("{ADMIN_SOCKET}{}", forward(backend.place(), access, ""));
    let tidegate = Tidegate::start(&yaml("access: { allow: [127.0.1.0/24], deny: [127.0.1.9] }"));
    assert_eq!([(1, 1), (1, 9), (2, 1)].map(|(net, last)| name_for(&tidegate, source(net, last))), ["a", "", ""]);
    tidegate.wait_for_log("why", |line| line.is("client rejected: it is in access.deny (127.0.1.9)"));
    tidegate.rewrite(&yaml("access: { allow: [127.0.2.0/24] }"));
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    assert_eq!([(1, 1), (1, 9), (2, 1)].map(|(net, last)| name_for(&tidegate, source(net, last))), ["", "", "a"]);
}

/// A listener at [::] sees IPv4 clients as IPv4-mapped.
#[test]
fn ipv4_mapped_client_is_an_ipv4_client() {
    let backend = Backend::named("a");
    let yaml =
        forward(backend.place(), "access: { allow: [127.0.1.0/24, \"::/0\"] }", "").replace("127.0.0.1:0", "[::]:0");
    let tidegate = Tidegate::start(&yaml);
    let port = tidegate.at("in").tcp().port();
    let name = |client: IpAddr| {
        let to = (IpAddr::from([127, 0, 0, 1]), port).into();
        String::from_utf8(read_to_end(&mut connect_from(client, to)).0).unwrap()
    };
    assert_eq!([name(source(1, 1)), name(source(2, 1))], ["a", ""]);
}

#[test]
fn client_of_a_unix_socket_may_come_in_unless_there_is_an_allow_list() {
    let backend = Backend::named("a");
    let name = |access: &str| {
        let yaml = forward(backend.place(), access, "").replace("127.0.0.1:0", "unix:DIRECTORY/in.sock");
        let tidegate = Tidegate::start(&yaml);
        let Place::Unix(path) = tidegate.at("in") else { panic!() };
        let mut name = String::new();
        let _ = std::io::Read::read_to_string(&mut UnixStream::connect(path).unwrap(), &mut name);
        name
    };
    assert_eq!(name("access: { deny: [0.0.0.0/0, \"::/0\"] }"), "a");
    assert_eq!(name("access: { allow: [0.0.0.0/0, \"::/0\"] }"), "");
}

#[test]
fn client_that_a_proxy_header_names_is_the_one_that_counts() {
    let backend = Backend::named("a");
    let keys =
        "proxy_protocol: { trusted: [127.0.1.0/24] }, access: { deny: [127.0.1.0/24, 192.0.2.0/24, 127.0.3.0/24] }";
    let tidegate = Tidegate::start(&forward(backend.place(), keys, ""));
    let through = |named: &str| {
        let mut proxy = connect_from(source(1, 1), tidegate.at("in").tcp());
        write!(proxy, "PROXY TCP4 {named} 192.0.2.99 1000 2000\r\n").unwrap();
        String::from_utf8(read_to_end(&mut proxy).0).unwrap()
    };
    assert_eq!([through("198.51.100.7"), through("192.0.2.7")], ["a", ""]);
    let line = tidegate.wait_for_access("the named one", |line| line.end() == DENIED);
    assert!(line.field("client").starts_with("192.0.2.7"), "{}", line.field("client"));
    // A peer that may send no header is denied before it is looked at.
    let mut stranger = connect_from(source(3, 1), tidegate.at("in").tcp());
    assert_eq!(read_to_end(&mut stranger), (Vec::new(), End::Fin));
}

#[test]
fn countries_decide_access_and_routes_and_the_database_is_replaced_in_service() {
    let [a, b, other] = ["a", "b", "o"].map(Backend::named);
    let folder = TempDir::new().unwrap();
    let path = database(&folder, ["DE", "NO"]);
    let yaml = format!(
        "{ADMIN}geoip: {{ database: \"{}\" }}\n\
         listeners:\n  - name: in\n    bind: 127.0.0.1:0\n    pool: o\n    access: {{ deny: [\"country:FR\"] }}\n    routes:\n\
         \x20     - {{ match: {{ country: [DE, AT] }}, pool: a }}\n\
         \x20     - {{ match: {{ country: [NO], client: [127.0.2.0/25] }}, pool: b }}\n{}",
        path.display(),
        pools(&[("a", &a), ("b", &b), ("o", &other)])
    );
    let tidegate = Tidegate::start(&yaml);
    let names = || [(1, 1), (2, 1), (2, 200), (3, 1)].map(|(net, last)| name_for(&tidegate, source(net, last)));
    assert_eq!(names(), ["a", "b", "o", "o"], "who is in no network has no country");
    let said = explained(&tidegate, "client=127.0.1.1");
    assert_eq!((said.route.as_str(), said.pool.as_str()), ("routes[0] matches: country: [DE, AT]", "a"));
    assert_eq!(said.notes, ["127.0.1.1 is in DE (geoip.database)"]);
    assert_eq!(explained(&tidegate, "client=127.0.3.1").notes, ["the country of 127.0.3.1 is not in geoip.database"]);

    write_database(&path, &two_countries(["FR", "AT"]));
    tidegate.wait_for_log("another database", |line| line.is("geoip: the changed database is in service"));
    assert_eq!(names(), ["", "a", "a", "o"]);
    tidegate.wait_for_log("why", |line| line.is("client rejected: it is in access.deny (country:FR)"));

    // A damaged one never gets there.
    fs::write(&path, b"no database").unwrap();
    let message = "geoip: the changed database is rejected, the one before stays in service";
    let told = tidegate.wait_for_log("the damaged one", |line| line.is(message));
    let error = format!("{} is no MMDB file, or is damaged (download it again", path.display());
    assert!(told.field("error").starts_with(&error), "{}", told.field("error"));
    assert_eq!(names(), ["", "a", "a", "o"]);
    let metrics = get(&tidegate.stats_port(), "/metrics").text();
    for sample in ["replaced_total 1", "rejected_total 1", "stale 1", "ranges 2", "built_timestamp_seconds 1700000000"]
    {
        assert!(metrics.contains(&format!("\ntidegate_geoip_{sample}\n")), "{sample}");
    }

    write_database(&path, &two_countries(["DE", "DE"]));
    eventually(DEADLINE, "a good one is in service", || names() == ["a", "a", "a", "o"]);
    assert!(get(&tidegate.stats_port(), "/metrics").text().contains("\ntidegate_geoip_stale 0\n"));
}

#[test]
fn unusable_database_fails_check_and_start_by_name() {
    let backend = Backend::named("a");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("none.mmdb");
    let yaml = format!(
        "geoip: {{ database: \"{}\" }}\n{}",
        path.display(),
        forward(backend.place(), "access: { allow: [\"country:DE\"] }", "")
    );
    let (status, output) = Tidegate::with(&yaml).run_to_end();
    assert!(!status.success());
    assert!(output.contains(&format!("geoip.database: cannot read {}", path.display())), "{output}");
    assert!(output.contains("check the path and its permissions"), "{output}");
    // It is there for the next start.
    write_database(&path, &two_countries(["DE", "NO"]));
    let tidegate = Tidegate::start(&yaml);
    assert_eq!([name_for(&tidegate, source(1, 1)), name_for(&tidegate, source(2, 1))], ["a", ""]);
}

/// 0s would be for ever: a listener that waited for a byte would never connect.
#[test]
fn route_by_client_alone_waits_for_no_byte() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let yaml = format!(
        "listeners:\n  - name: in\n    bind: 127.0.0.1:0\n    pool: b\n    timeouts: {{ sniff: 0s }}\n    routes:\n\
         \x20     - {{ match: {{ client: [127.0.1.0/24] }}, pool: a }}\n\
         \x20     - {{ match: {{ client: [127.0.2.0/24], sni: [a.example] }}, pool: a }}\n{}",
        pools(&[("a", &a), ("b", &b)])
    );
    let tidegate = Tidegate::start(&yaml);
    assert_eq!([name_for(&tidegate, source(1, 1)), name_for(&tidegate, source(3, 1))], ["a", "b"]);
    // The second route needs a look at the first bytes of its clients.
    let mut client = connect_from(source(2, 1), tidegate.at("in").tcp());
    client.write_all(b"no ClientHello").unwrap();
    let mut name = [0];
    std::io::Read::read_exact(&mut client, &mut name).unwrap();
    assert_eq!(&name, b"b");
}

#[test]
fn split_gives_each_client_the_same_pool_and_follows_its_weights() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let yaml = |weights: [u32; 2]| {
        format!(
            "{ADMIN_SOCKET}listeners:\n  - name: in\n    bind: 127.0.0.1:0\n    pool: a\n    routes:\n\
             \x20     - match: {{ client: [127.0.0.0/8] }}\n\
             \x20       split: [{{ pool: a, weight: {} }}, {{ pool: b, weight: {} }}]\n{}",
            weights[0],
            weights[1],
            pools(&[("a", &a), ("b", &b)])
        )
    };
    let tidegate = Tidegate::start(&yaml([70, 30]));
    let names = || -> Vec<String> { (1..=100).map(|last| name_for(&tidegate, source(1, last))).collect() };
    let first = names();
    let of_b = |names: &[String]| names.iter().filter(|name| *name == "b").count();
    assert!((15..=45).contains(&of_b(&first)), "{}", of_b(&first));
    assert_eq!(names(), first);
    for (last, name) in (1..).zip(&first).take(20) {
        let said = explained(&tidegate, &format!("client=127.0.1.{last}"));
        let percent = if name == "a" { 70 } else { 30 };
        let route = format!(
            "routes[0] matches: client: [127.0.0.0/8]; split: the hash of its address is in the share of {name}, {percent} % of the clients"
        );
        assert_eq!((said.pool, said.route), (name.clone(), route));
    }
    tidegate.rewrite(&yaml([60, 40]));
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    let second = names();
    assert!(first.iter().zip(&second).all(|(first, second)| first == second || second == "b"), "only one way");
    tidegate.rewrite(&yaml([0, 1]));
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    assert_eq!(of_b(&names()), 100);
}

/// An alert where TLS passes through unopened, and where it is terminated.
#[test]
fn refused_server_name_gets_an_alert() {
    let authority = Authority::new();
    let certificate = authority.issue(&["good.example", "bad.example"]);
    let passed = tls_backend(certificate.server_for(&[]), send_name_over_tls("a"));
    let routes = "routes: [{ match: { sni: [bad.example] }, refuse: true }]";
    let plain = Backend::named("a");
    let through = Tidegate::start(&format!("{ADMIN}{}", forward(passed.place(), routes, "")));
    let terminated = Tidegate::start(&format!("{ADMIN}{}", terminate(plain.place(), &[&certificate], "", routes)));
    for tidegate in [&through, &terminated] {
        let good = Tls::connect(&tidegate.at("in"), &authority.client(), "good.example");
        assert_eq!(read_all(&good), "a");
        let error = Tls::try_connect(&tidegate.at("in"), &authority.client(), "bad.example").err().unwrap();
        assert!(error.to_string().contains("UnrecognisedName"), "{error}");
        let line = tidegate.wait_for_access("the refused one", |line| line.end() == REFUSED);
        assert_eq!((line.backend(), line.field("code")), (None, "PR".to_owned()));
        let why = "client rejected: it asks for server name bad.example, which routes[0] refuses";
        tidegate.wait_for_log("why", |line| line.is(why));
        let metrics = counters(&tidegate.stats_port());
        assert_eq!(
            metrics["tidegate_listener_rejections_total{listener=\"in\",reason=\"rejected: refused by a route\"}"],
            1.0
        );
        let said = explained(tidegate, "client=127.0.0.1&sni=bad.example");
        assert_eq!(said.rejected.unwrap(), "routes[0] refuses it");
        assert_eq!(said.route, "routes[0] matches: sni: [bad.example]; it refuses the client");
    }
}

#[test]
fn refused_host_and_refused_client_are_closed() {
    let backend = Backend::web("a");
    let keys = "sniff: http, routes: [{ match: { client: [127.0.2.0/24] }, refuse: true }, { match: { host: [bad.example] }, refuse: true }]";
    let tidegate = Tidegate::start(&forward(backend.place(), keys, ""));
    let ask = |client: IpAddr, host: &str| {
        let mut stream: TcpStream = connect_from(client, address(&tidegate));
        let _ = write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        String::from_utf8(read_to_end(&mut stream).0).unwrap()
    };
    assert!(ask(source(1, 1), "good.example").starts_with("HTTP/1.1 200"));
    assert_eq!(ask(source(1, 1), "bad.example"), "");
    tidegate
        .wait_for_log("why", |line| line.is("client rejected: it asks for host bad.example, which routes[1] refuses"));
    let mut silent = connect_from(source(2, 1), address(&tidegate));
    assert_eq!(read_to_end(&mut silent), (Vec::new(), End::Fin), "refused before a byte");
    tidegate.wait_for_access("both", |_| tidegate.access().iter().filter(|line| line.end() == REFUSED).count() == 2);
}

#[test]
fn admin_interface_admits_by_country() {
    let backend = Backend::echo();
    let folder = TempDir::new().unwrap();
    let path = database(&folder, ["DE", "NO"]);
    let yaml = format!(
        "geoip: {{ database: \"{}\" }}\nadmin: {{ bind: 127.0.0.1:0, allow: [127.0.0.1, \"country:DE\"] }}\n{}",
        path.display(),
        forward(backend.place(), "", "")
    );
    let tidegate = Tidegate::start(&yaml);
    let answers = |client: IpAddr| {
        let mut stream = connect_from(client, tidegate.stats_port().tcp());
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        !read_to_end(&mut stream).0.is_empty()
    };
    assert_eq!(
        [(0, 1), (1, 1), (2, 1), (3, 1)].map(|(net, last)| answers(source(net, last))),
        [true, true, false, false]
    );
    let _ = connect(&tidegate.at("in"));
}
