//! What a reload keeps: all of it would be lost by a restart.

use std::fmt::{Display, Write as _};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use serde_json::Value;

use crate::support::backend::{Backend, HealthPage};
use crate::support::client::{End, Place, connect, connect_from, echoes, read_to_end, talking, try_connect};
use crate::support::proc::listening;
use crate::support::stats::{ADMIN_SOCKET, counters};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, own_address};

/// One listener, `in`, and one pool, `p`, with more keys of each.
fn config(listener: &str, pool: &str, backends: &[(&str, &dyn Display)]) -> String {
    let mut yaml = format!(
        "{ADMIN_SOCKET}workers: 2\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {listener} }}]\n\
         pools:\n- name: p\n  retries: 0\n  backends:\n"
    );
    for (name, place) in backends {
        writeln!(yaml, "  - {{ name: {name}, address: \"{place}\" }}").unwrap();
    }
    if !pool.is_empty() {
        writeln!(yaml, "  {pool}").unwrap();
    }
    yaml
}

/// Both the listener and the pool are others than before.
fn touched(yaml: &str) -> String {
    let touched =
        yaml.replace("pool: p,", "pool: p, timeouts: { half_close: 7m },").replace("retries: 0", "retries: 1");
    assert_ne!(touched, yaml);
    touched
}

/// A reload that changes something.
fn reload(tidegate: &Tidegate, yaml: &str) {
    tidegate.rewrite(yaml);
    let answer = tidegate.call("POST", "/api/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.json()["changes"], serde_json::json!([]), "something changes");
}

fn name_of_next(tidegate: &Tidegate) -> String {
    String::from_utf8(read_to_end(&mut connect(&tidegate.at("in"))).0).unwrap()
}

/// A connection that stays, and the name of its backend.
fn open_one(tidegate: &Tidegate) -> (TcpStream, String) {
    let client = connect(&tidegate.at("in"));
    let mut name = [0];
    std::io::Read::read_exact(&mut &client, &mut name).unwrap();
    (client, String::from_utf8(name.to_vec()).unwrap())
}

/// A connection to an echoing backend.
fn backend(tidegate: &Tidegate, name: &str) -> Value {
    tidegate.resource(&format!("/api/pools/p/backends/{name}"))
}

#[test]
fn least_connections_counts() {
    let backends = [Backend::named_and_open("a"), Backend::named_and_open("b")];
    let yaml = config("", "balance: least_connections", &[("a", backends[0].place()), ("b", backends[1].place())]);
    let tidegate = Tidegate::start(&yaml);
    let mut open: Vec<(TcpStream, String)> = (0..6).map(|_| open_one(&tidegate)).collect();
    open.retain(|(_, name)| name == "b");
    assert_eq!(open.len(), 3);
    eventually(DEADLINE, "a has none", || backend(&tidegate, "a")["connections"] == 0);
    reload(&tidegate, &touched(&yaml));
    open.extend((0..3).map(|_| open_one(&tidegate)));
    let names: String = open.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, "bbbaaa");
}

#[test]
fn turn_of_round_robin() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let [a, b, c] = [0, 1, 2].map(|place| backends[place].place() as &dyn Display);
    let yaml = config("", "", &[("a", a), ("b", b), ("c", c)]);
    let tidegate = Tidegate::start(&yaml);
    let mut names = name_of_next(&tidegate);
    for round in 0..5 {
        reload(&tidegate, &if round % 2 == 0 { touched(&yaml) } else { yaml.clone() });
        names += &name_of_next(&tidegate);
    }
    assert_eq!(names, "abcabc");
}

#[test]
fn verdicts_of_health_checks() {
    let (backend_a, page) = (Backend::echo(), HealthPage::start());
    page.answer(503);
    let health = format!("health: {{ http: {{ path: / }}, port: {}, interval: 1h, fall: 1 }}", page.port());
    let yaml = config("", &health, &[("a", backend_a.place())]);
    let tidegate = Tidegate::start(&yaml);
    tidegate.wait_for_down("a");
    let (before, asked) = (backend(&tidegate, "a"), page.asked());
    assert_eq!(before["health"]["up"], false);
    page.answer(200);
    reload(&tidegate, &touched(&yaml));
    reload(&tidegate, &yaml);
    assert_eq!(backend(&tidegate, "a"), before, "down since the same moment");
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    assert_eq!((page.asked(), backend_a.accepted()), (asked, 0), "no further probe");
}

