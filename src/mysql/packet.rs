//! Packets: their frame, the greeting, the request for TLS, the login, errors.

use thiserror::Error;

/// Bytes of the longest packet of a login, and of one in answer to a health check. Connection attributes have at most 64 KiB
/// (MySQL's "Performance Schema Connection Attribute Tables"), and usually a few hundred bytes. The longest row, SHOW REPLICA STATUS
/// with its errors, has a few KiB.
pub const MAX_PACKET: usize = 64 * 1024;

/// Bytes before a packet's body: its length (3), its sequence number.
pub const HEADER: usize = 4;

/// Bytes of a request for TLS, which are also the first ones of a login.
pub const TLS_REQUEST: usize = 32;

/// Bytes of the longest message that clients keep (MYSQL_ERRMSG_SIZE).
const MAX_MESSAGE: usize = 511;

/// A database is part of the login.
pub const CONNECT_WITH_DB: u32 = 0x8;
/// The protocol of MySQL 4.1 and later.
pub const PROTOCOL_41: u32 = 0x200;
/// TLS (CLIENT_SSL).
pub const TLS: u32 = 0x800;
/// The length of the proof is one byte.
pub const SECURE_CONNECTION: u32 = 0x8000;
/// The method of authentication is named.
pub const PLUGIN_AUTH: u32 = 0x8_0000;
/// The length of the proof is a length-encoded integer.
pub const PLUGIN_AUTH_LENENC: u32 = 0x20_0000;
/// Several factors (MySQL 8.0.27).
pub const MULTI_FACTOR: u32 = 0x1000_0000;

/// A packet is longer than [`MAX_PACKET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a packet is longer than {MAX_PACKET} bytes")]
pub struct PacketTooLong;

/// Sequence number and length of the packet that the bytes begin with; `None` if it is not complete.
///
/// # Errors
/// It is too long.
pub fn split_packet(bytes: &[u8]) -> Result<Option<(u8, usize)>, PacketTooLong> {
    let Some((&[a, b, c, sequence], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    if length > MAX_PACKET {
        return Err(PacketTooLong);
    }
    Ok((rest.len() >= length).then_some((sequence, length)))
}

/// A packet around a body, which is shorter than 16 MiB.
pub fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (body.len() as u32).to_le_bytes();
    let mut packet = Vec::with_capacity(HEADER + body.len());
    packet.extend_from_slice(&[a, b, c, sequence]);
    packet.extend_from_slice(body);
    packet
}

/// An ERR packet. `code` is an error number of the server, `state` its SQLSTATE. A client takes it with the sequence number that it
/// expects next: 0 in place of the greeting.
pub fn error_packet(sequence: u8, code: u16, state: &[u8; 5], message: &str) -> Vec<u8> {
    // Of a length that one packet holds many times over.
    let message = message.get(..MAX_MESSAGE).unwrap_or(message);
    packet(sequence, &[&[0xff], &code.to_le_bytes()[..], b"#", state, message.as_bytes()].concat())
}

/// Number and message of an ERR packet. Before the login there is no SQLSTATE.
pub fn split_error(body: &[u8]) -> Option<(u16, &[u8])> {
    let (&[0xff, low, high], rest) = body.split_first_chunk::<3>()? else { return None };
    let message = match rest {
        [b'#', _, _, _, _, _, message @ ..] => message,
        message => message,
    };
    Some((u16::from_le_bytes([low, high]), message))
}

/// What the server begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What the server can do.
    pub capabilities: u32,
    /// Where their lower half is in the packet's body.
    capabilities_at: usize,
    /// 20 bytes.
    pub scramble: Vec<u8>,
    /// The server's default method of authentication.
    pub method: String,
}

impl Greeting {
    /// Reads protocol version 10.
    pub fn read(body: &[u8]) -> Option<Greeting> {
        let rest = body.strip_prefix(&[10])?;
        let (_version, rest) = text(rest)?;
        let (_id, rest) = rest.split_at_checked(4)?;
        let (first, rest) = rest.split_at_checked(8)?;
        // A zero comes first.
        let capabilities_at = body.len() - rest.len() + 1;
        let (&[_, low_1, low_2, _charset, _, _, high_1, high_2, length], rest) = rest.split_first_chunk::<9>()?;
        let (_reserved, rest) = rest.split_at_checked(10)?;
        let (second, rest) = rest.split_at_checked(usize::from(length).saturating_sub(8).max(13))?;
        let (method, _) = text(rest).unwrap_or((rest, b""));
        let mut scramble = first.to_vec();
        scramble.extend_from_slice(second.get(..12)?);
        let capabilities = u32::from_le_bytes([low_1, low_2, high_1, high_2]);
        let method = String::from_utf8_lossy(method).into_owned();
        Some(Greeting { capabilities, capabilities_at, scramble, method })
    }

    /// Whether the server takes TLS.
    pub fn has_tls(&self) -> bool {
        self.capabilities & TLS != 0
    }

    /// Makes `body`, from which this was read, offer TLS or not.
    pub fn offer_tls(&self, body: &mut [u8], offered: bool) {
        let [low, high, ..] = self.capabilities.to_le_bytes();
        let [tls_low, tls_high, ..] = TLS.to_le_bytes();
        let written = match offered {
            true => [low | tls_low, high | tls_high],
            false => [low & !tls_low, high & !tls_high],
        };
        if let Some(place) = body.get_mut(self.capabilities_at..self.capabilities_at + 2) {
            place.copy_from_slice(&written);
        }
    }
}

