//! Choosing a backend: one algorithm a file, all of them pure. Candidates and a request come in, an
//! index comes out; nothing here does I/O, reads a clock or knows what a backend is.
//!
//! What changes seldom (who may be chosen, with which weight) is baked into a [`Balancer`] when the
//! candidates change; what changes all the time (connections, latency, who is full) is asked of
//! [`Live`] at the moment of the pick. A pick takes no lock and allocates nothing.

mod ip_hash;
mod least;
mod least_connections;
mod least_latency;
mod power_of_two;
mod random;
mod round_robin;
#[cfg(test)]
mod testing;
mod weighted;

use siphasher::sip::SipHasher13;

use crate::config::model::Balance;

/// Somebody who can be chosen. Its place in the slice given to [`Balancer::new`] is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What placement by hash goes by; [`identity`] of the backend's name.
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

/// The identity of a backend of this name: the same in every process, on every machine.
pub fn identity(name: &str) -> u64 {
    hash(name.as_bytes())
}

/// SipHash-1-3 with a key that never changes, so that instances that never talked to each other
/// place the same client on the same backend. The price is that somebody who chooses its own
/// addresses freely can aim at one backend; with real TCP peers this is no more than they can do anyway.
pub fn hash(bytes: &[u8]) -> u64 {
    SipHasher13::new_with_keys(0x7469_6465_6761_7465, 0x706c_6163_656d_656e).hash(bytes)
}

/// How often a pick whose first choice cannot take a connection draws again by weight before it scans:
/// enough that a few full backends do not load their neighbours in the list, few enough to cost nothing.
const REDRAWS: u64 = 8;

/// The first candidate that can take a connection, beginning at `start` modulo `count` and going round.
/// The last resort of the algorithms: bounded, and sees everyone.
fn scan(count: usize, start: u64, live: &impl Live) -> Option<usize> {
    let begin = below(start, count);
    (begin..count).chain(0..begin).find(|&index| live.can_take(index))
}

/// Maps 64 uniform bits to `0..bound` without a division (Lemire, "Fast random integer generation in
/// an interval", 2019; without its rejection step, as the bias is below 2^-32 for the bounds used here).
fn below(uniform: u64, bound: usize) -> usize {
    ((u128::from(uniform) * bound as u128) >> 64) as usize
}

/// A number as good as drawn anew, `attempt` steps after `seed`: the finalizer of SplitMix64 (Steele,
/// Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn redraw(seed: u64, attempt: u64) -> u64 {
    let mut z = seed.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scanning_sees_everyone_once() {
        for start in [0, 1, u64::MAX / 3, u64::MAX] {
            for only in 0..5 {
                let live = testing::Fixed::takers((0..5).map(|i| i == only));
                assert_eq!(scan(5, start, &live), Some(only));
            }
        }
        assert_eq!(scan(0, 7, &testing::Fixed::takers([])), None);
    }
}
