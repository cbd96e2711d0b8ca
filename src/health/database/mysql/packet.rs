//! What a check sends to log in, and errors as the log shows them.

use std::fmt;

use super::super::client::printable;
use crate::mysql::packet::{PLUGIN_AUTH, PROTOCOL_41, SECURE_CONNECTION, TLS, split_error};

/// utf8mb4_general_ci.
const CHARSET: u8 = 45;

/// Bytes of a packet that the client would take.
const CLIENT_MAX_PACKET: u32 = 16 * 1024 * 1024;

/// SSLRequest.
pub(super) fn tls_request() -> Vec<u8> {
    head(true)
}

/// HandshakeResponse41.
pub(super) fn login(tls: bool, user: &str, response: &[u8], method: &str) -> Vec<u8> {
    let mut login = head(tls);
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
fn head(tls: bool) -> Vec<u8> {
    let capabilities = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH | if tls { TLS } else { 0 };
    let mut head = capabilities.to_le_bytes().to_vec();
    head.extend_from_slice(&CLIENT_MAX_PACKET.to_le_bytes());
    head.push(CHARSET);
    head.extend_from_slice(&[0; 23]);
    head
}

/// An ERR packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) code: u16,
    message: String,
}

impl ServerError {
    pub(super) fn read(body: &[u8]) -> Option<ServerError> {
        let (code, message) = split_error(body)?;
        Some(ServerError { code, message: printable(message) })
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
