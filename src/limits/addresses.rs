//! What each address has open, and how fast it comes. A table of a bounded size, in parts, so that workers seldom wait
//! for one another.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::mem;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::exceeded::{Exceeded, Limit};
use super::gcra::{Gcra, Nanos};

/// Parts of the table.
const PARTS: usize = 64;

/// Addresses of one part whose pace is remembered, in each of two generations: as many as a table of 2,048 places takes
/// without growing; 229,376 in all, some 9 MB.
const GENERATION: usize = 1792;

/// Retry-After of an address at its limit of connections: when one of them ends is unknown.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The limits of each address.
#[derive(Debug)]
pub(super) struct AddressTable {
    most: Option<NonZeroU32>,
    pace: Option<Gcra>,
    memory: Arc<AddressMemory>,
}

/// The connections of each address. Outlives a change of the limits.
#[derive(Debug)]
struct AddressMemory {
    /// Keyed by this process, so that no client can choose addresses of one part.
    hasher: RandomState,
    parts: Box<[CachePadded<Mutex<Shard>>]>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Connections that are open; no address that has none.
    open: HashMap<IpAddr, u32>,
    paces: Generations,
}

impl AddressTable {
    /// Connections of an address at once, and their rate.
    pub(super) fn new(most: Option<NonZeroU32>, pace: Option<Gcra>) -> AddressTable {
        let parts = (0..PARTS).map(|_| CachePadded::default()).collect();
        AddressTable { most, pace, memory: Arc::new(AddressMemory { hasher: RandomState::new(), parts }) }
    }

    /// Other limits for what is counted here.
    pub(super) fn reconfigured(&self, most: Option<NonZeroU32>, pace: Option<Gcra>) -> AddressTable {
        AddressTable { most, pace, memory: Arc::clone(&self.memory) }
    }

    /// Counts one more connection of `client` unless it is over a limit; `last` is asked when it is not, and nothing is counted
    /// when that refuses.
    pub(super) fn admit(
        &self,
        client: IpAddr,
        now: Nanos,
        last: impl FnOnce() -> Result<(), Exceeded>,
    ) -> Result<Option<AddressSlot>, Exceeded> {
        let address = counted_as(client);
        let mut part = self.memory.part(address);
        let full_at = self.look(&mut part, address, now)?;
        last()?;
        if let Some(full_at) = full_at {
            part.paces.set(address, full_at, now);
        }
        Ok(self.most.map(|_| {
            *part.open.entry(address).or_default() += 1;
            AddressSlot { addresses: Arc::clone(&self.memory), address }
        }))
    }

    /// Whether one more connection of `client` would be over a limit. Counts nothing.
    pub(super) fn check(&self, client: IpAddr, now: Nanos) -> Result<(), Exceeded> {
        let address = counted_as(client);
        self.look(&mut self.memory.part(address), address, now).map(|_| ())
    }

    /// When the address's bucket would be full again after one more connection, if there is a pace.
    fn look(&self, part: &mut Shard, address: IpAddr, now: Nanos) -> Result<Option<Nanos>, Exceeded> {
        if let Some(most) = self.most
            && part.open.get(&address).is_some_and(|&open| open >= most.get())
        {
            return Err(Exceeded { limit: Limit::ConnectionsOfAddress, wait: A_MOMENT });
        }
        let Some(pace) = self.pace else { return Ok(None) };
        let taken = pace.take(part.paces.get(address, now, pace.span()), now);
        taken.map(Some).map_err(|wait| Exceeded { limit: Limit::RateOfAddress, wait })
    }

    /// Connections that an address has open; 0 when they are not limited.
    pub(super) fn open(&self, client: IpAddr) -> u32 {
        let address = counted_as(client);
        self.memory.part(address).open.get(&address).copied().unwrap_or_default()
    }
}

impl AddressMemory {
    fn part(&self, address: IpAddr) -> MutexGuard<'_, Shard> {
        let place = self.hasher.hash_one(address) as usize % PARTS;
        // Nothing in there is left half done by a panic in between.
        self.parts[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of an address; it is counted until this is dropped.
#[derive(Debug)]
pub struct AddressSlot {
    addresses: Arc<AddressMemory>,
    address: IpAddr,
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut part = self.addresses.part(self.address);
        if let Entry::Occupied(mut open) = part.open.entry(self.address) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// What an address is counted as: itself; of IPv6 the /64 that it is in, as that is what one host is given, and could choose
/// among for each connection.
fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

/// When each address's bucket is full again. What the old generation has is forgotten with it: after a bucket's
/// span that is nothing, as all of them are full; and when there are more addresses than have room, those that came first
/// start with a full bucket.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<IpAddr, Nanos>,
    old: HashMap<IpAddr, Nanos>,
    since: Nanos,
}

impl Generations {
    fn get(&mut self, address: IpAddr, now: Nanos, span: Nanos) -> Nanos {
        if now.saturating_sub(self.since) >= span {
            self.turn(now);
        }
        self.young.get(&address).or_else(|| self.old.get(&address)).copied().unwrap_or_default()
    }

    fn set(&mut self, address: IpAddr, full_at: Nanos, now: Nanos) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&address) {
            self.turn(now);
        }
        self.young.insert(address, full_at);
    }

