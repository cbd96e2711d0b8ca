//! Numbers, lines and bulk strings of RESP, over bytes as they come.

#![forbid(unsafe_code)]

use crate::sniff::queries::event::Ended;
use crate::sniff::queries::framing::take;
use crate::stats::queries::{PassthroughReason, QueryProtocol};

pub(super) const PROTOCOL: QueryProtocol = QueryProtocol::Redis;

pub(super) const MALFORMED: Ended = Some(PassthroughReason::Malformed);

/// A number up to the end of its line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Number {
    value: u64,
    digits: u8,
    negative: bool,
}

impl Number {
    /// Takes bytes of the line. The number once the line has ended: `None` in it is one below zero, a null.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Option<u64>>, Ended> {
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            match byte {
                b'0'..=b'9' if self.digits < 19 => {
                    self.value = self.value * 10 + u64::from(byte - b'0');
                    self.digits += 1;
                }
                b'-' if self.digits == 0 && !self.negative => self.negative = true,
                b'\r' if self.digits > 0 => {}
                b'\n' if self.digits > 0 => return Ok(Some((!self.negative).then_some(self.value))),
                _ => return Err(MALFORMED),
            }
        }
        Ok(None)
    }
}

/// The rest of a bulk string: its bytes, and the end of the line behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bulk {
    /// Bytes to come, the two of the line's end included.
    left: u64,
}

impl Bulk {
    /// Of this length.
    pub(super) fn new(length: u64) -> Bulk {
        // A length has at most 19 digits.
        Bulk { left: length.saturating_add(2) }
    }

    /// Takes its next bytes off `bytes`, without those of the line's end. True once all have come.
    pub(super) fn read<'a>(&mut self, bytes: &mut &'a [u8]) -> (&'a [u8], bool) {
        let part = take(bytes, self.skippable());
        self.left -= part.len() as u64;
        let end = take(bytes, if self.skippable() == 0 { self.left } else { 0 });
        self.left -= end.len() as u64;
        (part, self.left == 0)
    }

    /// Bytes to come before the line's end.
    pub(super) fn skippable(&self) -> u64 {
        self.left.saturating_sub(2)
    }

    pub(super) fn skip(&mut self, count: u64) {
        self.left -= count.min(self.skippable());
    }
}

/// Takes bytes up to the end of the line, without it. True once it has come.
pub(super) fn line<'a>(bytes: &mut &'a [u8]) -> (&'a [u8], bool) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let (line, rest) = bytes.split_at(end);
            *bytes = rest.get(1..).unwrap_or_default();
            (line, true)
        }
        None => (std::mem::take(bytes), false),
    }
}

/// The first bytes of a string.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<const MOST: usize> {
    bytes: [u8; MOST],
    len: u8,
    pub(super) is_cut: bool,
}

impl<const MOST: usize> Default for Word<MOST> {
    fn default() -> Word<MOST> {
        Word { bytes: [0; MOST], len: 0, is_cut: false }
    }
}

impl<const MOST: usize> Word<MOST> {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let from = usize::from(self.len);
        let count = bytes.len().min(MOST - from);
        if let (Some(places), Some(taken)) = (self.bytes.get_mut(from..from + count), bytes.get(..count)) {
            places.copy_from_slice(taken);
        }
        // At most MOST, which fits.
        self.len = (from + count) as u8;
        self.is_cut |= count < bytes.len();
    }

    /// What there is of it.
    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub(super) fn is(&self, word: &[u8]) -> bool {
        !self.is_cut && self.get().eq_ignore_ascii_case(word)
    }
}
