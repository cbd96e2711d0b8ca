//! Who watches what passes.

use std::time::Instant;

use crate::stats::termination::Side;

/// Watches the bytes of a relay: each of them is seen once, in order, or passes unseen where the tap allows that. It
/// cannot change them, nor hold them back.
pub trait Tap {
    /// How many bytes come next from this side of which none needs to be seen.
    fn unseen(&self, from: Side) -> u64;
    /// These came next from this side, and go to the other one now.
    fn saw(&mut self, from: Side, bytes: &[u8], now: Instant);
    /// So many came next from this side and were not looked at; never more than [`Tap::unseen`].
    fn passed(&mut self, from: Side, count: u64, now: Instant);
    /// This side has finished.
    fn finished(&mut self, from: Side, now: Instant);
}

/// Where there is none, nothing is seen.
impl<T: Tap> Tap for Option<Box<T>> {
    #[inline]
    fn unseen(&self, from: Side) -> u64 {
        self.as_ref().map_or(u64::MAX, |tap| tap.unseen(from))
    }

    #[inline]
    fn saw(&mut self, from: Side, bytes: &[u8], now: Instant) {
        if let Some(tap) = self {
            tap.saw(from, bytes, now);
        }
    }

    #[inline]
    fn passed(&mut self, from: Side, count: u64, now: Instant) {
        if let Some(tap) = self {
            tap.passed(from, count, now);
        }
    }

    #[inline]
    fn finished(&mut self, from: Side, now: Instant) {
        if let Some(tap) = self {
            tap.finished(from, now);
        }
    }
}

/// What one direction sees of a tap, at one time.
pub(super) struct Tapped<'t, T> {
    pub(super) tap: &'t mut T,
    pub(super) from: Side,
    pub(super) now: Instant,
}

impl<T: Tap> Tapped<'_, T> {
    pub(super) fn unseen(&self) -> u64 {
        self.tap.unseen(self.from)
    }

    pub(super) fn saw(&mut self, bytes: &[u8]) {
        self.tap.saw(self.from, bytes, self.now);
    }

    pub(super) fn passed(&mut self, count: usize) {
        self.tap.passed(self.from, count as u64, self.now);
    }

    pub(super) fn finished(&mut self) {
        self.tap.finished(self.from, self.now);
    }
}
