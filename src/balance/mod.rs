//! Choosing a backend: one algorithm a file, all of them pure. Candidates and a request come in, an
//! index comes out; nothing here does I/O, reads a clock or knows what a backend is.
//!
//! What changes seldom (who may be chosen, with which weight) is baked into a [`Balancer`] when the
//! candidates change; what changes all the time (connections, latency, who is full) is asked of
//! [`Live`] at the moment of the pick. A pick takes no lock and allocates nothing.

mod candidate;
mod ip_hash;
mod keyed_hash;
mod least;
mod least_connections;
mod least_latency;
mod power_of_two;
mod random;
mod round_robin;
mod sampling;
mod split;
#[cfg(test)]
mod testing;
mod weighted;

use crate::config::model::Balance;
pub use candidate::{Candidate, Live};
pub use keyed_hash::{hash, identity};
pub use split::Split;

/// What distinguishes one pick from the next.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Hash of what identifies the client ([`hash`]); only `ip_hash` uses it.
    pub key: u64,
    /// One more than at the pick before. [`Balancer::needs_turn`] says who uses it.
    pub turn: u64,
    /// Uniformly random; `random` and `power_of_two` use it.
    pub random: u64,
}

/// An algorithm, prepared for a fixed set of candidates.
#[derive(Debug)]
pub enum Balancer {
    /// Smooth weighted round robin.
    RoundRobin(round_robin::RoundRobin),
    /// Fewest connections per weight.
    LeastConnections(least_connections::LeastConnections),
    /// Consistent placement by the client's key.
    IpHash(ip_hash::IpHash),
    /// The less loaded of two random ones.
    PowerOfTwo(power_of_two::PowerOfTwo),
    /// The least latency for the load.
    LeastLatency(least_latency::LeastLatency),
    /// By weight, at random.
    Random(random::Random),
}

impl Balancer {
    /// Prepares `kind` for `candidates`: from microseconds to some ten milliseconds of work, so that
    /// a pick is cheap.
    pub fn new(kind: Balance, candidates: &[Candidate]) -> Balancer {
        use Balancer as B;
        match kind {
            Balance::RoundRobin => B::RoundRobin(round_robin::RoundRobin::new(candidates)),
            Balance::LeastConnections => B::LeastConnections(least_connections::LeastConnections::new(candidates)),
            Balance::IpHash => B::IpHash(ip_hash::IpHash::new(candidates)),
            Balance::PowerOfTwo => B::PowerOfTwo(power_of_two::PowerOfTwo::new(candidates)),
            Balance::LeastLatency => B::LeastLatency(least_latency::LeastLatency::new(candidates)),
            Balance::Random => B::Random(random::Random::new(candidates)),
        }
    }

    /// The index of the chosen candidate; `None` only when not one of them can take a connection.
    pub fn pick(&self, draw: &Draw, live: &impl Live) -> Option<usize> {
        match self {
            Balancer::RoundRobin(it) => it.pick(draw.turn, live),
            Balancer::LeastConnections(it) => it.pick(draw.turn, live),
            Balancer::IpHash(it) => it.pick(draw.key, live),
            Balancer::PowerOfTwo(it) => it.pick(draw.random, live),
            Balancer::LeastLatency(it) => it.pick(draw.turn, live),
            Balancer::Random(it) => it.pick(draw.random, live),
        }
    }

    /// How likely each candidate is to be chosen now, for the algorithms that draw; `None` for the others. For people:
    /// where some cannot take a connection, the few draws that end in a scan are left out.
    pub fn chances(&self, live: &impl Live) -> Option<Vec<f64>> {
        match self {
            Balancer::PowerOfTwo(it) => Some(it.chances(live)),
            Balancer::Random(it) => Some(it.chances(live)),
            Balancer::RoundRobin(_)
            | Balancer::LeastConnections(_)
            | Balancer::IpHash(_)
            | Balancer::LeastLatency(_) => None,
        }
    }

    /// Whether [`Draw::turn`] matters. Where it doesn't, the caller spares its workers a counter that
    /// they would all write to.
    pub fn needs_turn(&self) -> bool {
        match self {
            Balancer::RoundRobin(_) | Balancer::LeastConnections(_) | Balancer::LeastLatency(_) => true,
            Balancer::IpHash(_) | Balancer::PowerOfTwo(_) | Balancer::Random(_) => false,
        }
    }

    /// Whether [`Draw::key`] matters.
    pub fn needs_key(&self) -> bool {
        matches!(self, Balancer::IpHash(_))
    }

    /// Whether [`Draw::random`] matters.
    pub fn needs_random(&self) -> bool {
        matches!(self, Balancer::PowerOfTwo(_) | Balancer::Random(_))
    }
}
