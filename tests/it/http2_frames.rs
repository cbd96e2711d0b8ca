//! HTTP/2 of `protocol: http`, frame by frame: what a client may not do, and what it costs.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::backend::Scripted;
use crate::support::client::{connect, read_to_end};
use crate::support::proc;
use crate::support::tidegate::{Tidegate, forward};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types and flags of RFC 9113, 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

// Codes of RFC 9113, 7.
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is in no table (RFC 7541, 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| match text.len() {
        short @ 0..127 => [&[short as u8][..], text.as_bytes()].concat(),
        long => {
            let mut bytes = vec![127];
            let mut rest = long - 127;
            while rest >= 128 {
                bytes.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            bytes.push(rest as u8);
            [&bytes, text.as_bytes()].concat()
        }
    };
    [&[0][..], &text(name), &text(value)].concat()
}

/// `GET /`, plain, for `a`, and more fields.
fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<u8> = more.iter().flat_map(|(name, value)| literal(name, value)).collect();
    [&[0x82, 0x86, 0x84][..], &literal(":authority", "a"), &fields].concat()
}

/// A frame of the server.
#[derive(Debug)]
struct Received {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Received {
    fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

struct Http2(TcpStream);

impl Http2 {
    fn open(tidegate: &Tidegate) -> Http2 {
        let mut client = connect(&tidegate.at("in"));
        client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
        Http2(client)
    }

    /// Writes as far as the server reads: it may have had enough.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    fn receive(&mut self) -> Option<Received> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Received { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that answers: no setting, ping or window.
    fn answer(&mut self) -> Option<Received> {
        loop {
            let frame = self.receive()?;
            if !matches!(frame.kind, SETTINGS | PING | WINDOW_UPDATE) {
                return Some(frame);
            }
        }
    }

    /// The code with which the server ends the connection; `None` where it closes without one.
    fn goaway(&mut self) -> Option<u32> {
        loop {
            let frame = self.receive()?;
            if frame.kind == GOAWAY && frame.code() != 0 {
                return Some(frame.code());
            }
        }
    }
}

fn start() -> (Scripted, Tidegate) {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), "protocol: http", "")));
    (scripted, tidegate)
}

fn serve(scripted: &Scripted) {
    let mut backend = scripted.accept();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        backend.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
}

#[test]
fn malformed_requests_are_errors_of_their_stream() {
    let (scripted, tidegate) = start();
    let end = END_HEADERS | END_STREAM;
    let without = |field: u8| [0x82, 0x86, 0x84].into_iter().filter(|it| *it != field).collect::<Vec<u8>>();
    let cases: [(&str, Vec<u8>); 8] = [
        ("Connection", get(&[("connection", "close")])),
        ("Transfer-Encoding", get(&[("transfer-encoding", "chunked")])),
        ("Upgrade", get(&[("upgrade", "h2c")])),
        ("TE", get(&[("te", "gzip")])),
        ("upper case", get(&[("X-A", "b")])),
        ("pseudo field after fields", get(&[("a", "b"), (":path", "/x")])),
        ("unknown pseudo field", get(&[(":x", "y")])),
        ("no method", without(0x82)),
    ];
    for (what, fields) in cases {
        let mut client = Http2::open(&tidegate);
        client.send(&frame(HEADERS, end, 1, &fields));
        let answer = client.answer().unwrap_or_else(|| panic!("{what}: an answer"));
        assert!(matches!(answer.kind, RST_STREAM | GOAWAY), "{what}: {answer:?}");
        assert_eq!(answer.code(), PROTOCOL_ERROR, "{what}");
    }
    // A client that can be answered is.
    let mut client = Http2::open(&tidegate);
    client.send(&frame(HEADERS, end, 1, &without(0x84)));
    let answer = client.answer().unwrap();
    assert_eq!((answer.kind, answer.payload[0]), (HEADERS, 0x8c), "400 without a path: {answer:?}");
    let mut client = Http2::open(&tidegate);
    client.send(&frame(HEADERS, end, 1, &get(&[("host", "b")])));
    let answer = client.answer().unwrap();
    assert_eq!((answer.kind, answer.stream, answer.payload[0]), (HEADERS, 1, 0x8c), "400 with two hosts: {answer:?}");
    // The connection goes on.
    client.send(&frame(HEADERS, end, 3, &get(&[("te", "trailers")])));
    serve(&scripted);
    let answer = loop {
        let answer = client.answer().unwrap();
        if answer.stream == 3 {
            break answer;
        }
    };
    assert_eq!((answer.kind, answer.payload[0]), (HEADERS, 0x88), "200: {answer:?}");
}

#[test]
fn streams_above_the_limit_are_refused() {
    let (_scripted, tidegate) = start();
    let mut client = Http2::open(&tidegate);
    for stream in 0..101 {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &get(&[])));
    }
    let answer = client.answer().unwrap();
    assert_eq!((answer.kind, answer.stream, answer.code()), (RST_STREAM, 201, REFUSED_STREAM), "{answer:?}");
}

/// CVE-2023-44487: streams that are reset at once cost the client nothing and the server a request each.
#[test]
fn rapid_resets_end_the_connection() {
    let (_scripted, tidegate) = start();
    let mut client = Http2::open(&tidegate);
    let mut burst = Vec::new();
    for stream in 0..2000_u32 {
        burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &get(&[])));
        burst.extend(frame(RST_STREAM, 0, 2 * stream + 1, &8_u32.to_be_bytes()));
    }
    client.send(&burst);
    assert_eq!(client.goaway(), Some(ENHANCE_YOUR_CALM));
}

