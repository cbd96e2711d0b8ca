//! The backends that a connection has tried in vain.

use super::BackendIndex;

/// A small set of backends of one pool. Allocates nothing for the first four: it lies in every session that is being
/// connected, and few connections get as far as a second backend.
#[derive(Clone, Debug)]
pub struct Tried(Set);

#[derive(Clone, Debug)]
enum Set {
    /// Filled from the front; the rest is [`NOBODY`].
    Few([u32; 4]),
    Many(Vec<u32>),
}

const NOBODY: u32 = u32::MAX;

impl Tried {
    /// Nobody was tried.
    pub const fn new() -> Tried {
        Tried(Set::Few([NOBODY; 4]))
    }

    /// Adds a backend that was tried.
    pub fn add(&mut self, backend: BackendIndex) {
        if self.contains(backend) {
            return;
        }
        let number = backend.0 as u32;
        match &mut self.0 {
            Set::Few(few) => match few.iter_mut().find(|place| **place == NOBODY) {
                Some(place) => *place = number,
                None => self.0 = Set::Many(few.iter().copied().chain([number]).collect()),
            },
            Set::Many(many) => many.push(number),
        }
    }

    /// Whether it was tried.
    pub fn contains(&self, backend: BackendIndex) -> bool {
        let number = backend.0 as u32;
        match &self.0 {
            Set::Few(few) => few.contains(&number),
            Set::Many(many) => many.contains(&number),
        }
    }

    /// Whether nobody was tried.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Set::Few([NOBODY, ..]))
    }
}

impl Default for Tried {
    fn default() -> Tried {
        Tried::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_any_number() {
        let mut tried = Tried::new();
        assert!(tried.is_empty());
        for number in 0..20 {
            assert!(!tried.contains(BackendIndex(number)));
            tried.add(BackendIndex(number));
            tried.add(BackendIndex(number / 2));
            assert!((0..=number).all(|n| tried.contains(BackendIndex(n))));
        }
        assert!(!tried.is_empty());
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Tried>() <= 32);
    }
}
