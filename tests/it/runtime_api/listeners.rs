//! Listeners: their state, and how it is shown.

use super::*;

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
