//! The calls that change a running process, over HTTP: what each does, answers and refuses.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Dead};
use crate::support::client::{End, connect, echoes, expect, read_to_end, talking, try_connect};
use crate::support::process::require;
use crate::support::stats::{ADMIN_SOCKET, Answer, call_with, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// Listener `in` to pool `p` with backends `a` and `b`, and listener `other` to pool `q`, which has a backend `a` too.
struct Changed {
    tidegate: Tidegate,
    backends: [Backend; 4],
}

impl Changed {
    fn start() -> Changed {
        let backends = [(); 4].map(|()| Backend::echo());
        let tidegate = Tidegate::start(&Changed::yaml(&backends));
        Changed { tidegate, backends }
    }

    fn yaml(backends: &[Backend; 4]) -> String {
        let [a, b, of_q, _] = [0, 1, 2, 3].map(|place| backends[place].place());
        format!(
            "{ADMIN_SOCKET}listeners:\n\
             - {{ name: in, bind: \"127.0.0.1:0\", pool: p }}\n\
             - {{ name: other, bind: \"127.0.0.1:0\", pool: q }}\n\
             pools:\n\
             - {{ name: p, backends: [{{ name: a, address: \"{a}\" }}, {{ name: b, address: \"{b}\" }}] }}\n\
             - {{ name: q, backends: [{{ name: a, address: \"{of_q}\" }}] }}\n"
        )
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.tidegate.call(method, path, &body)
    }

    fn talking(&self) -> TcpStream {
        talking(&self.tidegate.at("in"))
    }

    /// Which backends of `p` get the next connections.
    fn served(&self) -> Vec<usize> {
        let before = [0, 1, 2, 3].map(|place| self.backends[place].accepted());
        (0..8).for_each(|_| drop(self.talking()));
        (0..4).filter(|place| self.backends[*place].accepted() > before[*place]).collect()
    }

    fn backend(&self, name: &str) -> Value {
        self.tidegate.resource(&format!("/api/pools/p/backends/{name}"))
    }
}

fn changes(answer: &Answer) -> Vec<String> {
    serde_json::from_value(answer.json()["changes"].clone()).unwrap()
}

#[test]
fn calls_do_what_they_say_and_only_that() {
    let changed = Changed::start();
    let new = changed.backends[3].place().to_string();
    let (a, c) = ("/api/pools/p/backends/a", "/api/pools/p/backends/c");
    /// Method, path, body; status, changes, and a member of the answer's backend.
    type Step<'s> = (&'s str, &'s str, Value, u16, &'s [&'s str], (&'s str, Value));
    let steps: [Step<'_>; 17] = [
        ("PUT", c, json!({ "address": new, "weight": 3 }), 201, &["pools.p.backends.c: added"], ("weight", json!(3))),
        ("PUT", c, json!({ "address": new, "weight": 3 }), 200, &[], ("configured", json!(false))),
        ("PUT", c, json!({ "address": new }), 200, &[], ("weight", json!(3))),
        (
            "PATCH",
            c,
            json!({ "weight": 5, "backup": true, "max_connections": 7 }),
            200,
            &[
                "pools.p.backends.c.backup: false -> true",
                "pools.p.backends.c.max_connections: 0 -> 7",
                "pools.p.backends.c.weight: 3 -> 5",
            ],
            ("max_connections", json!(7)),
        ),
        (
            "PATCH",
            c,
            json!({ "weight": null, "backup": null, "max_connections": null }),
            200,
            &[
                "pools.p.backends.c.backup: true -> false",
                "pools.p.backends.c.max_connections: 7 -> 0",
                "pools.p.backends.c.weight: 5 -> 1",
            ],
            ("max_connections", Value::Null),
        ),
        ("PATCH", c, json!({}), 200, &[], ("weight", json!(1))),
        ("PATCH", c, json!({ "max_connections": 0 }), 200, &[], ("max_connections", Value::Null)),
        (
            "PATCH",
            a,
            json!({ "state": "drain" }),
            200,
            &["pools.p.backends.a.state: ready -> drain"],
            ("state", json!("drain")),
        ),
        (
            "PATCH",
            a,
            json!({ "state": "maintenance" }),
            200,
            &["pools.p.backends.a.state: drain -> maintenance"],
            ("status", json!("maintenance")),
        ),
        (
            "PATCH",
            a,
            json!({ "state": null }),
            200,
            &["pools.p.backends.a.state: maintenance -> ready"],
            ("state", json!("ready")),
        ),
        (
            "PATCH",
            a,
            json!({ "forced": "down" }),
            200,
            &["pools.p.backends.a.forced: none -> down"],
            ("forced", json!("down")),
        ),
        (
            "PATCH",
            a,
            json!({ "forced": "up" }),
            200,
            &["pools.p.backends.a.forced: down -> up"],
            ("forced", json!("up")),
        ),
        (
            "PATCH",
            a,
            json!({ "forced": null }),
            200,
            &["pools.p.backends.a.forced: up -> none"],
            ("forced", Value::Null),
        ),
        (
            "PATCH",
            a,
            json!({ "weight": 1000 }),
            200,
            &["pools.p.backends.a.weight: 1 -> 1000"],
            ("configured_weight", json!(1)),
        ),
        ("PATCH", a, json!({ "weight": 0 }), 200, &["pools.p.backends.a.weight: 1000 -> 0"], ("weight", json!(0))),
        (
            "PATCH",
            "/api/pools/p",
            json!({ "balance": "least_connections" }),
            200,
            &["pools.p.balance: round_robin -> least_connections"],
            ("", Value::Null),
        ),
        (
            "PATCH",
            "/api/listeners/in",
            json!({ "max_connections": 9 }),
            200,
            &["listeners.in.max_connections: 0 -> 9"],
            ("", Value::Null),
        ),
    ];
    let mut generation = 1;
    for (method, path, body, status, expected, (key, value)) in steps {
        let step = format!("{method} {path} {body}");
        // What would change, first.
        let before = changed.tidegate.resource("/api/pools");
        let dry = changed.call(method, &format!("{path}?dry_run=true"), &body);
        assert_eq!((dry.status, changes(&dry)), (200, expected.iter().map(|it| (*it).to_owned()).collect()), "{step}");
        assert_eq!(dry.json()["dry_run"], true, "{step}");
        assert_eq!(changed.tidegate.resource("/api/pools"), before, "{step}: it was only asked");

        let answer = changed.call(method, path, &body);
        assert_eq!((answer.status, changes(&answer)), (status, changes(&dry)), "{step}: {}", answer.text());
        generation += u64::from(!expected.is_empty());
        assert_eq!(answer.header("etag"), format!("\"{generation}\""), "{step}");
        assert_eq!(answer.json()["generation"], generation, "{step}");
        assert_eq!(answer.json()["warnings"], json!([]), "{step}");
        if !key.is_empty() {
            assert_eq!(answer.json()["backend"][key], value, "{step}");
            assert_eq!(changed.tidegate.resource(path)[key], value, "{step}");
        }
        let audited = changed.tidegate.wait_for_log(&step, |line| {
            line.is("audit") && line.field("action") == format!("{method} {path}") && line.field("dry_run") == "false"
        });
        assert!(audited.field("actor").starts_with("unix uid="), "{audited:?}");
    }
    assert_eq!(changed.tidegate.resource("/api/pools/p")["balance"], "least_connections");
    assert_eq!(changed.tidegate.resource("/api/pools/p")["configured_balance"], "round_robin");
    assert_eq!(changed.served(), [1, 3], "a has weight 0");
    assert_eq!(changed.tidegate.resource("/api/pools/q/backends/a")["weight"], 1, "that of the other pool");
    let view = changed.tidegate.view();
    assert_eq!((view.listeners[0].max_connections, view.listeners[1].max_connections), (Some(9), None));
}

