//! Clients, and how a stream ends.
//!
//! Streams of both kinds are handled as `TcpStream`: what the tests do with them (read, write, shutdown, timeouts) is the
//! same system call for unix sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::DEADLINE;

/// Where a backend or a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// Reads an address as configuration and logs write it.
    pub(crate) fn parse(text: &str) -> Place {
        match text.strip_prefix("unix:") {
            Some(path) => Place::Unix(PathBuf::from(path)),
            None => Place::Tcp(text.parse().unwrap_or_else(|_| panic!("not an address: {text}"))),
        }
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        match self {
            Place::Tcp(address) => *address,
            Place::Unix(path) => panic!("{} has no port", path.display()),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp(address) => write!(formatter, "{address}"),
            Place::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Connects; the stream's reads and writes have a deadline.
pub(crate) fn connect(place: &Place) -> TcpStream {
    try_connect(place).unwrap_or_else(|error| panic!("connect to {place}: {error}"))
}

/// As [`connect`], when it may fail.
pub(crate) fn try_connect(place: &Place) -> io::Result<TcpStream> {
    let stream = match place {
        Place::Tcp(address) => TcpStream::connect_timeout(address, DEADLINE)?,
        Place::Unix(path) => TcpStream::from(OwnedFd::from(UnixStream::connect(path)?)),
    };
    with_deadline(&stream)?;
    Ok(stream)
}

/// Connects from an address of the client's choice: all of 127.0.0.0/8 is this host.
pub(crate) fn connect_from(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("socket");
    rustix::net::bind(&socket, &SocketAddr::new(source, 0)).expect("bind");
    rustix::net::connect(&socket, &to).unwrap_or_else(|error| panic!("connect from {source} to {to}: {error}"));
    let stream = TcpStream::from(socket);
    with_deadline(&stream).expect("timeouts");
    stream
}

pub(crate) fn with_deadline(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))
}

/// Closes with RST; what was not yet sent is lost.
pub(crate) fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("SO_LINGER");
    drop(stream);
}

/// How a stream ended for the one who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// All bytes up to the end, and which end it was.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, End::Fin),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (bytes, End::Reset),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("after {} bytes: {error}", bytes.len()),
        }
    }
}

/// Reads as many bytes as `expected` has, and compares.
pub(crate) fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream
        .read_exact(&mut bytes)
        .unwrap_or_else(|error| panic!("instead of {:?}: {error}", String::from_utf8_lossy(expected)));
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(expected));
}

/// An echo by a connection that is to go on.
pub(crate) fn echoes(client: &mut TcpStream) {
    client.write_all(b"on").unwrap();
    expect(client, b"on");
}

/// A connection that has been echoed.
pub(crate) fn talking(place: &Place) -> TcpStream {
    let mut client = connect(place);
    echoes(&mut client);
    client
}
