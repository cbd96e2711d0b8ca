//! `protocol: http`: each request is balanced by itself. What a backend and a client get, byte for byte.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::backend::{Backend, Scripted};
use crate::support::client::{End, connect, expect, read_to_end};
use crate::support::http1::{HTTP, OK, get, head, kept, pool, response};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

#[test]
fn requests_of_one_connection_go_to_the_backends_in_turn() {
    let backends = ["1", "2", "3"].map(kept);
    let tidegate = Tidegate::start(&format!(
        "workers: 1\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\npools:\n  {}\n",
        pool(&backends.each_ref(), "")
    ));
    let mut client = connect(&tidegate.at("in"));
    let mut served = String::new();
    for _ in 0..20 {
        get(&mut client, "/");
        served += &response(&mut client).1;
    }
    assert_eq!(served, "12312312312312312312");
    let connections: Vec<usize> = backends.iter().map(Backend::accepted).collect();
    assert_eq!(connections, [1, 1, 1], "connections to backends are kept");
}

#[test]
fn backend_gets_the_request_with_who_sent_it_and_no_hop_by_hop_fields() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    client
        .write_all(
            b"GET /a?b=c HTTP/1.1\r\nHost: a.example:80\r\nConnection: X-Secret, X-Real-IP, keep-alive\r\nKeep-Alive: 5\r\n\
              X-Secret: 1\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-For: 1.2.3.4\r\nProxy-Connection: close\r\nTE: gzip\r\n\
              traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX_Under: 1\r\n\r\n",
        )
        .unwrap();
    let mut backend = scripted.accept();
    let got = head(&mut backend).to_lowercase();
    let mut fields: Vec<&str> = got.trim_end().lines().collect();
    assert_eq!(fields.remove(0), "get /a?b=c http/1.1");
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "host: a.example:80",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "x-forwarded-for: 1.2.3.4, 127.0.0.1",
            "x-forwarded-host: a.example:80",
            "x-forwarded-proto: http",
            "x-real-ip: 127.0.0.1",
            "x_under: 1",
        ]
    );
    backend
        .write_all(
            b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Stays: 1\r\nContent-Length: 2\r\n\r\nok",
        )
        .unwrap();
    assert_eq!(head(&mut client).to_lowercase(), "http/1.1 200 ok\r\nx-stays: 1\r\ncontent-length: 2\r\n\r\n");
    expect(&mut client, b"ok");
}

/// A client that has sent FIN after its request waits for the answer.
#[test]
fn half_closed_client_gets_its_answer() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Fin));
}

/// A close-delimited answer ends as the backend ends it.
#[test]
fn answer_until_close_ends_with_the_backend() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap();
    drop(backend);
    head(&mut client);
    assert_eq!(read_to_end(&mut client), (b"until the end".to_vec(), End::Fin));
}

#[test]
fn body_waits_for_the_backend_where_the_client_does() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let mut client = connect(&tidegate.at("in"));
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(request).unwrap();
    let mut backend = scripted.accept();
    assert!(head(&mut backend).to_lowercase().contains("expect: 100-continue\r\n"));
    backend.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    assert_eq!(head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"abc").unwrap();
    expect(&mut backend, b"abc");
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client).0, 200);
    // A backend that wants no body says so, and the client never sends it.
    let mut client = connect(&tidegate.at("in"));
    client.write_all(request).unwrap();
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(response(&mut client).0, 413);
    assert_eq!(read_to_end(&mut client).1, End::Fin);
}

#[test]
fn answers_without_a_body_have_none() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let mut client = connect(&tidegate.at("in"));
    let mut backend = None;
    let cases = [
        ("HEAD", "200 OK\r\nContent-Length: 1000"),
        ("GET", "204 No Content"),
        ("GET", "304 Not Modified\r\nETag: \"a\""),
        ("GET", "200 OK\r\nContent-Length: 0"),
    ];
    for (method, answer) in cases {
        client.write_all(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let backend = backend.get_or_insert_with(|| scripted.accept());
        head(backend);
        backend.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(head(&mut client).to_lowercase(), format!("http/1.1 {answer}\r\n\r\n").to_lowercase());
    }
}

#[test]
fn switched_protocols_are_relayed() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), HTTP, ""));
    let upgrade = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = connect(&tidegate.at("in"));
    client.write_all(upgrade).unwrap();
    let mut backend = scripted.accept();
    let got = head(&mut backend).to_lowercase();
    assert!(got.contains("connection: upgrade\r\n") && got.contains("upgrade: websocket\r\n"), "{got}");
    // The first frame comes with the head.
    backend
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x01a")
        .unwrap();
    let got = head(&mut client).to_lowercase();
    assert!(got.starts_with("http/1.1 101 ") && got.contains("upgrade: websocket\r\n"), "{got}");
    expect(&mut client, b"\x82\x01a");
    for round in 0..3_u8 {
        client.write_all(&[0x82, 2, round, 0xff]).unwrap();
        expect(&mut backend, &[0x82, 2, round, 0xff]);
        backend.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        expect(&mut client, b"GET / HTTP/1.1\r\n\r\n");
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut backend), (Vec::new(), End::Fin));
    backend.write_all(b"bye").unwrap();
    drop(backend);
    assert_eq!(read_to_end(&mut client), (b"bye".to_vec(), End::Fin));
    // Bytes before the 101 are of neither protocol.
    let mut client = connect(&tidegate.at("in"));
    client.write_all(&[&upgrade[..], b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).unwrap();
    let mut backend = scripted.accept();
    head(&mut backend);
    backend
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .unwrap();
    assert_eq!(read_to_end(&mut backend).0, b"");
    // An unrequested switch.
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").unwrap();
    assert_eq!(response(&mut client).0, 502);
    // HTTP/2 behind tidegate would carry requests that no route has seen.
    let mut client = connect(&tidegate.at("in"));
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n")
        .unwrap();
    let mut backend = scripted.accept();
    let got = head(&mut backend).to_lowercase();
    assert!(!got.contains("upgrade") && !got.contains("http2-settings"), "{got}");
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client).0, 200);
    drop(backend);
    // One that is refused leaves HTTP as it was.
    let mut client = connect(&tidegate.at("in"));
    client.write_all(upgrade).unwrap();
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
}

