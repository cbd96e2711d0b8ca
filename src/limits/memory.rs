//! Memory that clients occupy before they have a backend: counted over the whole process, and bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use thiserror::Error;

/// The preamble memory of a process.
///
/// The last half is reserved for clients that hold little. A flood of long preambles fills the first half, and clients
/// with an ordinary ClientHello or HTTP head still come in.
#[derive(Debug, Default)]
pub struct PreambleMemory {
    used: CachePadded<AtomicUsize>,
}

/// The memory is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("comes while the first bytes of other clients fill the {} MiB that are for them", PreambleMemory::TOTAL >> 20)]
pub struct MemoryExhausted;

impl PreambleMemory {
    /// Bytes over all clients.
    pub const TOTAL: usize = 64 << 20;
    /// A client with at most this may use the reserve. ClientHellos with post-quantum key shares have 2 KiB.
    pub const SMALL: usize = 4 << 10;

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A claim on nothing yet.
    pub fn claim(self: &Arc<Self>) -> MemoryClaim {
        MemoryClaim { memory: Arc::clone(self), bytes: 0 }
    }

    fn take(&self, more: usize, total: usize) -> Result<(), MemoryExhausted> {
        let limit = if total <= PreambleMemory::SMALL { PreambleMemory::TOTAL } else { PreambleMemory::TOTAL / 2 };
        let before = self.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) <= limit {
            return Ok(());
        }
        self.give_back(more);
        Err(MemoryExhausted)
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One client's share of the memory, given back on drop.
#[derive(Debug)]
pub struct MemoryClaim {
    memory: Arc<PreambleMemory>,
    bytes: usize,
}

impl MemoryClaim {
    /// Makes the share this large.
    ///
    /// # Errors
    /// There is not enough left. The share stays as it was.
    pub fn resize(&mut self, bytes: usize) -> Result<(), MemoryExhausted> {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.memory.take(more, bytes)?,
            None => self.memory.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LARGE: usize = 16 << 10;

    /// As many as fit, and one more at most.
    fn claims(memory: &Arc<PreambleMemory>, bytes: usize) -> Vec<MemoryClaim> {
        let next = || {
            let mut claim = memory.claim();
            claim.resize(bytes).ok().map(|()| claim)
        };
        std::iter::from_fn(next).take(PreambleMemory::TOTAL / bytes + 1).collect()
    }

    #[test]
    fn a_flood_of_long_preambles_leaves_room_for_short_ones() {
        let memory = Arc::new(PreambleMemory::default());
        let long = claims(&memory, LARGE);
        assert_eq!(long.len(), PreambleMemory::TOTAL / 2 / LARGE);
        let short = claims(&memory, PreambleMemory::SMALL);
        assert_eq!(short.len(), PreambleMemory::TOTAL / 2 / PreambleMemory::SMALL);
        assert_eq!(memory.used(), PreambleMemory::TOTAL);
        assert_eq!(memory.claim().resize(1), Err(MemoryExhausted));
        drop(short);
        assert_eq!(memory.claim().resize(1), Ok(()));
        drop(long);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_claim_grows_and_shrinks_and_stays_as_it_was_when_refused() {
        let memory = Arc::new(PreambleMemory::default());
        let mut claim = memory.claim();
        for bytes in [100, 100, LARGE, 7, 0, PreambleMemory::TOTAL / 2] {
            claim.resize(bytes).unwrap();
            assert_eq!(memory.used(), bytes);
        }
        assert_eq!(claim.resize(PreambleMemory::TOTAL / 2 + 1), Err(MemoryExhausted));
        assert_eq!(memory.used(), PreambleMemory::TOTAL / 2);
        drop(claim);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn threads_that_race_never_exceed_the_total_and_leave_nothing() {
        let memory = Arc::new(PreambleMemory::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let claims = claims(&memory, PreambleMemory::SMALL);
                        // Claims that are being refused are counted for a moment.
                        assert!(memory.used() <= PreambleMemory::TOTAL + 4 * PreambleMemory::SMALL);
                        drop(claims);
                    }
                });
            }
        });
        assert_eq!(memory.used(), 0);
    }
}
