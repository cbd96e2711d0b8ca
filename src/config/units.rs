//! The words of the configuration language: durations, sizes, percentages, addresses. Each is a type
//! with one way to read it and one way to write it, and reading what was written gives it back.

mod first_bytes;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use first_bytes::{
    FilePath, HostRule, MinVersion, NameRule, Network, PathPrefix, ProtocolName, ServerName, TrustedBy,
};

use super::model::{BackendAddress, Rate};
use super::report::{Fault, shown};
use crate::net::addr::Address;
use crate::net::interfaces;

/// The longest duration: a year. A longer one is a typing error, and a clock plus a much longer one
/// would overflow.
const LONGEST: Duration = Duration::from_secs(8760 * 3600);

/// The longest path of a unix socket, without the NUL that ends it (unix(7)).
const SUN_PATH: usize = 107;

const IPV6: &str = "an IPv6 address stands in brackets, its port after them: \"[::1]:8080\"";

/// A length of time, in milliseconds, seconds, minutes or hours: `250ms`, `2s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

impl FromStr for Period {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Period, Fault> {
        let wrong = || Fault::new(format!("`{}` is not a duration", shown(text)));
        let (digits, unit) = split_number(text);
        if digits.is_empty() {
            return Err(wrong().hint("write a number and ms, s, m or h, such as 5s"));
        }
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" => {
                let fault = Fault::new(format!("`{digits}` has no unit"));
                return Err(fault.hint(format!("write {digits}s for seconds; units are ms, s, m and h")));
            }
            _ if unit.starts_with('.') => {
                return Err(wrong().hint("write a whole number of a smaller unit: 1500ms, not 1.5s"));
            }
            _ => return Err(wrong().hint("units are ms, s, m and h, such as 5s")),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(millis))
            .map(Duration::from_millis)
            .filter(|length| *length <= LONGEST)
            .map(Period)
            .ok_or_else(|| Fault::new(format!("`{text}` is too long")).hint("at most a year: 8760h"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            _ if millis.is_multiple_of(3_600_000) => write!(f, "{}h", millis / 3_600_000),
            _ if millis.is_multiple_of(60_000) => write!(f, "{}m", millis / 60_000),
            _ if millis.is_multiple_of(1000) => write!(f, "{}s", millis / 1000),
            _ => write!(f, "{millis}ms"),
        }
    }
}

/// How often something may happen: `20/s`, `600/m`, `1000/h`; `0` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frequency(pub(crate) Option<Rate>);

impl FromStr for Frequency {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Frequency, Fault> {
        const EXAMPLE: &str = "write a number and /s, /m or /h, such as 20/s; 0 is no limit";
        let wrong = || Fault::new(format!("`{}` is not a rate", shown(text))).hint(EXAMPLE);
        let (digits, unit) = split_number(text);
        if digits.is_empty() {
            return Err(wrong());
        }
        let count = digits
            .parse::<u32>()
            .map_err(|_| Fault::new(format!("`{text}` is too much")).hint(format!("at most {}/s", u32::MAX)))?;
        let seconds = match unit {
            "/s" => 1,
            "/m" => 60,
            "/h" => 3600,
            "" if count == 0 => return Ok(Frequency(None)),
            "" => {
                let fault = Fault::new(format!("`{digits}` does not say in which time"));
                return Err(fault.hint(format!("write {digits}/s for so many a second, or /m or /h")));
            }
            _ => return Err(wrong()),
        };
        Ok(Frequency(NonZeroU32::new(count).map(|count| Rate { count, per: Duration::from_secs(seconds) })))
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("0"),
        }
    }
}

/// A number of bytes: `512B`, `64KiB`, `1MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "only keys that are not supported yet are sizes")]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Size, Fault> {
        let wrong = || {
            Fault::new(format!("`{}` is not a size", shown(text)))
                .hint("write a number and B, KiB, MiB or GiB, such as 64KiB")
        };
        let (digits, unit) = split_number(text);
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = |shift: &u32| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        let (shift, unit) = units.into_iter().find(|(shift, _)| whole(shift)).unwrap_or((0, "B"));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// Hundredths, 0 to 100: `50%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "only keys that are not supported yet are percentages")]
pub(crate) struct Percent(pub(crate) u8);