#[test]
fn refused_calls_are_problems_and_change_nothing() {
    let changed = Changed::start();
    let own = changed.tidegate.at("in").to_string();
    let a = "/api/pools/p/backends/a";
    let long = "x".repeat(300);
    let cases: [(&str, &str, &str, u16, &str); 37] = [
        ("PATCH", "/api/pools/p/backends/nobody", "{\"weight\": 1}", 404, "there is a, b"),
        ("PATCH", "/api/pools/nobody/backends/a", "{\"weight\": 1}", 404, "there is p, q"),
        ("PATCH", "/api/pools/nobody", "{\"balance\": \"random\"}", 404, "there is no pool `nobody`"),
        ("PATCH", "/api/listeners/nobody", "{\"state\": \"paused\"}", 404, "there is in, other"),
        ("DELETE", "/api/pools/p/backends/nobody", "", 404, "no backend `nobody`"),
        ("POST", "/api/pools/p/backends/nobody/cut", "", 404, "no backend `nobody`"),
        ("POST", "/api/nothing", "", 404, ""),
        ("PATCH", a, "{\"weight\": 1001}", 400, "1001 is more than 1000"),
        ("PATCH", a, "{\"weight\": -1}", 400, "invalid value"),
        ("PATCH", a, "{\"weight\": \"5\"}", 400, "the body is not what this call takes: weight: "),
        ("PATCH", a, "{\"weight\": -1}", 400, "weight: invalid value: integer `-1`"),
        ("PATCH", a, "{} {}", 400, "trailing characters"),
        ("PATCH", a, "{\"wieght\": 1}", 400, "unknown field `wieght`"),
        ("PATCH", a, "{\"weight\": 1", 400, "the body is not what this call takes"),
        ("PATCH", a, "", 400, "the body is not what this call takes"),
        ("PATCH", a, "[]", 400, ""),
        ("PATCH", a, "{\"state\": \"sleep\"}", 400, "unknown variant `sleep`"),
        ("PATCH", a, "{\"forced\": \"sideways\"}", 400, "unknown variant `sideways`"),
        ("PATCH", a, "{\"address\": \"127.0.0.1:1\"}", 400, "PUT changes it"),
        ("PATCH", "/api/pools/p", "{\"balance\": \"fair\"}", 400, "expected one of round_robin"),
        ("PATCH", "/api/listeners/in", "{\"state\": \"asleep\"}", 400, "unknown variant `asleep`"),
        ("PUT", "/api/pools/p/backends/c", "{}", 400, "address is missing"),
        ("PUT", "/api/pools/p/backends/c", "{\"address\": \"nowhere\"}", 400, "address: "),
        ("PUT", "/api/pools/p/backends/c", &format!("{{\"address\": \"{own}\"}}"), 409, "forwarding loop"),
        ("PUT", &format!("/api/pools/p/backends/{long}"), "{\"address\": \"127.0.0.1:1\"}", 422, ""),
        ("PUT", "/api/pools/p/backends/%0A", "{\"address\": \"127.0.0.1:1\"}", 422, ""),
        ("POST", a, "{}", 405, "takes PUT, PATCH, DELETE, not POST"),
        ("GET", "/api/reload", "", 405, "/api/reload takes POST"),
        ("GET", "/api/pools/p/backends/a/cut", "", 405, "takes POST"),
        ("PATCH", &format!("{a}?dryrun=true"), "{\"weight\": 1}", 400, "`dryrun` is not known"),
        ("PATCH", &format!("{a}?dry_run=maybe"), "{\"weight\": 1}", 400, "expected true or false"),
        ("PATCH", &format!("{a}?dry_run=true&dry_run=false"), "{\"weight\": 1}", 400, "dry_run: is given twice"),
        ("PATCH", a, "[null, 5, null, null, null, null]", 400, "an array, not an object"),
        ("DELETE", &format!("{a}?wait=5"), "", 400, "wait: "),
        ("DELETE", "/api/connections", "", 400, ""),
        ("DELETE", "/api/connections/8000000000000000", "", 404, ""),
        ("POST", "/api/servers", "{\"host\": \"127.0.0.1\", \"port\": 1}", 400, "pool is missing: there is p, q"),
    ];
    for (method, path, body, status, part) in cases {
        let case = format!("{method} {path} {body}");
        let answer = changed.tidegate.call(method, path, body);
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{case}: {}", answer.text());
        let problem = answer.json();
        assert_eq!((&problem["status"], &problem["success"]), (&json!(status), &json!(false)), "{case}");
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{case}: {problem}");
        assert_eq!(problem["detail"], problem["error"], "{case}");
        let error = problem["error"].as_str().unwrap();
        assert!(!error.is_empty() && error.contains(part), "{case}: {error}");
    }
    assert_eq!((changed.tidegate.generation(), changed.served()), (1, vec![0, 1]));

    let wrong = "listeners: [{ name: in, bind: 127.0.0.1:0, pool: nobody }]\npools: [{ name: p, backends: [{ address: \"127.0.0.1:1\" }] }]\n";
    let answer = changed.tidegate.call("PUT", "/api/config", wrong);
    assert_eq!((answer.status, answer.header("content-type")), (422, "application/problem+json"));
    let problem = answer.json();
    let first = &problem["errors"][0];
    assert_eq!((&first["file"], &first["line"]), (&json!("PUT /api/config"), &json!(1)), "{problem}");
    assert!(first["column"].is_u64() && first["message"].is_string() && problem["report"].is_string());
    assert_eq!(changed.tidegate.generation(), 1);
}

