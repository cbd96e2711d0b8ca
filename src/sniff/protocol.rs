//! The protocol of a client, by its first bytes: several may share a port.

#![forbid(unsafe_code)]

use thiserror::Error;

use super::{Recognition, Start, http, postgres};
use crate::net::protocol::ClientProtocol;

/// Bytes of the longest beginning that is looked at: a request line of HTTP/1.
pub const MAX_BEGINNING: usize = http::MAX_HEAD;

/// The identification of an SSH client (RFC 4253, 4.2): `SSH-2.0-…`.
const SSH: &[u8] = b"SSH-";

/// The connection preface of HTTP/2 (RFC 9113, 3.4), up to where nothing else begins so.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Bytes of a PostgreSQL client's first message that tell what it is: its length, and the version or request.
const POSTGRES_HEAD: usize = 8;

/// Digits of the longest count of a command's arguments: Redis takes up to 1,048,576.
const MAX_COUNT_DIGITS: usize = 7;

/// The client's first bytes are those of another protocol, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("speaks another protocol than {}", list())]
pub struct UnknownProtocol;

fn list() -> String {
    ClientProtocol::ALL.map(ClientProtocol::name).join(", ")
}

/// Recognises the protocol. Whether what follows is well-formed does not matter.
pub fn recognise(bytes: &[u8]) -> Recognition<ClientProtocol, UnknownProtocol> {
    let candidates = [
        (ClientProtocol::Tls, tls(bytes)),
        (ClientProtocol::Ssh, Start::of(bytes, SSH)),
        (ClientProtocol::Redis, redis(bytes)),
        (ClientProtocol::Postgres, postgres(bytes)),
        (ClientProtocol::Http, http(bytes)),
    ];
    if let Some((protocol, _)) = candidates.iter().find(|(_, start)| *start == Start::Fits) {
        return Recognition::Yes(*protocol);
    }
    match candidates.iter().any(|(_, start)| *start == Start::FitsSoFar) {
        true => Recognition::one_more(bytes.len()),
        false => Recognition::No(UnknownProtocol),
    }
}

/// A handshake record of TLS 1.x (RFC 8446, 5.1): its type, and a version 3.0 to 3.4.
fn tls(bytes: &[u8]) -> Start {
    match bytes {
        [] | [0x16] | [0x16, 3] => Start::FitsSoFar,
        [0x16, 3, 0..=4, ..] => Start::Fits,
        _ => Start::Differs,
    }
}

/// An array of bulk strings, which is what clients send: `*1\r\n$4\r\nPING\r\n`. Lines of plain words are for terminals, and
/// other protocols have them too.
fn redis(bytes: &[u8]) -> Start {
    let Some((&first, rest)) = bytes.split_first() else { return Start::FitsSoFar };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (count, behind) = rest.split_at(digits);
    match (count, behind) {
        _ if first != b'*' || digits > MAX_COUNT_DIGITS => Start::Differs,
        (_, []) => Start::FitsSoFar,
        ([b'1'..=b'9', ..], behind) => Start::of(behind, b"\r\n$"),
        _ => Start::Differs,
    }
}

fn postgres(bytes: &[u8]) -> Start {
    match postgres::recognise(bytes) {
        Recognition::Yes(postgres::Opening::DirectTls) | Recognition::No(_) => Start::Differs,
        Recognition::Yes(_) => Start::Fits,
        Recognition::More(_) if bytes.len() >= POSTGRES_HEAD => Start::Fits,
        Recognition::More(_) => Start::FitsSoFar,
    }
}

