//! Pairs of configurations, and the way from one to the other.

use super::*;
use crate::config::{files::Unread, parse};

/// A listener `a` on port 1 and a pool `p` of one backend at port 11.
const ONE: &str = "listeners: [{ name: a, bind: 127.0.0.1:1, pool: p }]
pools: [{ name: p, backends: [{ name: b1, address: 127.0.0.1:11 }] }]
";

const TWO: &str = "listeners:
  - { name: a, bind: 127.0.0.1:1, pool: p }
  - { name: b, bind: [127.0.0.1:2, 127.0.0.1:3], pool: q }
pools:
  - { name: p, backends: [{ name: b1, address: 127.0.0.1:11 }] }
  - { name: q, backends: [{ name: b1, address: 127.0.0.1:21 }, { name: b2, address: db.example:22 }] }
";

fn config(text: &str) -> Config {
    parse("test", text, &Unread)
        .unwrap_or_else(|failure| panic!("{}", failure.render(crate::config::Style::Plain)))
        .config
}

fn edited(text: &str, edits: &[(&str, &str)]) -> Config {
    let edit = |text: String, (old, new): &(&str, &str)| {
        assert!(text.contains(old), "{old:?} is not in {text}");
        text.replace(old, new)
    };
    config(&edits.iter().fold(text.to_owned(), edit))
}

