//! Addresses to bind and connect to, and those of clients. Two types, so that they cannot be swapped by mistake.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// An address to bind or connect to: IP address and port, or the path of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A stream socket in the file system.
    Unix(Arc<PathBuf>),
}

impl fmt::Display for Address {
    /// As it is written in the configuration: `127.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The port of a backend's address that stands for the one that the client connected to.
pub const CLIENT_PORT: u16 = 0;

/// A backend's address as it is written: `10.0.0.1:*` for [`CLIENT_PORT`].
pub fn backend_text(address: &SocketAddr) -> String {
    let text = address.to_string();
    match text.strip_suffix('0').filter(|_| address.port() == CLIENT_PORT) {
        Some(host) => format!("{host}*"),
        None => text,
    }
}

impl Address {
    /// Where to connect to for a client that connected to `port`; `None` if it takes that port, and there is none.
    pub fn for_client(&self, port: impl FnOnce() -> Option<u16>) -> Option<Address> {
        match self {
            Address::Tcp(address) if address.port() == CLIENT_PORT => {
                let mut address = *address;
                address.set_port(port()?);
                Some(Address::Tcp(address))
            }
            fixed => Some(fixed.clone()),
        }
    }
}

/// Where a client's connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddr {
    /// The peer address of a TCP connection.
    Tcp(SocketAddr),
    /// The peer of a unix socket, which has no address.
    Unix,
}

impl ClientAddr {
    /// The client's IP address, if it has one. An IPv4 client of a dual-stack socket is an IPv4 client.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            ClientAddr::Tcp(address) => Some(address.ip().to_canonical()),
            ClientAddr::Unix => None,
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddr::Tcp(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
            ClientAddr::Unix => f.write_str("unix:"),
        }
    }
}
