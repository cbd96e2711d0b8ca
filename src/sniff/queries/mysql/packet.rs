//! Packets: a length of 24 bits, a sequence number, and the payload. What is longer than 16 MiB goes on in the next packet.

#![forbid(unsafe_code)]

use crate::sniff::queries::framing::{Prefix, take};

/// A payload of this length goes on in the next packet.
pub(super) const FULL: u32 = 0xff_ffff;

/// Where the next byte of one side is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PacketFraming {
    header: Prefix<4>,
    /// What is to come of the payload whose header is known.
    left: Option<u32>,
    is_full: bool,
    /// The packet goes on with the payload of the one before.
    continues: bool,
}

/// A packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketHeader {
    pub(super) length: u32,
    pub(super) sequence: u8,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A header, but of a packet that goes on with the one before. `ends` with an empty payload.
    Header { header: PacketHeader, ends: bool },
    /// A part of the payload; `ends` with its last byte.
    Payload { bytes: &'a [u8], ends: bool },
}

impl PacketFraming {
    /// Takes a piece off `bytes`; `None` where there are too few of them.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        while !bytes.is_empty() {
            let Some(left) = &mut self.left else {
                if !self.header.fill(bytes, 4) {
                    return None;
                }
                let [low, middle, high, sequence] = std::mem::take(&mut self.header).whole();
                let length = u32::from_le_bytes([low, middle, high, 0]);
                let continues = std::mem::replace(&mut self.continues, length == FULL);
                self.is_full = length == FULL;
                self.left = (length > 0).then_some(length);
                match (continues, length) {
                    (false, _) => {
                        return Some(Piece::Header { header: PacketHeader { length, sequence }, ends: length == 0 });
                    }
                    (true, 0) => return Some(Piece::Payload { bytes: &[], ends: true }),
                    (true, _) => continue,
                }
            };
            let part = take(bytes, u64::from(*left));
            *left -= part.len() as u32;
            let ends = *left == 0;
            if ends {
                self.left = None;
            }
            return Some(Piece::Payload { bytes: part, ends: ends && !self.is_full });
        }
        None
    }

    /// Bytes of the payload that are to come, up to the next header.
    pub(super) fn left(&self) -> u64 {
        self.left.unwrap_or_default().into()
    }

    /// Skips bytes of the payload. True at its end.
    pub(super) fn skip(&mut self, count: u64) -> bool {
        let Some(left) = self.left else { return false };
        let rest = u64::from(left).saturating_sub(count);
        self.left = u32::try_from(rest).ok().filter(|rest| *rest > 0);
        self.left.is_none() && !self.is_full
    }
}

/// Takes an integer of MySQL's variable length off `bytes`.
pub(super) fn length_encoded(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let size = match first {
        0..=0xfa => {
            *bytes = rest;
            return Some(u64::from(*first));
        }
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xfb | 0xff => return None,
    };
    let (number, rest) = rest.split_at_checked(size)?;
    *bytes = rest;
    Some(number.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_payload_is_one_packet() {
        let mut bytes = vec![0xff, 0xff, 0xff, 7];
        bytes.resize(4 + FULL as usize, 1);
        bytes.extend([3, 0, 0, 8, 1, 2, 3, 0, 0, 0, 9]);
        for portion in [1000, 65_536, bytes.len()] {
            let (mut framing, mut headers, mut ends, mut seen) = (PacketFraming::default(), Vec::new(), 0, 0);
            for mut part in bytes.chunks(portion) {
                while let Some(piece) = framing.next(&mut part) {
                    match piece {
                        Piece::Header { header, ends: at_once } => {
                            headers.push((header.length, header.sequence));
                            ends += usize::from(at_once);
                        }
                        Piece::Payload { bytes, ends: last } => {
                            seen += bytes.len();
                            ends += usize::from(last);
                        }
                    }
                }
            }
            assert_eq!((headers, ends, seen), (vec![(FULL, 7), (0, 9)], 2, FULL as usize + 3), "{portion}");
        }
    }

    #[test]
    fn payload_that_is_skipped_ends_where_it_ends() {
        let mut framing = PacketFraming::default();
        let mut bytes = &[10, 0, 0, 0, 1][..];
        while framing.next(&mut bytes).is_some() {}
        assert_eq!(framing.left(), 9);
        assert!(!framing.skip(8) && framing.skip(1));
        let mut bytes = &[0xff, 0xff, 0xff, 0][..];
        while framing.next(&mut bytes).is_some() {}
        assert!(!framing.skip(u64::from(FULL)), "it goes on");
        let mut bytes = &[0, 0, 0, 1][..];
        assert_eq!(framing.next(&mut bytes), Some(Piece::Payload { bytes: &[], ends: true }));
    }

    #[test]
    fn numbers_of_variable_length_are_read() {
        for (bytes, number, rest) in [
            (&[0xfa, 1][..], Some(0xfa), 1),
            (&[0xfc, 1, 2], Some(0x0201), 0),
            (&[0xfd, 1, 2, 3, 4], Some(0x03_0201), 1),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 0x80], Some(0x8000_0000_0000_0001), 0),
            (&[0xfc, 1], None, 2),
            (&[0xfb], None, 1),
            (&[], None, 0),
        ] {
            let mut left = bytes;
            assert_eq!(length_encoded(&mut left), number, "{bytes:?}");
            assert_eq!(left.len(), rest, "{bytes:?}");
        }
    }
}
