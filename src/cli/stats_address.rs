//! Addresses of stats ports, as the command line and the configuration name them.

use std::fmt::{self, Display};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use tidegate::net::addr::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where it is when nothing says otherwise: what the examples have.
pub(super) const USUAL: &str = "127.0.0.1:9900";

/// Where a stats port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StatsAddress {
    /// Address or name, and port.
    Tcp(String),
    /// The same, with TLS.
    Tls(String),
    Unix(PathBuf),
}

/// A connection without TLS.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl ByteStream for TcpStream {}
impl ByteStream for UnixStream {}

pub(super) type PlainStream = Box<dyn ByteStream>;

impl StatsAddress {
    /// As `--admin` gives it.
    pub(super) fn parse(text: &str) -> Result<StatsAddress, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(StatsAddress::Unix(PathBuf::from(path)));
        }
        let (rest, has_tls) = match text.strip_prefix("https://") {
            Some(rest) => (rest, true),
            None => (text.strip_prefix("http://").unwrap_or(text), false),
        };
        let rest = rest.trim_end_matches('/');
        let wrong = || {
            format!("`{text}` is no address: write IP:PORT, NAME:PORT, https://NAME:PORT or unix:PATH, such as {USUAL}")
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        match port.parse::<u16>() {
            Ok(1..) if !host.is_empty() && host.bytes().all(is_host) => match has_tls {
                true => Ok(StatsAddress::Tls(rest.to_owned())),
                false => Ok(StatsAddress::Tcp(rest.to_owned())),
            },
            _ => Err(wrong()),
        }
    }

    /// Connects, without TLS.
    pub(super) async fn connect(&self) -> io::Result<PlainStream> {
        Ok(match self {
            StatsAddress::Tcp(address) | StatsAddress::Tls(address) => {
                Box::new(TcpStream::connect(address.as_str()).await?)
            }
            StatsAddress::Unix(file) => Box::new(UnixStream::connect(file).await?),
        })
    }
}

impl Display for StatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatsAddress::Tcp(address) => f.write_str(address),
            StatsAddress::Tls(address) => write!(f, "https://{address}"),
            StatsAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A unix socket, which needs no TLS, before loopback, before others. Those whose port is not known are left out.
pub(super) fn nearest_first(addresses: &[Address], has_tls: bool) -> Vec<StatsAddress> {
    let known = addresses.iter().filter_map(|address| match address {
        Address::Unix(path) => Some((0, StatsAddress::Unix(path.to_path_buf()))),
        Address::Tcp(address) if address.port() == 0 => None,
        Address::Tcp(address) => {
            let address = reachable(*address);
            let distance = if address.ip().to_canonical().is_loopback() { 1 } else { 2 };
            let address = address.to_string();
            Some((distance, if has_tls { StatsAddress::Tls(address) } else { StatsAddress::Tcp(address) }))
        }
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(distance, _)| *distance);
    known.into_iter().map(|(_, address)| address).collect()
}

/// Where one connects to that listens on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |text: &str| Ok(StatsAddress::Tcp(text.to_owned()));
        assert_eq!(StatsAddress::parse("127.0.0.1:9900"), tcp("127.0.0.1:9900"));
        assert_eq!(StatsAddress::parse("http://localhost:9900/"), tcp("localhost:9900"));
        assert_eq!(
            StatsAddress::parse("https://lb.example:9900/"),
            Ok(StatsAddress::Tls("lb.example:9900".to_owned()))
        );
        assert_eq!(StatsAddress::parse("[::1]:9900"), tcp("[::1]:9900"));
        assert_eq!(StatsAddress::parse("unix:/run/t.sock"), Ok(StatsAddress::Unix("/run/t.sock".into())));
        for wrong in ["", "9900", ":9900", "host", "host:", "host:0", "host:99999", "a b:1", "https://host:1/x"] {
            assert!(StatsAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_connects_to_this_host_where_all_addresses_are_bound() {
        let cases = [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")];
        for (bound, reached) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
        }
    }

    #[test]
    fn unix_socket_comes_before_loopback_before_others() {
        let parse = |text: &str| match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(std::sync::Arc::new(path.into())),
            None => Address::Tcp(text.parse().unwrap()),
        };
        let order = |texts: &[&str]| {
            let addresses: Vec<_> = texts.iter().map(|text| parse(text)).collect();
            nearest_first(&addresses, true).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            order(&["10.0.0.1:1", "127.0.0.1:0", "0.0.0.0:2", "unix:/a", "[::1]:3"]),
            ["unix:/a", "https://127.0.0.1:2", "https://[::1]:3", "https://10.0.0.1:1"]
        );
        assert!(order(&["127.0.0.1:0"]).is_empty());
    }
}
