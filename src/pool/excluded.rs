//! The backends that a connection has tried in vain.

use smallvec::SmallVec;

use crate::stats::registry::BackendId;

/// Backends that a lease passes over. The first four need no allocation: few connections get as far as a second backend.
#[derive(Clone, Debug, Default)]
pub struct Excluded(SmallVec<[BackendId; 4]>);

impl Excluded {
    /// Excludes none.
    pub fn new() -> Excluded {
        Excluded::default()
    }

    /// Excludes a backend.
    pub fn add(&mut self, backend: BackendId) {
        if !self.contains(backend) {
            self.0.push(backend);
        }
    }

    /// Whether the backend is excluded.
    pub fn contains(&self, backend: BackendId) -> bool {
        self.0.contains(&backend)
    }

    /// Whether none is excluded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::registry::Registry;

    #[test]
    fn excluded_any_number_is_held() {
        let registry = Registry::default();
        let ids: Vec<BackendId> = (0..20).map(|_| registry.backend()).collect();
        let mut excluded = Excluded::new();
        assert!(excluded.is_empty());
        for (number, &id) in ids.iter().enumerate() {
            assert!(!excluded.contains(id));
            excluded.add(id);
            excluded.add(ids[number / 2]);
            assert!(ids[..=number].iter().all(|&id| excluded.contains(id)));
        }
        assert!(!excluded.is_empty());
    }

    #[test]
    fn excluded_in_a_session_is_small() {
        assert!(size_of::<Excluded>() <= 32);
    }
}
