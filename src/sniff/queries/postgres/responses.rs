//! Messages of a server.

#![forbid(unsafe_code)]

use super::wire::MALFORMED;
use crate::sniff::queries::event::Ended;
use crate::sniff::queries::framing::Prefix;
use crate::stats::queries::PassthroughReason;

/// What a server sends next.
#[derive(Debug)]
pub(super) enum PgServerState {
    /// Type and length.
    Header(Prefix<5>),
    /// Bytes of a message of this type that are still to come.
    Body(u64, u8),
    /// The same of an ErrorResponse.
    Error(u64, ErrorFields),
}

/// Fields of an ErrorResponse, as far as they are read: a type, a text and NUL each.
#[derive(Clone, Copy, Debug)]
pub(super) enum ErrorFields {
    /// At a field's type.
    Type,
    /// In a text that does not matter.
    Text,
    /// In an SQLSTATE.
    Code(Prefix<2>),
}

impl ErrorFields {
    fn is_read(&self) -> bool {
        matches!(self, ErrorFields::Code(code) if code.get().len() == 2)
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match self {
                ErrorFields::Type => {
                    *self = if *first == b'C' { ErrorFields::Code(Prefix::default()) } else { ErrorFields::Text };
                    bytes = rest;
                }
                ErrorFields::Text => {
                    let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return };
                    *self = ErrorFields::Type;
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                }
                ErrorFields::Code(code) => {
                    code.fill(&mut bytes, 2);
                    return;
                }
            }
        }
    }

    pub(super) fn class(&self) -> &[u8] {
        match self {
            ErrorFields::Code(code) => code.get(),
            ErrorFields::Type | ErrorFields::Text => &[],
        }
    }
}

impl Default for PgServerState {
    fn default() -> PgServerState {
        PgServerState::Header(Prefix::default())
    }
}

impl PgServerState {
    pub(super) fn skippable(&self) -> u64 {
        match self {
            PgServerState::Header(_) => 0,
            PgServerState::Body(left, _) => *left,
            PgServerState::Error(left, fields) => {
                if fields.is_read() {
                    *left
                } else {
                    0
                }
            }
        }
    }
}

/// Whether a message of this type belongs to the answer of a query; the others come at any time.
pub(super) fn is_answer(kind: u8) -> Result<bool, Ended> {
    match kind {
        b'1' | b'2' | b'3' | b'C' | b'D' | b'E' | b'G' | b'H' | b'I' | b'T' | b'V' | b'Z' | b'c' | b'd' | b'n'
        | b's' | b't' => Ok(true),
        // Authentication, BackendKeyData, NegotiateProtocolVersion; ParameterStatus, NoticeResponse, NotificationResponse.
        b'R' | b'K' | b'v' | b'S' | b'N' | b'A' => Ok(false),
        b'W' => Err(Some(PassthroughReason::Replication)),
        _ => Err(MALFORMED),
    }
}
