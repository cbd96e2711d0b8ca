//! Heads of messages: of what they say, what decides where the body ends.

#![forbid(unsafe_code)]

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Request, Response, Status};

use super::body::Body;
use super::limits::{MAX_FIELDS, MAX_HEAD};
use super::opaque::OpaqueReason;
use crate::stats::http::Method;

/// A request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestFraming {
    pub(super) method: Method,
    pub(super) body: Option<Body>,
}

/// A response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseFraming {
    pub(super) status: u16,
    pub(super) body: Option<Body>,
}

/// The head that bytes begin with, if it is all there, and its length.
type Found<T> = Result<Option<(T, usize)>, OpaqueReason>;

/// Reads on in a head of which `kept` was there before. Takes the head's bytes, or all of them, off `bytes`.
pub(super) fn read<T>(
    kept: &mut Vec<u8>,
    bytes: &mut &[u8],
    parse: impl Fn(&[u8]) -> Found<T>,
) -> Result<Option<T>, OpaqueReason> {
    let before = kept.len();
    let within = bytes.get(..MAX_HEAD.saturating_sub(before)).unwrap_or(bytes);
    let found = match before {
        0 => parse(within)?,
        _ => {
            kept.extend_from_slice(within);
            parse(kept)?
        }
    };
    let Some((head, length)) = found else {
        if before + within.len() >= MAX_HEAD {
            return Err(OpaqueReason::LongHead);
        }
        if before == 0 {
            kept.extend_from_slice(within);
        }
        *bytes = &[];
        return Ok(None);
    };
    *kept = Vec::new();
    *bytes = bytes.get(length.saturating_sub(before)..).unwrap_or_default();
    Ok(Some(head))
}

/// The head of a request.
pub(super) fn request(bytes: &[u8]) -> Found<RequestFraming> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = Request::new(&mut []);
    let Status::Complete(length) = request.parse_with_uninit_headers(bytes, &mut fields)? else { return Ok(None) };
    let body = match lengths(request.headers, request.version)? {
        Lengths { coding: Some(Coding::Chunked), .. } => Some(Body::CHUNKED),
        // A request cannot last until the close: it could not be answered.
        Lengths { coding: Some(Coding::Other), .. } => return Err(OpaqueReason::Length),
        Lengths { length, .. } => length.and_then(sized),
    };
    let method = Method::named(request.method.unwrap_or_default());
    if method == Method::Connect && body.is_some() {
        return Err(OpaqueReason::Length);
    }
    Ok(Some((RequestFraming { method, body }, length)))
}

/// The head of a response to a request with this method (RFC 9112, 6.3).
pub(super) fn response(bytes: &[u8], method: Option<Method>) -> Found<ResponseFraming> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = Response::new(&mut []);
    let mut config = ParserConfig::default();
    // Clients have to take folded lines (RFC 9112, 5.2).
    config.allow_obsolete_multiline_headers_in_responses(true);
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields)?;
    let Status::Complete(length) = parsed else { return Ok(None) };
    let status = response.code.unwrap_or_default();
    let body = match (status, method) {
        (100..200 | 204 | 304, _) | (_, Some(Method::Head)) | (200..300, Some(Method::Connect)) => None,
        _ => match lengths(response.headers, response.version)? {
            Lengths { coding: Some(Coding::Chunked), .. } => Some(Body::CHUNKED),
            Lengths { coding: None, length: Some(length) } => sized(length),
            _ => Some(Body::UntilClose),
        },
    };
    Ok(Some((ResponseFraming { status, body }, length)))
}

fn sized(length: u64) -> Option<Body> {
    (length > 0).then_some(Body::Sized(length))
}

impl From<httparse::Error> for OpaqueReason {
    fn from(error: httparse::Error) -> OpaqueReason {
        match error {
            httparse::Error::TooManyHeaders => OpaqueReason::ManyFields,
            error => OpaqueReason::Malformed(error),
        }
    }
}

/// The last of the transfer codings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

/// What fields say of the body's length. A transfer coding overrides a length (RFC 9112, 6.3).
struct Lengths {
    coding: Option<Coding>,
    length: Option<u64>,
}

fn lengths(fields: &[Header<'_>], version: Option<u8>) -> Result<Lengths, OpaqueReason> {
    let (mut coding, mut times_chunked) = (None, 0);
    for name in values(fields, "transfer-encoding").filter(|name| !name.is_empty()) {
        let chunked = name.eq_ignore_ascii_case(b"chunked");
        times_chunked += usize::from(chunked);
        // Chunked twice is forbidden; and where it is said that there is none, some believe a length that is given
        // beside that, others do not.
        if times_chunked > 1 || name.eq_ignore_ascii_case(b"identity") {
            return Err(OpaqueReason::Length);
        }
        coding = Some(if chunked { Coding::Chunked } else { Coding::Other });
    }
    match coding {
        // HTTP/1.0 has none: faulty, whatever the length (RFC 9112, 6.1).
        Some(_) if version == Some(0) => Err(OpaqueReason::Length),
        Some(_) => Ok(Lengths { coding, length: None }),
        None => {
            let mut length = None;
            for value in values(fields, "content-length") {
                let value = number(value).ok_or(OpaqueReason::Length)?;
                if length.replace(value).is_some_and(|other| other != value) {
                    return Err(OpaqueReason::Length);
                }
            }
            Ok(Lengths { coding, length })
        }
    }
}

/// The members of a field's list, on whatever lines they are.
fn values<'a>(fields: &'a [Header<'a>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    lines.flat_map(|field| field.value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}
