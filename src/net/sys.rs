//! The system calls for which socket2 and rustix have no safe function. The only `unsafe` of the project is here.
#![allow(
    unsafe_code,
    reason = "socket options that neither knows, SIOCOUTQ, batches of datagrams, and inherited descriptors"
)]

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::{mem, ptr};

use rustix::io::Errno;

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

/// UDP_GRO: trains of datagrams are received at once. Linux 5.0 has it, libc not for each target.
pub const UDP_GRO: IntOption = IntOption(libc::IPPROTO_UDP, 104);
/// IP_PKTINFO.
pub const IP_PKTINFO: IntOption = IntOption(libc::IPPROTO_IP, libc::IP_PKTINFO);
/// IPV6_RECVPKTINFO.
pub const IPV6_RECVPKTINFO: IntOption = IntOption(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
/// SO_RCVBUFFORCE: a receive buffer beyond net.core.rmem_max. Needs CAP_NET_ADMIN.
pub const SO_RCVBUFFORCE: IntOption = IntOption(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
/// SO_RXQ_OVFL: datagrams come with the count of those that were dropped.
pub const SO_RXQ_OVFL: IntOption = IntOption(libc::SOL_SOCKET, libc::SO_RXQ_OVFL);

/// Bytes of an address as the kernel has it: those of sockaddr_storage.
pub const NAME: usize = size_of::<libc::sockaddr_storage>();
/// Bytes of control messages of one datagram: a local address, a segment size, and a count of drops.
pub const CONTROL: usize = 128;

/// What comes or goes beside the bytes of a datagram: its address and its control messages, as far as they are set.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct DatagramEnvelope {
    pub name: [u8; NAME],
    pub control: [u8; CONTROL],
    pub name_length: usize,
    pub control_length: usize,
}

impl Default for DatagramEnvelope {
    fn default() -> DatagramEnvelope {
        DatagramEnvelope { name: [0; NAME], control: [0; CONTROL], name_length: 0, control_length: 0 }
    }
}

/// Receives as many datagrams as there are, up to one for each buffer, without waiting: recvmmsg(2). Returns how many, and gives `received` the
/// length of each.
///
/// # Errors
/// Those of recvmmsg(2).
pub fn receive_messages(
    socket: impl AsFd,
    buffers: &mut [IoSliceMut<'_>],
    envelopes: &mut [DatagramEnvelope],
    mut received: impl FnMut(usize),
) -> Result<usize, Errno> {
    let mut headers: Vec<libc::mmsghdr> = buffers
        .iter_mut()
        .zip(envelopes.iter_mut())
        .map(|(buffer, envelope)| {
            (envelope.name_length, envelope.control_length) = (NAME, CONTROL);
            header(ptr::from_mut(buffer).cast(), 1, envelope)
        })
        .collect();
    // SAFETY: each header points to a buffer, which IoSliceMut has as an iovec (its documentation), and to an envelope, with their true
    // sizes. They are borrowed until the call has returned, and each is in one header.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as _,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| last_errno())?.min(headers.len());
    for (header, envelope) in headers.iter().take(count).zip(envelopes) {
        envelope.name_length = (header.msg_hdr.msg_namelen as usize).min(NAME);
        envelope.control_length = header.msg_hdr.msg_controllen.min(CONTROL);
        received(header.msg_len as usize);
    }
    Ok(count)
}

/// Sends datagrams, each of some parts, without waiting: sendmmsg(2). Returns how many were sent.
///
/// # Errors
/// Those of sendmmsg(2), of the first.
pub fn send_messages<const PARTS: usize>(
    socket: impl AsFd,
    datagrams: &[[IoSlice<'_>; PARTS]],
    envelopes: &mut [DatagramEnvelope],
) -> Result<usize, Errno> {
    let mut headers: Vec<libc::mmsghdr> = datagrams
        .iter()
        .zip(envelopes)
        .map(|(parts, envelope)| header(parts.as_ptr().cast_mut().cast(), PARTS, envelope))
        .collect();
    // SAFETY: each header points to parts, which IoSlice has as iovecs (its documentation), and to an envelope, with their true sizes.
    // They are borrowed until the call has returned, and the kernel only reads them.
    let count = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as _,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    usize::try_from(count).map_err(|_| last_errno())
}

fn header(parts: *mut libc::iovec, count: usize, envelope: &mut DatagramEnvelope) -> libc::mmsghdr {
    // SAFETY: of integers and pointers, for which zeros are valid.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    let message = &mut header.msg_hdr;
    (message.msg_iov, message.msg_iovlen) = (parts, count as _);
    if envelope.name_length > 0 {
        (message.msg_name, message.msg_namelen) =
            (envelope.name.as_mut_ptr().cast(), envelope.name_length.min(NAME) as _);
    }
    if envelope.control_length > 0 {
        (message.msg_control, message.msg_controllen) =
            (envelope.control.as_mut_ptr().cast(), envelope.control_length.min(CONTROL) as _);
    }
    header
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

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
