//! Backends that are removed or cut, with their connections.

use super::*;

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
