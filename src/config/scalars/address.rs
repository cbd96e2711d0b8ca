//! Addresses of listeners and backends.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::model::BackendAddress;
use crate::config::report::{Diagnostic, shown};
use crate::net::addr::Address;
use crate::net::interfaces;

/// The longest path of a unix socket, without the NUL that ends it (unix(7)).
pub(super) const SUN_PATH: usize = 107;

const IPV6: &str = "an IPv6 address stands in brackets, its port after them: \"[::1]:8080\"";

/// Where a listener binds: `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindAddress(pub(crate) Address);

impl FromStr for BindAddress {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<BindAddress, Diagnostic> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(BindAddress(Address::Unix(Arc::new(unix_path(path)?))));
        }
        if let Some(address) = socket_address(text)? {
            return Ok(BindAddress(Address::Tcp(address)));
        }
        let (host, port) = host_and_port(text, "0.0.0.0:8080")?;
        if host.is_empty() || host == "*" {
            return Err(not_address(text)
                .hint(format!("write 0.0.0.0:{port} for every IPv4 address, \"[::]:{port}\" for IPv6 too")));
        }
        host_name(host)?;
        Err(Diagnostic::error(format!("`{host}` is a name; a listener binds to an IP address"))
            .hint(format!("write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for every IPv4 address")))
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a backend listens: as [`BindAddress`], or a name that DNS resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendEndpoint {
    /// As written; the default of the backend's name.
    pub(crate) text: String,
    pub(crate) address: BackendAddress,
}

impl FromStr for BackendEndpoint {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<BackendEndpoint, Diagnostic> {
        let target = |address| BackendEndpoint { text: text.to_owned(), address };
        let no_port = || Diagnostic::error(format!("`{text}` has port 0")).hint("a backend's port is 1 to 65535");
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(target(BackendAddress::Unix(unix_path(path)?)));
        }
        if let Some(address) = socket_address(text)? {
            if address.port() == 0 {
                return Err(no_port());
            }
            if address.ip().is_unspecified() {
                return Err(Diagnostic::error(format!("`{text}` is every address, not one"))
                    .hint("write the backend's own address, such as 127.0.0.1"));
            }
            return Ok(target(BackendAddress::Ip(address)));
        }
        let (host, port) = host_and_port(text, "10.0.0.1:8080")?;
        if port == 0 {
            return Err(no_port());
        }
        host_name(host)?;
        Ok(target(BackendAddress::Name { host: host.to_owned(), port }))
    }
}

impl fmt::Display for BackendEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A local address to connect from, without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceAddress(pub(crate) IpAddr);

impl FromStr for SourceAddress {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<SourceAddress, Diagnostic> {
        let wrong = Diagnostic::error(format!("`{}` is not an IP address", shown(text)));
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                Err(Diagnostic::error(format!("`{text}` is no address to connect from"))
                    .hint("write an address of this machine, or leave `source` out"))
            }
            Ok(ip) => Ok(SourceAddress(ip)),
            Err(_) if text.parse::<SocketAddr>().is_ok() => {
                Err(wrong.hint("leave the port out: the kernel chooses it"))
            }
            Err(_) => Err(wrong.hint("write an address of this machine, such as 10.0.0.7")),
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IP address and a port; `None` when it is not one.
fn socket_address(text: &str) -> Result<Option<SocketAddr>, Diagnostic> {
    let (address, zone) = match text.split_once('%') {
        Some((host, rest)) if host.starts_with('[') => {
            let Some((zone, port)) = rest.split_once(']') else { return Ok(None) };
            (Cow::Owned(format!("{host}]{port}")), Some(zone))
        }
        _ => (Cow::Borrowed(text), None),
    };
    let Ok(mut address) = address.parse::<SocketAddr>() else { return Ok(None) };
    if address.ip().is_multicast() || address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Diagnostic::error(format!("`{text}` is the address of a group: TCP is between two"))
            .hint("write the address of one host"));
    }
    let SocketAddr::V6(v6) = &mut address else { return Ok(Some(address)) };
    match (v6.ip().is_unicast_link_local(), zone) {
        (true, Some(zone)) => v6.set_scope_id(interface(zone)?),
        (true, None) => {
            let (ip, port) = (v6.ip(), v6.port());
            return Err(Diagnostic::error(format!("`{text}` is a link-local address without its interface"))
                .hint(format!("write \"[{ip}%{}]:{port}\"; {}", interfaces::example(), interfaces_here())));
        }
        (false, Some(zone)) => {
            return Err(Diagnostic::error(format!("`{text}` is not a link-local address, so it has no interface"))
                .hint(format!("leave %{} out", shown(zone))));
        }
        (false, None) => {}
    }
    Ok(Some(address))
}

