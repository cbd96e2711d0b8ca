//! The words of TLS, of routes and of the PROXY protocol.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, ip_mask_to_prefix};

use super::host_name;
use crate::config::model::{Authorities, TlsVersion};
use crate::config::report::{Fault, shown, similar};
use crate::net::name::NamePattern;

/// The oldest version of TLS that is spoken: `1.2` or `1.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MinVersion(pub(crate) TlsVersion);

impl FromStr for MinVersion {
    type Err = Fault;

    fn from_str(text: &str) -> Result<MinVersion, Fault> {
        match text {
            "1.2" => Ok(MinVersion(TlsVersion::V1_2)),
            "1.3" => Ok(MinVersion(TlsVersion::V1_3)),
            _ => {
                let fault = Fault::new(format!("`{}` is not a version of TLS that is spoken here", shown(text)));
                Err(fault.hint("write \"1.2\" or \"1.3\"; older ones are not safe any more (RFC 8996)"))
            }
        }
    }
}

impl fmt::Display for MinVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        })
    }
}

/// The name of an application protocol, as ALPN has it: 1 to 255 bytes (RFC 7301, 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProtocolName(pub(crate) String);

impl FromStr for ProtocolName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<ProtocolName, Fault> {
        match text.len() {
            0 => Err(Fault::new("the name of a protocol must not be empty").hint("for example h2 or postgresql")),
            1..=255 => Ok(ProtocolName(text.to_owned())),
            length => Err(Fault::new(format!("the name of a protocol of {length} bytes")).hint("at most 255")),
        }
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names of servers that a route takes: `db.example.com`, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NameRule(pub(crate) NamePattern);

impl FromStr for NameRule {
    type Err = Fault;

    fn from_str(text: &str) -> Result<NameRule, Fault> {
        if text.parse::<IpAddr>().is_ok() {
            return Err(Fault::new(format!("`{text}` is an address, which no client sends as a server's name"))
                .hint("for connections to this address, bind a listener to it (RFC 6066, 3)"));
        }
        pattern(text).map(NameRule)
    }
}

fn pattern(text: &str) -> Result<NamePattern, Fault> {
    if let Some(pattern) = NamePattern::parse(text) {
        return Ok(pattern);
    }
    let fault = Fault::new(format!("`{}` is not the name of a server", shown(text)));
    Err(if text == "*" {
        fault.hint("what no route matches goes to the listener's `pool`")
    } else if text.contains(['/', ':']) {
        fault.hint("write the name alone, without scheme, port and path: www.example.com")
    } else if text.contains('*') {
        fault.hint("a star stands for the whole first part of a name: *.example.com")
    } else if !text.is_ascii() {
        fault.hint("write it as DNS has it: xn--...")
    } else {
        fault.hint("letters, digits, `-`, `_` and `.`; at most 63 between two dots, 253 in all")
    })
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hosts that a route takes, as requests name them: a server's name, or an IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostRule(pub(crate) NamePattern);

impl FromStr for HostRule {
    type Err = Fault;

    fn from_str(text: &str) -> Result<HostRule, Fault> {
        pattern(text).map(HostRule)
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the paths of requests begin with that a route takes: `/api/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PathPrefix(pub(crate) Arc<str>);

impl FromStr for PathPrefix {
    type Err = Fault;

    fn from_str(text: &str) -> Result<PathPrefix, Fault> {
        let fault = Fault::new(format!("`{}` is not the beginning of a path", shown(text)));
        if !text.starts_with('/') {
            return Err(fault.hint(format!("paths begin with a slash: write /{}", shown(text))));
        }
        if text.contains(['?', '#']) {
            return Err(fault.hint("the query is not looked at: write what comes before it"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(fault.hint("write it as it is sent: other characters are percent-encoded, as %20 is a space"));
        }
        Ok(PathPrefix(text.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name that a backend's certificate must be for: a host name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerName(pub(crate) String);

impl FromStr for ServerName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<ServerName, Fault> {
        let wrong = || Fault::new(format!("`{}` is not a host name", shown(text)));
        if text.parse::<IpAddr>().is_ok() {
            return Ok(ServerName(text.to_owned()));
        }
        if text.starts_with('[') || text.contains("://") || text.contains(':') {
            return Err(wrong().hint("write the name or the IP address alone, without brackets, scheme and port"));
        }
        if text.starts_with("*.") {
            return Err(wrong().hint("write one name that the certificate is for, without a star"));
        }
        host_name(text)?;
        Ok(ServerName(text.to_owned()))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A PEM file, by its path from the directory that tidegate is started in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) PathBuf);

impl FromStr for FilePath {
    type Err = Fault;

    fn from_str(text: &str) -> Result<FilePath, Fault> {
        let fault = if text.contains("-----BEGIN") {
            Fault::new("this is the content of a PEM file, not its path").hint("save it as a file, and name the file")
        } else if text.is_empty() {
            Fault::new("the path of a file must not be empty").hint("for example /etc/tidegate/server.pem")
        } else if text.ends_with('/') || text.contains(char::is_control) {
            Fault::new(format!("`{}` is not the path of a file", shown(text)))
                .hint("for example /etc/tidegate/server.pem")
        } else {
            return Ok(FilePath(PathBuf::from(text)));
        };
        Err(fault)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Who may have signed a backend's certificate: `system`, or a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustedBy(pub(crate) Authorities);

impl FromStr for TrustedBy {
    type Err = Fault;

    fn from_str(text: &str) -> Result<TrustedBy, Fault> {
        if text == "system" {
            return Ok(TrustedBy(Authorities::System));
        }
        if !text.contains(['/', '.']) && similar(text, ["system"]).is_some() {
            let fault = Fault::new(format!("`{text}` is neither system nor a path"));
            return Err(fault.hint("did you mean `system`? A path has a slash: ./ca.pem"));
        }
        text.parse().map(|FilePath(path)| TrustedBy(Authorities::File(path)))
    }
}

impl fmt::Display for TrustedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Authorities::System => f.write_str("system"),
            Authorities::File(path) => path.display().fmt(f),
        }
    }
}

/// Addresses: a network such as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network(pub(crate) IpNet);

impl FromStr for Network {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Network, Fault> {
        let wrong = || Fault::new(format!("`{}` is not a network", shown(text)));
        let example = "write a network such as 10.0.0.0/8 or 2001:db8::/32, or one address";
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(wrong().hint(match text.parse::<SocketAddr>() {
                Ok(with_port) => format!("leave the port out: {}", with_port.ip()),
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
                            _ => format!("the number after the slash counts leading bits: 0 to {most}"),
                        }));
                    }
                }
            }
        };
        if net != net.trunc() {
            return Err(Fault::new(format!("`{text}` has bits set that the prefix leaves out"))
                .hint(format!("write {} for the network, {address} for this address alone", net.trunc())));
        }
        if let IpAddr::V6(v6) = address
            && let (Some(v4), Some(prefix)) = (v6.to_ipv4_mapped(), net.prefix_len().checked_sub(96))
        {
            let net = IpNet::new(v4.into(), prefix).unwrap_or(IpNet::from(IpAddr::V4(v4)));
            return Err(Fault::new(format!("`{text}` is IPv4 written as IPv6")).hint(format!("write {}", Network(net))));
        }
        Ok(Network(net))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}
