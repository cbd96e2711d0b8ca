//! A backend lent to a connection, and why there is none.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::persist::HoldId;
use super::snapshot::Tier;
use super::{Backend, Excluded};
use crate::balance::{self, Draw, Live};
use crate::config::model::{AdminState, HashPrefix};

/// One connection's claim on a backend; counts as a connection of it until dropped.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    downs: u32,
    /// The entry of its client, where the pool has `persist`.
    held: Option<HoldId>,
}

impl Lease {
    /// Takes a connection of `backend`, unless it is full, or down and that matters.
    pub(super) fn new(backend: &Arc<Backend>, may_be_down: bool) -> Option<Lease> {
        let downs = backend.downs(); // before, so that no going down is missed
        backend.try_acquire(may_be_down).then(|| Lease { backend: Arc::clone(backend), downs, held: None })
    }

    /// Keeps the client's entry for as long as the lease lives.
    pub(super) fn hold(&mut self, entry: HoldId) {
        self.held = Some(entry);
    }

    /// The leased backend.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Whether the backend has gone down since the lease was taken, even if it is up again. A session that makes itself
    /// known to [`Pool::on_cut`](super::Pool::on_cut) only once it is connected asks this then, and misses no cut.
    pub fn went_down(&self) -> bool {
        self.backend.downs() != self.downs
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.release(self.held);
    }
}

/// Why no backend could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoBackend {
    /// Those with weight are all down.
    AllDown {
        /// How many.
        backends: usize,
    },
    /// Those that are up and were not tried are at their `max_connections`.
    AllFull {
        /// How many are up.
        up: usize,
    },
    /// This connection has tried all that are up.
    AllTried {
        /// How many are up.
        up: usize,
    },
    /// Every backend's weight is 0.
    NoWeight,
    /// The pool has none.
    Empty,
    /// Some backends are drained or in maintenance, and the weight of all others is 0.
    NotReady,
    /// Other connections wait in the pool's queue.
    Queued,
}

impl NoBackend {
    pub(super) fn explain(backends: &[Arc<Backend>], excluded: &Excluded) -> NoBackend {
        let offered = || backends.iter().filter(|b| b.is_offered());
        let up = offered().filter(|b| b.is_up()).count();
        match offered().count() {
            0 if backends.iter().all(|b| b.is_leaving()) => NoBackend::Empty,
            0 if backends.iter().any(|b| !b.is_leaving() && b.state() != AdminState::Ready) => NoBackend::NotReady,
            0 => NoBackend::NoWeight,
            backends if up == 0 => NoBackend::AllDown { backends },
            _ if offered().filter(|b| b.is_up()).all(|b| excluded.contains(b.id())) => NoBackend::AllTried { up },
            _ => NoBackend::AllFull { up },
        }
    }
}

impl fmt::Display for NoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoBackend::AllDown { backends: 1 } => f.write_str("the only backend is down"),
            NoBackend::AllDown { backends } => write!(f, "all {backends} backends are down"),
            NoBackend::AllFull { up: 1 } => f.write_str("the only backend that is up is full"),
            NoBackend::AllFull { up } => {
                write!(f, "all {up} backends that are up are full or were tried")
            }
            NoBackend::AllTried { up: 1 } => f.write_str("the only backend that is up was tried"),
            NoBackend::AllTried { up } => write!(f, "all {up} backends that are up were tried"),
            NoBackend::Empty => f.write_str("the pool has no backends"),
            NoBackend::NoWeight => f.write_str("no backend has a weight above 0"),
            NoBackend::Queued => f.write_str("other connections wait for a backend"),
            NoBackend::NotReady => f.write_str("no backend is ready: drained, in maintenance, or weight 0"),
        }
    }
}

impl std::error::Error for NoBackend {}

/// A lease of the member that the tier's algorithm chooses; `None` when none can take a connection.
pub(super) fn take(tier: &Tier, fails_open: bool, draw: &Draw, excluded: &Excluded) -> Option<Lease> {
    let Tier { members, balancer } = tier;
    let now = Now { members, fails_open, excluded };
    // Another worker may take the last place between pick and lease; the next pick sees that.
    for _ in 0..LOST_RACES {
        let index = balancer.pick(draw, &now)?;
        if let Some(lease) = Lease::new(&members[index], fails_open) {
            return Some(lease);
        }
    }
    // With that little room left, any member that has some will do.
    members
        .iter()
        .filter(|backend| !excluded.contains(backend.id()))
        .find_map(|backend| Lease::new(backend, fails_open))
}

/// Picks whose choice was snatched away before it no longer matters who is chosen.
const LOST_RACES: usize = 16;

/// The numbers of a tier's members at this moment.
pub(super) struct Now<'a> {
    pub(super) members: &'a [Arc<Backend>],
    /// Those that are down are used as well.
    pub(super) fails_open: bool,
    pub(super) excluded: &'a Excluded,
}

impl Live for Now<'_> {
    fn connections(&self, index: usize) -> u32 {
        self.members[index].connections()
    }

    fn latency_us(&self, index: usize) -> u32 {
        self.members[index].latency_us()
    }

    fn can_take(&self, index: usize) -> bool {
        let backend = &self.members[index];
        (self.fails_open || backend.is_up())
            && !backend.is_full()
            && (self.excluded.is_empty() || !self.excluded.contains(backend.id()))
    }
}

/// What placement by hash goes by: the bits of the client's address that count. Clients that differ only in others share a backend.
pub(super) fn client_key(ip: IpAddr, prefix: HashPrefix) -> u64 {
    // An IPv4 client is the same one on a dual-stack socket.
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.ipv4.into())).unwrap_or(0);
            balance::hash(&(ip.to_bits() & mask).to_be_bytes())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.ipv6.into())).unwrap_or(0);
            balance::hash(&(ip.to_bits() & mask).to_be_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ip: &str, ipv4: u8, ipv6: u8) -> u64 {
        client_key(ip.parse().unwrap(), HashPrefix { ipv4, ipv6 })
    }

    #[test]
    fn only_the_prefix_counts() {
        assert_eq!(key("10.1.2.3", 24, 64), key("10.1.2.250", 24, 64));
        assert_ne!(key("10.1.2.3", 24, 64), key("10.1.3.3", 24, 64));
        assert_ne!(key("10.1.2.3", 32, 64), key("10.1.2.2", 32, 64));
        assert_eq!(key("10.1.2.3", 0, 64), key("99.9.9.9", 0, 64));
        assert_eq!(key("2001:db8::1", 32, 64), key("2001:db8::ffff:1", 32, 64));
        assert_ne!(key("2001:db8::1", 32, 64), key("2001:db8:0:1::1", 32, 64));
        assert_ne!(key("2001:db8::1", 32, 128), key("2001:db8::2", 32, 128));
        assert_eq!(key("::5", 32, 0), key("2001:db8::2", 32, 0));
    }

    #[test]
    fn a_mapped_ipv4_client_is_an_ipv4_client() {
        assert_eq!(key("::ffff:10.1.2.3", 32, 64), key("10.1.2.3", 32, 64));
        assert_ne!(key("::ffff:10.1.2.3", 32, 64), key("::ffff:10.1.2.4", 32, 64));
    }

    #[test]
    fn says_why_for_people() {
        let say = |why: NoBackend| why.to_string();
        assert_eq!(say(NoBackend::AllDown { backends: 3 }), "all 3 backends are down");
        assert_eq!(say(NoBackend::AllTried { up: 1 }), "the only backend that is up was tried");
    }
}