#[test]
fn memory_of_rate_limits() {
    let echo = Backend::echo();
    let limited = |limits: &str, pool: &str| config(limits, pool, &[("a", echo.place())]);
    let yaml = limited("limits: { connection_rate_per_ip: 4/h, connection_rate: 7/h }", "");
    let tidegate = Tidegate::start(&yaml);
    let enters = |last: u8| {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let mut client = connect_from(source, tidegate.at("in").tcp());
        client.write_all(b"in").is_ok() && matches!(client.peek(&mut [0]), Ok(1))
    };
    assert!((0..3).all(|_| enters(2)));
    reload(&tidegate, &touched(&yaml));
    assert!(enters(2));
    assert!(!enters(2), "the fifth of this address");
    reload(
        &tidegate,
        &limited("limits: { connection_rate_per_ip: 4/h, connection_rate: 7/h }, max_connections: 50", ""),
    );
    assert!(!enters(2), "the limit of all connections at once is another thing");
    reload(&tidegate, &limited("limits: { connection_rate_per_ip: 4/h, connection_rate: 6/h }", ""));
    assert!(!enters(2), "and so is the rate of all");
    assert!(enters(3) && enters(3));
    assert!(!enters(4), "the seventh of all");
}

#[test]
fn connections_that_count_for_their_address() {
    let echo = Backend::echo();
    let limited = |most: u32| config(&format!("limits: {{ connections_per_ip: {most} }}"), "", &[("a", echo.place())]);
    let tidegate = Tidegate::start(&limited(3));
    let mut held: Vec<TcpStream> = (0..3).map(|_| talking(&tidegate.at("in"))).collect();
    let refused = || {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"in").is_err() || !matches!(client.peek(&mut [0]), Ok(1))
    };
    assert!(refused());
    reload(&tidegate, &limited(4));
    held.push(talking(&tidegate.at("in")));
    assert!(refused(), "the three from before count");
    reload(&tidegate, &limited(2));
    held.truncate(2);
    eventually(DEADLINE, "two have ended", || backend(&tidegate, "a")["connections"] == 2);
    assert!(refused());
    held.pop();
    eventually(DEADLINE, "one has ended", || backend(&tidegate, "a")["connections"] == 1);
    held.push(talking(&tidegate.at("in")));
    assert!(refused());
}

#[test]
fn counters_and_histograms() {
    let echo = [Backend::echo(), Backend::echo()];
    let backends: [(&str, &dyn Display); 2] = [("a", echo[0].place()), ("b", echo[1].place())];
    let yaml = config("", "health: { tcp: {}, interval: 100ms }", &backends);
    let tidegate = Tidegate::start(&yaml);
    let more = || (0..10).for_each(|_| drop(talking(&tidegate.at("in"))));
    more();
    let ended = |count: usize| eventually(DEADLINE, "all have ended", || tidegate.access().len() == count);
    ended(10);
    let mut before = counters(&tidegate.stats_port());
    let accepted = "tidegate_listener_connections_total{listener=\"in\"}";
    assert_eq!(before[accepted], 10.0, "{before:#?}");
    for (round, yaml) in
        [touched(&yaml), yaml.replace("100ms", "90ms"), config("", "balance: random", &backends[1..]), yaml]
            .iter()
            .enumerate()
    {
        reload(&tidegate, yaml);
        let after = counters(&tidegate.stats_port());
        for (key, value) in &before {
            // A series of a backend that has left may be gone; it does not go back.
            assert!(after.get(key).is_none_or(|now| now >= value), "{round}: {key} {value}: {:?}", after.get(key));
        }
        assert_eq!(after[accepted], before[accepted], "{round}");
        assert!(after.len() >= before.len() / 2, "{round}: they are not gone");
        more();
        ended(10 * (round + 2));
        before = counters(&tidegate.stats_port());
        assert_eq!(before[accepted], 10.0 * (round + 2) as f64);
    }
}

#[test]
fn listening_sockets() {
    let echo = Backend::echo();
    let yaml = config("", "", &[("a", echo.place())]);
    let tidegate = Tidegate::start(&yaml);
    let address = tidegate.at("in").tcp();
    let before = listening(address);
    assert_eq!(before.len(), 2, "one for each worker");
    reload(&tidegate, &touched(&yaml));
    reload(&tidegate, &yaml.replace("bind: \"127.0.0.1:0\"", "bind: [\"127.0.0.1:0\", \"[::1]:0\"]"));
    reload(&tidegate, &yaml.replace("name: in,", "name: in, max_connections: 10,"));
    assert_eq!(listening(address), before, "the very same");
}

#[test]
fn settings_of_connections_that_began_before() {
    let echo = [Backend::echo(), Backend::echo()];
    let yaml = config("timeouts: { idle: 1h }", "", &[("a", echo[0].place())]);
    let tidegate = Tidegate::start(&yaml);
    let mut before = talking(&tidegate.at("in"));
    reload(&tidegate, &yaml.replace("idle: 1h", "idle: 200ms"));
    let mut after = talking(&tidegate.at("in"));
    read_to_end(&mut after);
    tidegate.wait_for_access("the new one was idle", |line| line.end() == "idle timeout");
    echoes(&mut before);
    assert_eq!(tidegate.access().len(), 1);
}

