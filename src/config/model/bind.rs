//! `listeners[].bind`.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::net::addr::Address;

/// One entry of `listeners[].bind`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An address. Port 0 lets the kernel choose.
    One(Address),
    /// The same IP address with each port of a range: as many sockets.
    Ports {
        /// With the first port.
        first: SocketAddr,
        /// The last port, larger than the first.
        last: u16,
    },
}

impl ListenAddress {
    /// Every address.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + use<> {
        let (one, ports) = match self {
            ListenAddress::One(address) => (Some(address.clone()), None),
            ListenAddress::Ports { first, last } => {
                let first = *first;
                let with = move |port| {
                    let mut address = first;
                    address.set_port(port);
                    Address::Tcp(address)
                };
                (None, Some((first.port()..=*last).map(with)))
            }
        };
        one.into_iter().chain(ports.into_iter().flatten())
    }

    /// Whether an address is one of them.
    pub fn contains(&self, address: &Address) -> bool {
        match (self, address) {
            (ListenAddress::One(one), address) => one == address,
            (ListenAddress::Ports { first, .. }, Address::Tcp(address)) => {
                let mut same_port = *first;
                same_port.set_port(address.port());
                same_port == *address && self.ports().is_some_and(|ports| ports.contains(&address.port()))
            }
            (ListenAddress::Ports { .. }, Address::Unix(_)) => false,
        }
    }

    /// Its ports; `None` for a unix socket.
    pub fn ports(&self) -> Option<RangeInclusive<u16>> {
        match self {
            ListenAddress::One(Address::Tcp(address)) => Some(address.port()..=address.port()),
            ListenAddress::One(Address::Unix(_)) => None,
            ListenAddress::Ports { first, last } => Some(first.port()..=*last),
        }
    }

    /// Whether it is a range of ports.
    pub fn is_range(&self) -> bool {
        matches!(self, ListenAddress::Ports { .. })
    }
}

impl fmt::Display for ListenAddress {
    /// As it is written in the configuration: `127.0.0.1:80`, `0.0.0.0:30000-30099`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::One(address) => address.fmt(f),
            ListenAddress::Ports { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_an_address_for_each_port() {
        let range = ListenAddress::Ports { first: "[::1]:79".parse().unwrap(), last: 81 };
        let addresses: Vec<String> = range.addresses().map(|address| address.to_string()).collect();
        assert_eq!(addresses, ["[::1]:79", "[::1]:80", "[::1]:81"]);
        assert!(range.addresses().all(|address| range.contains(&address)));
        for other in ["[::1]:78", "[::1]:82", "127.0.0.1:80"] {
            assert!(!range.contains(&Address::Tcp(other.parse().unwrap())), "{other}");
        }
        assert_eq!(range.to_string(), "[::1]:79-81");
        let all = ListenAddress::Ports { first: "0.0.0.0:1".parse().unwrap(), last: u16::MAX };
        assert_eq!(all.addresses().count(), 65_535);
    }
}
