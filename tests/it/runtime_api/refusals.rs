//! What is refused, and what only shows what would happen.

use super::*;

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