/// When there is room for one more, that one comes under the configuration of now.
#[test]
fn connection_that_waited_for_room_begins_with_the_new_settings() {
    let backends = [Backend::named_and_open("a"), Backend::named_and_open("b")];
    let yaml = |keys: &str, place: &Place| config(&format!("max_connections: 1{keys}"), "", &[("x", place)]);
    let tidegate = Tidegate::start(&yaml("", backends[0].place()).replace("workers: 2", "workers: 1"));
    let (first, name) = open_one(&tidegate);
    assert_eq!(name, "a");
    let waiting = connect(&tidegate.at("in"));
    let mut next = yaml("", backends[1].place()).replace("workers: 2", "workers: 1");
    next = next.replace("pool: p,", "pool: q,").replace("name: p\n", "name: q\n");
    reload(&tidegate, &next);
    drop(first);
    let mut name = [0];
    std::io::Read::read_exact(&mut &waiting, &mut name).unwrap();
    assert_eq!(&name, b"b");
}

fn checked(page: &HealthPage, keys: &str) -> String {
    format!("{{ http: {{ path: / }}, port: {}, interval: 50ms, fall: 1{keys} }}", page.port())
}

/// HAProxy#3330: who is demoted after his removal must not keep his sessions.
#[test]
fn checks_of_removed_backend_cut_its_connections() {
    let (echo, page) = ([Backend::echo(), Backend::echo()], HealthPage::start());
    let keys = format!("health: {}\n  on_down: cut", checked(&page, ""));
    let yaml = |backends: &[(&str, &dyn Display)]| config("", &keys, backends);
    let tidegate = Tidegate::start(&yaml(&[("a", echo[0].place())]));
    tidegate.wait_for_up("a");
    let mut client = talking(&tidegate.at("in"));
    reload(&tidegate, &yaml(&[("b", echo[1].place())]));
    tidegate.wait_for_up("b");
    eventually(DEADLINE, "new ones go to b", || {
        drop(talking(&tidegate.at("in")));
        echo[1].accepted() > 0 && tidegate.access().iter().any(|line| line.backend() == Some("b"))
    });
    echoes(&mut client);
    page.answer(503);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    tidegate.wait_for_access("it was cut", |line| line.end() == "backend down");
}

#[test]
fn checks_of_removed_pool_cut_its_connections_and_end_with_them() {
    let (echo, page) = ([Backend::echo(), Backend::echo()], HealthPage::start());
    let keys = format!("health: {}\n  on_down: cut", checked(&page, ""));
    let first = config("", &keys, &[("a", echo[0].place())]);
    let second =
        config("", "", &[("b", echo[1].place())]).replace("pool: p,", "pool: q,").replace("name: p\n", "name: q\n");
    let tidegate = Tidegate::start(&first);
    tidegate.wait_for_up("a");
    let mut client = talking(&tidegate.at("in"));
    reload(&tidegate, &second);
    drop(talking(&tidegate.at("in")));
    assert_eq!(echo[1].accepted(), 1);
    echoes(&mut client);
    page.answer(503);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    // Nothing is left to be checked. Two equal counts an interval apart would prove nothing; many in a row do.
    let mut same = (page.asked(), 0);
    eventually(DEADLINE, "the checks have ended", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let asked = page.asked();
        same = if asked == same.0 { (asked, same.1 + 1) } else { (asked, 0) };
        same.1 == 10
    });
}

#[test]
fn connections_of_removed_listener() {
    let echo = Backend::echo();
    let yaml = config("", "", &[("a", echo.place())]);
    let tidegate = Tidegate::start(&yaml);
    let gone = tidegate.at("in");
    let mut client = talking(&gone);
    reload(&tidegate, &yaml.replace("name: in", "name: other"));
    eventually(DEADLINE, "its socket is closed", || try_connect(&gone).is_err());
    echoes(&mut client);
    drop(talking(&tidegate.at("other")));
    echoes(&mut client);
    reload(&tidegate, &yaml);
    drop(client);
    tidegate.wait_for_access("its end", |line| line.field("listener") == "in" && line.bytes().0 == 6);
}

