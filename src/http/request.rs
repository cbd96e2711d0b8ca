//! Checks of a request that hyper has parsed: what a gate of bytes does not see, and all that HTTP/2 has to show.
//!
//! Fields whose names contain `_` pass. A backend that reads `X_Real_Ip` as X-Real-IP must refuse them itself.

use hyper::Version;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

use super::forward::tokens;

/// A rule that a parsed request breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RequestFault {
    /// HTTP/1.1 without Host; HTTP/2 without Host and `:authority`.
    #[error("missing Host")]
    NoHost,
    /// Host twice.
    #[error("more than one Host")]
    SeveralHosts,
    /// Not `uri-host [":" port]`.
    #[error("invalid Host")]
    BadHost,
    /// The target's authority names another host than Host.
    #[error("Host differs from the request target's authority")]
    HostMismatch,
    /// A scheme other than http and https.
    #[error("unsupported scheme in the request target")]
    BadScheme,
    /// A form of target that the method does not have (RFC 9112 3.2).
    #[error("request target does not fit the method")]
    TargetForm,
    /// A request for another protocol with a body: peers disagree on which comes first. h2c is not one, see
    /// [`requested_upgrade`].
    #[error("Upgrade in a request with a body")]
    UpgradeWithBody,
    /// Not a decimal number, or more than one field.
    #[error("invalid Content-Length")]
    BadLength,
    /// White space around a value over HTTP/2, which a backend of HTTP/1 would not see (RFC 9113 8.2.1).
    #[error("white space around a field's value")]
    PaddedValue,
    /// Anything other than one `100-continue`.
    #[error("unsupported Expect")]
    BadExpect,
}

impl RequestFault {
    /// The status of the response. RFC 9110 15.5.18 for Expect.
    pub fn status(self) -> u16 {
        match self {
            RequestFault::BadExpect => 417,
            _ => 400,
        }
    }
}

fn is_padded(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii().len() < value.len()
}

/// Checks a request of HTTP/1.0, HTTP/1.1 or HTTP/2. CONNECT passes in its own form, for the caller to answer.
///
/// # Errors
///
/// The first rule that it breaks.
pub fn check_request(parts: &Parts) -> Result<(), RequestFault> {
    if parts.version == Version::HTTP_2 && parts.headers.values().any(is_padded) {
        return Err(RequestFault::PaddedValue);
    }
    check_target(parts)?;
    check_host(parts)?;
    check_length(&parts.headers)?;
    if parts.headers.get_all(UPGRADE).iter().any(|value| !is_h2c(value)) && has_body(&parts.headers) {
        return Err(RequestFault::UpgradeWithBody);
    }
    match one(&parts.headers, &EXPECT) {
        Ok(None) => Ok(()),
        Ok(Some(value)) if value.eq_ignore_ascii_case(b"100-continue") => Ok(()),
        Ok(Some(_)) | Err(Several) => Err(RequestFault::BadExpect),
    }
}

/// The protocol to which a client wants to change. HTTP/1.1 alone has Upgrade (RFC 9110 7.8).
///
/// `h2c` is none: Java's client offers it with each request, bodies included, and a backend that took it would get requests
/// that no route has seen.
pub fn requested_upgrade(parts: &Parts) -> Option<&HeaderValue> {
    let is_asked =
        parts.headers.get_all(CONNECTION).iter().flat_map(tokens).any(|o| o.eq_ignore_ascii_case(b"upgrade"));
    let mut values = parts.headers.get_all(UPGRADE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if is_asked && parts.version == Version::HTTP_11 && !is_h2c(value) => Some(value),
        _ => None,
    }
}

/// Whether the value offers HTTP/2, alone or in a list.
fn is_h2c(value: &HeaderValue) -> bool {
    tokens(value).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"))
}