#[test]
fn change_for_another_generation_is_refused() {
    let changed = Changed::start();
    let place = changed.tidegate.stats_port();
    let set = |weight: u32, tags: &str| {
        let body = json!({ "weight": weight }).to_string();
        call_with(&place, "PATCH", "/api/pools/p/backends/a", &body, &format!("If-Match: {tags}\r\n"))
    };
    let tag = get(&place, "/api/pools/p/backends/a").header("etag").to_owned();
    assert_eq!(tag, "\"1\"");
    let first = set(2, &tag);
    assert_eq!((first.status, first.header("etag")), (200, "\"2\""));
    let second = set(3, &tag);
    assert_eq!(
        (second.status, second.header("content-type")),
        (412, "application/problem+json"),
        "somebody was faster"
    );
    assert!(second.json()["error"].as_str().unwrap().contains("generation 2 is in effect"));
    assert_eq!(changed.backend("a")["weight"], 2);
    assert_eq!(set(4, "\"7\", \"2\"").status, 200);
    assert_eq!(set(5, "*").status, 200);
    assert_eq!(set(6, "4").status, 400, "no entity tag");
    for other in ["\"+4\"", "\"04\"", "W/\"4\""] {
        assert_eq!(set(6, other).status, 412, "{other}");
    }
    let reload = call_with(&place, "POST", "/api/reload", "", "If-Match: \"1\"\r\n");
    assert_eq!(reload.status, 412);
    assert_eq!((changed.backend("a")["weight"].clone(), changed.tidegate.generation()), (json!(5), 4));
}

