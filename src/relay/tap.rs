//! Observing what a relay moves.

use std::time::Instant;

use crate::stats::termination::Side;

/// Observes the bytes of a relay, each once and in order, except those it declares [`skippable`](Tap::skippable). It can
/// neither change nor delay them.
pub trait Tap {
    /// Count of the next bytes from this side that the tap need not see.
    fn skippable(&self, from: Side) -> u64;
    /// The next bytes from this side, before they are written to the other.
    fn on_bytes(&mut self, from: Side, bytes: &[u8], now: Instant);
    /// Count of the next bytes from this side that were spliced unseen: at most [`Tap::skippable`].
    fn on_spliced(&mut self, from: Side, count: u64, now: Instant);
    /// This side has sent FIN.
    fn on_fin(&mut self, from: Side, now: Instant);
}

/// Without a tap, every byte is skippable.
impl<T: Tap> Tap for Option<Box<T>> {
    #[inline]
    fn skippable(&self, from: Side) -> u64 {
        self.as_ref().map_or(u64::MAX, |tap| tap.skippable(from))
    }

    #[inline]
    fn on_bytes(&mut self, from: Side, bytes: &[u8], now: Instant) {
        if let Some(tap) = self {
            tap.on_bytes(from, bytes, now);
        }
    }

    #[inline]
    fn on_spliced(&mut self, from: Side, count: u64, now: Instant) {
        if let Some(tap) = self {
            tap.on_spliced(from, count, now);
        }
    }

    #[inline]
    fn on_fin(&mut self, from: Side, now: Instant) {
        if let Some(tap) = self {
            tap.on_fin(from, now);
        }
    }
}

/// A tap, as one direction calls it in one turn.
pub(super) struct Tapped<'t, T> {
    pub(super) tap: &'t mut T,
    pub(super) from: Side,
    pub(super) now: Instant,
}

impl<T: Tap> Tapped<'_, T> {
    pub(super) fn skippable(&self) -> u64 {
        self.tap.skippable(self.from)
    }

    pub(super) fn on_bytes(&mut self, bytes: &[u8]) {
        self.tap.on_bytes(self.from, bytes, self.now);
    }

    pub(super) fn on_spliced(&mut self, count: usize) {
        self.tap.on_spliced(self.from, count as u64, self.now);
    }

    pub(super) fn on_fin(&mut self) {
        self.tap.on_fin(self.from, self.now);
    }
}
