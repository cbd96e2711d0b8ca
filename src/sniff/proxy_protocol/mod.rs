//! PROXY protocol headers, versions 1 and 2, read and written as haproxy's `doc/proxy-protocol.txt` has them; sections
//! that comments name are its own.

#![forbid(unsafe_code)]

mod crc32c;
mod header;
mod tlv;
mod v1;
mod v2;
mod write;

use super::{Recognition, Start};
pub use header::{Addresses, Ends, HeaderError, ParsedHeader};
pub use tlv::ReceivedTlvs;
pub use write::{ClientCertificate, Outgoing, TlsFacts};

/// Bytes of the longest header, one of version 2 with all the TLVs that its length field allows.
pub const MAX_HEADER: usize = v2::FIXED + u16::MAX as usize;

/// The version of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderVersion {
    V1,
    V2,
}

/// Bytes of the longer signature: enough to tell a header from other protocols.
pub const SIGNATURE_LIMIT: usize = v2::SIGNATURE.len();

/// Looks for a header of either version.
///
/// Whether there is one must not be guessed (section 2): who asks knows that the peer sends headers, and only
/// [`HeaderError::Absent`] says that it did not.
pub fn recognise(bytes: &[u8]) -> Recognition<ParsedHeader, HeaderError> {
    match recognise_signature(bytes) {
        Recognition::Yes(HeaderVersion::V1) => v1::recognise(bytes),
        Recognition::Yes(HeaderVersion::V2) => v2::recognise(bytes),
        Recognition::More(total) => Recognition::More(total),
        Recognition::No(fault) => Recognition::No(fault),
    }
}

/// Looks for the signature alone: enough to turn away a peer that may not send a header, well-formed or not, before the
/// rest of it is read.
pub fn recognise_signature(bytes: &[u8]) -> Recognition<HeaderVersion, HeaderError> {
    match (Start::of(bytes, v1::SIGNATURE), Start::of(bytes, v2::SIGNATURE)) {
        (Start::Fits, _) => Recognition::Yes(HeaderVersion::V1),
        (_, Start::Fits) => Recognition::Yes(HeaderVersion::V2),
        (Start::Differs, Start::Differs) => Recognition::No(HeaderError::Absent),
        _ => Recognition::one_more(bytes.len()),
    }
}

#[cfg(test)]
mod tests;