impl FromStr for Percent {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Percent, Fault> {
        match split_number(text) {
            (digits, "%") => digits.parse().ok(),
            _ => None,
        }
        .filter(|percent| *percent <= 100)
        .map(Percent)
        .ok_or_else(|| {
            Fault::new(format!("`{}` is not a percentage", shown(text))).hint("write 0% to 100%, such as 50%")
        })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// HTTP statuses: `200-399`, or one alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusRange(pub(crate) RangeInclusive<u16>);

impl FromStr for StatusRange {
    type Err = Fault;

    fn from_str(text: &str) -> Result<StatusRange, Fault> {
        let status = |text: &str| {
            let three = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|status| three && (100..=599).contains(status))
        };
        let range = match text.split_once('-') {
            Some((first, last)) => status(first).zip(status(last)),
            None => status(text).map(|only| (only, only)),
        };
        let (first, last) = range.ok_or_else(|| {
            Fault::new(format!("`{}` is not a range of HTTP statuses", shown(text)))
                .hint("write 200-399, or one status; they go from 100 to 599")
        })?;
        if first > last {
            return Err(Fault::new(format!("`{text}` ends before it begins")).hint(format!("write {last}-{first}")));
        }
        Ok(StatusRange(first..=last))
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// Where a listener binds: `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindAddress(pub(crate) Address);

impl FromStr for BindAddress {
    type Err = Fault;

