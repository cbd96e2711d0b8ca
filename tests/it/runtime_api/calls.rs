//! What each call does and answers.

use super::*;

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