/// The index of a network interface, named or counted.
fn interface(zone: &str) -> Result<u32, Diagnostic> {
    let index = match zone.parse::<u32>() {
        Ok(index) if zone.bytes().all(|byte| byte.is_ascii_digit()) => interfaces::exists(index).then_some(index),
        _ => interfaces::index(zone),
    };
    index.ok_or_else(|| {
        Diagnostic::error(format!("this host has no network interface `{}`", shown(zone))).hint(interfaces_here())
    })
}

fn interfaces_here() -> String {
    match interfaces::names().as_slice() {
        [] => "`ip link` lists the interfaces".to_owned(),
        names => format!("the interfaces here are {}", names.join(", ")),
    }
}

fn not_address(text: &str) -> Diagnostic {
    Diagnostic::error(format!("`{}` is not an address", shown(text)))
}

/// Takes `name:port` apart; what looks like a mistake of another kind is told as such.
fn host_and_port<'a>(text: &'a str, example: &str) -> Result<(&'a str, u16), Diagnostic> {
    if text.contains("://") {
        return Err(not_address(text).hint(format!("leave the scheme out and write host:port: {example}")));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(not_address(text).hint(IPV6));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let diagnostic = if text.bytes().all(|byte| byte.is_ascii_digit()) || text.starts_with('/') {
            not_address(text)
        } else {
            Diagnostic::error(format!("`{}` has no port", shown(text)))
        };
        return Err(diagnostic.hint(format!("write an address and a port, such as {example}, or unix:/path")));
    };
    if host.contains(':') {
        return Err(not_address(text).hint(IPV6));
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if port == "*" || port.split_once('-').is_some_and(|(first, last)| is_number(first) && is_number(last)) {
        let what = if port == "*" { "the port of the client's choice" } else { "a range of ports" };
        return Err(Diagnostic::error(format!("{what} (`:{port}`) is not supported yet")).hint("write one port"));
    }
    let digits = is_number(port);
    match port.parse() {
        Ok(port) if digits => Ok((host, port)),
        _ => Err(not_address(text).hint(format!("`{}` is not a port: they go from 1 to 65535", shown(port)))),
    }
}

/// RFC 1123's rules for a host name, and underscores, which internal names often have.
pub(super) fn host_name(host: &str) -> Result<(), Diagnostic> {
    let wrong = || Diagnostic::error(format!("`{}` is not a host name", shown(host)));
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(wrong().hint("letters, digits, `-` and `.`; at most 63 between two dots, 253 in all"));
    }
    // A top-level domain is never a number, so this is an IPv4 address with an error in it.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Diagnostic::error(format!("`{host}` is not an IPv4 address"))
            .hint("four numbers from 0 to 255, without leading zeros"));
    }
    Ok(())
}

fn unix_path(path: &str) -> Result<PathBuf, Diagnostic> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains(char::is_control) {
        return Err(Diagnostic::error(format!("`unix:{}` is not the path of a socket", shown(path)))
            .hint("write the whole path, from the root: unix:/run/app.sock"));
    }
    if path.len() > SUN_PATH {
        return Err(Diagnostic::error(format!("the path is {} bytes long; the kernel takes {SUN_PATH}", path.len()))
            .hint("choose a shorter one"));
    }
    Ok(PathBuf::from(path))
}
