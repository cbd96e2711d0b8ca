//! Why a request is refused.

/// A rule that the client's bytes break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// More bytes of fields than the limit of a head leaves.
    #[error("request head exceeds http.max_head")]
    HeadTooLong,
    /// A request line that alone exceeds the limit of a head.
    #[error("request line exceeds http.max_head")]
    UriTooLong,
    /// More fields than [`super::MAX_FIELDS`], in a head or a trailer section.
    #[error("more than 100 header fields")]
    TooManyFields,
    /// More empty lines before a request than [`super::MAX_EMPTY_LINES`].
    #[error("too many empty lines before a request")]
    TooManyEmptyLines,
    /// Not three parts with one space between.
    #[error("malformed request line")]
    BadRequestLine,
    /// A well-formed version other than 1.0 and 1.1.
    #[error("unsupported HTTP version")]
    UnsupportedVersion,
    /// Not a token.
    #[error("invalid character in the method")]
    BadMethod,
    /// Bytes other than visible ASCII, or a fragment.
    #[error("invalid character in the request target")]
    BadTarget,
    /// CR that no LF follows.
    #[error("bare CR")]
    BareCr,
    /// LF that follows no CR.
    #[error("bare LF")]
    BareLf,
    /// A line that begins with white space.
    #[error("obsolete line folding")]
    ObsoleteFold,
    /// White space between a field's name and its colon.
    #[error("white space before the colon of a header field")]
    SpaceBeforeColon,
    /// Not a token, or no colon.
    #[error("invalid header field name")]
    BadFieldName,
    /// A control character.
    #[error("invalid character in a header field value")]
    BadFieldValue,
    /// Both ways to say where the body ends.
    #[error("Content-Length together with Transfer-Encoding")]
    LengthAndTransferEncoding,
    /// Content-Length twice, or as a list; also when the values are equal.
    #[error("more than one Content-Length")]
    SeveralLengths,
    /// Not a decimal number up to 2^63 - 1.
    #[error("invalid Content-Length")]
    BadLength,
    /// Transfer-Encoding twice.
    #[error("more than one Transfer-Encoding")]
    SeveralTransferEncodings,
    /// Anything other than `chunked`.
    #[error("unsupported Transfer-Encoding")]
    BadTransferEncoding,
    /// HTTP/1.0 has no transfer codings.
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    TransferEncodingOnHttp10,
    /// A chunk's size, or the line end behind its data.
    #[error("malformed chunk")]
    BadChunk,
    /// A control character in a chunk extension.
    #[error("invalid character in a chunk extension")]
    BadChunkExtension,
    /// Over [`super::MAX_EXTENSION`] in a line, or [`super::MAX_EXTENSIONS`] in a body.
    #[error("chunk extensions too long")]
    ChunkExtensionsTooLong,
    /// Content-Length, Transfer-Encoding or Host in a trailer section.
    #[error("trailer field that controls framing or routing")]
    ForbiddenTrailer,
    /// A trailer section over the limit.
    #[error("trailer section too long")]
    TrailersTooLong,
}

impl Violation {
    /// The status of the response. RFC 9110 15.5 and 15.6; 501 for transfer codings as nginx (RFC 9112 6.1).
    pub fn status(self) -> u16 {
        match self {
            Violation::UriTooLong => 414,
            Violation::HeadTooLong | Violation::TooManyFields | Violation::TrailersTooLong => 431,
            Violation::BadTransferEncoding => 501,
            Violation::UnsupportedVersion => 505,
            _ => 400,
        }
    }
}
