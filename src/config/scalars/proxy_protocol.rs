//! Trusted peers of the PROXY protocol.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, ip_mask_to_prefix};

use crate::config::report::{Diagnostic, shown};

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network(pub(crate) IpNet);

impl FromStr for Network {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Network, Diagnostic> {
        let wrong = || Diagnostic::new(format!("`{}` is not a network", shown(text)));
        let example = "write a network such as 10.0.0.0/8 or 2001:db8::/32, or one address";
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(wrong().hint(match text.parse::<SocketAddr>() {
                Ok(with_port) => format!("remove the port: {}", with_port.ip()),
                Err(_) => example.to_owned(),
            }));
        };
        let whole = IpNet::from(address);
        let net = match length {
            None => whole,
            Some(length) => {
                let most = whole.max_prefix_len();
                let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                let prefix = length.parse().ok().filter(|_| digits);
                match prefix.and_then(|prefix| IpNet::new(address, prefix).ok()) {
                    Some(net) => net,
                    None => {
                        return Err(wrong().hint(match length.parse().ok().map(ip_mask_to_prefix) {
                            Some(Ok(prefix)) if prefix <= most => format!("write {address}/{prefix}"),
                            _ => format!("the prefix length is 0 to {most}"),
                        }));
                    }
                }
            }
        };
        if net != net.trunc() {
            return Err(Diagnostic::new(format!("`{text}` has host bits set"))
                .hint(format!("write {} for the network, {address} for this address alone", net.trunc())));
        }
        if let IpAddr::V6(v6) = address
            && let (Some(v4), Some(prefix)) = (v6.to_ipv4_mapped(), net.prefix_len().checked_sub(96))
        {
            let net = IpNet::new(v4.into(), prefix).unwrap_or(IpNet::from(IpAddr::V4(v4)));
            return Err(Diagnostic::new(format!("`{text}` is an IPv4-mapped IPv6 address"))
                .hint(format!("write {}", Network(net))));
        }
        Ok(Network(net))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}
