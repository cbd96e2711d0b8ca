//! The calls of plain HTTP balancers.

use super::*;

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
