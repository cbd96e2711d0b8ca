//! Prefixs of messages, over bytes as they come.

#![forbid(unsafe_code)]

/// The first bytes of something, as many as are needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix<const MOST: usize> {
    bytes: [u8; MOST],
    len: u8,
}

impl<const MOST: usize> Default for Prefix<MOST> {
    fn default() -> Prefix<MOST> {
        Prefix { bytes: [0; MOST], len: 0 }
    }
}

impl<const MOST: usize> Prefix<MOST> {
    /// Takes bytes off `bytes` until it has `wanted` of them, at most all that it holds. True once it has.
    pub(super) fn fill(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let (wanted, len) = (wanted.min(MOST), usize::from(self.len));
        let count = wanted.saturating_sub(len).min(bytes.len());
        let (taken, rest) = bytes.split_at(count);
        if let Some(places) = self.bytes.get_mut(len..len + count) {
            places.copy_from_slice(taken);
        }
        *bytes = rest;
        // At most MOST, which fits.
        self.len = (len + count) as u8;
        len + count >= wanted
    }

    /// What it has.
    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// All of it, once it is full.
    pub(super) fn whole(&self) -> [u8; MOST] {
        self.bytes
    }
}

/// Takes at most `count` bytes off `bytes`.
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: u64) -> &'a [u8] {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

/// The bytes up to a NUL, and those behind it.
pub(super) fn until_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}