#[test]
fn listeners_are_shown_with_what_was_configured() {
    let changed = Changed::start();
    let place = changed.tidegate.stats_port();
    let of = |name: &str| changed.tidegate.resource(&format!("/api/listeners/{name}"));
    let all = changed.tidegate.resource("/api/listeners");
    assert_eq!(all["listeners"], json!([of("in"), of("other")]));
    let address = changed.tidegate.at("in").to_string();
    assert_eq!(
        of("in"),
        json!({
            "name": "in", "bind": ["127.0.0.1:0"], "addresses": [address], "state": "ready", "configured_state": "ready",
            "pool": "p", "pools": ["p"], "tls": false, "connections": 0, "max_connections": null,
            "configured_max_connections": null, "accepted": 0, "rejected": 0
        })
    );
    let _client = changed.talking();
    let patch = changed.call("PATCH", "/api/listeners/in", &json!({ "state": "paused", "max_connections": 9 }));
    assert_eq!((patch.status, &patch.json()["listener"]), (200, &of("in")), "{}", patch.text());
    let shown = of("in");
    assert_eq!((&shown["state"], &shown["configured_state"]), (&json!("paused"), &json!("ready")));
    assert_eq!((&shown["max_connections"], &shown["configured_max_connections"]), (&json!(9), &Value::Null));
    assert_eq!((&shown["connections"], &shown["accepted"]), (&json!(1), &json!(1)));
    assert_eq!(get(&place, "/api/listeners/in").header("etag"), "\"2\"");
    assert_eq!(get(&place, "/api/listeners/nobody").status, 404);
    assert_eq!(get(&place, "/api/listeners/in/more").status, 404);
    assert_eq!(get(&place, "/api/listeners/in/reset").status, 405);
}

/// Where connections wait or are refused, none should be sent.
#[test]
fn state_of_a_listener_is_shown_everywhere() {
    let changed = Changed::start();
    let place = changed.tidegate.stats_port();
    let admin = place.to_string();
    let set = |state: &str| {
        assert_eq!(changed.call("PATCH", "/api/listeners/in", &json!({ "state": state })).status, 200);
        let ready = get(&place, "/readyz");
        let top = changed.tidegate.command(&["top", "--once", "--admin", &admin]);
        let json = changed.tidegate.command(&["top", "--once", "--json", "--admin", &admin]);
        let json: Value = serde_json::from_str(json.printed()).unwrap();
        let metrics = get(&place, "/metrics").text();
        assert!(metrics.contains(&format!("tidegate_listener_admin_state{{listener=\"in\",state=\"{state}\"}} 1\n")));
        assert_eq!(metrics.matches("tidegate_listener_admin_state{").count(), 6, "{metrics}");
        assert!(metrics.contains(&format!("\ntidegate_ready {}\n", u8::from(state == "ready"))));
        assert_eq!((&json["listeners"][0]["state"], &json["listeners"][1]["state"]), (&json!(state), &json!("ready")));
        let explain =
            changed.tidegate.command(&["explain", "--client", "10.0.0.1", "--listener", "in", "--admin", &admin]);
        let explain = explain.printed().to_owned();
        (ready.status, ready.text(), top.printed().to_owned(), explain)
    };
    let (status, why, top, explain) = set("paused");
    assert_eq!((status, why.as_str()), (503, "listener in: paused: new connections wait\n"));
    changed.tidegate.wait_for_log("the same", |line| line.is("not ready") && line.field("reason") == why.trim_end());
    assert!(top.contains("NOT READY\nlistener in: paused: new connections wait\n"), "{top}");
    assert!(explain.lines().next().unwrap().ends_with(": waits"), "{explain}");
    assert!(explain.contains("note      it is paused: a new connection waits until `tidegate resume in`"), "{explain}");
    let (status, why, top, explain) = set("drain");
    assert_eq!((status, why.as_str()), (503, "listener in: drained: new connections are refused\n"));
    assert!(top.contains("listener in: drained"), "{top}");
    assert!(explain.contains("rejected  the listener is drained: its sockets are closed"), "{explain}");
    let csv = get(&place, "/stats;csv").text();
    assert!(csv.contains("in,FRONTEND,") && csv.contains(",STOP,") && csv.contains(",OPEN,"), "{csv}");
    let (status, why, top, explain) = set("ready");
    assert_eq!((status, why.as_str()), (200, "ok\n"));
    assert!(!top.contains("listener in") && !explain.contains("paused"), "{top}{explain}");
}

