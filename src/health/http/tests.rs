//! Answers as a table, each taken whole, in single bytes and in halves.

use proptest::prelude::*;

use super::*;
use crate::config::model::Header;
use crate::health::failure;

fn check(body: Option<&str>) -> HttpCheck {
    HttpCheck {
        path: "/health".to_owned().into(),
        method: "GET".into(),
        host: None,
        headers: Vec::new().into(),
        status: 200..=399,
        body: body.map(|body| body.as_bytes().to_vec().into()),
        tls: None,
    }
}

/// The outcome when the answer comes in parts of this size and then the connection is closed: empty, or the reason.
fn outcome(check: &HttpCheck, answer: &[u8], part: usize) -> String {
    let mut state = ResponseParser::new(check);
    for part in answer.chunks(part) {
        match state.take(part) {
            Ok(true) => return String::new(),
            Ok(false) => {}
            Err(failure) => return failure::reason(failure),
        }
    }
    failure::reason(state.end())
}

fn expect(check: &HttpCheck, answer: &[u8], expected: &str) {
    for part in [1, 2, 3, 7, 64, answer.len().max(1)] {
        let name = String::from_utf8_lossy(&answer[..answer.len().min(100)]);
        assert_eq!(outcome(check, answer, part), expected, "{name} in parts of {part}");
    }
}

#[test]
fn statuses() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", ""),
        ("HTTP/1.0 399\r\nA: b\r\n\r\nrest", ""),
        ("HTTP/1.1 200 OK\nA: b\n\n", ""),
        ("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n", "status 503"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n", ""),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 X\r\n\r\n", "status 500"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "status 101"),
        ("", "closed without an answer"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", "closed in the middle of the answer's head"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "closed in the middle of the answer's head"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "answer is not HTTP"),
        ("\x15\x03\x01\x00\x02\x02", "answer is not HTTP"),
        ("-ERR unknown command\r\n", "answer is not HTTP"),
        ("HTTP/1.1 200 OK\r\n{", "closed in the middle of the answer's head"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        ("HTTP/1.1 20 OK\r\n\r\n", "answer is not HTTP"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "answer is not HTTP"),
        ("HTTP/1.1\r\n\r\n", "answer is not HTTP"),
        ("HTTP/2 200\r\n\r\n", "answer is not HTTP"),
        ("HTTP/1.1 two hundred\r\n\r\n", "answer is not HTTP"),
    ] {
        expect(&check(None), answer.as_bytes(), expected);
    }
}

#[test]
fn bodies() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n";
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n... status: ok ...", ""),
        ("HTTP/1.1 200 OK\r\n\r\nstatus: bad", "body lacks \"us: ok\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nstatus: ok", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nstatus: ok", "body lacks \"us: ok\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "body lacks \"us: ok\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Content-Length of the answer is \"x\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9, 10\r\n\r\n", "Content-Length of the answer is \"9, 10\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 10\r\n\r\nstatus: ok", ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip,\r\n chunked\r\n\r\n6\r\nus: ok\r\n", ""),
        ("HTTP/1.1 500 Oh\r\n\r\nstatus: ok", "status 500"),
        ("HTTP/1.1 204 OK\r\n\r\nstatus: ok", "body lacks \"us: ok\""),
        (&format!("{chunked}5\r\nstatu\r\n05;x=y\r\ns: ok\r\n0\r\n\r\n"), ""),
        (&format!("{chunked}A\r\nstatus: ok\r\n"), ""),
        (&format!("{chunked}5\r\nstatu\r\n0\r\n\r\ns: ok"), "body lacks \"us: ok\""),
        (&format!("{chunked}5\nstatu\n5\ns: ok\n0\n\n"), ""),
        (&format!("{chunked}z\r\n"), "chunks of the body are malformed"),
        (&format!("{chunked}\r\n"), "chunks of the body are malformed"),
        (&format!("{chunked}2\r\nokok\r\n"), "chunks of the body are malformed"),
        (&format!("{chunked}fffffffff\r\n"), "chunks of the body are malformed"),
    ] {
        expect(&check(Some("us: ok")), answer.as_bytes(), expected);
    }
    let head = HttpCheck { method: "HEAD".into(), ..check(Some("ok")) };
    expect(&head, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "body lacks \"ok\"");
}

#[test]
fn what_never_ends_is_bounded() {
    let line = b"HTTP/1.1 200 OK\r\n".to_vec();
    let with = |more: &[u8], times: usize| [line.clone(), more.repeat(times)].concat();
    for endless in [&b"A: bbbbbbbbbbbbbbbbbbbb\r\n"[..], b"Aaaaaaa"] {
        expect(&check(None), &with(endless, 9_000), "");
        expect(&check(Some("ok")), &with(endless, 9_000), "head is longer than 16 KiB");
    }
    expect(&check(None), &b"HTTP/1.1 200 ".repeat(9_000), "head is longer than 16 KiB");
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(9_000);
    expect(&check(None), &interim, "head is longer than 16 KiB");
    let body = [b"\r\n".to_vec(), b"endless ".repeat(9_000)].concat();
    expect(&check(Some("ok")), &with(&body, 1), "body lacks \"ok\" in its first 64 KiB");
    let chunks = [b"Transfer-Encoding: chunked\r\n\r\n".to_vec(), b"1\r\nx\r\n".repeat(20_000)].concat();
    expect(&check(Some("ok")), &with(&chunks, 1), "body lacks \"ok\" in its first 64 KiB");
    let extension = [b"Transfer-Encoding: chunked\r\n\r\n1;".to_vec(), b"x".repeat(70_000)].concat();
    expect(&check(Some("ok")), &with(&extension, 1), "body lacks \"ok\" in its first 64 KiB");
}

