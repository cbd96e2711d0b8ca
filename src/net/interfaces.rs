//! Network interfaces by name and index: a link-local address needs one.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::net::netdevice;
use socket2::{Domain, Socket, Type};

/// Interfaces in a message.
const MAX_NAMES: usize = 12;

/// The index of the interface of this name.
pub fn index(name: &str) -> Option<u32> {
    let any = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    netdevice::name_to_index(any, name).ok()
}

/// Whether an interface has this index.
pub fn exists(index: u32) -> bool {
    let any = Socket::new(Domain::IPV4, Type::DGRAM, None);
    any.is_ok_and(|any| netdevice::index_to_name(any, index).is_ok())
}

/// The first names; empty when they cannot be read.
pub fn names() -> Vec<String> {
    // Of the process's own network namespace, unlike /sys.
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    table.lines().filter_map(name).take(MAX_NAMES).collect()
}

/// An interface for an example: the loopback only where there is no other.
pub fn example() -> String {
    let names = names();
    let name = names.iter().find(|name| *name != "lo").or(names.first());
    name.cloned().unwrap_or_else(|| "eth0".to_owned())
}

/// Whether an address is this host's: the kernel's source address towards it is the address itself. Sends nothing.
pub fn is_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let any: IpAddr = match ip {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

/// Whether a socket can be bound to an address. That it cannot is said only of an address that no interface has: the
/// kernel may also allow those (net.ipv4.ip_nonlocal_bind).
pub fn can_bind(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind(SocketAddr::new(ip.to_canonical(), 0));
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_by_name_and_by_index() {
        let lo = index("lo").expect("every host has lo");
        assert!(exists(lo) && !exists(u32::MAX));
        assert!(names().iter().any(|name| name == "lo"), "{:?}", names());
        assert_eq!(index("none-of-that-name"), None);
        assert_eq!(index("a-name-that-is-longer-than-the-kernel-takes"), None);
        assert_eq!(index(""), None);
    }

    #[test]
    fn loopback_is_ones_own_and_a_documentation_network_is_not() {
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
            assert!(is_own(own.parse().unwrap()) && can_bind(own.parse().unwrap()), "{own}");
        }
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }
}
