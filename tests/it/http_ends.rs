//! `protocol: http`: what must come whole, and whose fault it is where it does not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::backend::{Backend, Scripted, in_thread};
use crate::support::client::{End, connect, read_to_end, reset};
use crate::support::http1::{HTTP, OK, get, head, response};
use crate::support::stats::{ADMIN_SOCKET, counters};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, tls_backend};
use crate::support::{DEADLINE, eventually};

/// Answers each request with a body of as many bytes as its path says, in one chunk.
fn long() -> Backend {
    Backend::start(in_thread(move |mut stream| {
        let bytes: usize = head(&mut stream)[5..].split(' ').next().unwrap().parse().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n");
        let _ = stream.write_all(&[head.as_bytes(), &vec![b'x'; bytes], b"\r\n0\r\n\r\n"].concat());
    }))
}

/// Of some of these responses, a part is in hyper's buffer, beyond what the sockets take, when what comes behind their requests is refused.
#[test]
fn refusal_comes_after_the_whole_response_that_its_client_reads_late() {
    let backend = long();
    let http = format!("{HTTP}, http: {{ head_timeout: 1s }}");
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}workers: 1\n{}", forward(backend.place(), &http, "")));
    let ask = |bytes: usize, behind: &str| {
        // Set before the connect, it does not grow.
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&tidegate.at("in").tcp().into()).unwrap();
        let mut client = TcpStream::from(client);
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(format!("GET /{bytes} HTTP/1.1\r\nHost: a\r\n\r\n{behind}").as_bytes()).unwrap();
        client
    };
    let stalled = || {
        let mut before = 0;
        eventually(DEADLINE, "the sockets have what they take", || {
            // Longer than the age of a snapshot.
            thread::sleep(Duration::from_millis(1_500));
            let now = tidegate.view().listeners[0].bytes_out;
            now > 0 && now == std::mem::replace(&mut before, now)
        });
        before as usize
    };
    let endless = ask(64 << 20, "");
    let taken = stalled();
    drop(endless);
    let refused = [("GET / HT", 408), ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400)];
    let clients: Vec<_> = (1..=4)
        .flat_map(|step| refused.map(|(behind, status)| (taken + step * 20_000, behind, status)))
        .map(|(bytes, behind, status)| (ask(bytes, behind), bytes, status))
        .collect();
    stalled();
    for (mut client, bytes, status) in clients {
        head(&mut client);
        let (all, _) = read_to_end(&mut client);
        let text = String::from_utf8(all).unwrap();
        let (body, refusal) = text.split_at(text.find("HTTP/1.1 ").unwrap_or(text.len()));
        assert_eq!(body.matches('x').count(), bytes);
        assert!(refusal.starts_with(&format!("HTTP/1.1 {status} ")), "{refusal}");
    }
}

#[test]
fn body_of_a_get_without_a_length_reaches_the_backend() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    for method in ["GET", "HEAD", "OPTIONS", "POST"] {
        let mut client = connect(&tidegate.at("in"));
        let request =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let mut backend = scripted.accept();
        let head = head(&mut backend);
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        let mut body = vec![0; "5\r\nhello\r\n0\r\n\r\n".len()];
        backend.read_exact(&mut body).unwrap();
        assert_eq!(body, b"5\r\nhello\r\n0\r\n\r\n");
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(response(&mut client).0, 200);
    }
}

#[test]
fn request_that_its_client_cuts_is_no_failure_of_the_backend() {
    let scripted = Scripted::start();
    let outlier = "outlier: { failures: 1, window: 10s, max_ejected: 100% }";
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}workers: 1\n{}", forward(scripted.place(), HTTP, outlier)));
    for resets in [false, true] {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        let mut backend = scripted.accept();
        head(&mut backend);
        crate::support::client::expect(&mut backend, b"abc");
        if resets {
            reset(client);
        } else {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
        }
        read_to_end(&mut backend);
    }
    eventually(DEADLINE, "both have ended", || tidegate.view().listeners[0].open == 0);
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    backend.write_all(OK).unwrap();
    assert_eq!(response(&mut client), (200, "ok".to_owned()));
    assert_eq!(counters(&tidegate.stats_port())["tidegate_backend_failures_total{pool=\"p\",backend=\"b\"}"], 0.0);
}

#[test]
fn body_that_its_client_does_not_send_ejects_no_backend() {
    let scripted = Scripted::start();
    let (http, outlier) = (
        format!("{HTTP}, http: {{ request_timeout: 1s }}"),
        "outlier: { failures: 1, window: 10s, http_5xx: true, max_ejected: 100% }",
    );
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), &http, outlier)));
    let post = |length: usize| {
        let mut client = connect(&tidegate.at("in"));
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc");
        client.write_all(request.as_bytes()).unwrap();
        let mut backend = scripted.accept();
        head(&mut backend);
        response(&mut client).0
    };
    assert_eq!([post(10), post(10)], [408, 408]);
    // It is late itself once it has all.
    assert_eq!(post(3), 504);
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    assert_eq!(response(&mut client).0, 503);
}

#[test]
fn target_without_a_path_keeps_its_query_and_http_1_0_needs_no_host() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    for (request, line) in [
        ("GET http://a?q=1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?q=1 HTTP/1.1"),
        ("GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1"),
    ] {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(request.as_bytes()).unwrap();
        let mut backend = scripted.accept();
        let head = head(&mut backend);
        assert!(head.starts_with(line), "{head}");
        assert_eq!(head.matches("\r\nhost:").count(), 1, "{head}");
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(response(&mut client).0, 200);
    }
}

#[test]
fn request_that_is_killed_without_a_response_is_reset() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}workers: 1\n{}", forward(scripted.place(), HTTP, "")));
    let mut client = connect(&tidegate.at("in"));
    get(&mut client, "/");
    let mut backend = scripted.accept();
    head(&mut backend);
    assert_eq!(tidegate.call("DELETE", "/api/connections?listener=in", "").status, 200);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
}

/// Without close_notify, the end may be anyone's on the way (RFC 9112, 9.8).
#[test]
fn end_of_tls_without_close_notify_is_no_end_of_a_response() {
    for says_so in [true, false] {
        let authority = Authority::new();
        let backend = tls_backend(authority.issue(&["db.example"]).server(), move |tls| {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                (&tls).read_exact(&mut byte).unwrap();
                bytes.push(byte[0]);
            }
            (&tls).write_all(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
            if says_so {
                tls.finish();
            } else {
                tls.socket().shutdown(Shutdown::Write).unwrap();
            }
        });
        let tls = format!("tls: {{ server_name: db.example, ca: {} }}", authority.file().display());
        let tidegate = Tidegate::start(&forward(backend.place(), HTTP, &tls));
        let mut client = connect(&tidegate.at("in"));
        get(&mut client, "/");
        if says_so {
            head(&mut client);
            let mut body = vec![0; b"3\r\nabc\r\n0\r\n\r\n".len()];
            client.read_exact(&mut body).unwrap();
            assert_eq!(body, b"3\r\nabc\r\n0\r\n\r\n");
        } else {
            let (bytes, end) = read_to_end(&mut client);
            assert_eq!(end, End::Reset);
            assert!(!bytes.ends_with(b"\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