/// What only shows what would happen, and what is meant for another generation, ends nothing.
#[test]
fn dry_run_and_another_generation_end_nothing() {
    let changed = Changed::start();
    let mut client = changed.talking();
    let (place, cut) = (changed.tidegate.stats_port(), "/api/pools/p/backends/a/cut");
    let stale = |path: &str| call_with(&place, "POST", path, "", "If-Match: \"999\"\r\n");
    assert_eq!((stale("/api/drain").status, stale(cut).status), (412, 412));
    assert_eq!(stale("/api/drain?dry_run=true").status, 412);
    let drain = changed.tidegate.call("POST", "/api/drain?dry_run=true", "");
    assert_eq!((drain.status, &drain.json()["dry_run"]), (200, &json!(true)));
    let cut = changed.tidegate.call("POST", &format!("{cut}?dry_run=true"), "");
    assert_eq!((cut.status, &cut.json()["dry_run"]), (200, &json!(true)));
    let id = changed.tidegate.resource("/api/connections")["connections"][0]["id"].as_str().unwrap().to_owned();
    for (end, connections) in
        [("?client=127.0.0.1&dry_run=true", 1), ("?dry_run=true&older=1h", 0), (&format!("/{id}?dry_run=true"), 1)]
    {
        let answer = changed.tidegate.call("DELETE", &format!("/api/connections{end}"), "");
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({ "dry_run": true, "connections": connections })),
            "{end}"
        );
    }
    for (end, status) in
        [("?dry_run=true", 400), ("?pool=p&dry_run=perhaps", 400), ("/8000000000000000?dry_run=true", 404)]
    {
        assert_eq!(changed.tidegate.call("DELETE", &format!("/api/connections{end}"), "").status, status, "{end}");
    }
    echoes(&mut client);
    // A drain lets go of open connections too: what tells is a new one.
    changed.talking();
    assert_eq!(get(&place, "/readyz").status, 200);
    assert_eq!(changed.tidegate.generation(), 1);
}

#[test]
fn removed_backend_leaves_when_its_last_connection_has_ended() {
    let changed = Changed::start();
    let mut client = changed.talking();
    let gone = if changed.backends[0].accepted() == 1 { "a" } else { "b" };
    let path = format!("/api/pools/p/backends/{gone}");
    let state = |name: &str| {
        let view = changed.tidegate.view();
        let found =
            view.pools[0].backends.iter().find(|it| it.name == name || it.name.starts_with(&format!("{name}@")));
        found.map(|it| (it.status.name(), it.open))
    };
    let answer = changed.call("DELETE", &path, &Value::Null);
    assert_eq!(answer.status, 202);
    assert_eq!((&answer.json()["state"], &answer.json()["connections"]), (&json!("leaving"), &json!(1)));
    assert_eq!(state(gone), Some(("leaving", 1)));
    assert_eq!(changed.served().len(), 1);
    echoes(&mut client);
    drop(client);
    eventually(DEADLINE, "it is gone", || state(gone).is_none());
    assert_eq!(changed.call("DELETE", &path, &Value::Null).status, 404);

    let rest = if gone == "a" { "b" } else { "a" };
    let mut client = changed.talking();
    let path = format!("/api/pools/p/backends/{rest}?cut=true&wait=60s");
    let answer = changed.call("DELETE", &path, &Value::Null);
    changed.tidegate.wait_for_log("that it cuts", |line| line.field("action") == format!("DELETE {path}"));
    assert_eq!((answer.status, &answer.json()["state"], &answer.json()["ended"]), (200, &json!("gone"), &json!(1)));
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    assert_eq!(changed.tidegate.resource("/api/pools/p/backends")["backends"], json!([]));
    assert_eq!(read_to_end(&mut connect(&changed.tidegate.at("in"))).0, b"", "no backend is left");
}

#[test]
fn cut_ends_the_connections_of_one_backend() {
    let changed = Changed::start();
    let mut clients = [changed.talking(), changed.talking()];
    let of_a = usize::from(
        changed.tidegate.resource("/api/connections?backend=a")["connections"][0]["client"]
            != clients[0].local_addr().unwrap().to_string(),
    );
    let answer = changed.call("POST", "/api/pools/p/backends/a/cut", &Value::Null);
    assert_eq!((answer.status, answer.json()), (200, json!({ "ended": 1 })));
    assert_eq!(read_to_end(&mut clients[of_a]), (Vec::new(), End::Reset));
    echoes(&mut clients[1 - of_a]);
    assert_eq!((changed.served(), changed.backend("a")["state"].clone()), (vec![0, 1], json!("ready")));
}

/// Also one whose pool was removed with it.
#[test]
fn removed_backend_with_connections_is_cut_by_its_name() {
    let changed = Changed::start();
    let mut of_q = talking(&changed.tidegate.at("other"));
    let mut client = changed.talking();
    let name = if changed.backends[0].accepted() == 1 { "a" } else { "b" };
    let path = format!("/api/pools/p/backends/{name}");
    assert_eq!(changed.call("DELETE", &path, &Value::Null).status, 202);
    // One of the same name is another backend, and cut as well.
    let dry = changed.call("POST", &format!("{path}/cut?dry_run=true"), &Value::Null);
    assert_eq!((dry.status, dry.json()), (200, json!({ "dry_run": true, "connections": 1 })));
    assert_eq!(changed.call("POST", &format!("{path}/cut"), &Value::Null).json(), json!({ "ended": 1 }));
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    eventually(DEADLINE, "it is gone", || changed.call("POST", &format!("{path}/cut"), &Value::Null).status == 404);

    let text = changed.tidegate.contents(&Changed::yaml(&changed.backends));
    let (keep, _) = text.split_once("- { name: q").unwrap();
    let without = keep.replace("- { name: other, bind: \"127.0.0.1:0\", pool: q }\n", "");
    let put = changed.tidegate.call("PUT", "/api/config", &without);
    assert_eq!(put.status, 200, "{}", put.text());
    echoes(&mut of_q);
    let cut = "/api/pools/q/backends/a/cut";
    let dry = changed.call("POST", &format!("{cut}?dry_run=true"), &Value::Null);
    assert_eq!((dry.status, dry.json()), (200, json!({ "dry_run": true, "connections": 1 })));
    assert_eq!(changed.call("POST", cut, &Value::Null).json(), json!({ "ended": 1 }));
    assert_eq!(read_to_end(&mut of_q), (Vec::new(), End::Reset));
    eventually(DEADLINE, "it is gone", || changed.call("POST", cut, &Value::Null).status == 404);
}

