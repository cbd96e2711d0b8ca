//! The system calls for which socket2 and rustix have no safe function. The only `unsafe` of the project is here.
#![allow(
    unsafe_code,
    reason = "socket options that neither knows, SIOCOUTQ, batches of datagrams, and inherited descriptors"
)]

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

pub mod datagrams;

/// An integer socket option, by level and name.
#[derive(Clone, Copy, Debug)]
pub struct IntOption(c_int, c_int);

/// TCP_FASTOPEN: how many connections may wait with data in their SYN.
pub const TCP_FASTOPEN: IntOption = IntOption(libc::IPPROTO_TCP, libc::TCP_FASTOPEN);
/// TCP_DEFER_ACCEPT, in seconds.
pub const TCP_DEFER_ACCEPT: IntOption = IntOption(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
/// IP_BIND_ADDRESS_NO_PORT: a bind to port 0 leaves the choice of the port to connect, which can then
/// use one port for many destinations. It is the option of both IPv4 and IPv6 sockets.
pub const IP_BIND_ADDRESS_NO_PORT: IntOption = IntOption(libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT);

/// Sets an integer option.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_option(socket: impl AsFd, option: IntOption, value: c_int) -> io::Result<()> {
    let IntOption(level, name) = option;
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads exactly the four
    // bytes of `value`, which lives on this stack.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a descriptor that the process was started with. It is closed on exec from then on.
///
/// Its number comes from the environment, which the parent process has written: nothing else in the process knows it.
/// Call it before anything opens descriptors.
///
/// # Errors
/// The descriptor is not open, or it was taken before.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let known = number > libc::STDERR_FILENO && TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    if !known {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl(2) takes any number; F_SETFD reads one int.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as fcntl(2) has succeeded, and has no other owner: the caller takes numbers from the environment
    // before the process opens descriptors, and none twice, which TAKEN ensures.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Bytes written to the socket that its peer has not acknowledged yet (SIOCOUTQ, see tcp(7)); for a
/// unix socket, those that its peer has not read.
///
/// # Errors
/// Those of ioctl(2).
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is borrowed for the whole call, and SIOCOUTQ (the same number as
    // TIOCOUTQ) writes one int, to `bytes`.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Reads an integer option back.
#[cfg(test)]
pub(super) fn option(socket: impl AsFd, option: IntOption) -> c_int {
    let IntOption(level, name) = option;
    let (mut value, mut size): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel writes at most `size` bytes to
    // `value`, which has as many, and the new size to `size`.
    let result =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    assert_eq!(result, 0, "{option:?}: {}", io::Error::last_os_error());
    value
}
