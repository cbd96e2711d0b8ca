//! recvmmsg(2) and sendmmsg(2), with the local address of each datagram (IP_PKTINFO, IPV6_PKTINFO), with trains of datagrams
//! (UDP_GRO, UDP_SEGMENT), and the datagrams that the kernel has dropped (SO_RXQ_OVFL).

use std::ffi::{c_int, c_void};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

/// Datagrams of one call.
pub const MAX_BATCH: usize = 64;

/// Bytes of the largest datagram, or train of datagrams.
pub const MAX_DATAGRAM: usize = 65_535;

/// Bytes of control messages of one datagram: in_pktinfo or in6_pktinfo, gso_size, and a counter of drops.
const CONTROL: usize = 128;

/// Linux 5.0 and 4.18 have them, libc has not for each target.
const UDP_GRO: c_int = 104;
const UDP_SEGMENT: c_int = 103;

/// An integer socket option of datagram sockets.
pub const RECEIVE_TRAINS: super::IntOption = super::IntOption(libc::IPPROTO_UDP, UDP_GRO);
/// IP_PKTINFO.
pub const LOCAL_ADDRESS_V4: super::IntOption = super::IntOption(libc::IPPROTO_IP, libc::IP_PKTINFO);
/// IPV6_RECVPKTINFO.
pub const LOCAL_ADDRESS_V6: super::IntOption = super::IntOption(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
/// SO_RCVBUFFORCE, beyond net.core.rmem_max: needs CAP_NET_ADMIN.
pub const RECEIVE_BUFFER: super::IntOption = super::IntOption(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
/// SO_RXQ_OVFL.
pub const COUNT_DROPS: super::IntOption = super::IntOption(libc::SOL_SOCKET, libc::SO_RXQ_OVFL);

/// Control messages of one datagram, aligned as the kernel writes them.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Room for what one call receives. Reused: its memory is touched only as far as datagrams are long.
pub struct ReceiveBatch {
    bytes: Vec<u8>,
    controls: Vec<Control>,
    names: Vec<libc::sockaddr_storage>,
    /// Length, bytes of control messages, flags, and bytes of the name of each.
    outcomes: Vec<(usize, usize, c_int, usize)>,
}

/// A datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedDatagram<'b> {
    /// All of the train.
    pub bytes: &'b [u8],
    /// The sender; `None` on a connected socket.
    pub peer: Option<SocketAddr>,
    /// Where it was sent to, if the socket tells.
    pub local: Option<IpAddr>,
    /// Bytes of each datagram of a train but the last, which may be shorter.
    pub segment: Option<u16>,
    /// Datagrams that the socket's buffer had no room for so far, if it tells.
    pub dropped: Option<u32>,
}

/// A datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingDatagram<'b> {
    /// Bytes before `bytes`, of the same datagram.
    pub head: &'b [u8],
    /// All of the train.
    pub bytes: &'b [u8],
    /// `None` on a connected socket.
    pub peer: Option<SocketAddr>,
    /// The address that it leaves from; `None` leaves it to the kernel.
    pub local: Option<IpAddr>,
    /// Bytes of each datagram of a train but the last.
    pub segment: Option<u16>,
}

impl ReceivedDatagram<'_> {
    /// Datagrams of the train.
    pub fn count(&self) -> u64 {
        match self.segment {
            Some(segment @ 1..) if self.bytes.len() > usize::from(segment) => {
                self.bytes.len().div_ceil(usize::from(segment)) as u64
            }
            _ => 1,
        }
    }
}

impl Default for ReceiveBatch {
    fn default() -> ReceiveBatch {
        // SAFETY: of integers and arrays of them, for which zeros are valid.
        let name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        ReceiveBatch {
            // Zeroed pages, which the kernel provides when they are first written to.
            bytes: vec![0; MAX_BATCH * (MAX_DATAGRAM + 1)],
            controls: vec![Control([0; CONTROL]); MAX_BATCH],
            names: vec![name; MAX_BATCH],
            outcomes: Vec::with_capacity(MAX_BATCH),
        }
    }
}