fn check_target(parts: &Parts) -> Result<(), RequestFault> {
    let (uri, is_connect) = (&parts.uri, parts.method == hyper::Method::CONNECT);
    match (uri.scheme_str(), uri.authority()) {
        (None, Some(_)) if is_connect => Ok(()),
        _ if is_connect => Err(RequestFault::TargetForm),
        (Some("http" | "https"), Some(_)) => Ok(()),
        (Some(_), _) => Err(RequestFault::BadScheme),
        // HTTP/2 has no authority beside Host.
        (None, Some(_)) if parts.version < Version::HTTP_2 => Err(RequestFault::TargetForm),
        (None, _) => match uri.path() {
            "*" if parts.method == hyper::Method::OPTIONS => Ok(()),
            path if path.starts_with('/') => Ok(()),
            _ => Err(RequestFault::TargetForm),
        },
    }
}

fn check_host(parts: &Parts) -> Result<(), RequestFault> {
    let authority = parts.uri.authority();
    let host = one(&parts.headers, &HOST).map_err(|Several| RequestFault::SeveralHosts)?;
    match (host, authority) {
        (None, None) if parts.version < Version::HTTP_11 => return Ok(()),
        (None, Some(_)) if parts.version == Version::HTTP_11 => return Err(RequestFault::NoHost),
        (None, None) => return Err(RequestFault::NoHost),
        _ => {}
    }
    let is_valid = |bytes: &[u8]| if is_host(bytes) { Ok(()) } else { Err(RequestFault::BadHost) };
    host.map_or(Ok(()), is_valid)?;
    authority.map_or(Ok(()), |authority| is_valid(authority.as_str().as_bytes()))?;
    match (host, authority) {
        (Some(host), Some(authority)) if !is_same(host, authority, parts.uri.scheme_str()) => {
            Err(RequestFault::HostMismatch)
        }
        _ => Ok(()),
    }
}

/// Without regard to case, and to the scheme's default port (RFC 9110 4.2.3).
fn is_same(host: &[u8], authority: &Authority, scheme: Option<&str>) -> bool {
    let port: &[u8] = match scheme {
        Some("http") => b":80",
        Some("https") => b":443",
        _ => b":",
    };
    let without = |name: &[u8]| -> usize { name.len() - name.strip_suffix(port).map_or(0, |_| port.len()) };
    let authority = authority.as_str().as_bytes();
    host[..without(host)].eq_ignore_ascii_case(&authority[..without(authority)])
}

/// `uri-host [":" port]` (RFC 9110 7.2). Empty names, empty ports and commas, which the grammar allows, are refused.
fn is_host(bytes: &[u8]) -> bool {
    let (name, rest) = match bytes.iter().position(|byte| *byte == b']') {
        Some(end) => bytes.split_at(end + 1),
        None => bytes.split_at(bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len())),
    };
    let is_port = match rest {
        [] => true,
        [b':', digits @ ..] => port(digits).is_some(),
        _ => false,
    };
    is_port && is_name(name)
}

fn port(digits: &[u8]) -> Option<u16> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn is_name(name: &[u8]) -> bool {
    if let Some(inner) = name.strip_prefix(b"[") {
        let address = inner.strip_suffix(b"]").and_then(|inner| std::str::from_utf8(inner).ok());
        return address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let mut rest = name;
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            b'%' => match behind {
                [high, low, behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => behind,
                _ => return false,
            },
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => behind,
            byte if byte.is_ascii_alphanumeric() => behind,
            _ => return false,
        };
    }
    !name.is_empty()
}

/// HTTP/1 lengths have passed the gate; those of HTTP/2 have not.
fn check_length(headers: &HeaderMap) -> Result<(), RequestFault> {
    let value = one(headers, &CONTENT_LENGTH).map_err(|Several| RequestFault::BadLength)?;
    match value.map(length) {
        Some(None) => Err(RequestFault::BadLength),
        _ => Ok(()),
    }
}

fn length(digits: &[u8]) -> Option<i64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn has_body(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| length(value.as_bytes()));
    headers.contains_key(TRANSFER_ENCODING) || declared.is_some_and(|length| length > 0)
}

/// More than one field of a name.
struct Several;

/// The only field of a name, if there is one.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, Several> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
        _ => Err(Several),
    }
}

#[cfg(test)]
mod tests;
