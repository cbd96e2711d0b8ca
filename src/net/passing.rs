//! Passing descriptors between processes (SCM_RIGHTS, unix(7)), by packets: what is sent at once is received at once.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Descriptors in one packet; the kernel's limit is 253.
pub const MAX_DESCRIPTORS: usize = 128;
/// Bytes of one packet.
pub const MAX_PACKET: usize = 128 * 1024;

/// A packet, and the descriptors that came with it.
pub type Packet = (Vec<u8>, Vec<OwnedFd>);

/// Both ends of a channel of packets: non-blocking, closed on exec.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends a packet. The receiver gets duplicates of the descriptors.
///
/// # Errors
/// Those of sendmsg(2), `WouldBlock` among them, and a packet over [`MAX_PACKET`] or [`MAX_DESCRIPTORS`], or without a byte.
pub fn send(channel: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > MAX_PACKET || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the packet is empty or too large"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    let sent = sendmsg(channel, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives a packet; `None` once the other end is closed. The descriptors are closed on exec.
///
/// # Errors
/// Those of recvmsg(2), `WouldBlock` among them, and a packet that is too large: none of it is kept.
pub fn receive(channel: impl AsFd) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(channel, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        // CTRUNC too when the process may open no more.
        let why = "a packet was cut off: it is too large, or the limit of open files is reached";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some((bytes, descriptors)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_packet_and_in_order() {
        let (one, other) = pair().unwrap();
        let pipes: Vec<_> = (0..MAX_DESCRIPTORS).map(|_| io::pipe().unwrap()).collect();
        let writers: Vec<BorrowedFd<'_>> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
        send(&one, b"all of them", &writers).unwrap();
        send(&one, b"and none", &[]).unwrap();
        let (bytes, received) = receive(&other).unwrap().unwrap();
        assert_eq!((&*bytes, received.len()), (&b"all of them"[..], MAX_DESCRIPTORS));
        assert_eq!(receive(&other).unwrap().unwrap().0, b"and none");
        for (place, descriptor) in received.into_iter().enumerate() {
            assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            File::from(descriptor).write_all(&[place as u8]).unwrap();
        }
        for (place, (mut reader, _)) in pipes.into_iter().enumerate() {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], place as u8);
        }
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(receive(&other).unwrap().is_none());
    }

    #[test]
    fn packets_beyond_the_limits_are_refused() {
        let (one, other) = pair().unwrap();
        let (_, writer) = io::pipe().unwrap();
        let many = vec![writer.as_fd(); MAX_DESCRIPTORS + 1];
        assert_eq!(send(&one, b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(&one, b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(&one, &vec![0; MAX_PACKET + 1], &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        // By a sender that has no limit.
        rustix::net::send(&one, &vec![0; MAX_PACKET + 1], SendFlags::empty()).unwrap();
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::InvalidData);
        send(&one, b"the next one is whole", &[]).unwrap();
        assert_eq!(receive(&other).unwrap().unwrap().0, b"the next one is whole");
    }
}