impl ReceiveBatch {
    /// Receives up to `limit` datagrams. Returns how many.
    ///
    /// # Errors
    /// Those of recvmmsg(2): EAGAIN when there are none, and on a connected socket ECONNREFUSED and the like by ICMP.
    pub fn receive(&mut self, socket: impl AsFd, limit: usize) -> Result<usize, Errno> {
        let count = limit.clamp(1, MAX_BATCH);
        self.outcomes.clear();
        let mut buffers: Vec<libc::iovec> = self
            .bytes
            .chunks_exact_mut(MAX_DATAGRAM + 1)
            .take(count)
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = (0..count)
            .map(|index| {
                // SAFETY: of integers and pointers, for which zeros are valid.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_name = (&raw mut self.names[index]).cast();
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
                header.msg_hdr.msg_iov = &raw mut buffers[index];
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = self.controls[index].0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL as _;
                header
            })
            .collect();
        // SAFETY: each header points to an element of `names`, `buffers` and `controls` with its true size. None of the three is
        // moved or read before the call has returned, and the buffers are chunks of `bytes` that do not overlap.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                count as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if received < 0 {
            return Err(last_error());
        }
        let received = &headers[..usize::try_from(received).unwrap_or(0).min(count)];
        self.outcomes.extend(received.iter().map(|it| {
            let header = &it.msg_hdr;
            (it.msg_len as usize, header.msg_controllen, header.msg_flags, header.msg_namelen as usize)
        }));
        Ok(self.outcomes.len())
    }

    /// One of those that were received.
    pub fn get(&self, index: usize) -> Option<ReceivedDatagram<'_>> {
        let &(length, controls, _, name) = self.outcomes.get(index)?;
        let start = index * (MAX_DATAGRAM + 1);
        let bytes = self.bytes.get(start..start + length)?;
        let mut datagram = ReceivedDatagram {
            bytes,
            peer: self.names.get(index).filter(|_| name > 0).and_then(address),
            local: None,
            segment: None,
            dropped: None,
        };
        for (level, kind, data) in messages(&self.controls.get(index)?.0[..controls.min(CONTROL)]) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // in_pktinfo: the interface, the local address, the destination.
                    datagram.local = array(data, 8).map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    datagram.local = array(data, 0).map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets)));
                }
                (libc::IPPROTO_UDP, UDP_GRO) => {
                    let size = array(data, 0).map(c_int::from_ne_bytes);
                    datagram.segment = size.and_then(|size| u16::try_from(size).ok()).filter(|size| *size > 0);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => datagram.dropped = array(data, 0).map(u32::from_ne_bytes),
                _ => {}
            }
        }
        Some(datagram)
    }
}