/// CVE-2025-8671: the client has the server reset its streams.
#[test]
fn streams_that_the_client_has_reset_end_the_connection() {
    let (_scripted, tidegate) = start();
    let mut client = Http2::open(&tidegate);
    let mut burst = Vec::new();
    for stream in 0..2000_u32 {
        burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &get(&[])));
        burst.extend(frame(WINDOW_UPDATE, 0, 2 * stream + 1, &0x7fff_ffff_u32.to_be_bytes()));
    }
    client.send(&burst);
    assert_eq!(client.goaway(), Some(ENHANCE_YOUR_CALM));
}

/// CVE-2024-27316 and its kind: a head without an end.
#[test]
fn endless_head_ends_the_connection() {
    let (_scripted, tidegate) = start();
    let mut client = Http2::open(&tidegate);
    client.send(&frame(HEADERS, END_STREAM, 1, &get(&[])));
    let part = frame(CONTINUATION, 0, 1, &literal("a", &"b".repeat(10_000)));
    let mut sent = 0;
    while sent < 10_000 && client.send(&part) {
        sent += 1;
    }
    assert!(sent < 10_000, "it was never refused");
    assert!(proc::peak(tidegate.pid()) < 200 << 20, "{}", proc::peak(tidegate.pid()));
}

#[test]
fn head_above_the_limit_is_refused() {
    let (_scripted, tidegate) = start();
    let mut client = Http2::open(&tidegate);
    client.send(&frame(HEADERS, END_STREAM, 1, &get(&[("a", &"b".repeat(12_000))])));
    for part in 0..6 {
        let flags = if part == 5 { END_HEADERS } else { 0 };
        client.send(&frame(CONTINUATION, flags, 1, &literal("a", &"b".repeat(12_000))));
    }
    let answer = client.answer().unwrap();
    // 431 as a literal, packed as in RFC 7541, appendix B.
    assert_eq!((answer.kind, &*answer.payload), (HEADERS, &[0x48, 0x83, 0x69, 0x90, 0xff][..]));
}

/// RUSTSEC-2026-0258.
#[test]
fn empty_data_frames_end_the_connection() {
    let (_scripted, tidegate) = start();
    let mut client = Http2::open(&tidegate);
    client.send(&frame(HEADERS, END_HEADERS, 1, &get(&[])));
    let burst = frame(DATA, 0, 1, &[]).repeat(1000);
    let mut sent = 0;
    while sent < 200 && client.send(&burst) {
        sent += 1;
    }
    assert!(proc::peak(tidegate.pid()) < 200 << 20, "{}", proc::peak(tidegate.pid()));
    assert_eq!(client.goaway(), Some(ENHANCE_YOUR_CALM));
}

/// Answers to pings and settings that the client does not read do not pile up.
#[test]
fn unread_answers_take_no_memory() {
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[])] {
        let (_scripted, tidegate) = start();
        let mut client = Http2::open(&tidegate);
        client.0.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        let burst = frame(kind, 0, 0, payload).repeat(10_000);
        let mut sent = 0;
        while sent < 300 && client.send(&burst) {
            sent += 1;
        }
        let peak = proc::peak(tidegate.pid());
        assert!(peak < 100 << 20, "{peak} bytes after {sent} bursts of {kind}");
    }
}

/// A backend of HTTP/2, whose idle connection is closed too.
#[test]
fn idle_connection_to_a_backend_is_closed_after_its_timeout() {
    let scripted = Scripted::start();
    let pool = "http: { version: 2, idle_timeout: 100ms }";
    let tidegate = Tidegate::start(&format!("workers: 1\n{}", forward(scripted.place(), "protocol: http", pool)));
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut backend = Http2(scripted.accept());
    let mut preface = [0; PREFACE.len()];
    backend.0.read_exact(&mut preface).unwrap();
    assert_eq!(preface, PREFACE);
    let request = backend.answer().unwrap();
    assert_eq!(request.kind, HEADERS);
    backend.send(&frame(SETTINGS, 0, 0, &[]));
    backend.send(&frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &[0x88]));
    let mut status = [0; 12];
    client.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    // It panics where nothing ends.
    read_to_end(&mut backend.0);
}

#[test]
fn own_answer_to_head_has_no_body() {
    let tidegate = Tidegate::start(&forward("127.0.0.1:1", "protocol: http", ""));
    let mut client = Http2::open(&tidegate);
    let fields = [&literal(":method", "HEAD")[..], &[0x86, 0x84], &literal(":authority", "a")].concat();
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields));
    let answer = client.answer().unwrap();
    assert_eq!((answer.kind, answer.stream, answer.flags & END_STREAM), (HEADERS, 1, END_STREAM), "{answer:?}");
}

#[test]
fn padded_values_are_refused() {
    let (_scripted, tidegate) = start();
    let mut client = Http2::open(&tidegate);
    for (stream, value) in [(1, " 1"), (3, "1 "), (5, "1\t")] {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(&[("x-debug", value)])));
        let answer = client.answer().unwrap();
        assert_eq!((answer.kind, answer.stream), (HEADERS, stream));
        // 400 of the static table (RFC 7541, appendix A).
        assert_eq!(answer.payload[0], 0x8c, "{answer:?}");
        let body = client.answer().unwrap();
        assert_eq!(body.kind, DATA);
        assert!(String::from_utf8_lossy(&body.payload).contains("white space"), "{body:?}");
    }
}
