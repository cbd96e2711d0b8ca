//! The PROXY protocol, accepted from clients and sent to backends.

use ipnet::IpNet;

/// `listeners[].proxy_protocol`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Peers whose headers are accepted, besides those of a unix socket. At least one.
    pub trusted: Vec<IpNet>,
    /// Whether trusted peers must send a header.
    pub required: bool,
}

/// `pools[].send_proxy`, when it is not off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxy {
    V1,
    V2,
}
