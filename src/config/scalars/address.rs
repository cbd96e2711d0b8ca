//! Addresses of listeners, backends and syslog servers.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::model::{BackendAddress, ListenAddress, SyslogServer};
use crate::config::report::{Diagnostic, shown};
use crate::net::addr::{Address, CLIENT_PORT};
use crate::net::interfaces;

/// Maximum length of a unix socket's path, in bytes, without the final NUL (unix(7)).
pub(super) const SUN_PATH: usize = 107;

const IPV6: &str = "enclose an IPv6 address in brackets: \"[::1]:8080\"";

/// A listener's address: `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:30000-30099`, `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindAddress(pub(crate) ListenAddress);

impl FromStr for BindAddress {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<BindAddress, Diagnostic> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(BindAddress(ListenAddress::One(Address::Unix(Arc::new(socket_path("unix:", path)?)))));
        }
        if let Some((one, first, last)) = port_range(text) {
            return range(text, &one, first, last).map(BindAddress);
        }
        if let Some(address) = socket_address(text)? {
            return Ok(BindAddress(ListenAddress::One(Address::Tcp(address))));
        }
        let (host, port) = host_and_port(text, "0.0.0.0:8080")?;
        if host.is_empty() || host == "*" {
            return Err(not_address(text)
                .hint(format!("write 0.0.0.0:{port} for every IPv4 address, \"[::]:{port}\" for IPv6 too")));
        }
        host_name(host)?;
        Err(Diagnostic::new(format!("`{host}` is a host name: listeners bind to IP addresses"))
            .hint(format!("write 127.0.0.1:{port} for this host only, 0.0.0.0:{port} for every IPv4 address")))
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A backend's address: as [`BindAddress`], or a host name and a port.
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
        if let Some(host) = text.strip_suffix(":*").filter(|_| !text.starts_with("unix:")) {
            // Any port, for what is right and wrong with the rest.
            let one = format!("{host}:1");
            let parsed = one.parse::<BackendEndpoint>();
            let mut address =
                parsed.map_err(|fault| Diagnostic { message: fault.message.replace(&one, text), ..fault })?.address;
            match &mut address {
                BackendAddress::Ip(address) => address.set_port(CLIENT_PORT),
                BackendAddress::Name { port, .. } => *port = CLIENT_PORT,
                BackendAddress::Unix(_) => {}
            }
            return Ok(target(address));
        }
        if port_range(text).is_some() {
            return Err(Diagnostic::new(format!("`{}` has a range of ports", shown(text)))
                .hint("write one port, or `*` for the port that the client connected to"));
        }
        let no_port = || Diagnostic::new(format!("`{text}` has port 0")).hint("a backend's port is 1 to 65535");
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(target(BackendAddress::Unix(socket_path("unix:", path)?)));
        }
        if let Some(address) = socket_address(text)? {
            if address.port() == CLIENT_PORT {
                return Err(no_port());
            }
            if address.ip().is_unspecified() {
                return Err(Diagnostic::new(format!("`{text}` is the wildcard address"))
                    .hint("use the backend's own address, such as 127.0.0.1"));
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

/// A local address to connect from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceAddress(pub(crate) IpAddr);

impl FromStr for SourceAddress {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<SourceAddress, Diagnostic> {
        let wrong = Diagnostic::new(format!("`{}` is not an IP address", shown(text)));
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                Err(Diagnostic::new(format!("`{text}` cannot be a source address"))
                    .hint("use an address of this host, or remove `source`"))
            }
            Ok(ip) => Ok(SourceAddress(ip)),
            Err(_) if text.parse::<SocketAddr>().is_ok() => Err(wrong.hint("remove the port: the kernel chooses it")),
            Err(_) => Err(wrong.hint("use an address of this host, such as 10.0.0.7")),
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
        return Err(
            Diagnostic::new(format!("`{text}` is a multicast or broadcast address")).hint("use a unicast address")
        );
    }
    let SocketAddr::V6(v6) = &mut address else { return Ok(Some(address)) };
    match (v6.ip().is_unicast_link_local(), zone) {
        (true, Some(zone)) => v6.set_scope_id(interface(zone)?),
        (true, None) => {
            let (ip, port) = (v6.ip(), v6.port());
            return Err(Diagnostic::new(format!("`{text}` is a link-local address without its interface"))
                .hint(format!("write \"[{ip}%{}]:{port}\"; {}", interfaces::example(), interfaces_here())));
        }
        (false, Some(zone)) => {
            return Err(Diagnostic::new(format!("`{text}` is not a link-local address and takes no interface"))
                .hint(format!("remove %{}", shown(zone))));
        }
        (false, None) => {}
    }
    Ok(Some(address))
}

/// The index of a network interface, by name or number.
fn interface(zone: &str) -> Result<u32, Diagnostic> {
    let index = match zone.parse::<u32>() {
        Ok(index) if zone.bytes().all(|byte| byte.is_ascii_digit()) => interfaces::exists(index).then_some(index),
        _ => interfaces::index(zone),
    };
    index.ok_or_else(|| {
        Diagnostic::new(format!("this host has no network interface `{}`", shown(zone))).hint(interfaces_here())
    })
}

fn interfaces_here() -> String {
    match interfaces::names().as_slice() {
        [] => "`ip link` lists the interfaces".to_owned(),
        names => format!("the interfaces here are {}", names.join(", ")),
    }
}

fn not_address(text: &str) -> Diagnostic {
    Diagnostic::new(format!("`{}` is not an address", shown(text)))
}

/// Splits `host:port`; recognises common mistakes.
fn host_and_port<'a>(text: &'a str, example: &str) -> Result<(&'a str, u16), Diagnostic> {
    if text.contains("://") {
        return Err(not_address(text).hint(format!("remove the scheme and write host:port: {example}")));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(not_address(text).hint(IPV6));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let diagnostic = if text.bytes().all(|byte| byte.is_ascii_digit()) || text.starts_with('/') {
            not_address(text)
        } else {
            Diagnostic::new(format!("`{}` has no port", shown(text)))
        };
        return Err(diagnostic.hint(format!("write an address and a port, such as {example}, or unix:/path")));
    };
    if host.contains(':') {
        return Err(not_address(text).hint(IPV6));
    }
    if port == "*" {
        return Err(Diagnostic::new(format!("`{}` has no port", shown(text)))
            .hint("`*` is for backends; a listener has one port, or a range such as 30000-30099"));
    }
    let digits = is_number(port);
    match port.parse() {
        Ok(port) if digits => Ok((host, port)),
        _ => Err(not_address(text).hint(format!("`{}` is not a port: valid are 1 to 65535", shown(port)))),
    }
}