/// One is under way while its body comes; small ones are not held up.
#[test]
fn large_configurations_are_carried_out_one_at_a_time() {
    const SIZE: usize = 512 * 1024;
    let changed = Changed::start();
    let place = changed.tidegate.stats_port();
    let text = changed.tidegate.contents(&Changed::yaml(&changed.backends));
    let large =
        format!("{text}{}", "# and a comment on this line, which says nothing at all to anybody\n".repeat(8_000));
    assert!(large.len() > SIZE);
    let mut first = connect(&place);
    let head = format!(
        "PUT /api/config?dry_run=true HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        large.len()
    );
    first.write_all(head.as_bytes()).unwrap();
    first.write_all(&large.as_bytes()[..SIZE]).unwrap();
    eventually(DEADLINE, "the first one has taken the room", || {
        let second = changed.tidegate.call("PUT", "/api/config?dry_run=true", &large);
        let is_refused = second.status == 503;
        if is_refused {
            assert_eq!(
                (second.header("retry-after"), second.header("content-type")),
                ("1", "application/problem+json")
            );
            assert!(second.json()["error"].as_str().unwrap().contains("another large change"), "{}", second.text());
        }
        is_refused
    });
    let small = changed.tidegate.call("PUT", "/api/config?dry_run=true", &text);
    assert_eq!(small.status, 200, "{}", small.text());
    first.write_all(&large.as_bytes()[SIZE..]).unwrap();
    let (answer, _) = read_to_end(&mut first);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    eventually(DEADLINE, "there is room again", || {
        changed.tidegate.call("PUT", "/api/config?dry_run=true", &large).status == 200
    });
}

/// Twenty at once, of the largest size: each takes 15 MiB to be read.
#[test]
fn large_bodies_at_once_are_bounded_in_memory() {
    const SIZE: usize = 15 << 20;
    let changed = Changed::start();
    let place = changed.tidegate.stats_port();
    let body = vec![0xff; SIZE];
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let put = || {
            let head = format!(
                "PUT /api/config HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
            );
            let mut stream = connect(&place);
            stream.write_all(head.as_bytes()).unwrap();
            // One that takes too long is closed.
            let _ = stream.write_all(&body);
            let (answer, _) = read_to_end(&mut stream);
            let text = String::from_utf8_lossy(&answer).into_owned();
            text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
        };
        let running: Vec<_> = (0..20).map(|_| scope.spawn(put)).collect();
        running.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(statuses.contains(&503) && !statuses.contains(&200), "{statuses:?}");
    let peak = crate::support::proc::peak(changed.tidegate.pid());
    assert!(peak < 200 << 20, "{peak} bytes were resident at once");
    assert_eq!(changed.tidegate.generation(), 1);
    assert_eq!(changed.tidegate.call("PUT", "/api/config", "{}").status, 422, "there is room again");
}

#[test]
fn listener_that_is_paused_or_drained() {
    let changed = Changed::start();
    let mut client = changed.talking();
    let set = |state: &str| changed.call("PATCH", "/api/listeners/in", &json!({ "state": state })).status;
    assert_eq!(set("paused"), 200);
    let mut waiting = connect(&changed.tidegate.at("in"));
    waiting.write_all(b"on").unwrap();
    echoes(&mut client);
    let accepted = changed.tidegate.view().listeners[0].accepted;
    assert_eq!(accepted, 1, "the other one waits in the kernel's queue");
    assert_eq!(set("ready"), 200);
    expect(&mut waiting, b"on");
    assert_eq!(set("drain"), 200);
    eventually(DEADLINE, "its sockets are closed", || try_connect(&changed.tidegate.at("in")).is_err());
    echoes(&mut client);
    echoes(&mut waiting);
}

