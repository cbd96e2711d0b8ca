//! What clients send.

/// A datagram of a client, or a train of them.
#[derive(Clone, Copy)]
pub(super) struct ClientDatagram<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) segment: Option<u16>,
}

impl<'b> ClientDatagram<'b> {
    /// Datagrams of the train.
    pub(super) fn count(&self) -> u64 {
        match self.segment {
            Some(size @ 1..) => self.bytes.len().div_ceil(size.into()).max(1) as u64,
            _ => 1,
        }
    }

    /// Each by itself. An empty one is a datagram, too.
    pub(super) fn apart(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let size = self.segment.map_or(usize::MAX, usize::from).max(1);
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(size))
    }
}

/// None of them a train.
pub(super) fn whole(datagrams: &[Box<[u8]>]) -> Vec<ClientDatagram<'_>> {
    datagrams.iter().map(|bytes| ClientDatagram { bytes, segment: None }).collect()
}

/// Datagrams and bytes.
pub(super) fn sum(datagrams: &[ClientDatagram<'_>]) -> (u64, u64) {
    datagrams.iter().fold((0, 0), |(count, bytes), it| (count + it.count(), bytes + it.bytes.len() as u64))
}