#[test]
fn plan_between_two_configurations_says_what_changes() {
    let one = |edits: &[(&str, &str)]| edited(ONE, edits);
    let two = |edits: &[(&str, &str)]| edited(TWO, edits);
    let of_p = ", backends: [{ name: b1, address: 127.0.0.1:11 }]";
    let of_q = "{ name: b1, address: 127.0.0.1:21 }, { name: b2, address: db.example:22 }";
    let without_b = [("  - { name: b, bind: [127.0.0.1:2, 127.0.0.1:3], pool: q }\n", "")];
    let b = "{ name: b, bind: [127.0.0.1:2, 127.0.0.1:3], pool: q }";
    let a = "{ name: a, bind: 127.0.0.1:1, pool: p }";
    let swapped = [
        (a, "{ name: x, bind: 127.0.0.1:9, pool: p }"),
        (b, a),
        ("name: x, bind: 127.0.0.1:9, pool: p", &b[2..b.len() - 2]),
    ];
    let pools_swapped = "listeners:
  - { name: a, bind: 127.0.0.1:1, pool: p }
  - { name: b, bind: [127.0.0.1:2, 127.0.0.1:3], pool: q }
pools:
  - { name: q, backends: [{ name: b1, address: 127.0.0.1:21 }, { name: b2, address: db.example:22 }] }
  - { name: p, backends: [{ name: b1, address: 127.0.0.1:11 }] }
";
    let restarts =
        |keys: &[&str]| keys.iter().map(|key| format!("! {key}: needs a restart")).collect::<Vec<_>>().join("\n");
    let cases: Vec<(&str, Config, Config, String)> = vec![
        ("nothing", Config::empty(), Config::empty(), String::new()),
        ("start", Config::empty(), one(&[]), "+ listener a: + 127.0.0.1:1\n+ pool p: + b1".into()),
        (
            "start of two",
            Config::empty(),
            two(&[]),
            "+ listener a: + 127.0.0.1:1\n+ listener b: + 127.0.0.1:2, + 127.0.0.1:3\n+ pool p: + b1\n+ pool q: + b1, + b2".into(),
        ),
        ("the same", two(&[]), two(&[]), String::new()),
        ("end", one(&[]), Config { listeners: Vec::new(), pools: Vec::new(), ..one(&[]) }, "- listener a: - 127.0.0.1:1\n- pool p: - b1".into()),
        ("listener and pool come", one(&[]), two(&[]), "+ listener b: + 127.0.0.1:2, + 127.0.0.1:3\n+ pool q: + b1, + b2".into()),
        ("listener and pool go", two(&[]), one(&[]), "- listener b: - 127.0.0.1:2, - 127.0.0.1:3\n- pool q: - b1, - b2".into()),
        ("listener goes, its pool stays", two(&[]), two(&without_b), "- listener b: - 127.0.0.1:2, - 127.0.0.1:3".into()),
        ("listeners in another order", two(&[]), two(&swapped), String::new()),
        ("pools in another order", two(&[]), config(pools_swapped), String::new()),
        ("another port", one(&[]), one(&[("127.0.0.1:1,", "127.0.0.1:9,")]), "~ listener a: + 127.0.0.1:9, - 127.0.0.1:1".into()),
        ("one more port", one(&[]), one(&[("127.0.0.1:1,", "[127.0.0.1:1, 127.0.0.1:9],")]), "~ listener a: + 127.0.0.1:9".into()),
        ("one port less", two(&[]), two(&[("[127.0.0.1:2, 127.0.0.1:3]", "127.0.0.1:3")]), "~ listener b: - 127.0.0.1:2".into()),
        ("another name", one(&[]), one(&[("name: a", "name: z")]), "+ listener z: + 127.0.0.1:1\n- listener a: - 127.0.0.1:1".into()),
        ("another pool", two(&[]), two(&[("pool: q", "pool: p")]), "~ listener b".into()),
        ("a limit", one(&[]), one(&[("pool: p }", "pool: p, limits: { connection_rate: 5/s } }")]), "~ listener a".into()),
        ("max_connections", one(&[]), one(&[("pool: p }", "pool: p, max_connections: 5 }")]), "~ listener a".into()),
        ("a timeout", one(&[]), one(&[("pool: p }", "pool: p, timeouts: { idle: 5s } }")]), "~ listener a".into()),
        ("a route", two(&[]), two(&[("127.0.0.1:1, pool: p", "127.0.0.1:1, pool: p, sniff: http, routes: [{ match: { host: [x] }, pool: q }]")]), "~ listener a".into()),
        (
            "a route to another pool",
            two(&[("127.0.0.1:1, pool: p", "127.0.0.1:1, pool: p, sniff: http, routes: [{ match: { host: [x] }, pool: q }]")]),
            two(&[("127.0.0.1:1, pool: p", "127.0.0.1:1, pool: p, sniff: http, routes: [{ match: { host: [x] }, pool: p }]")]),
            "~ listener a".into(),
        ),
        ("protocol", one(&[]), one(&[("pool: p }", "pool: p, protocol: http }")]), "~ listener a".into()),
        ("a key of http", one(&[("pool: p }", "pool: p, protocol: http }")]), one(&[("pool: p }", "pool: p, protocol: http, http: { keep_alive: 1s } }")]), "~ listener a".into()),
        ("a limit of requests", one(&[("pool: p }", "pool: p, protocol: http }")]), one(&[("pool: p }", "pool: p, protocol: http, limits: { request_rate_per_ip: 1/s } }")]), "~ listener a".into()),
        ("http of a pool", one(&[]), one(&[(of_p, ", http: { retry: [] }, backends: [{ name: b1, address: 127.0.0.1:11 }]")]), "~ pool p".into()),
        ("persistence by a cookie", one(&[("pool: p }", "pool: p, protocol: http }")]), one(&[("pool: p }", "pool: p, protocol: http }"), (of_p, ", persist: { by: cookie, name: b }, backends: [{ name: b1, address: 127.0.0.1:11 }]")]), "~ pool p".into()),
        ("a socket option", one(&[]), one(&[("pool: p }", "pool: p, socket: { backlog: 5 } }")]), "~ listener a".into()),
        ("MPTCP", one(&[]), one(&[("pool: p }", "pool: p, socket: { mptcp: true } }")]), format!("~ listener a\n{}", restarts(&["listeners.a.socket.mptcp"]))),
        ("MPTCP at another port", one(&[]), one(&[("127.0.0.1:1, pool: p }", "127.0.0.1:9, pool: p, socket: { mptcp: true } }")]), "~ listener a: + 127.0.0.1:9, - 127.0.0.1:1".into()),
        ("a backend comes", one(&[]), one(&[("11 }]", "11 }, { name: b2, address: 127.0.0.1:12 }]")]), "~ pool p: + b2".into()),
        ("a backend goes", two(&[]), two(&[(of_q, &of_q[..35])]), "~ pool q: - b2".into()),
        ("a backend moves", one(&[]), one(&[(":11 }", ":12 }")]), "~ pool p: - b1, + b1".into()),
        ("a weight", one(&[]), one(&[(":11 }", ":11, weight: 5 }")]), "~ pool p: ~ b1".into()),
        ("a backend's limit and a new one", one(&[]), one(&[(":11 }", ":11, max_connections: 5 }, { name: b0, address: 127.0.0.1:10 }")]), "~ pool p: ~ b1, + b0".into()),
        ("backends in another order", two(&[]), two(&[(of_q, "{ name: b2, address: db.example:22 }, { name: b1, address: 127.0.0.1:21 }")]), "~ pool q".into()),
        ("a host name", two(&[]), two(&[("db.example", "other.example")]), "~ pool q: - b2, + b2".into()),
        ("balance", one(&[]), one(&[(of_p, &format!(", balance: random{of_p}"))]), "~ pool p".into()),
        ("health", one(&[]), one(&[(of_p, &format!(", health: {{ tcp: {{}} }}{of_p}"))]), "~ pool p".into()),
        ("TLS of a pool", one(&[]), one(&[(of_p, &format!(", tls: {{ verify: off }}{of_p}"))]), "~ pool p".into()),
        ("workers", one(&[]), edited(&format!("workers: 7\n{ONE}"), &[]), "~ workers".into()),
        ("admin", one(&[]), edited(&format!("admin: {{ bind: 127.0.0.1:9 }}\n{ONE}"), &[]), "~ admin".into()),
        ("shutdown", one(&[]), edited(&format!("shutdown: {{ drain: 7s }}\n{ONE}"), &[]), "~ shutdown".into()),
        ("log", one(&[]), edited(&format!("log: {{ level: debug }}\n{ONE}"), &[]), "~ log".into()),
    ];
    assert!(cases.len() >= 30);
    for (what, old, new, expected) in cases {
        let plan = Plan::between(&old, &new);
        assert_eq!(plan.to_string(), expected, "{what}");
        assert_eq!(plan.is_empty(), expected.is_empty(), "{what}");
        // And back: what was added is removed.
        if !old.listeners.is_empty() || new.listeners.is_empty() {
            let back = Plan::between(&new, &old);
            let count = |plan: &Plan, step| {
                plan.listeners.iter().filter(|it| it.step == step).count()
                    + plan.pools.iter().filter(|it| it.step == step).count()
            };
            assert_eq!(
                [Step::Add, Step::Remove, Step::Change].map(|step| count(&plan, step)),
                [Step::Remove, Step::Add, Step::Change].map(|step| count(&back, step)),
                "{what}"
            );
        }
    }
}

#[test]
fn tls_is_loaded_where_its_rules_change() {
    let tls = "tls: { verify: off }, ";
    let with = edited(ONE, &[("name: p, ", &format!("name: p, {tls}"))]);
    let loads = |old: &Config, new: &Config| Plan::between(old, new).pools[0].loads_tls;
    assert!(loads(&Config::empty(), &with) && loads(&edited(ONE, &[]), &with));
    assert!(!loads(&with, &with) && !loads(&with, &edited(ONE, &[])));
    let weight = edited(ONE, &[("name: p, ", &format!("name: p, {tls}")), (":11 }", ":11, weight: 5 }")]);
    assert!(!loads(&with, &weight));
    let terminated = |protocol: &str| {
        let tls = "tls: { certificates: [{ cert: a, key: b }] }";
        edited(ONE, &[("pool: p }", &format!("pool: p, protocol: {protocol}, {tls} }}"))])
    };
    let by_listener = |old: &Config, new: &Config| Plan::between(old, new).listeners[0].loads_tls;
    assert!(by_listener(&terminated("tcp"), &terminated("http")), "it negotiates HTTP now");
    assert!(!by_listener(&terminated("http"), &terminated("http")));
}