fn http(bytes: &[u8]) -> Start {
    match Start::of(bytes, HTTP_2) {
        Start::Differs => {}
        start => return start,
    }
    match http::recognise_request_line(bytes) {
        Recognition::Yes(()) => Start::Fits,
        Recognition::More(_) => Start::FitsSoFar,
        Recognition::No(_) => Start::Differs,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ClientProtocol::{Http, Postgres, Redis, Ssh, Tls};
    use super::*;

    /// Beginnings, and how many of their bytes decide.
    const CASES: [(&[u8], Result<ClientProtocol, UnknownProtocol>, usize); 38] = [
        (b"\x16\x03\x01\x02\x00\x01", Ok(Tls), 3),
        (b"\x16\x03\x03\x00", Ok(Tls), 3),
        (b"\x16\x03\x05", Err(UnknownProtocol), 3),
        (b"\x16\x02\x00", Err(UnknownProtocol), 2),
        (b"\x80\x2e\x01\x03", Err(UnknownProtocol), 1),
        (b"\x15\x03\x01", Err(UnknownProtocol), 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Ok(Ssh), 4),
        (b"SSH-1.99-x", Ok(Ssh), 4),
        (b"SSH 2.0\r\n", Err(UnknownProtocol), 8),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", Ok(Http), 14),
        (b"POST /x HTTP/1.0\n", Ok(Http), 16),
        (b"SEARCH /x?y HTTP/1.1\r\n", Ok(Http), 20),
        (b"CONNECT a:443 HTTP/1.1\r\n", Ok(Http), 22),
        (b"\r\nGET / HTTP/1.1\r\n", Ok(Http), 16),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Ok(Http), 16),
        (b"PRI * HTTP/2.1\r\n", Err(UnknownProtocol), 14),
        (b"GET key\r\n", Err(UnknownProtocol), 8),
        (b"GET / HTTP/3.0\r\n", Err(UnknownProtocol), 12),
        (b"GET / FTP/1.0\r\n", Err(UnknownProtocol), 7),
        (b"HTTP/1.1 200 OK\r\n", Err(UnknownProtocol), 5),
        (b"EHLO example.com\r\n", Err(UnknownProtocol), 17),
        (b"*1\r\n$4\r\nPING\r\n", Ok(Redis), 5),
        (b"*1048576\r\n$3", Ok(Redis), 11),
        (b"*10485760\r\n", Err(UnknownProtocol), 10),
        (b"*0\r\n$", Err(UnknownProtocol), 3),
        (b"*-1\r\n", Err(UnknownProtocol), 4),
        (b"*2\r\n:1", Err(UnknownProtocol), 5),
        (b"*\r\n", Err(UnknownProtocol), 2),
        (b"PING\r\n", Err(UnknownProtocol), 5),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Ok(Postgres), 8),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x30", Ok(Postgres), 8),
        (b"\x00\x00\x00\x10\x04\xd2\x16\x2e", Ok(Postgres), 8),
        (b"\x00\x00\x00\x28\x00\x03\x00\x00user\0", Ok(Postgres), 8),
        (b"\x00\x00\x00\x28\x00\x03\x00\x02", Ok(Postgres), 8),
        (b"\x00\x00\x00\x28\x00\x02\x00\x00", Err(UnknownProtocol), 8),
        (b"\x00\x00\x00\x07\x00\x03\x00\x00", Err(UnknownProtocol), 4),
        (b"\x00\x01\x00\x00", Err(UnknownProtocol), 2),
        (b"\xff\xff", Err(UnknownProtocol), 1),
    ];

    #[test]
    fn protocol_is_known_by_as_few_bytes_as_tell_it_from_the_others() {
        for (bytes, wanted, decisive) in CASES {
            let text = bytes.escape_ascii();
            for length in 0..=bytes.len() {
                let wanted = match wanted {
                    _ if length < decisive => Recognition::one_more(length),
                    Ok(protocol) => Recognition::Yes(protocol),
                    Err(unknown) => Recognition::No(unknown),
                };
                assert_eq!(recognise(&bytes[..length]), wanted, "{text}, {length} bytes");
            }
        }
    }

    #[test]
    fn request_line_without_an_end_is_no_http() {
        let long = format!("GET /{}", "a".repeat(MAX_BEGINNING));
        assert_eq!(recognise(&long.as_bytes()[..MAX_BEGINNING - 1]), Recognition::one_more(MAX_BEGINNING - 1));
        assert_eq!(recognise(&long.as_bytes()[..MAX_BEGINNING]), Recognition::No(UnknownProtocol));
        assert_eq!(recognise(long.as_bytes()), Recognition::No(UnknownProtocol));
    }

    proptest! {
        /// Neither the portions nor what follows changes an answer, and nothing beyond the limit is asked for.
        #[test]
        fn answer_stays(
            (start, _, _) in prop::sample::select(&CASES[..]),
            kept in 0..24usize,
            more in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"GET /HTP1.\r\n*$"[..])], 0..40),
        ) {
            let bytes = [start.get(..kept).unwrap_or(start), &more].concat();
            let answers: Vec<_> = (0..=bytes.len()).map(|length| recognise(&bytes[..length])).collect();
            let first = answers.iter().position(|answer| !matches!(answer, Recognition::More(_)));
            if let Some(first) = first {
                prop_assert!(answers[first..].iter().all(|answer| *answer == answers[first]), "{answers:?}");
            }
        }
    }
}
