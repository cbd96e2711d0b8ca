//! Why the messages of a connection are no longer followed.

#![forbid(unsafe_code)]

use thiserror::Error;

/// Why a connection turns opaque. After "a connection that", the message is a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpaqueReason {
    /// Switched to another protocol (101).
    #[error("was upgraded to another protocol")]
    Upgraded,
    /// Became a tunnel (CONNECT).
    #[error("became a tunnel")]
    Tunnel,
    /// A malformed head.
    #[error("is not HTTP/1, or not any more: {0}")]
    Malformed(httparse::Error),
    /// A head longer than the limit.
    #[error("has an HTTP head longer than 16 KiB")]
    LongHead,
    /// More header fields than the limit.
    #[error("has an HTTP head with more than 100 fields")]
    ManyFields,
    /// An ambiguous body length (RFC 9112, 6.3): a vector of request smuggling.
    #[error("has an HTTP message whose length depends on its reader")]
    Length,
    /// A malformed chunk.
    #[error("has a malformed chunk")]
    Chunk,
    /// Too many pipelined requests.
    #[error("has more than 256 requests waiting for their answers")]
    Pipelined,
}
