//! Packets: their frame, the greeting, the login, errors.

use std::fmt;

use super::super::client::printable;

/// Bytes of the longest packet. The longest row, SHOW REPLICA STATUS with its errors, has a few KiB.
const MAX_PACKET: usize = 64 * 1024;

const PROTOCOL_41: u32 = 0x200;
const TLS: u32 = 0x800;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;

/// utf8mb4_general_ci.
const CHARSET: u8 = 45;

/// Bytes of a packet that the client would take.
const CLIENT_MAX_PACKET: u32 = 16 * 1024 * 1024;

/// Sequence number and length of the packet that the bytes begin with; `None` if it is not complete.
pub(super) fn split_packet(bytes: &[u8]) -> Result<Option<(u8, usize)>, ()> {
    let Some((&[a, b, c, sequence], rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    if length > MAX_PACKET || length == 0 {
        return Err(());
    }
    Ok((rest.len() >= length).then_some((sequence, length)))
}

/// A packet around a body.
pub(super) fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (body.len() as u32).to_le_bytes();
    let mut packet = vec![a, b, c, sequence];
    packet.extend_from_slice(body);
    packet
}

/// What the server begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    capabilities: u32,
    /// 20 bytes.
    pub(super) scramble: Vec<u8>,
    /// The server's default method of authentication.
    pub(super) method: String,
}

impl Greeting {
    /// Reads protocol version 10.
    pub(super) fn read(body: &[u8]) -> Option<Greeting> {
        let rest = body.strip_prefix(&[10])?;
        let (_version, rest) = text(rest)?;
        let (_id, rest) = rest.split_at_checked(4)?;
        let (first, rest) = rest.split_at_checked(8)?;
        let (&[_, low_1, low_2, _charset, _, _, high_1, high_2, length], rest) = rest.split_first_chunk::<9>()?;
        let (_reserved, rest) = rest.split_at_checked(10)?;
        let (second, rest) = rest.split_at_checked(usize::from(length).saturating_sub(8).max(13))?;
        let (method, _) = text(rest).unwrap_or((rest, b""));
        let mut scramble = first.to_vec();
        scramble.extend_from_slice(second.get(..12)?);
        let capabilities = u32::from_le_bytes([low_1, low_2, high_1, high_2]);
        Some(Greeting { capabilities, scramble, method: String::from_utf8_lossy(method).into_owned() })
    }

    pub(super) fn has_tls(&self) -> bool {
        self.capabilities & TLS != 0
    }

    /// SSLRequest.
    pub(super) fn tls_request(&self) -> Vec<u8> {
        self.head(true)
    }

    /// HandshakeResponse41.
    pub(super) fn login(&self, tls: bool, user: &str, response: &[u8], method: &str) -> Vec<u8> {
        let mut login = self.head(tls);
        login.extend_from_slice(user.as_bytes());
        login.push(0);
        // No response is longer than 255 bytes: a hash, or a password of one line in its file.
        login.push(response.len().min(255) as u8);
        login.extend_from_slice(&response[..response.len().min(255)]);
        login.extend_from_slice(method.as_bytes());
        login.push(0);
        login
    }

    /// Without CLIENT_DEPRECATE_EOF, which makes result sets simple, and without a database.
    fn head(&self, tls: bool) -> Vec<u8> {
        let capabilities = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH | if tls { TLS } else { 0 };
        let mut head = capabilities.to_le_bytes().to_vec();
        head.extend_from_slice(&CLIENT_MAX_PACKET.to_le_bytes());
        head.push(CHARSET);
        head.extend_from_slice(&[0; 23]);
        head
    }
}

/// Bytes up to a zero, and what follows it.
pub(super) fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// An ERR packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) code: u16,
    message: String,
}

impl ServerError {
    pub(super) fn read(body: &[u8]) -> Option<ServerError> {
        let (&[0xff, low, high], rest) = body.split_first_chunk::<3>()? else { return None };
        // Before the login there is no SQLSTATE.
        let message = match rest {
            [b'#', _, _, _, _, _, message @ ..] => message,
            message => message,
        };
        Some(ServerError { code: u16::from_le_bytes([low, high]), message: printable(message) })
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
