//! The protocol, and the lengths of its messages.

#![forbid(unsafe_code)]

use crate::sniff::queries::event::Ended;
use crate::stats::queries::{PassthroughReason, QueryProtocol};

pub(super) const PROTOCOL: QueryProtocol = QueryProtocol::Postgres;

pub(super) const MALFORMED: Ended = Some(PassthroughReason::Malformed);

/// The length of a message without the length itself, if there can be such a message.
pub(super) fn body_length(length: [u8; 4]) -> Result<u64, Ended> {
    let length = u32::from_be_bytes(length);
    // The server takes no longer ones, nor sends them.
    match length.checked_sub(4) {
        Some(body) if i32::try_from(length).is_ok() => Ok(body.into()),
        _ => Err(MALFORMED),
    }
}
