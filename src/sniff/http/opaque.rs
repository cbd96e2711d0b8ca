//! Why a connection's messages are no longer followed.

#![forbid(unsafe_code)]

use thiserror::Error;

/// Why a connection turns opaque. After "a connection that", the message is a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// It speaks another protocol now: 101.
    #[error("was upgraded to another protocol")]
    Upgraded,
    /// It is a tunnel now: CONNECT.
    #[error("became a tunnel")]
    Tunnel,
    /// No head is made so.
    #[error("is not HTTP/1, or not any more: {0}")]
    Malformed(httparse::Error),
    /// A head does not end within the limit.
    #[error("has an HTTP head longer than 16 KiB")]
    LongHead,
    /// A head has more fields than are read.
    #[error("has an HTTP head with more than 100 fields")]
    ManyFields,
    /// A head says several things about the length of its body, or none that all readers understand alike.
    #[error("has an HTTP message whose length depends on its reader")]
    Length,
    /// The chunked coding is broken.
    #[error("has a malformed chunk")]
    Chunk,
    /// Too many requests wait for their answers.
    #[error("has more than 256 requests waiting for their answers")]
    Pipelined,
}