#[test]
fn whole_configuration_lasts_until_the_file_is_applied_again() {
    let changed = Changed::start();
    let text = changed.tidegate.contents(&Changed::yaml(&changed.backends));
    let with = |weight: u32| text.replacen("{ name: a,", &format!("{{ weight: {weight}, name: a,"), 1);
    let dry = changed.tidegate.call("PUT", "/api/config?dry_run=true", &with(4));
    assert_eq!((dry.status, changes(&dry)), (200, vec!["pools.p.backends.a.weight: 1 -> 4".to_owned()]));
    assert_eq!(changed.tidegate.generation(), 1);
    assert_eq!(changed.tidegate.call("PUT", "/api/config", &with(4)).status, 200);
    assert_eq!(changed.backend("a")["weight"], 4);
    // Weights that are set on top of it are kept apart from it.
    assert_eq!(changed.call("PATCH", "/api/pools/p/backends/a", &json!({ "weight": 6 })).status, 200);
    let config = |source: &str| {
        let answer = get(&changed.tidegate.stats_port(), &format!("/api/config?source={source}"));
        answer.json()["data"]["pools"][0]["backends"][0]["weight"].clone()
    };
    assert_eq!((config("file"), config("effective")), (json!(4), json!(6)));
    assert_eq!(get(&changed.tidegate.stats_port(), "/api/config?source=dream").status, 400);
    let answer = changed.tidegate.call("POST", "/api/reload", "");
    assert_eq!(changes(&answer), ["pools.p.backends.a.weight: 6 -> 1"], "what was put is gone");
    assert_eq!(answer.json()["warnings"].as_array().unwrap().len(), 1, "{}", answer.text());
    // JSON is YAML.
    let listener = json!({ "name": "in", "bind": "127.0.0.1:0", "pool": "p" });
    let pool =
        json!({ "name": "p", "backends": [{ "name": "a", "address": changed.backends[0].place().to_string() }] });
    let admin = format!("unix:{}", changed.tidegate.directory().join("admin.sock").display());
    let log = json!({ "format": "json", "access": changed.tidegate.access_file() });
    let whole = json!({ "log": log, "admin": { "bind": admin }, "listeners": [listener], "pools": [pool] });
    let answer = changed.call("PUT", "/api/config", &whole);
    assert_eq!((answer.status, changed.served()), (200, vec![0]), "{}", answer.text());
}

#[test]
fn who_may_change_something_over_tcp() {
    let backend = Backend::echo();
    let yaml = |admin: &str| {
        format!(
            "admin: {{ bind: \"127.0.0.1:0\"{admin} }}\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ name: a, address: \"{}\" }}] }}]\n",
            backend.place()
        )
    };
    let path = "/api/pools/p/backends/a";
    let refused = |tidegate: &Tidegate, headers: &str, status: u16| {
        let answer = call_with(&tidegate.stats_port(), "PATCH", path, "{\"weight\": 5}", headers);
        assert_eq!(answer.status, status, "{headers}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{headers}");
        let problem = answer.json();
        assert!(problem["status"] == status && problem["detail"] == problem["error"], "{headers} {problem}");
    };
    let open = Tidegate::start(&yaml(""));
    assert_eq!(open.resource(path)["weight"], 1, "who reads needs no token");
    refused(&open, "", 403);
    refused(&open, "Authorization: Bearer s3cret\r\n", 403);
    assert_eq!(open.generation(), 1);

    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "s3cret\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let guarded = Tidegate::start(&yaml(&format!(", token_file: {}", token.display())));
    let known = "Authorization: Bearer s3cret\r\n";
    refused(&guarded, "", 401);
    refused(&guarded, "Authorization: Bearer other\r\n", 401);
    refused(&guarded, &format!("{known}Origin: http://evil.example\r\n"), 403);
    refused(&guarded, &format!("{known}Origin: null\r\n"), 403);
    refused(&guarded, &format!("{known}Sec-Fetch-Site: cross-site\r\n"), 403);
    refused(&guarded, &format!("{known}Sec-Fetch-Site: same-site\r\n"), 403);
    let named = format!(
        "PATCH {path} HTTP/1.1\r\nHost: lb.example\r\nConnection: close\r\n{known}Content-Length: 13\r\n\r\n{{\"weight\": 5}}"
    );
    assert_eq!(crate::support::stats::ask(&guarded.stats_port(), &named).status, 403, "another name");
    assert_eq!(guarded.count_logs(|line| line.is("audit")), 0);
    let answer = call_with(&guarded.stats_port(), "PATCH", path, "{\"weight\": 5}", known);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let audited = guarded.wait_for_log("who it was", |line| line.is("audit"));
    assert!(audited.field("actor").starts_with("127.0.0.1:"), "{audited:?}");
    assert!(audited.field("changes").contains("pools.p.backends.a.weight: 1 -> 5"), "{audited:?}");
    let command = |more: &[&str]| {
        let admin = guarded.stats_port().to_string();
        guarded.command(&[&["weight", "p/a", "7", "--admin", &admin], more].concat())
    };
    let without = command(&[]);
    assert!(without.code == Some(1) && without.err.contains("--token-file"), "{without:?}");
    assert_eq!(command(&["--token-file", token.to_str().unwrap()]).printed(), "pools.p.backends.a.weight: 5 -> 7\n");
}

