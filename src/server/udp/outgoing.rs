//! Sending datagrams, and what becomes of those that cannot be sent.

use std::cell::Cell;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::net::datagrams::{self, OutgoingDatagram};

thread_local! {
    /// The kernel, or a network interface, does not take trains (UDP_SEGMENT): they are sent one by one from then on.
    static WITHOUT_TRAINS: Cell<bool> = const { Cell::new(false) };
}

/// What has become of datagrams, and bytes, of which trains count as many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// They could not be sent.
    pub(super) failed: u64,
}

/// Sends in order. A datagram that fails for a reason of its own does not hold up those behind it.
///
/// # Errors
/// The peer is not there (ICMP), and how many of `datagrams` were seen to before; the one after them was not sent.
pub(super) fn send(socket: BorrowedFd<'_>, datagrams: &[OutgoingDatagram<'_>]) -> (Sent, Option<(usize, Errno)>) {
    let (mut sent, mut rest, mut done) = (Sent::default(), datagrams, 0);
    while let Some(first) = rest.first() {
        if first.segment.is_some() && (WITHOUT_TRAINS.get() || !first.head.is_empty()) {
            let (more, error) = send(socket, &apart(first));
            sent.add(more);
            if let Some((_, errno)) = error {
                return (sent, Some((done, errno)));
            }
            (rest, done) = (&rest[1..], done + 1);
            continue;
        }
        let until = rest.iter().position(|it| it.segment.is_some() && !it.head.is_empty()).unwrap_or(rest.len());
        let (count, error) = datagrams::send(socket, &rest[..until]);
        for datagram in &rest[..count] {
            sent.datagrams += count_of(datagram);
            sent.bytes += datagram.bytes.len() as u64;
        }
        (rest, done) = (&rest[count..], done + count);
        let (Some(errno), Some(failed)) = (error, rest.first()) else { continue };
        match errno {
            Errno::INTR => {}
            Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::CONNRESET => {
                return (sent, Some((done, errno)));
            }
            Errno::IO | Errno::INVAL | Errno::MSGSIZE | Errno::OPNOTSUPP if failed.segment.is_some() => {
                // A train longer than the path allows is this one's; the other errors are of the interface or the kernel.
                if errno != Errno::MSGSIZE && errno != Errno::INVAL {
                    WITHOUT_TRAINS.set(true);
                }
                let (more, error) = send(socket, &apart(failed));
                sent.add(more);
                if let Some((_, errno)) = error {
                    return (sent, Some((done, errno)));
                }
                (rest, done) = (&rest[1..], done + 1);
            }
            _ => {
                sent.failed += count_of(failed);
                (rest, done) = (&rest[1..], done + 1);
            }
        }
    }
    (sent, None)
}

/// The datagrams of a train.
fn apart<'b>(train: &OutgoingDatagram<'b>) -> Vec<OutgoingDatagram<'b>> {
    let size = usize::from(train.segment.unwrap_or(u16::MAX)).max(1);
    let each = train.bytes.chunks(size).enumerate();
    each.map(|(place, bytes)| {
        let head = if place == 0 { train.head } else { &[] };
        OutgoingDatagram { head, bytes, segment: None, ..*train }
    })
    .collect()
}

fn count_of(datagram: &OutgoingDatagram<'_>) -> u64 {
    match datagram.segment {
        Some(size @ 1..) => datagram.bytes.len().div_ceil(size.into()).max(1) as u64,
        _ => 1,
    }
}

impl Sent {
    pub(super) fn add(&mut self, more: Sent) {
        self.datagrams += more.datagrams;
        self.bytes += more.bytes;
        self.failed += more.failed;
    }
}
