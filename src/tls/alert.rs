//! Alerts for a client that is rejected before there is a TLS connection to send one.

/// A fatal alert, by its number (RFC 8446, 6; RFC 6066, 3; RFC 7301, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// A message out of turn.
    UnexpectedMessage = 10,
    /// A record longer than 2^14 + 256 bytes.
    RecordOverflow = 22,
    /// A message that cannot be parsed.
    DecodeError = 50,
    /// No version in common.
    ProtocolVersion = 70,
    /// No certificate for the server name (SNI).
    UnrecognizedName = 112,
    /// No application protocol (ALPN) in common.
    NoApplicationProtocol = 120,
}

impl Alert {
    /// The alert as a record in plain text (RFC 8446, 5.1 and 6).
    pub fn record(self) -> [u8; 7] {
        const ALERT: u8 = 0x15;
        const FATAL: u8 = 2;
        [ALERT, 3, 3, 0, 2, FATAL, self as u8]
    }
}
