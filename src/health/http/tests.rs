//! Answers as a table, each taken whole, in single bytes and in halves.

use proptest::prelude::*;

use super::*;

fn check(body: Option<&str>) -> HttpCheck {
    HttpCheck {
        path: "/health".into(),
        method: "GET".into(),
        host: None,
        status: 200..=399,
        body: body.map(str::to_owned),
    }
}

/// The outcome when the answer comes in parts of this size and then the connection is closed: empty, or the reason.
fn outcome(check: &HttpCheck, answer: &[u8], part: usize) -> String {
    let mut state = Answer::new(check);
    for part in answer.chunks(part) {
        match state.take(part) {
            Ok(true) => return String::new(),
            Ok(false) => {}
            Err(Failure::Theirs(reason) | Failure::Ours(reason)) => return reason,
        }
    }
    match state.end() {
        Failure::Theirs(reason) | Failure::Ours(reason) => reason,
    }
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
        ("HTTP/1.1 200 OK\r\n{", "answer is not HTTP"),
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
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "answer is not HTTP"),
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
    expect(&check(None), &with(b"A: bbbbbbbbbbbbbbbbbbbb\r\n", 9_000), "head has more than 100 fields");
    expect(&check(None), &with(b"Aaaaaaa", 9_000), "head is longer than 16 KiB");
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
fn the_request() {
    let tcp = Address::Tcp(([10, 0, 0, 1], 80).into());
    let sent = request(&tcp, &check(None));
    assert!(sent.starts_with("GET /health HTTP/1.1\r\nHost: 10.0.0.1:80\r\n"), "{sent}");
    assert!(sent.ends_with("\r\nConnection: close\r\n\r\n"), "{sent}");
    let named = HttpCheck { host: Some("shop.example".into()), ..check(None) };
    assert!(request(&tcp, &named).contains("\r\nHost: shop.example\r\n"));
    assert!(request(&Address::Unix(Default::default()), &check(None)).contains("Host: localhost\r\n"));
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
