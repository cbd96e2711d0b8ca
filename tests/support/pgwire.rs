//! Messages of the PostgreSQL protocol, for scripted clients and backends.

use std::collections::BTreeMap;
use std::io::Read;

pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
pub(crate) const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// A StartupMessage of this version, for the user and the database postgres.
pub(crate) fn startup(major: u16, minor: u16) -> Vec<u8> {
    let version = [major.to_be_bytes(), minor.to_be_bytes()].concat();
    with_length(&[&version, &b"user\0postgres\0database\0postgres\0\0"[..]].concat())
}

/// A CancelRequest with what a BackendKeyData has said.
pub(crate) fn cancel(key: &[u8]) -> Vec<u8> {
    with_length(&[&[0x04, 0xd2, 0x16, 0x2e], key].concat())
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    [&b"Q"[..], &with_length(&[sql.as_bytes(), b"\0"].concat())].concat()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

/// The next message: its type, and its body.
pub(crate) fn read_message(from: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    from.read_exact(&mut head).unwrap_or_else(|error| panic!("instead of a message: {error}"));
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length);
    assert!((4..100_000).contains(&length), "a message {kind} of {length} bytes");
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body).unwrap_or_else(|error| panic!("instead of the rest of a message {kind}: {error}"));
    (kind, body)
}

/// The messages up to ReadyForQuery.
pub(crate) fn until_ready(from: &mut impl Read) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    loop {
        let message = read_message(from);
        assert_ne!(message.0, b'E', "{:?}", fields(&message.1));
        let is_last = message.0 == b'Z';
        messages.push(message);
        if is_last {
            return messages;
        }
    }
}

/// An ErrorResponse's fields.
pub(crate) fn read_error(from: &mut impl Read) -> BTreeMap<char, String> {
    let (kind, body) = read_message(from);
    assert_eq!(char::from(kind), 'E', "{body:?}");
    fields(&body)
}

fn fields(body: &[u8]) -> BTreeMap<char, String> {
    let parts = body.split(|&byte| byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| (char::from(part[0]), String::from_utf8_lossy(&part[1..]).into_owned())).collect()
}
