//! PostgreSQL's own TLS at a listener: `starttls: postgres`.

use std::io::{ErrorKind, Read, Write};

use super::authority::{Authority, Issued};
use super::client::Place;
use super::tidegate::{Tidegate, forward};

pub(crate) const NAME: &str = "db.example.test";
pub(crate) const ALPN: &[&str] = &["postgresql"];

/// The keys of a listener on which PostgreSQL's TLS ends.
pub(crate) fn starttls(files: &Issued, more: &str) -> String {
    format!("tls: {{ certificates: [{}], starttls: postgres, {more} }}", files.yaml())
}

/// A listener with a certificate for [`NAME`] and 127.0.0.1, in front of `to`.
pub(crate) fn in_front_of(to: &Place, more: &str) -> (Authority, Tidegate) {
    let authority = Authority::new();
    let listener = starttls(&authority.issue(&[NAME, "127.0.0.1"]), more);
    let tidegate = Tidegate::start(&forward(to, &listener, ""));
    (authority, tidegate)
}

#[track_caller]
pub(crate) fn wait_for_refusal(tidegate: &Tidegate, reason: &str) {
    let wanted = format!("client rejected: {reason}");
    let line = tidegate.wait_for_log(&wanted, |line| line.field("message") == wanted);
    assert_eq!((line.field("listener").as_str(), line.level().as_str()), ("in", "INFO"));
}

/// What is said comes back, and the end of it.
#[track_caller]
pub(crate) fn echoes<S: Read + Write>(mut client: super::authority::TlsOver<S>) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    client.conn.send_close_notify();
    client.flush().unwrap();
    match client.read(&mut answer) {
        Ok(0) => {}
        Ok(count) => panic!("{count} bytes more"),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => panic!("no close_notify"),
        Err(error) => panic!("{error}"),
    }
}
