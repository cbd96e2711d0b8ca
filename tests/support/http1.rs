//! HTTP/1.1 by hand, with a listener of `protocol: http`.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::backend::{Backend, in_thread};
use super::tidegate::Tidegate;

/// The key of a listener.
pub(crate) const HTTP: &str = "protocol: http";

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A request's or response's head, its end included.
pub(crate) fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("after {:?}: {error}", String::from_utf8_lossy(&bytes)));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// The status and the body of a response that has a length.
pub(crate) fn response(stream: &mut TcpStream) -> (u16, String) {
    let head = head(stream).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

pub(crate) fn get(client: &mut TcpStream, path: &str) {
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n").as_bytes()).unwrap();
}

/// Answers each request on a connection that it keeps with its name.
pub(crate) fn kept(name: &'static str) -> Backend {
    Backend::start(in_thread(move |mut stream: TcpStream| {
        let mut bytes = Vec::new();
        loop {
            let mut byte = [0];
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            bytes.push(byte[0]);
            if bytes.ends_with(b"\r\n\r\n") {
                bytes.clear();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }
    }))
}

pub(crate) fn pool(backends: &[&Backend], pool: &str) -> String {
    let list: Vec<String> = backends.iter().map(|backend| format!("{{ address: \"{}\" }}", backend.place())).collect();
    format!("- {{ name: p, backends: [{}], {pool} }}", list.join(", "))
}

pub(crate) fn start(backends: &[&Backend], listener: &str, keys: &str) -> Tidegate {
    let pool = pool(backends, keys);
    Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {HTTP}, {listener} }}]\npools:\n  {pool}\n"
    ))
}
