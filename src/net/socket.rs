//! Stream sockets that do not block, before they listen or connect.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Opens one (SOCK_NONBLOCK, SOCK_CLOEXEC).
pub(super) fn stream(domain: Domain, protocol: Option<Protocol>) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking(), protocol)
}

/// The address of a socket file. A path with a NUL is refused: at its beginning, it would be an abstract address.
///
/// # Errors
/// `NAMETOOLONG` and `INVAL`, which bind(2) and connect(2) would give.
pub(super) fn unix_address(path: &Path) -> Result<SockAddr, Errno> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(Errno::INVAL);
    }
    SockAddr::unix(path).map_err(|_| Errno::NAMETOOLONG)
}
