//! What a backend's response must keep to, for its end to be where the client sees it (RFC 9112, 6.3).
//!
//! hyper decodes one that breaks these rules by the rules of precedence, and leaves its fields as they came: forwarded, they would say
//! something else than the body is.

use hyper::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};

/// Why a response cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseFault {
    /// Readers differ in which of them ends the body.
    #[error("Content-Length together with Transfer-Encoding")]
    LengthAndTransferEncoding,
    /// Also equal ones, as nginx has it.
    #[error("more than one Content-Length")]
    SeveralLengths,
    /// Its body stays coded, and the field is one of a hop.
    #[error("a Transfer-Encoding other than chunked")]
    BadTransferEncoding,
}

/// Checks the framing of a response.
///
/// # Errors
/// It is ambiguous, or cannot be forwarded as it is.
pub fn check_response(headers: &HeaderMap) -> Result<(), ResponseFault> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (coding, lengths.next()) {
        (Some(_), Some(_)) => Err(ResponseFault::LengthAndTransferEncoding),
        (Some(coding), None) if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Err(ResponseFault::BadTransferEncoding)
        }
        (None, Some(length)) if lengths.next().is_some() || length.as_bytes().contains(&b',') => {
            Err(ResponseFault::SeveralLengths)
        }
        _ => Ok(()),
    }
}
