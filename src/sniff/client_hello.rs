//! The ClientHello at the start of a TLS connection (RFC 8446, 4.1.2 and 5.1), for the server name and the application
//! protocols it asks for. Nothing is decrypted and nothing negotiated.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use thiserror::Error;

use super::Recognition;
use crate::net::name::NamePattern;

/// Bytes of the longest ClientHello, without its header: what BoringSSL's servers accept (`kMaxMessageLen`); Envoy's
/// tls_inspector looks at as many. Hellos with post-quantum key shares have 2 KiB.
const MAX_BODY: usize = 16 * 1024;

/// Bytes, those of the record headers among them, in which a ClientHello must end: the longest in two records.
pub const MAX_CLIENT_HELLO: usize = 2 * RECORD_HEADER + MESSAGE_HEADER + MAX_BODY;

/// Bytes of a record's header: type, version, length.
const RECORD_HEADER: usize = 5;

/// Bytes of a message's header: type, length.
const MESSAGE_HEADER: usize = 4;

/// Bytes that one record of plain text may carry (RFC 8446, 5.1).
const MAX_FRAGMENT: usize = 1 << 14;

/// Content type of records that carry handshake messages.
const HANDSHAKE: u8 = 22;

/// Type of the message.
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name of the server (SNI, RFC 6066, 3), in lower case and without a dot at its end. `None` too if what
    /// the client sent is no host name, such as an IP address.
    pub server_name: Option<Arc<str>>,
    /// The application protocols (RFC 7301) in the client's order; empty if it names none.
    pub alpn: Vec<Vec<u8>>,
    /// The newest version that the client speaks.
    pub newest: Version,
}

/// A version of TLS, or of SSL before it, as the protocol writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    /// RFC 5246.
    pub const TLS_1_2: Version = Version(0x0303);
    /// RFC 8446.
    pub const TLS_1_3: Version = Version(0x0304);
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_be_bytes() {
            [3, 0] => f.write_str("SSL 3.0"),
            [3, minor] => write!(f, "TLS 1.{}", minor - 1),
            [major, minor] => write!(f, "version {major}.{minor} of TLS"),
        }
    }
}

/// Why bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotTls {
    /// The first byte is that of another protocol.
    #[error("is not TLS: its first byte is 0x{0:02x}, not 0x16")]
    FirstByte(u8),
    /// The first byte is that of a hello of 1995.
    #[error("starts with 0x80 as an SSL 2.0 hello does, which no version of TLS accepts any more (RFC 6176)")]
    Ssl2,
    /// A record after the first that carries something else.
    #[error("has a TLS record of type {0} in the middle of its ClientHello")]
    RecordType(u8),
    /// The major version of the first record is not 3.
    #[error("is not TLS: a record has version {0}.x, not 3.x")]
    RecordVersion(u8),
    /// That of a record after the first.
    #[error("has a TLS record of version {0}.x in the middle of its ClientHello")]
    LaterVersion(u8),
    /// A record that carries nothing, or too much.
    #[error("has a TLS record of {0} bytes; 1 to 16,384 are allowed")]
    RecordLength(u16),
    /// The first message is another one.
    #[error("starts TLS with a handshake message of type {0}, not with a ClientHello")]
    Message(u8),
    /// It does not end within the limit.
    #[error("has a ClientHello longer than 16 KiB")]
    TooLong,
    /// A field is not as the specification has it.
    #[error("has a malformed ClientHello: {0}")]
    Malformed(&'static str),
}

impl NotTls {
    /// Whether the bytes begin as a ClientHello does: one that is damaged or too long. What it would have asked
    /// for is unknown. Otherwise the bytes are another protocol.
    pub fn begins_as_hello(self) -> bool {
        match self {
            // Version 2 of SSL has no extensions, and other messages have no server name: they asked for none.
            NotTls::FirstByte(_) | NotTls::Ssl2 | NotTls::RecordVersion(_) | NotTls::Message(_) => false,
            NotTls::LaterVersion(_)
            | NotTls::RecordType(_)
            | NotTls::RecordLength(_)
            | NotTls::TooLong
            | NotTls::Malformed(_) => true,
        }
    }
}

/// Looks for a ClientHello in the bytes a connection starts with. What follows it does not matter.
///
/// [`Recognition::More`] asks for as many bytes as the hello lacks at least, so that also a hello in single bytes, or in
/// records of one byte each, is looked at fewer than a hundred times.
pub fn recognise(bytes: &[u8]) -> Recognition<ClientHello, NotTls> {
    let bytes = bytes.get(..MAX_CLIENT_HELLO).unwrap_or(bytes);
    let stream = HandshakeBytes::walk(bytes);
    // A fault of the hello itself came before one of the records: these end where a fault is found.
    match hello(&stream.message) {
        Ok(hello) => Recognition::Yes(hello),
        Err(Stop::Fault(fault)) => Recognition::No(fault),
        Err(Stop::Short) => match stream.fault {
            Some(fault) => Recognition::No(fault),
            None if bytes.len() >= MAX_CLIENT_HELLO => Recognition::No(NotTls::TooLong),
            None => Recognition::more(bytes.len(), stream.needed(bytes.len()).min(MAX_CLIENT_HELLO)),
        },
    }
}

