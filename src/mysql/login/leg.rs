//! One side of a login: its sequence number, and what it has sent of a packet.

use zeroize::Zeroizing;

use crate::mysql::packet::{HEADER, MAX_PACKET, PacketTooLong, packet, split_packet};

/// Bytes that may hold a password: zeroed when dropped.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// Bytes kept of one side: a packet, and what came with it in one read.
pub(super) const MAX_BUFFERED: usize = 2 * (HEADER + MAX_PACKET);

/// The connection to one side.
#[derive(Default)]
pub(super) struct Leg {
    /// Both sides count all packets of a login.
    next: u8,
    buffer: SecretBytes,
    overflown: bool,
}

impl Leg {
    pub(super) fn next(&self) -> u8 {
        self.next
    }

    /// Counts a packet that this side has sent.
    pub(super) fn skip(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// A packet for this side.
    pub(super) fn packet(&mut self, body: &[u8]) -> SecretBytes {
        let packet = packet(self.next, body);
        self.skip();
        Zeroizing::new(packet)
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Keeps what this side has sent, as far as a login may go.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let length = self.buffer.len() + bytes.len();
        if length > MAX_BUFFERED {
            self.overflown = true;
            return;
        }
        if length > self.buffer.capacity() {
            // A vector that grows by itself leaves what it held in freed memory.
            let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
            larger.extend_from_slice(&self.buffer);
            self.buffer = larger;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next packet, if it is complete: its sequence number and body.
    pub(super) fn take(&mut self) -> Result<Option<(u8, SecretBytes)>, PacketTooLong> {
        if self.overflown {
            return Err(PacketTooLong);
        }
        let Some((sequence, length)) = split_packet(&self.buffer)? else { return Ok(None) };
        let body = Zeroizing::new(self.buffer[HEADER..HEADER + length].to_vec());
        self.buffer.drain(..HEADER + length);
        Ok(Some((sequence, body)))
    }

    /// All that is kept.
    pub(super) fn take_all(&mut self) -> SecretBytes {
        std::mem::take(&mut self.buffer)
    }
}
