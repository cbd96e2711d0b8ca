//! What a request is for.

use hyper::header::HOST;
use hyper::http::request::Parts;

/// The host and port: of the target, or of the Host field.
pub fn authority(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(HOST)?.to_str().ok(),
    }
}
