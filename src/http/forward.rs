//! stub
use crate::config::model::Forwarded;
use hyper::header::HeaderMap;
use std::net::IpAddr;
pub struct ForwardedFacts<'a> {
    pub client: Option<IpAddr>,
    pub scheme: &'static str,
    pub host: Option<&'a str>,
}
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for n in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"] {
        headers.remove(n);
    }
}
pub fn set_forwarded(_: &mut HeaderMap, _: Forwarded, _: &ForwardedFacts<'_>) {}
