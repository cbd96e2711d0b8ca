//! Whole configurations: how long they last, and how many are carried out at once.

use super::*;

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