    fn turn(&mut self, now: Nanos) {
        self.old = mem::take(&mut self.young);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Rate;

    const SECOND: Nanos = 1_000_000_000;

    fn rate(count: u32, seconds: u64) -> Option<Gcra> {
        Some(Gcra::new(Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(seconds) }))
    }

    fn table(most: u32, pace: Option<Gcra>) -> AddressTable {
        AddressTable::new(NonZeroU32::new(most), pace)
    }

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn held(table: &AddressTable) -> (usize, usize) {
        let parts = table.memory.parts.iter().map(|part| part.lock().unwrap());
        parts.fold((0, 0), |(open, paces), part| {
            (open + part.open.len(), paces + part.paces.young.len() + part.paces.old.len())
        })
    }

    #[test]
    fn whoever_goes_makes_room() {
        let table = table(2, None);
        let admit = |number| table.admit(ip(number), 0, || Ok(()));
        let first = admit(1).unwrap();
        let second = admit(1).unwrap();
        assert_eq!(admit(1).unwrap_err().limit, Limit::ConnectionsOfAddress);
        let other = admit(2).unwrap();
        assert_eq!((table.open(ip(1)), table.open(ip(2)), table.open(ip(3))), (2, 1, 0));
        drop(first);
        let third = admit(1).unwrap();
        drop((second, third, other));
        assert_eq!(held(&table), (0, 0), "nothing is kept of who is gone");
    }

    #[test]
    fn an_ipv6_host_is_its_64_and_a_mapped_address_is_ipv4() {
        let table = table(1, None);
        let admit = |text: &str| table.admit(text.parse().unwrap(), 0, || Ok(()));
        let _claims = [admit("2001:db8::1"), admit("2001:db8:0:1::1"), admit("::ffff:10.0.0.1"), admit("::1")]
            .map(Result::unwrap);
        assert!(admit("2001:db8::ffff:1").is_err() && admit("10.0.0.1").is_err());
        assert!(admit("10.0.0.2").is_ok());
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let table = table(1, rate(2, 3600));
        let none = || Err(Exceeded { limit: Limit::Rate, wait: Duration::ZERO });
        for _ in 0..10 {
            assert_eq!(table.admit(ip(1), 0, none).unwrap_err().limit, Limit::Rate);
        }
        assert_eq!(held(&table), (0, 0));
        let first = table.admit(ip(1), 0, || Ok(())).unwrap();
        let over = table.admit(ip(1), 0, || unreachable!("over its own limit")).unwrap_err();
        assert_eq!(over.limit, Limit::ConnectionsOfAddress);
        drop(first);
        assert!(table.admit(ip(1), 0, || Ok(())).is_ok(), "the one too many took none of its rate");
        let over = table.admit(ip(1), 0, || unreachable!("too fast")).unwrap_err();
        assert_eq!((over.limit, over.wait), (Limit::RateOfAddress, Duration::from_secs(1800)));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_forgotten() {
        let table = table(0, rate(1, 60));
        for number in 0..400_000 {
            assert!(table.admit(ip(number), 0, || Ok(())).is_ok());
        }
        let (_, paces) = held(&table);
        assert!(paces <= 2 * PARTS * GENERATION, "{paces}");
        assert!(table.admit(ip(399_999), 0, || Ok(())).is_err(), "those that came last are known");
        for turn in 1..=2 {
            for number in 0..1000 {
                assert!(table.admit(ip(number), turn * 60 * SECOND, || Ok(())).is_ok());
            }
        }
        assert!(held(&table).1 <= 2000, "after the span, nothing is kept of who stays away");
    }

    #[test]
    fn threads_that_race_never_exceed_the_limit() {
        const EACH: u32 = 20_000;
        let table = table(3, None);
        let most = thread::scope(|scope| {
            let race = || {
                let mut most = 0;
                for turn in 0..EACH {
                    if let Ok(claim) = table.admit(ip(turn % 3), 0, || Ok(())) {
                        most = most.max(table.open(ip(turn % 3)));
                        drop(claim);
                    }
                }
                most
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
        });
        assert!((1..=3).contains(&most), "{most}");
        assert_eq!(held(&table), (0, 0));
    }

    proptest! {
        /// What is forgotten by age makes no difference to anybody.
        #[test]
        fn ages_as_if_nothing_were_forgotten(
            count in 1..5_u32,
            steps in prop::collection::vec((0..6_u32, 0..SECOND), 1..300),
        ) {
            let pace = rate(count, 1).unwrap();
            let table = table(0, Some(pace));
            let (mut kept, mut now) = (HashMap::<u32, Nanos>::new(), 0);
            for (number, gap) in steps {
                now += gap;
                let known = kept.entry(number).or_default();
                let expected = pace.take(*known, now).map(|full_at| *known = full_at);
                let happened = table.admit(ip(number), now, || Ok(())).map(|claim| assert!(claim.is_none()));
                prop_assert_eq!(happened.map_err(|over| over.wait), expected);
            }
        }
    }
}
