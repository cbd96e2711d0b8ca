//! recvmmsg(2) and sendmmsg(2), with the local address of each datagram (IP_PKTINFO, IPV6_PKTINFO), with trains of datagrams
//! (UDP_GRO, UDP_SEGMENT), and the datagrams that the kernel has dropped (SO_RXQ_OVFL).

use std::ffi::c_int;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::sys::{self, DatagramEnvelope};

/// Datagrams of one call.
pub const MAX_BATCH: usize = 64;

/// Bytes of the largest datagram, or train of datagrams.
pub const MAX_DATAGRAM: usize = 65_535;

/// UDP_GRO and UDP_SEGMENT as control messages. Linux 5.0 and 4.18 have them, libc has not for each target.
const UDP_GRO: c_int = 104;
const UDP_SEGMENT: c_int = 103;

/// Room for what one call receives. Reused: its memory is touched only as far as datagrams are long.
pub struct ReceiveBatch {
    bytes: Vec<u8>,
    envelopes: Vec<DatagramEnvelope>,
    /// Of each that was received.
    lengths: Vec<usize>,
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
        ReceiveBatch {
            // Zeroed pages, which the kernel provides when they are first written to.
            bytes: vec![0; MAX_BATCH * (MAX_DATAGRAM + 1)],
            envelopes: vec![DatagramEnvelope::default(); MAX_BATCH],
            lengths: Vec::with_capacity(MAX_BATCH),
        }
    }
}

impl ReceiveBatch {
    /// Receives up to `limit` datagrams. Returns how many.
    ///
    /// # Errors
    /// Those of recvmmsg(2): EAGAIN when there are none, and on a connected socket ECONNREFUSED and the like by ICMP.
    pub fn receive(&mut self, socket: impl AsFd, limit: usize) -> Result<usize, Errno> {
        let ReceiveBatch { bytes, envelopes, lengths } = self;
        lengths.clear();
        let buffers = bytes.chunks_exact_mut(MAX_DATAGRAM + 1).take(limit.max(1));
        let mut buffers: Vec<IoSliceMut<'_>> = buffers.map(IoSliceMut::new).collect();
        sys::receive_messages(socket, &mut buffers, envelopes, |length| lengths.push(length))
    }

    /// One of those that were received.
    pub fn get(&self, index: usize) -> Option<ReceivedDatagram<'_>> {
        let (&length, envelope) = (self.lengths.get(index)?, self.envelopes.get(index)?);
        let start = index * (MAX_DATAGRAM + 1);
        let bytes = self.bytes.get(start..start + length)?;
        let mut datagram = ReceivedDatagram {
            bytes,
            peer: address(&envelope.name[..envelope.name_length]),
            local: None,
            segment: None,
            dropped: None,
        };
        for (level, kind, data) in messages(&envelope.control[..envelope.control_length]) {
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
        match send_chunk(&socket, &rest[..rest.len().min(MAX_BATCH)]) {
            // After fewer than all, the next call says why: sendmmsg(2) keeps the error to itself.
            Ok(count) if count > 0 => sent += count,
            Ok(_) => return (sent, Some(Errno::AGAIN)),
            Err(errno) => return (sent, Some(errno)),
        }
    }
    (sent, None)
}

fn send_chunk(socket: impl AsFd, datagrams: &[OutgoingDatagram<'_>]) -> Result<usize, Errno> {
    let parts: Vec<[IoSlice<'_>; 2]> = datagrams.iter().map(|it| [it.head, it.bytes].map(IoSlice::new)).collect();
    let mut envelopes: Vec<DatagramEnvelope> = datagrams.iter().map(envelope).collect();
    sys::send_messages(socket, &parts, &mut envelopes)
}

/// The address and the control messages of an outgoing datagram.
fn envelope(datagram: &OutgoingDatagram<'_>) -> DatagramEnvelope {
    let mut envelope = DatagramEnvelope::default();
    if let Some(peer) = datagram.peer {
        set_address(&mut envelope, peer);
    }
    match datagram.local {
        Some(IpAddr::V4(ip)) => {
            // in_pktinfo: any interface, the local address, no destination.
            let mut data = [0; 12];
            data[4..8].copy_from_slice(&ip.octets());
            push(&mut envelope, libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
        }
        Some(IpAddr::V6(ip)) => {
            let mut data = [0; 20];
            data[..16].copy_from_slice(&ip.octets());
            push(&mut envelope, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
        }
        None => {}
    }
    if let Some(segment) = datagram.segment {
        push(&mut envelope, libc::IPPROTO_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
    }
    envelope
}

/// Bytes of cmsghdr: a length, a level, a type. CMSG_LEN and CMSG_SPACE add the data, rounded up to a word.
const HEADER: usize = size_of::<libc::cmsghdr>();

fn push(envelope: &mut DatagramEnvelope, level: c_int, kind: c_int, data: &[u8]) {
    let word = size_of::<usize>();
    let (start, length) = (envelope.control_length, HEADER + data.len());
    let end = start + length.next_multiple_of(word);
    // Of three kinds, all of which have room.
    let Some(space) = envelope.control.get_mut(start..end) else { return };
    space[..word].copy_from_slice(&length.to_ne_bytes());
    space[word..word + 4].copy_from_slice(&level.to_ne_bytes());
    space[word + 4..word + 8].copy_from_slice(&kind.to_ne_bytes());
    space[HEADER..length].copy_from_slice(data);
    envelope.control_length = end;
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

/// sockaddr_in: family, port, address. sockaddr_in6: family, port, flow label, address, scope.
fn set_address(envelope: &mut DatagramEnvelope, address: SocketAddr) {
    let (family, length) = match address {
        SocketAddr::V4(_) => (libc::AF_INET, size_of::<libc::sockaddr_in>()),
        SocketAddr::V6(_) => (libc::AF_INET6, size_of::<libc::sockaddr_in6>()),
    };
    let name = &mut envelope.name;
    name[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => name[4..8].copy_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => {
            name[8..24].copy_from_slice(&v6.ip().octets());
            name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    envelope.name_length = length;
}

/// The IP address and port that the kernel has written.
fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = c_int::from(libc::sa_family_t::from_ne_bytes(array(name, 0)?));
    let port = u16::from_be_bytes(array(name, 2)?);
    match family {
        libc::AF_INET => Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(array(name, 4)?), port))),
        libc::AF_INET6 => {
            let (ip, scope) = (Ipv6Addr::from(array(name, 8)?), u32::from_ne_bytes(array(name, 24)?));
            // The flow label is of one datagram.
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::sys::{IP_PKTINFO, IPV6_RECVPKTINFO, SO_RXQ_OVFL, UDP_GRO, set_option};
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
            let option = if any == "::" { IPV6_RECVPKTINFO } else { IP_PKTINFO };
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
        set_option(&other, UDP_GRO, 1).unwrap();
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
        set_option(&server, SO_RXQ_OVFL, 1).unwrap();
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