    fn from_str(text: &str) -> Result<BindAddress, Fault> {
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
        Err(Fault::new(format!("`{host}` is a name; a listener binds to an IP address"))
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
pub(crate) struct Target {
    /// As written; the default of the backend's name.
    pub(crate) text: String,
    pub(crate) address: BackendAddress,
}

impl FromStr for Target {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Target, Fault> {
        let target = |address| Target { text: text.to_owned(), address };
        let no_port = || Fault::new(format!("`{text}` has port 0")).hint("a backend's port is 1 to 65535");
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(target(BackendAddress::Unix(unix_path(path)?)));
        }
        if let Some(address) = socket_address(text)? {
            if address.port() == 0 {
                return Err(no_port());
            }
            if address.ip().is_unspecified() {
                return Err(Fault::new(format!("`{text}` is every address, not one"))
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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A local address to connect from, without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceAddress(pub(crate) IpAddr);

impl FromStr for SourceAddress {
    type Err = Fault;

    fn from_str(text: &str) -> Result<SourceAddress, Fault> {
        let wrong = Fault::new(format!("`{}` is not an IP address", shown(text)));
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                Err(Fault::new(format!("`{text}` is no address to connect from"))
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

/// Where access lines go: `off`, `stderr` or a file's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessTarget {
    Off,
    Stderr,
    File(PathBuf),
}

impl FromStr for AccessTarget {
    type Err = Fault;

    fn from_str(text: &str) -> Result<AccessTarget, Fault> {
        match text {
            // A reader of YAML 1.1 makes `false` of `off`.
            "off" | "false" => Ok(AccessTarget::Off),
            "stderr" => Ok(AccessTarget::Stderr),
            _ if text.starts_with("syslog:") => Err(Fault::new("`syslog:` is not supported yet")
                .hint("this version writes to stderr or to a file: /var/log/tidegate/access.log")),
            // A slash tells a path from a misspelt word, which would silently become a file.
            _ if text.contains('/') && !text.ends_with('/') && !text.contains(char::is_control) => {
                Ok(AccessTarget::File(PathBuf::from(text)))
            }
            _ => {
                let fault = Fault::new(format!("`{}` is not off, stderr or a path", shown(text)));
                Err(match text {
                    "no" | "none" => fault.hint("write off"),
                    "stdout" | "-" | "true" | "on" | "yes" => fault.hint("write stderr, or the path of a file"),
                    _ => fault.hint("a path has a slash: /var/log/tidegate.log, ./access.log"),
                })
            }
        }
    }
}

impl fmt::Display for AccessTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessTarget::Off => f.write_str("off"),
            AccessTarget::Stderr => f.write_str("stderr"),
            AccessTarget::File(path) => path.display().fmt(f),
        }
    }
}

/// An IP address and a port; `None` when it is not one.
fn socket_address(text: &str) -> Result<Option<SocketAddr>, Fault> {
    let (address, zone) = match text.split_once('%') {
        Some((host, rest)) if host.starts_with('[') => {
            let Some((zone, port)) = rest.split_once(']') else { return Ok(None) };
            (Cow::Owned(format!("{host}]{port}")), Some(zone))
        }
        _ => (Cow::Borrowed(text), None),
    };
    let Ok(mut address) = address.parse::<SocketAddr>() else { return Ok(None) };
    if address.ip().is_multicast() || address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Fault::new(format!("`{text}` is the address of a group: TCP is between two"))
            .hint("write the address of one host"));
    }
    let SocketAddr::V6(v6) = &mut address else { return Ok(Some(address)) };
    match (v6.ip().is_unicast_link_local(), zone) {
        (true, Some(zone)) => v6.set_scope_id(interface(zone)?),
        (true, None) => {
            let (ip, port) = (v6.ip(), v6.port());
            return Err(Fault::new(format!("`{text}` is a link-local address without its interface")).hint(format!(
                "write \"[{ip}%{}]:{port}\"; {}",
                interfaces::example(),
                interfaces_here()
            )));
        }
        (false, Some(zone)) => {
            return Err(Fault::new(format!("`{text}` is not a link-local address, so it has no interface"))
                .hint(format!("leave %{} out", shown(zone))));
        }
        (false, None) => {}
    }
    Ok(Some(address))
}

/// The index of a network interface, named or counted.
fn interface(zone: &str) -> Result<u32, Fault> {
    let index = match zone.parse::<u32>() {
        Ok(index) if zone.bytes().all(|byte| byte.is_ascii_digit()) => interfaces::exists(index).then_some(index),
        _ => interfaces::index(zone),
    };
    index.ok_or_else(|| {
        Fault::new(format!("this host has no network interface `{}`", shown(zone))).hint(interfaces_here())
    })
}

fn interfaces_here() -> String {
    match interfaces::names().as_slice() {
        [] => "`ip link` lists the interfaces".to_owned(),
        names => format!("the interfaces here are {}", names.join(", ")),
    }
}

/// The leading digits, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn not_address(text: &str) -> Fault {
    Fault::new(format!("`{}` is not an address", shown(text)))
}

/// Takes `name:port` apart; what looks like a mistake of another kind is told as such.
fn host_and_port<'a>(text: &'a str, example: &str) -> Result<(&'a str, u16), Fault> {
    if text.contains("://") {
        return Err(not_address(text).hint(format!("leave the scheme out and write host:port: {example}")));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(not_address(text).hint(IPV6));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let fault = if text.bytes().all(|byte| byte.is_ascii_digit()) || text.starts_with('/') {
            not_address(text)
        } else {
            Fault::new(format!("`{}` has no port", shown(text)))
        };
        return Err(fault.hint(format!("write an address and a port, such as {example}, or unix:/path")));
    };
    if host.contains(':') {
        return Err(not_address(text).hint(IPV6));
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if port == "*" || port.split_once('-').is_some_and(|(first, last)| is_number(first) && is_number(last)) {
        let what = if port == "*" { "the port of the client's choice" } else { "a range of ports" };
        return Err(Fault::new(format!("{what} (`:{port}`) is not supported yet")).hint("write one port"));
    }
    let digits = is_number(port);
    match port.parse() {
        Ok(port) if digits => Ok((host, port)),
        _ => Err(not_address(text).hint(format!("`{}` is not a port: they go from 1 to 65535", shown(port)))),
    }
}

/// RFC 1123's rules for a host name, and underscores, which internal names often have.
fn host_name(host: &str) -> Result<(), Fault> {
    let wrong = || Fault::new(format!("`{}` is not a host name", shown(host)));
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
        return Err(Fault::new(format!("`{host}` is not an IPv4 address"))
            .hint("four numbers from 0 to 255, without leading zeros"));
    }
    Ok(())
}

fn unix_path(path: &str) -> Result<PathBuf, Fault> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains(char::is_control) {
        return Err(Fault::new(format!("`unix:{}` is not the path of a socket", shown(path)))
            .hint("write the whole path, from the root: unix:/run/app.sock"));
    }
    if path.len() > SUN_PATH {
        return Err(Fault::new(format!("the path is {} bytes long; the kernel takes {SUN_PATH}", path.len()))
            .hint("choose a shorter one"));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests;
