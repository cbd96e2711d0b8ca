//! The first message of a PostgreSQL client ("Message Formats" of the frontend/backend protocol), and what is said to
//! one that asks for TLS, or that is refused.

#![forbid(unsafe_code)]

use thiserror::Error;

use super::Recognition;

/// Bytes of the longest first message: what PostgreSQL accepts (MAX_STARTUP_PACKET_LENGTH), and its length field.
pub const MAX_STARTUP_PACKET: usize = 10_000 + 4;

/// Bytes of the longest secret of a CancelRequest. PostgreSQL 17 and older have 4, 18 has 32.
const MAX_CANCEL_SECRET: usize = 256;

/// What asks a server for TLS.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The answer to SSLRequest with which TLS begins.
pub const ACCEPT_TLS: u8 = b'S';

/// The answer to SSLRequest and GSSENCRequest after which the client goes on in plain text, if it wants to.
pub const REFUSE: u8 = b'N';

const CANCEL: u32 = request(5678);
const SSL: u32 = request(5679);
const GSS_ENCRYPTION: u32 = request(5680);

/// Requests look like a version of the protocol that will never be.
const fn request(minor: u32) -> u32 {
    1234 << 16 | minor
}

/// How a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Asks whether TLS is spoken: 8 bytes. Accept only if nothing followed them: plain text after the
    /// request could be an attacker's (CVE-2021-23214).
    SslRequest,
    /// Asks whether GSSAPI encryption is spoken: 8 bytes. After a refusal comes another first message.
    GssEncRequest,
    /// Asks to cancel a query on another connection; nothing is answered.
    Cancel {
        /// Bytes of it, which are all there.
        length: usize,
    },
    /// Begins in plain text.
    Startup {
        /// Bytes of it, which are all there: who refuses has read them, so that closing does not reset the
        /// connection before the refusal is read.
        length: usize,
    },
    /// Begins with TLS, unasked (`sslnegotiation=direct` of PostgreSQL 17).
    DirectTls,
}

/// Why bytes are no first message of a PostgreSQL client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotPostgres {
    /// The length that they start with is less than a message has.
    #[error("is no PostgreSQL client: its first message would be shorter than 8 bytes")]
    TooShort,
    /// The length that they start with is more than PostgreSQL accepts. So are the letters of other protocols read.
    #[error("is no PostgreSQL client: its first message would be longer than 10,000 bytes")]
    TooLong,
    /// A request with the length of another message.
    #[error("sends a malformed {0} of {1} bytes")]
    RequestLength(&'static str, usize),
    /// A request that is not known.
    #[error("sends an unknown PostgreSQL request, 1234.{0}")]
    UnknownRequest(u16),
    /// Another version than 3.x.
    #[error("speaks version {major}.{minor} of the PostgreSQL protocol, not 3.x")]
    Version {
        /// The version's first number.
        major: u16,
        /// The version's second number.
        minor: u16,
    },
}

/// Looks at the first message of a PostgreSQL client. What follows it does not matter.
pub fn recognise(bytes: &[u8]) -> Recognition<Opening, NotPostgres> {
    // As a length it would be of hundreds of megabytes.
    if bytes.first() == Some(&0x16) {
        return Recognition::Yes(Opening::DirectTls);
    }
    // A length of which some bytes are missing is at least what it would be with zeros there.
    let mut length = [0; 4];
    length.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_STARTUP_PACKET {
        return Recognition::No(NotPostgres::TooLong);
    }
    let Some((_, rest)) = bytes.split_first_chunk::<4>() else { return Recognition::one_more(bytes.len()) };
    if length < 8 {
        return Recognition::No(NotPostgres::TooShort);
    }
    let Some(&code) = rest.first_chunk::<4>() else { return Recognition::more(bytes.len(), 8) };

    let opening = match u32::from_be_bytes(code) {
        SSL if length == 8 => Opening::SslRequest,
        SSL => return Recognition::No(NotPostgres::RequestLength("SSLRequest", length)),
        GSS_ENCRYPTION if length == 8 => Opening::GssEncRequest,
        GSS_ENCRYPTION => return Recognition::No(NotPostgres::RequestLength("GSSENCRequest", length)),
        CANCEL if (12 + 4..=12 + MAX_CANCEL_SECRET).contains(&length) => Opening::Cancel { length },
        CANCEL => return Recognition::No(NotPostgres::RequestLength("CancelRequest", length)),
        _ => {
            let [a, b, c, d] = code;
            match (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])) {
                (3, _) => Opening::Startup { length },
                (1234, minor) => return Recognition::No(NotPostgres::UnknownRequest(minor)),
                (major, minor) => return Recognition::No(NotPostgres::Version { major, minor }),
            }
        }
    };
    if bytes.len() < length { Recognition::more(bytes.len(), length) } else { Recognition::Yes(opening) }
}