#[test]
fn connections_of_removed_listener_have_until_the_drain_deadline() {
    let echo = Backend::echo();
    let yaml = |names: [&str; 2]| {
        let [one, two] = names.map(|name| format!("{{ name: {name}, bind: \"127.0.0.1:0\", pool: p }}"));
        let backend = echo.place();
        format!(
            "{ADMIN_SOCKET}shutdown: {{ drain: 300ms }}\nlisteners: [{one}, {two}]\n\
             pools: [{{ name: p, backends: [{{ name: a, address: \"{backend}\" }}] }}]\n"
        )
    };
    let tidegate = Tidegate::start(&yaml(["in", "stays"]));
    let (mut client, mut other) = (talking(&tidegate.at("in")), talking(&tidegate.at("stays")));
    reload(&tidegate, &yaml(["new", "stays"]));
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    let line = tidegate.only_access();
    assert_eq!((line.field("listener").as_str(), line.end().as_str()), ("in", "drain deadline exceeded"));
    echoes(&mut other);
}

/// A name that moves to another one's address, and addresses that change hands: each is bound while the other still has it.
#[test]
fn listeners_take_over_addresses_of_others() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let (one, two) = (format!("{}:7000", own_address()), format!("{}:7001", own_address()));
    let yaml = |names: [(&str, &str); 2]| {
        let listener = |(name, bind): (&str, &str), pool| format!("{{ name: {name}, bind: \"{bind}\", pool: {pool} }}");
        let pool = |name, at: &Place| format!("{{ name: {name}, backends: [{{ address: \"{at}\" }}] }}");
        format!(
            "{ADMIN_SOCKET}listeners: [{}, {}]\npools: [{}, {}]\n",
            listener(names[0], "p"),
            listener(names[1], "q"),
            pool("p", backends[0].place()),
            pool("q", backends[1].place())
        )
    };
    let tidegate = Tidegate::start(&yaml([("x", &one), ("y", &two)]));
    let reached = |at: &str| String::from_utf8(read_to_end(&mut connect(&Place::parse(at))).0).unwrap();
    assert_eq!((reached(&one), reached(&two)), ("a".into(), "b".into()));
    reload(&tidegate, &yaml([("z", &one), ("y", &two)]));
    assert_eq!((reached(&one), reached(&two)), ("a".into(), "b".into()));
    reload(&tidegate, &yaml([("z", &two), ("y", &one)]));
    eventually(DEADLINE, "they have changed places", || (reached(&one), reached(&two)) == ("b".into(), "a".into()));
    assert!((0..20).all(|_| (reached(&one), reached(&two)) == ("b".into(), "a".into())));
}

#[test]
fn changed_address_is_a_new_backend_and_the_old_one_leaves() {
    let (echo, page) = ([Backend::echo(), Backend::echo()], HealthPage::start());
    let health = format!("health: {}", checked(&page, ""));
    let yaml = |place: &Place| config("", &health, &[("a", place)]);
    let tidegate = Tidegate::start(&yaml(echo[0].place()));
    tidegate.wait_for_up("a");
    let mut client = talking(&tidegate.at("in"));
    let total = |name: &str| {
        let view = tidegate.view();
        let found = view.pools[0].backends.iter().find(|it| it.name == name);
        found.map(|it| (it.address.clone(), it.open, it.status.name()))
    };
    reload(&tidegate, &yaml(echo[1].place()));
    let old = format!("a@{}", echo[0].place());
    eventually(DEADLINE, "the old one leaves", || {
        total(&old) == Some((echo[0].place().to_string(), 1, "leaving"))
            && total("a") == Some((echo[1].place().to_string(), 0, "up"))
    });
    drop(talking(&tidegate.at("in")));
    assert_eq!([0, 1].map(|place| echo[place].accepted()), [1, 1]);
    echoes(&mut client);
    drop(client);
    eventually(DEADLINE, "the old one is gone", || total(&old).is_none());
}

#[test]
fn changed_health_check_asks_anew_while_the_old_verdict_stands() {
    let (echo, pages) = (Backend::echo(), [HealthPage::start(), HealthPage::start()]);
    let health = |page: &HealthPage| {
        let port = page.port();
        format!("health: {{ http: {{ path: / }}, port: {port}, interval: 1h, fall: 2, rise: 2 }}")
    };
    let yaml = |page: &HealthPage| config("", &health(page), &[("a", echo.place())]);
    pages[1].answer(503);
    let tidegate = Tidegate::start(&yaml(&pages[0]));
    tidegate.wait_for_up("a");
    let since = backend(&tidegate, "a")["health"].clone();
    let asked = pages[0].asked();
    reload(&tidegate, &yaml(&pages[1]));
    eventually(DEADLINE, "it asks the new one", || pages[1].asked() == 1);
    assert_eq!(backend(&tidegate, "a")["health"], since, "up until it has failed twice");
    drop(talking(&tidegate.at("in")));
    reload(&tidegate, &yaml(&pages[0]));
    eventually(DEADLINE, "it asks again", || pages[0].asked() > asked);
    assert_eq!(backend(&tidegate, "a")["health"], since);
}
