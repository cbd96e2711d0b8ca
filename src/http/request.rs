//! stub
use hyper::http::request::Parts;
use std::fmt;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFault;
impl RequestFault {
    pub fn status(self) -> u16 {
        400
    }
}
impl fmt::Display for RequestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stub")
    }
}
pub fn check_request(_: &Parts) -> Result<(), RequestFault> {
    Ok(())
}
/// The host and port that a request is for.
pub fn authority(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(hyper::header::HOST)?.to_str().ok(),
    }
}
