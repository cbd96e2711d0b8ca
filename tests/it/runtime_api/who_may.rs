//! Who may change something over TCP.

use super::*;

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