/// The first handshake message, taken out of its records, as far as it is there.
struct HandshakeBytes<'a> {
    message: Cow<'a, [u8]>,
    /// What ended the walk before the bytes did.
    fault: Option<NotTls>,
    /// Bytes of the last record that have not come yet.
    outstanding: usize,
    /// Bytes that are there of the next record's header.
    next_header: usize,
}

impl<'a> HandshakeBytes<'a> {
    fn walk(bytes: &'a [u8]) -> HandshakeBytes<'a> {
        let mut stream = HandshakeBytes { message: Cow::Borrowed(&[]), fault: None, outstanding: 0, next_header: 0 };
        let mut rest = bytes;
        while !rest.is_empty() && stream.missing().is_none_or(|missing| missing > 0) {
            let length = match record_length(rest, stream.message.is_empty()) {
                Ok(Some(length)) => length,
                Ok(None) => {
                    stream.next_header = rest.len();
                    break;
                }
                Err(fault) => {
                    stream.fault = Some(fault);
                    break;
                }
            };
            let body = rest.get(RECORD_HEADER..).unwrap_or_default();
            let fragment = body.get(..length).unwrap_or(body);
            stream.outstanding = length - fragment.len();
            if stream.message.is_empty() {
                stream.message = Cow::Borrowed(fragment);
            } else {
                stream.message.to_mut().extend_from_slice(fragment);
            }
            rest = body.get(length..).unwrap_or_default();
        }
        stream
    }

    /// Bytes of the message that have not come yet, once its header tells.
    fn missing(&self) -> Option<usize> {
        let &[_, a, b, c] = self.message.first_chunk()?;
        Some((MESSAGE_HEADER + uint24(a, b, c)).saturating_sub(self.message.len()))
    }

    /// Bytes of the connection with which the message can be complete, if records are as long as they may be.
    fn needed(&self, len: usize) -> usize {
        let Some(missing) = self.missing() else { return len + 1 };
        let beyond = missing.saturating_sub(self.outstanding);
        len + missing + (beyond.div_ceil(MAX_FRAGMENT) * RECORD_HEADER).saturating_sub(self.next_header)
    }
}

/// The length in the record header that bytes start with; `None` if it is not all there.
fn record_length(bytes: &[u8], first: bool) -> Result<Option<usize>, NotTls> {
    match bytes {
        [HANDSHAKE, ..] => {}
        [0x80, ..] if first => return Err(NotTls::Ssl2),
        [other, ..] if first => return Err(NotTls::FirstByte(*other)),
        [other, ..] => return Err(NotTls::RecordType(*other)),
        [] => return Ok(None),
    }
    // The minor version says nothing (RFC 8446, 5.1).
    if let Some(&major) = bytes.get(1)
        && major != 3
    {
        return Err(if first { NotTls::RecordVersion(major) } else { NotTls::LaterVersion(major) });
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let length = u16::from_be_bytes([high, low]);
    if length == 0 || usize::from(length) > MAX_FRAGMENT {
        return Err(NotTls::RecordLength(length));
    }
    Ok(Some(length.into()))
}

/// Why reading a message ends early.
enum Stop {
    /// The rest has not come yet.
    Short,
    Fault(NotTls),
}

fn hello(message: &[u8]) -> Result<ClientHello, Stop> {
    let mut message = Reader { bytes: message, length: usize::MAX };
    let [kind] = message.array()?;
    if kind != CLIENT_HELLO {
        return Err(Stop::Fault(NotTls::Message(kind)));
    }
    let [a, b, c] = message.array()?;
    let length = uint24(a, b, c);
    if length > MAX_BODY {
        return Err(Stop::Fault(NotTls::TooLong));
    }

    let mut body = message.part(length, "")?;
    let [major, minor] = body.array()?;
    let version = Version(u16::from_be_bytes([major, minor]));
    if major != 3 {
        return Err(malformed("its version is not 3.x"));
    }
    let _random: [u8; 32] = body.array()?;
    if body.vector8("its session id is longer than the message")?.len() > 32 {
        return Err(malformed("its session id is longer than 32 bytes"));
    }
    let suites = body.vector16("its cipher suites are longer than the message")?;
    if suites.is_empty() || !suites.len().is_multiple_of(2) {
        return Err(malformed("its cipher suites are none, or end with half a one"));
    }
    if body.vector8("its compression methods are longer than the message")?.is_empty() {
        return Err(malformed("it has no compression methods"));
    }
    if body.length == 0 {
        // TLS 1.2 has them optional (RFC 5246, 7.4.1.2).
        return Ok(ClientHello { server_name: None, alpn: Vec::new(), newest: version });
    }
    let length = u16::from_be_bytes(body.array()?);
    let extensions = body.part(length.into(), "its extensions are longer than the message")?;
    if body.length > 0 {
        return Err(malformed("its extensions are shorter than the message"));
    }
    read_extensions(extensions, version)
}

fn read_extensions(mut extensions: Reader<'_>, version: Version) -> Result<ClientHello, Stop> {
    let (mut name, mut alpn, mut newest) = (None, None, None);
    while extensions.length > 0 {
        let kind = u16::from_be_bytes(extensions.array()?);
        let value = extensions.vector16("an extension is longer than all of them")?;
        // Two of a kind are forbidden (RFC 8446, 4.2): who routes by one while the backend believes the other is deceived.
        match kind {
            SERVER_NAME if name.is_some() => return Err(malformed("it has two server_name extensions")),
            SERVER_NAME => name = Some(server_name(value)?),
            ALPN if alpn.is_some() => return Err(malformed("it has two ALPN extensions")),
            ALPN => alpn = Some(protocols(value)?),
            SUPPORTED_VERSIONS => newest = newest_version(value),
            _ => {}
        }
    }
    // Without the extension, the message's own version is the newest that the client has (RFC 8446, 4.2.1).
    let newest = newest.unwrap_or(version);
    Ok(ClientHello { server_name: name.flatten(), alpn: alpn.unwrap_or_default(), newest })
}

/// The newest one of a supported_versions extension (RFC 8446, 4.2.1). `None`: none of TLS, or it cannot be read, which the
/// handshake then finds.
fn newest_version(value: &[u8]) -> Option<Version> {
    let (length, versions) = value.split_first()?;
    let versions = versions.get(..usize::from(*length))?;
    // Others are drafts, and those that mean nothing (RFC 8701).
    let known = versions.chunks_exact(2).filter(|version| version[0] == 3);
    known.map(|version| Version(u16::from_be_bytes([version[0], version[1]]))).max()
}

/// The value of a server_name extension (RFC 6066, 3).
fn server_name(value: &[u8]) -> Result<Option<Arc<str>>, Stop> {
    let mut list = list(value, "its list of server names is not as long as it says")?;
    let mut host = None;
    while list.length > 0 {
        let [kind] = list.array()?;
        let name = list.vector16("a server name is longer than their list")?;
        if name.is_empty() {
            return Err(malformed("a server name is empty"));
        }
        // Only host names (0) are defined.
        if kind == 0 && host.replace(name).is_some() {
            return Err(malformed("it has two server names"));
        }
    }
    Ok(host.and_then(host_name))
}

fn host_name(name: &[u8]) -> Option<Arc<str>> {
    let name = std::str::from_utf8(name).ok()?;
    match NamePattern::parse(name)? {
        NamePattern::Exact(name) if name.parse::<Ipv4Addr>().is_err() => Some(name),
        _ => None,
    }
}

/// The value of an application_layer_protocol_negotiation extension (RFC 7301, 3.1).
fn protocols(value: &[u8]) -> Result<Vec<Vec<u8>>, Stop> {
    let mut list = list(value, "its list of ALPN protocols is not as long as it says")?;
    let mut protocols = Vec::new();
    while list.length > 0 {
        let name = list.vector8("an ALPN protocol is longer than their list")?;
        if name.is_empty() {
            return Err(malformed("an ALPN protocol is empty"));
        }
        protocols.push(name.to_vec());
    }
    Ok(protocols)
}

/// A list with its length in front, which is all of an extension's value; empty ones are forbidden.
fn list<'a>(value: &'a [u8], wrong: &'static str) -> Result<Reader<'a>, Stop> {
    let mut value = Reader { bytes: value, length: value.len() };
    let list = value.vector16(wrong)?;
    if list.is_empty() || value.length > 0 {
        return Err(malformed(wrong));
    }
    Ok(Reader { bytes: list, length: list.len() })
}

/// Reads what is there of something whose length is known.
struct Reader<'a> {
    /// What is there.
    bytes: &'a [u8],
    /// The length of all of it.
    length: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, wrong: &'static str) -> Result<&'a [u8], Stop> {
        if count > self.length {
            return Err(malformed(wrong));
        }
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Stop::Short)?;
        self.bytes = rest;
        self.length -= count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let wrong = "it ends in the middle of a field";
        self.take(N, wrong)?.try_into().map_err(|_| malformed(wrong))
    }

    /// The next `count` bytes, of which some may not be there yet.
    fn part(&mut self, count: usize, wrong: &'static str) -> Result<Reader<'a>, Stop> {
        if count > self.length {
            return Err(malformed(wrong));
        }
        let (part, rest) = self.bytes.split_at_checked(count).unwrap_or((self.bytes, &[]));
        self.bytes = rest;
        self.length -= count;
        Ok(Reader { bytes: part, length: count })
    }

    /// What follows a length of one byte.
    fn vector8(&mut self, wrong: &'static str) -> Result<&'a [u8], Stop> {
        let [length] = self.array()?;
        self.take(length.into(), wrong)
    }

    /// What follows a length of two bytes.
    fn vector16(&mut self, wrong: &'static str) -> Result<&'a [u8], Stop> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(length.into(), wrong)
    }
}

fn malformed(wrong: &'static str) -> Stop {
    Stop::Fault(NotTls::Malformed(wrong))
}

fn uint24(a: u8, b: u8, c: u8) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

#[cfg(test)]
mod tests;