/// A client's login (HandshakeResponse41), as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest<'p> {
    /// What the client can do, and does.
    pub capabilities: u32,
    /// The method of authentication of its proof, if it names one.
    pub method: Option<&'p [u8]>,
}

impl<'p> LoginRequest<'p> {
    /// Reads the body of a packet. As servers do, it takes a last text that no zero ends.
    pub fn read(body: &'p [u8]) -> Option<LoginRequest<'p>> {
        let capabilities = capabilities(body)?;
        let rest = body.get(TLS_REQUEST..)?;
        let (_user, rest) = text(rest)?;
        let rest = if capabilities & PLUGIN_AUTH_LENENC != 0 {
            let (length, rest) = length_encoded(rest)?;
            rest.get(length..)?
        } else if capabilities & SECURE_CONNECTION != 0 {
            let (&length, rest) = rest.split_first()?;
            rest.get(usize::from(length)..)?
        } else {
            text_or_all(rest).1
        };
        let rest = if capabilities & CONNECT_WITH_DB != 0 { text_or_all(rest).1 } else { rest };
        let method = (capabilities & PLUGIN_AUTH != 0).then(|| text_or_all(rest).0).filter(|name| !name.is_empty());
        Some(LoginRequest { capabilities, method })
    }
}

/// The capabilities with which a request for TLS and a login begin; `None` before MySQL 4.1.
pub fn capabilities(body: &[u8]) -> Option<u32> {
    let capabilities = u32::from_le_bytes(*body.first_chunk()?);
    (capabilities & PROTOCOL_41 != 0 && body.len() >= TLS_REQUEST).then_some(capabilities)
}

/// Sets or clears the capability of TLS in a login.
pub fn set_tls(body: &mut [u8], tls: bool) {
    if let Some(capabilities) = body.first_chunk_mut() {
        let all = u32::from_le_bytes(*capabilities);
        *capabilities = if tls { all | TLS } else { all & !TLS }.to_le_bytes();
    }
}

/// Bytes up to a zero, and what follows it.
pub fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn text_or_all(bytes: &[u8]) -> (&[u8], &[u8]) {
    text(bytes).unwrap_or((bytes, b""))
}

/// A length-encoded integer, and what follows it.
fn length_encoded(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xfa => return Some((usize::from(first), rest)),
        0xfc => 2,
        0xfd => 3,
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(width)?;
    Some((digits.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_a_packet_with_number_state_and_message() {
        let packet = error_packet(0, 1040, b"08004", "Too many connections");
        assert_eq!(packet, b"\x1d\x00\x00\x00\xff\x10\x04#08004Too many connections");
        assert_eq!(split_error(&packet[4..]), Some((1040, &b"Too many connections"[..])));
        assert_eq!(split_error(b"\xff\x10\x04Too many"), Some((1040, &b"Too many"[..])));
        let long = error_packet(2, 1105, b"HY000", &"a".repeat(1000));
        assert_eq!((long[0], long[1], long[3], long.len()), (0x08, 0x02, 2, 4 + 9 + 511));
    }

    #[test]
    fn method_of_a_login_is_found_behind_what_comes_before_it() {
        let login = |capabilities: u32, rest: &[u8]| {
            let head = [&capabilities.to_le_bytes()[..], &[0; 28]].concat();
            let body = [&head, rest].concat();
            LoginRequest::read(&body).map(|login| login.method.map(<[u8]>::to_vec))
        };
        let all = PROTOCOL_41 | PLUGIN_AUTH;
        let named = |name: &[u8]| Some(Some(name.to_vec()));
        assert_eq!(
            login(all | SECURE_CONNECTION, b"u\0\x02xymysql_native_password\0"),
            named(b"mysql_native_password")
        );
        assert_eq!(login(all | SECURE_CONNECTION | CONNECT_WITH_DB, b"u\0\0db\0m\0attributes"), named(b"m"));
        assert_eq!(login(all | PLUGIN_AUTH_LENENC, b"u\0\xfc\x01\0xm"), named(b"m"));
        assert_eq!(login(all, b"u\0proof\0m\0"), named(b"m"));
        assert_eq!(login(PROTOCOL_41 | SECURE_CONNECTION, b"u\0\0m\0"), Some(None));
        assert_eq!(login(all, b"u\0proof\0"), Some(None));
        assert_eq!(login(all | SECURE_CONNECTION, b"u\0\x09xy"), None, "shorter than it says");
        assert_eq!(login(all, b"u"), None, "no end of the user's name");
        assert_eq!(login(PLUGIN_AUTH, b"u\0\0m\0"), None, "MySQL 4.0");
    }

    #[test]
    fn greeting_offers_tls_or_not() {
        let body = b"\x0a8.0.40\0\x01\0\0\0abcdefgh\0\xff\xf7\x2d\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0caching_sha2_password\0";
        let greeting = Greeting::read(body).unwrap();
        assert_eq!((greeting.has_tls(), greeting.capabilities), (false, 0xdfff_f7ff));
        let mut offering = body.to_vec();
        greeting.offer_tls(&mut offering, true);
        let changed: Vec<usize> = (0..body.len()).filter(|&at| body[at] != offering[at]).collect();
        assert_eq!(changed, [22]);
        let offered = Greeting::read(&offering).unwrap();
        assert_eq!((offered.has_tls(), offered.capabilities), (true, 0xdfff_ffff));
        offered.offer_tls(&mut offering, false);
        assert_eq!(offering, body);
    }
}