#[test]
fn each_request_has_its_route() {
    let [shop, api, beta, other] = ["shop", "api", "beta", "other"].map(kept);
    let pools: Vec<String> = [("shop", &shop), ("api", &api), ("beta", &beta), ("other", &other)]
        .map(|(name, backend)| format!("  - {{ name: {name}, backends: [{{ address: \"{}\" }}] }}\n", backend.place()))
        .into();
    let tidegate = Tidegate::start(&format!(
        "listeners:\n  - name: in\n    bind: \"127.0.0.1:0\"\n    pool: other\n    protocol: http\n    routes:\n\
         \x20     - {{ match: {{ path: [/admin] }}, refuse: true }}\n\
         \x20     - {{ match: {{ host: [shop.example] }}, pool: shop }}\n\
         \x20     - {{ match: {{ path_prefix: [/api], header: {{ x-beta: \"1\" }} }}, pool: beta }}\n\
         \x20     - {{ match: {{ path_prefix: [/api], method: [GET, HEAD] }}, pool: api }}\n\
         pools:\n{}",
        pools.concat()
    ));
    let mut client = connect(&tidegate.at("in"));
    let cases = [
        ("GET / HTTP/1.1\r\nHost: Shop.Example:80\r\n", 200, "shop"),
        ("GET /api HTTP/1.1\r\nHost: a\r\n", 200, "api"),
        ("GET /api/x?y HTTP/1.1\r\nHost: a\r\n", 200, "api"),
        ("GET /apis HTTP/1.1\r\nHost: a\r\n", 200, "other"),
        ("DELETE /api HTTP/1.1\r\nHost: a\r\n", 200, "other"),
        ("DELETE /api HTTP/1.1\r\nHost: a\r\nX-Beta: 1\r\n", 200, "beta"),
        ("GET /api HTTP/1.1\r\nHost: a\r\nX-Beta: 2\r\n", 200, "api"),
        ("GET /admin?x HTTP/1.1\r\nHost: a\r\n", 403, "{\"error\":\"the route refuses this request\"}"),
        ("GET /admin/ HTTP/1.1\r\nHost: a\r\n", 200, "other"),
    ];
    for (request, status, body) in cases {
        client.write_all(format!("{request}\r\n").as_bytes()).unwrap();
        assert_eq!(response(&mut client), (status, body.to_owned()), "{request}");
    }
}

#[test]
fn cookie_keeps_a_client_with_its_backend() {
    let backends = ["1", "2", "3"].map(kept);
    let pool = pool(&backends.each_ref(), "persist: { by: cookie, name: tide }");
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"unix:DIRECTORY/admin.sock\" }}\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\npools:\n  {pool}\n"
    ));
    let mut client = connect(&tidegate.at("in"));
    let ask = |client: &mut TcpStream, cookie: &str| {
        client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n").as_bytes()).unwrap();
        let head = head(client).to_lowercase();
        let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: ").map(str::to_owned));
        let mut body = [0];
        client.read_exact(&mut body).unwrap();
        (char::from(body[0]), set)
    };
    let (first, set) = ask(&mut client, "a=b");
    let set = set.expect("a cookie");
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "path=/; httponly; samesite=lax");
    assert!(!set.contains("127.0.0.1"), "{set}");
    for _ in 0..6 {
        assert_eq!(ask(&mut client, &format!("a=b; {pair}; c=d")), (first, None));
    }
    // A value of another pool, or none at all.
    assert!(ask(&mut client, "tide=0123456789abcdef").1.is_some());
    // Its backend is gone: another, and another cookie.
    let place = backends[usize::from(first as u8 - b'1')].place().to_string();
    let ran = tidegate.command(&["maintenance", &format!("p/{place}"), "--admin", &tidegate.stats_port().to_string()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    eventually(DEADLINE, "another one", || {
        let (next, set) = ask(&mut client, pair);
        next != first && set.is_some_and(|set| !set.starts_with(pair))
    });
}

#[test]
fn each_request_has_an_access_line() {
    let backend = kept("ok");
    let pool = pool(&[&backend], "");
    let yaml = format!("listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP} }}]\npools:\n  {pool}\n");
    let tidegate = Tidegate::with(&yaml).log("{ format: json, access: stderr }").start();
    let mut client = connect(&tidegate.at("in"));
    client
        .write_all(b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nUser-Agent: t\"est\r\nReferer: /r\r\nTraceparent: 00-ab-cd-01\r\n\r\n")
        .unwrap();
    assert_eq!(response(&mut client).0, 200);
    let line = tidegate.wait_for_log("the request's line", |line| line.text.contains("\"target\""));
    let fields = ["method", "target", "host", "user_agent", "referer", "traceparent", "http_version", "backend"];
    let place = backend.place().to_string();
    assert_eq!(
        fields.map(|name| line.field(name)),
        ["GET", "/a?b", "a.example", "t\"est", "/r", "00-ab-cd-01", "HTTP/1.1", &place]
    );
    assert_eq!((line.number("status"), line.number("bytes_out")), (200, 2));
}
