//! Fields of a request on its way to the backend.
//!
//! The order matters: [`strip_hop_by_hop`] first, [`set_forwarded`] after it. A client that names X-Forwarded-For in
//! Connection then removes its own field, not the one that is added.

use std::io::Write;
use std::net::IpAddr;

use hyper::body::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use smallvec::SmallVec;

use crate::config::model::Forwarded;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// A client of a unix socket, as nginx's `$remote_addr` names it.
const UNIX_CLIENT: &str = "unix:";

/// The longest text of an address.
const MAX_ADDRESS: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

/// What tidegate knows of a request's way so far.
#[derive(Clone, Copy, Debug)]
pub struct ForwardedFacts<'a> {
    /// `None`: a client of a unix socket.
    pub client: Option<IpAddr>,
    /// The client came by TLS.
    pub is_tls: bool,
    /// Host or `:authority` as the client sent it.
    pub host: Option<&'a HeaderValue>,
}

/// Removes what concerns the connection alone: Connection with what it names, and the fields of RFC 9110 7.6.1. TE is
/// kept as `trailers` where it says so. Proxy-Authorization stays. For requests and responses.
///
/// Host and Content-Length stay even where Connection names them: routing and framing depend on them.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Values are references to the same bytes: a clone copies none.
    let options: SmallVec<[HeaderValue; 1]> = headers.get_all(CONNECTION).iter().cloned().collect();
    let takes_trailers = headers.get_all(TE).iter().any(|value| tokens(value).any(is_trailers));
    for option in options.iter().flat_map(tokens) {
        if let Ok(name) = HeaderName::from_bytes(option)
            && name != HOST
            && name != CONTENT_LENGTH
        {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, TE] {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Says who the client is, in X-Forwarded-For, -Proto, -Host and X-Real-IP.
///
/// `Append` adds the client's address to the X-Forwarded-For that came, in one field; the others are replaced, since
/// only lists say which hop wrote what. `Replace` drops all that the client said, `Off` passes it on. IPv6 addresses
/// are bare.
pub fn set_forwarded(headers: &mut HeaderMap, forwarded: Forwarded, facts: ForwardedFacts<'_>) {
    let before: SmallVec<[HeaderValue; 1]> = match forwarded {
        Forwarded::Off => return,
        Forwarded::Replace => SmallVec::new(),
        Forwarded::Append => headers.get_all(X_FORWARDED_FOR).iter().filter(|v| !v.is_empty()).cloned().collect(),
    };
    let length: usize = before.iter().map(|value| value.len() + ", ".len()).sum();
    let mut list = Vec::with_capacity(length + MAX_ADDRESS);
    for value in &before {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    match facts.client {
        // Writing to a Vec cannot fail.
        Some(client) => drop(write!(list, "{}", client.to_canonical())),
        None => list.extend_from_slice(UNIX_CLIENT.as_bytes()),
    }
    let list = Bytes::from(list);
    set(headers, X_REAL_IP, HeaderValue::from_maybe_shared(list.slice(length..)).ok());
    set(headers, X_FORWARDED_FOR, HeaderValue::from_maybe_shared(list).ok());
    let scheme = if facts.is_tls { "https" } else { "http" };
    set(headers, X_FORWARDED_PROTO, Some(HeaderValue::from_static(scheme)));
    set(headers, X_FORWARDED_HOST, facts.host.cloned());
}

/// Replaces all fields of the name; without a value, removes them.
fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn is_trailers(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"trailers")
}

#[cfg(test)]
mod tests;