/// What a client prints before it gives up: an ErrorResponse of severity FATAL, after which the connection is to be
/// closed. `code` is an SQLSTATE, such as `28000`.
pub fn error_response(code: &str, message: &str, hint: Option<&str>) -> Vec<u8> {
    let fields =
        [(b'S', Some("FATAL")), (b'V', Some("FATAL")), (b'C', Some(code)), (b'M', Some(message)), (b'H', hint)];
    let mut body = Vec::new();
    for (kind, text) in fields {
        let Some(text) = text else { continue };
        body.push(kind);
        // A zero ends a field.
        body.extend(text.bytes().filter(|&byte| byte != 0));
        body.push(0);
    }
    body.push(0);
    let mut response = vec![b'E'];
    response.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    response.extend_from_slice(&body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize, major: u16, minor: u16) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&major.to_be_bytes());
        bytes.extend_from_slice(&minor.to_be_bytes());
        bytes.resize(length, 0);
        bytes
    }

    /// Every cut of the bytes wants more, and all of them with others behind give this.
    fn opens(bytes: &[u8], wanted: Opening) {
        for cut in 0..bytes.len() {
            let Recognition::More(more) = recognise(&bytes[..cut]) else { panic!("{cut} of {} bytes", bytes.len()) };
            assert!(more.get() > cut && more.get() <= bytes.len(), "{cut} bytes: {more}");
        }
        assert_eq!(recognise(bytes), Recognition::Yes(wanted));
        assert_eq!(recognise(&[bytes, b"\x00\x00 more"].concat()), Recognition::Yes(wanted));
    }

    #[test]
    fn openings_are_told_apart() {
        opens(&SSL_REQUEST, Opening::SslRequest);
        opens(&message(8, 1234, 5679), Opening::SslRequest);
        opens(&message(8, 1234, 5680), Opening::GssEncRequest);
        for length in [16, 44, 268] {
            opens(&message(length, 1234, 5678), Opening::Cancel { length });
        }
        for (length, minor) in [(8, 0), (9, 0), (85, 2), (10_004, 9999)] {
            opens(&message(length, 3, minor), Opening::Startup { length });
        }
        opens(&[0x16], Opening::DirectTls);
    }

    #[test]
    fn what_no_client_sends_is_refused_with_its_reason() {
        let refused = [
            (message(8, 2, 0), NotPostgres::Version { major: 2, minor: 0 }),
            (message(8, 4, 1), NotPostgres::Version { major: 4, minor: 1 }),
            (message(8, 1234, 5681), NotPostgres::UnknownRequest(5681)),
            (message(9, 1234, 5679), NotPostgres::RequestLength("SSLRequest", 9)),
            (message(12, 1234, 5680), NotPostgres::RequestLength("GSSENCRequest", 12)),
            (message(15, 1234, 5678), NotPostgres::RequestLength("CancelRequest", 15)),
            (message(269, 1234, 5678), NotPostgres::RequestLength("CancelRequest", 269)),
            (message(10_005, 3, 0), NotPostgres::TooLong),
            (b"\x00\x00\x00\x07\x00\x03\x00\x00".to_vec(), NotPostgres::TooShort),
            (b"\x00\x00\x00\x00".to_vec(), NotPostgres::TooShort),
        ];
        for (bytes, wanted) in refused {
            assert_eq!(recognise(&bytes), Recognition::No(wanted), "{bytes:?}");
        }
    }

    #[test]
    fn other_protocols_are_seen_by_their_first_byte() {
        for byte in (1..=255).filter(|&byte| byte != 0x16) {
            assert_eq!(recognise(&[byte]), Recognition::No(NotPostgres::TooLong), "{byte}");
        }
    }

    #[test]
    fn an_error_has_its_fields() {
        let wanted = b"E\x00\x00\x00\x2cSFATAL\0VFATAL\0C28000\0Mno \"TLS\"\0Huse it\0\0";
        assert_eq!(error_response("28000", "no \"TLS\"", Some("use it")), wanted);
        assert_eq!(wanted.len(), 0x2c + 1);
        let without_hint = error_response("08P01", "a\0b", None);
        assert!(without_hint.ends_with(b"C08P01\0Mab\0\0"), "{without_hint:?}");
    }
}