#[test]
fn drain_of_the_process_is_that_of_a_signal() {
    let mut changed = Changed::start();
    let mut client = changed.talking();
    let answer = changed.call("POST", "/api/drain", &Value::Null);
    assert_eq!((answer.status, &answer.json()["draining"]), (202, &json!(true)));
    changed.tidegate.wait_for_log("it drains", |line| line.is("draining"));
    echoes(&mut client);
    drop(client);
    assert!(changed.tidegate.wait().success());
}

/// The calls of plain HTTP balancers, as their clients send them.
#[test]
fn calls_of_plain_balancers_by_curl() {
    require("curl", "curl");
    let backends = [Backend::echo(), Backend::echo()];
    let tidegate = Tidegate::start(&format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: \"{}\" }}] }}]\n",
        backends[0].place()
    ));
    let socket = tidegate.directory().join("admin.sock");
    let curl = |method: &str, path: &str, body: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-X", method, "--unix-socket"]).arg(&socket).args(["-w", "\n%{http_code}"]);
        if !body.is_empty() {
            command.args(["-H", "Content-Type: application/json", "-d", body]);
        }
        let output = command.arg(format!("http://localhost{path}")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse::<u16>().unwrap(), serde_json::from_str::<Value>(body).unwrap())
    };
    let (host, port) = (backends[1].address().ip(), backends[1].address().port());
    let id = format!("{host}:{port}");

    // POST /api/servers {"host": "10.0.0.14", "port": 8080, "weight": 2}
    let server = format!("{{\"host\": \"{host}\", \"port\": {port}, \"weight\": 2}}");
    let (status, added) = curl("POST", "/api/servers", &server);
    assert_eq!((status, &added["success"]), (201, &json!(true)), "{added}");
    let data = &added["data"];
    assert_eq!((&data["host"], &data["port"], &data["weight"]), (&json!(host.to_string()), &json!(port), &json!(2)));
    assert_eq!((&data["id"], &data["pool"]), (&json!(format!("p/{id}")), &json!("p")));
    let (status, again) = curl("POST", "/api/servers", &server);
    assert_eq!((status, &again["success"], &again["data"]["weight"]), (200, &json!(true), &json!(2)));
    let (_, list) = curl("GET", "/api/servers", "");
    assert_eq!(list["data"].as_array().unwrap().len(), 2);

    // PUT /api/servers/ID/weight {"weight": 5}, by host and port, and by what the list calls id
    for (id, weight) in [(id.clone(), 5), (format!("p%2F{id}"), 6)] {
        let body = format!("{{\"weight\": {weight}}}");
        let (status, set) = curl("PUT", &format!("/api/servers/{id}/weight"), &body);
        assert_eq!((status, &set["success"], &set["data"]["weight"]), (200, &json!(true), &json!(weight)), "{set}");
    }
    assert_eq!(tidegate.resource(&format!("/api/pools/p/backends/{id}"))["weight"], 6);

    // PUT /api/algorithm {"algorithm": "least-connections"}
    for (word, own) in [
        ("least-connections", "least_connections"),
        ("ip-hash", "ip_hash"),
        ("weighted", "round_robin"),
        ("random", "random"),
        ("round-robin", "round_robin"),
    ] {
        let (status, set) = curl("PUT", "/api/algorithm", &format!("{{\"algorithm\": \"{word}\"}}"));
        assert_eq!((status, &set["success"], &set["data"]["algorithm"]), (200, &json!(true), &json!(own)), "{set}");
        assert_eq!(tidegate.resource("/api/pools/p")["balance"], own);
    }

    // DELETE /api/servers/ID
    let (status, removed) = curl("DELETE", &format!("/api/servers/{id}"), "");
    assert_eq!((status, &removed["success"], &removed["data"]["id"]), (200, &json!(true), &json!(format!("p/{id}"))));
    let (_, list) = curl("GET", "/api/servers", "");
    assert_eq!(list["data"].as_array().unwrap().len(), 1);

    let dead = Dead::start();
    for (method, path, body, status) in [
        ("DELETE", format!("/api/servers/{id}"), String::new(), 404),
        ("PUT", "/api/servers/nobody/weight".to_owned(), "{\"weight\": 1}".to_owned(), 404),
        ("PUT", "/api/servers/a/weight".to_owned(), "{\"weight\": 1001}".to_owned(), 422),
        ("PUT", "/api/servers/a/weight".to_owned(), "{\"wait\": 1}".to_owned(), 400),
        ("PUT", "/api/algorithm".to_owned(), "{\"algorithm\": \"fair\"}".to_owned(), 422),
        ("POST", "/api/servers".to_owned(), "{\"host\": \"127.0.0.1\"}".to_owned(), 400),
        ("POST", "/api/servers".to_owned(), format!("{{\"host\": \"{}\", \"port\": 99999}}", dead.address().ip()), 400),
    ] {
        let (refused, problem) = curl(method, &path, &body);
        assert_eq!((refused, &problem["success"]), (status, &json!(false)), "{method} {path} {body}: {problem}");
        assert!(problem["error"].is_string(), "{problem}");
    }
}