/// An address with a range of ports: the address with the first of them, and both, which need not be valid.
fn port_range(text: &str) -> Option<(String, &str, &str)> {
    let (host, ports) = text.rsplit_once(':')?;
    let (first, last) = ports.split_once('-')?;
    (is_number(first) && is_number(last)).then(|| (format!("{host}:{first}"), first, last))
}

fn range(text: &str, one: &str, first: &str, last: &str) -> Result<ListenAddress, Diagnostic> {
    let wrong = |hint: String| Diagnostic::new(format!("`{}` is not a range of ports", shown(text))).hint(hint);
    let valid = "ports are 1 to 65535, such as 0.0.0.0:30000-30099";
    let port = |digits: &str| digits.parse::<u16>().ok().filter(|port| *port > 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else { return Err(wrong(valid.to_owned())) };
    if first > last {
        return Err(wrong(format!("write the lower port first: {last}-{first}")));
    }
    // What is wrong with the host is said of an address with one port.
    match one.parse::<BindAddress>()?.0 {
        ListenAddress::One(Address::Tcp(first)) if first.port() < last => Ok(ListenAddress::Ports { first, last }),
        one => Ok(one),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Checks a host name by RFC 1123. Allows underscores, which are common in internal names.
pub(super) fn host_name(host: &str) -> Result<(), Diagnostic> {
    let wrong = || Diagnostic::new(format!("`{}` is not a host name", shown(host)));
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(
            wrong().hint("allowed are letters, digits, `-` and `.`, at most 63 characters per label and 253 in total")
        );
    }
    // No top-level domain is a number: this is an invalid IPv4 address.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Diagnostic::new(format!("`{host}` is not an IPv4 address"))
            .hint("four numbers from 0 to 255, without leading zeros"));
    }
    Ok(())
}

fn socket_path(scheme: &str, path: &str) -> Result<PathBuf, Diagnostic> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains(char::is_control) {
        return Err(Diagnostic::new(format!("`{scheme}{}` is not a socket path", shown(path)))
            .hint(format!("write an absolute path: {scheme}/run/app.sock")));
    }
    if path.len() > SUN_PATH {
        return Err(Diagnostic::new(format!("the path is {} bytes long; the limit is {SUN_PATH}", path.len()))
            .hint("choose a shorter path"));
    }
    Ok(PathBuf::from(path))
}

/// A receiver of syslog messages: `syslog:/dev/log`, `syslog:127.0.0.1:514` (UDP), `syslog+tcp:127.0.0.1:601`.
pub(super) fn syslog_server(text: &str) -> Result<SyslogServer, Diagnostic> {
    const SPELLINGS: &str = "write syslog:/dev/log, syslog:10.0.0.9:514 (UDP) or syslog+tcp:10.0.0.9:601";
    let wrong = || Diagnostic::new(format!("`{}` is not a syslog server", shown(text))).hint(SPELLINGS);
    let (scheme, place) = text.split_once(':').ok_or_else(wrong)?;
    let by_tcp = match scheme {
        "syslog" if place.starts_with('/') && !place.starts_with("//") => {
            return Ok(SyslogServer::Unix(socket_path("syslog:", place)?));
        }
        "syslog" => false,
        "syslog+tcp" => true,
        _ => return Err(wrong()),
    };
    let Some(address) = socket_address(place)? else {
        return Err(match host_and_port(place, "10.0.0.9:514") {
            _ if place.contains('/') || place.parse::<IpAddr>().is_ok() => wrong(),
            Ok((host, port)) if host_name(host).is_ok() => {
                Diagnostic::new(format!("`{host}` is a host name: names of syslog servers are not resolved"))
                    .hint(format!("write its IP address: {scheme}:10.0.0.9:{port}"))
            }
            _ => wrong(),
        });
    };
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(wrong());
    }
    Ok(if by_tcp { SyslogServer::Tcp(address) } else { SyslogServer::Udp(address) })
}