#[test]
fn a_long_head_right_before_its_body() {
    // The head ends where its limit does, and the body comes in the same read.
    let field = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(MAX_HEAD - 24));
    assert_eq!(field.len(), MAX_HEAD);
    expect(&check(Some("ok")), format!("{field}ok").as_bytes(), "");
    expect(&check(Some("ok")), format!("{field}no").as_bytes(), "body lacks \"ok\"");
}

#[test]
fn an_odd_header_matters_only_where_the_body_is_asked_for() {
    for odd in ["X Bad: y", "no colon", ": no name", "Content-Length : 2", "X: a\x01b", "Caf\u{e9}: y", "Server: \0"] {
        let answer = format!("HTTP/1.1 200 OK\r\nA: b\r\n{odd}\r\nC: d\r\n\r\nok");
        expect(&check(None), answer.as_bytes(), "");
        let quoted = odd.as_bytes().escape_ascii();
        expect(&check(Some("ok")), answer.as_bytes(), &format!("answer has a malformed header: \"{quoted}\""));
    }
    let folded = "HTTP/1.1 200 OK\r\n A: b\r\n\r\nok";
    expect(&check(Some("ok")), folded.as_bytes(), "answer has a malformed header: \" A: b\"");
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\nok", "Set-Cookie: a=b\r\n".repeat(500));
    expect(&check(Some("ok")), many.as_bytes(), "");
    expect(&check(Some("ok")), "HTTP/1.1 200 Grüße\r\nX: \u{e9}\r\n\r\nok".as_bytes(), "");
}

#[test]
fn the_request() {
    let sent = |check: &HttpCheck| String::from_utf8(request("shop.example:8080", check)).unwrap();
    assert_eq!(
        sent(&check(None)),
        "GET /health HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: tidegate\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
    let headers = vec![header("Authorization", "Bearer abc"), header("user-agent", "probe")];
    assert_eq!(
        sent(&HttpCheck { headers: headers.into(), ..check(None) }),
        "GET /health HTTP/1.1\r\nHost: shop.example:8080\r\nAccept: */*\r\nAuthorization: Bearer abc\r\n\
         user-agent: probe\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn the_host_is_the_configured_one() {
    let name = |host: &str| BackendAddress::Name { host: host.into(), port: 1 };
    let own = |address: &str| BackendAddress::Ip(address.parse().unwrap());
    for (configured, probed, expected) in [
        (name("db.example"), "10.0.0.1:8080", "db.example:8080"),
        (name("db.example."), "10.0.0.1:80", "db.example"),
        (own("10.0.0.1:80"), "10.0.0.1:80", "10.0.0.1"),
        (own("10.0.0.1:80"), "10.0.0.1:9000", "10.0.0.1:9000"),
        (own("[2001:db8::1]:80"), "[2001:db8::1]:80", "[2001:db8::1]"),
        (own("[fe80::1%3]:80"), "[fe80::1%3]:81", "[fe80::1]:81"),
    ] {
        let probed = Address::Tcp(probed.parse().unwrap());
        assert_eq!(host(&check(None), &configured, &probed), expected);
        let named = HttpCheck { host: Some("shop.example".to_owned().into()), ..check(None) };
        assert_eq!(host(&named, &configured, &probed), "shop.example");
    }
    let unix = BackendAddress::Unix("/s".into());
    assert_eq!(host(&check(None), &unix, &Address::Unix(Default::default())), "localhost");
}

proptest! {
    /// Nothing that comes makes it panic, and how it is cut into parts makes no difference.
    #[test]
    fn parts_make_no_difference(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        start in prop::sample::select(&[
            "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n",
        ][..]),
        part in 1..50_usize,
    ) {
        let answer = [start.as_bytes(), &noise].concat();
        let check = check(Some("o"));
        prop_assert_eq!(outcome(&check, &answer, part), outcome(&check, &answer, 1));
    }

    #[test]
    fn finds_what_is_there(body in "[ab]{0,60}", text in "[ab]{1,4}", part in 1..9_usize, size in 1..9_usize) {
        let check = check(Some(&text));
        let chunks: String = body.as_bytes().chunks(size)
            .map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)))
            .collect();
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        let found = outcome(&check, answer.as_bytes(), part).is_empty();
        prop_assert_eq!(found, body.contains(&text));
    }
}
