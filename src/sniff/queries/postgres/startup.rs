//! A client's first messages: requests for encryption, CancelRequest, StartupMessage.

#![forbid(unsafe_code)]

use super::wire::MALFORMED;
use crate::sniff::queries::event::{Ended, WatchEvent, shortened};
use crate::sniff::queries::framing::{take, until_nul};
use crate::stats::queries::PassthroughReason;

/// Bytes of a first message that are looked at: the names of user and database lie in them, as clients send them first.
const MAX_SEEN: usize = 1024;

const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSS_ENC_REQUEST: u32 = 1234 << 16 | 5680;
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;

/// A first message, of which this has come.
#[derive(Debug, Default)]
pub(super) struct FirstMessage(Vec<u8>);

/// What a client begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstRequest {
    /// It asks for encryption.
    AsksEncryption,
    /// It logs in; bytes of the message that are still to come.
    Startup(u64),
}

impl FirstMessage {
    /// Takes what is looked at off `bytes`.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<Option<FirstRequest>, Ended> {
        let FirstMessage(seen) = self;
        let wanted = 8_usize.saturating_sub(seen.len());
        seen.extend_from_slice(take(bytes, wanted as u64));
        let Some([length, code]) = seen.first_chunk::<8>().map(words) else { return Ok(None) };
        let length = match (length, code) {
            (8, SSL_REQUEST | GSS_ENC_REQUEST) => return Ok(Some(FirstRequest::AsksEncryption)),
            // Nothing is answered.
            (12.., CANCEL_REQUEST) => return Err(None),
            // The record of a TLS handshake (sslnegotiation=direct).
            (0x1603_0000..=0x1603_ffff, _) => return Err(Some(PassthroughReason::Encrypted)),
            (9..=10_004, code) if code >> 16 == 3 => length as usize,
            _ => return Err(MALFORMED),
        };
        let wanted = length.min(MAX_SEEN);
        seen.extend_from_slice(take(bytes, wanted.saturating_sub(seen.len()) as u64));
        if seen.len() < wanted {
            return Ok(None);
        }
        parameters(seen.get(8..).unwrap_or_default(), out)?;
        Ok(Some(FirstRequest::Startup((length - wanted) as u64)))
    }
}

fn words(bytes: &[u8; 8]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = *bytes;
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}

fn parameters(mut bytes: &[u8], out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
    let (mut user, mut database) = (None, None);
    while let Some((name, rest)) = until_nul(bytes)
        && !name.is_empty()
        && let Some((value, rest)) = until_nul(rest)
    {
        match name {
            b"user" => user = Some(value),
            b"database" => database = Some(value),
            // A walsender, but for a false value.
            b"replication" if !matches!(value, b"" | b"0" | b"off" | b"false" | b"no") => {
                return Err(Some(PassthroughReason::Replication));
            }
            _ => {}
        }
        bytes = rest;
    }
    if let Some(user) = user {
        out(WatchEvent::User(shortened(user)));
        // Its default.
        out(WatchEvent::Database(shortened(database.filter(|name| !name.is_empty()).unwrap_or(user))));
    }
    Ok(())
}