/// Sends datagrams in their order. Returns how many were sent, all or up to the first that failed; and why that did.
pub fn send(socket: impl AsFd, datagrams: &[OutgoingDatagram<'_>]) -> (usize, Option<Errno>) {
    let mut sent = 0;
    while let Some(rest) = datagrams.get(sent..).filter(|rest| !rest.is_empty()) {
        match send_chunk(socket.as_fd(), &rest[..rest.len().min(MAX_BATCH)]) {
            // After fewer than all, the next call says why: sendmmsg(2) keeps the error to itself.
            Ok(count) if count > 0 => sent += count,
            Ok(_) => return (sent, Some(Errno::AGAIN)),
            Err(errno) => return (sent, Some(errno)),
        }
    }
    (sent, None)
}

fn send_chunk(socket: BorrowedFd<'_>, datagrams: &[OutgoingDatagram<'_>]) -> Result<usize, Errno> {
    let mut names: Vec<(libc::sockaddr_storage, libc::socklen_t)> =
        datagrams.iter().map(|it| it.peer.map_or_else(unnamed, storage)).collect();
    let mut controls: Vec<(Control, usize)> = datagrams.iter().map(control).collect();
    let mut parts: Vec<[libc::iovec; 2]> = datagrams.iter().map(|it| [it.head, it.bytes].map(part)).collect();
    let mut headers: Vec<libc::mmsghdr> = (0..datagrams.len())
        .map(|index| {
            // SAFETY: of integers and pointers, for which zeros are valid.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            let (name, length) = &mut names[index];
            if *length > 0 {
                header.msg_hdr.msg_name = (&raw mut *name).cast();
                header.msg_hdr.msg_namelen = *length;
            }
            header.msg_hdr.msg_iov = parts[index].as_mut_ptr();
            header.msg_hdr.msg_iovlen = parts[index].len() as _;
            let (control, length) = &mut controls[index];
            if *length > 0 {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = *length as _;
            }
            header
        })
        .collect();
    // SAFETY: each header points to an element of `names`, `parts` and `controls` with its true size, none of which is moved before
    // the call has returned. The kernel only reads the bytes that `parts` point to, which `datagrams` borrows.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as _,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    usize::try_from(sent).map_err(|_| last_error())
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// The control messages of an outgoing datagram, and their length.
fn control(datagram: &OutgoingDatagram<'_>) -> (Control, usize) {
    let (mut control, mut length) = (Control([0; CONTROL]), 0);
    match datagram.local {
        Some(IpAddr::V4(ip)) => {
            // in_pktinfo: any interface, the local address, no destination.
            let mut data = [0; 12];
            data[4..8].copy_from_slice(&ip.octets());
            push(&mut control, &mut length, libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
        }
        Some(IpAddr::V6(ip)) => {
            let mut data = [0; 20];
            data[..16].copy_from_slice(&ip.octets());
            push(&mut control, &mut length, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
        }
        None => {}
    }
    if let Some(segment) = datagram.segment {
        push(&mut control, &mut length, libc::IPPROTO_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
    }
    (control, length)
}

/// Bytes of cmsghdr: a length, a level, a type. CMSG_LEN and CMSG_SPACE add the data, rounded up to a word.
const HEADER: usize = size_of::<libc::cmsghdr>();

fn push(control: &mut Control, length: &mut usize, level: c_int, kind: c_int, data: &[u8]) {
    let end = *length + (HEADER + data.len()).next_multiple_of(size_of::<usize>());
    // Of three kinds, all of which have room.
    let Some(space) = control.0.get_mut(*length..end) else { return };
    let word = size_of::<usize>();
    space[..word].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
    space[word..word + 4].copy_from_slice(&level.to_ne_bytes());
    space[word + 4..word + 8].copy_from_slice(&kind.to_ne_bytes());
    space[HEADER..HEADER + data.len()].copy_from_slice(data);
    *length = end;
}

/// Control messages: level, type and data of each.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
    std::iter::from_fn(move || {
        let word = size_of::<usize>();
        let length = usize::from_ne_bytes(array(bytes, 0)?);
        let level = c_int::from_ne_bytes(array(bytes, word)?);
        let kind = c_int::from_ne_bytes(array(bytes, word + 4)?);
        let data = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(word)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn unnamed() -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: of integers and arrays of them, for which zeros are valid.
    (unsafe { mem::zeroed() }, 0)
}

fn storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let address = socket2::SockAddr::from(address);
    let (mut storage, length) = (unnamed().0, address.len());
    // SAFETY: an address has at most the size of sockaddr_storage, and `length` is how much of it is set.
    unsafe {
        ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            (&raw mut storage).cast::<u8>(),
            (length as usize).min(size_of::<libc::sockaddr_storage>()),
        );
    }
    (storage, length)
}

/// The IP address and port that the kernel has written.
fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let family = c_int::from(storage.ss_family);
    if family == libc::AF_INET {
        // SAFETY: the family says that it is one, and sockaddr_storage has its size and alignment.
        let v4 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
        return Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))));
    }
    if family == libc::AF_INET6 {
        // SAFETY: as above.
        let v6 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        // The flow label is of one datagram.
        return Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id)));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::set_option;
    use super::*;

    fn bound(ip: &str) -> UdpSocket {
        UdpSocket::bind((ip, 0)).unwrap()
    }

    fn plain(bytes: &[u8], peer: SocketAddr) -> OutgoingDatagram<'_> {
        OutgoingDatagram { head: &[], bytes, peer: Some(peer), local: None, segment: None }
    }

    /// Bytes, peer, local address and segment of what comes in one call.
    type Taken = (Vec<u8>, Option<SocketAddr>, Option<IpAddr>, Option<u16>);

    fn received(batch: &mut ReceiveBatch, socket: &UdpSocket) -> Vec<Taken> {
        let count = batch.receive(socket, MAX_BATCH).unwrap();
        let all = (0..count).map(|index| batch.get(index).unwrap());
        all.map(|it| (it.bytes.to_vec(), it.peer, it.local, it.segment)).collect()
    }

    #[test]
    fn batch_keeps_order_bytes_and_addresses() {
        let (one, other) = (bound("127.0.0.1"), bound("127.0.0.1"));
        let peer = other.local_addr().unwrap();
        let texts: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        let datagrams: Vec<_> = texts.iter().map(|text| plain(text, peer)).collect();
        assert_eq!(send(&one, &datagrams), (100, None));
        let mut batch = ReceiveBatch::default();
        let mut all = received(&mut batch, &other);
        assert_eq!(all.len(), MAX_BATCH);
        all.extend(received(&mut batch, &other));
        let from = Some(one.local_addr().unwrap());
        assert!(all.into_iter().map(|it| (it.0, it.1)).eq(texts.into_iter().map(|text| (text, from))));
        assert_eq!(batch.receive(&other, 1), Err(Errno::AGAIN));
    }

    #[test]
    fn local_address_is_told_and_chosen() {
        for (any, wanted) in [("0.0.0.0", "127.0.0.77"), ("::", "::1"), ("::", "127.0.0.78")] {
            let (server, client) = (bound(any), bound(if any == "::" { "::" } else { "127.0.0.1" }));
            let option = if any == "::" { LOCAL_ADDRESS_V6 } else { LOCAL_ADDRESS_V4 };
            set_option(&server, option, 1).unwrap();
            let ip: IpAddr = wanted.parse().unwrap();
            let mapped = match ip {
                IpAddr::V4(v4) if any == "::" => IpAddr::V6(v4.to_ipv6_mapped()),
                ip => ip,
            };
            let port = server.local_addr().unwrap().port();
            client.send_to(b"x", (mapped, port)).unwrap();
            let mut batch = ReceiveBatch::default();
            let (_, peer, local, _) = received(&mut batch, &server).remove(0);
            assert_eq!(local, Some(mapped));
            let reply = OutgoingDatagram { local, ..plain(b"y", peer.unwrap()) };
            assert_eq!(send(&server, &[reply]), (1, None));
            let (_, from) = client.recv_from(&mut [0; 9]).unwrap();
            assert_eq!((from.ip(), from.port()), (mapped, port), "{any}");
        }
    }

    #[test]
    fn train_is_sent_and_received_at_once_or_one_by_one() {
        let (one, other, third) = (bound("127.0.0.1"), bound("127.0.0.1"), bound("127.0.0.1"));
        set_option(&other, RECEIVE_TRAINS, 1).unwrap();
        let train = [[1_u8; 100], [2; 100], [3; 100]].concat();
        for socket in [&other, &third] {
            let datagram =
                OutgoingDatagram { segment: Some(100), ..plain(&train[..250], socket.local_addr().unwrap()) };
            assert_eq!(send(&one, &[datagram]), (1, None));
        }
        let mut batch = ReceiveBatch::default();
        assert_eq!(batch.receive(&other, 9), Ok(1));
        let got = batch.get(0).unwrap();
        assert_eq!((got.bytes, got.segment, got.count()), (&train[..250], Some(100), 3));
        let lengths: Vec<usize> = received(&mut batch, &third).iter().map(|it| it.0.len()).collect();
        assert_eq!(lengths, [100, 100, 50]);
    }

    #[test]
    fn error_of_a_later_datagram_is_told_with_those_before_it() {
        let (one, other) = (bound("127.0.0.1"), bound("127.0.0.1"));
        let peer = other.local_addr().unwrap();
        let too_large = vec![0; MAX_DATAGRAM];
        let outcome = send(&one, &[plain(b"a", peer), plain(&too_large, peer), plain(b"b", peer)]);
        assert_eq!(outcome, (1, Some(Errno::MSGSIZE)));
        let head = OutgoingDatagram { head: b"head ", ..plain(b"body", peer) };
        assert_eq!(send(&one, &[head]), (1, None));
        let mut batch = ReceiveBatch::default();
        let texts: Vec<Vec<u8>> = received(&mut batch, &other).into_iter().map(|it| it.0).collect();
        assert_eq!(texts, [b"a".to_vec(), b"head body".to_vec()]);
    }

    #[test]
    fn refused_connection_is_an_error_and_drops_are_counted() {
        let (one, gone) = (bound("127.0.0.1"), bound("127.0.0.1"));
        one.connect(gone.local_addr().unwrap()).unwrap();
        drop(gone);
        let bytes = OutgoingDatagram { head: &[], bytes: b"x", peer: None, local: None, segment: None };
        assert_eq!(send(&one, &[bytes]), (1, None));
        let mut batch = ReceiveBatch::default();
        assert_eq!(batch.receive(&one, 1), Err(Errno::CONNREFUSED));
        let (server, client) = (bound("127.0.0.1"), bound("127.0.0.1"));
        set_option(&server, COUNT_DROPS, 1).unwrap();
        socket2::SockRef::from(&server).set_recv_buffer_size(0).unwrap();
        for _ in 0..100 {
            client.send_to(&[0; 1000], server.local_addr().unwrap()).unwrap();
        }
        let first = batch.receive(&server, MAX_BATCH).unwrap();
        client.send_to(b"after", server.local_addr().unwrap()).unwrap();
        assert_eq!(batch.receive(&server, 1), Ok(1));
        assert_eq!(batch.get(0).unwrap().dropped, Some(100 - first as u32));
    }
}
