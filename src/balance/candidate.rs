//! What an algorithm chooses from.

/// A backend that can be chosen. Its place in the slice given to [`Balancer::new`](super::Balancer::new) is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What placement by hash goes by; [`identity`](super::identity) of the backend's name.
    pub identity: u64,
    /// Its share. Those who are to get nothing are no candidates, so a zero counts as one.
    pub weight: u32,
}

/// What is true of the candidates at the moment of a pick. The indices are those of [`Candidate`]s.
pub trait Live {
    /// Connections open to it.
    fn connections(&self, index: usize) -> u32;

    /// Moving average of its latency in microseconds; 0 when it was never measured.
    fn latency_us(&self, index: usize) -> u32;

    /// False when it is full, or when this connection has tried it before.
    fn can_take(&self, index: usize) -> bool;
}
