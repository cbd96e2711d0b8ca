//! Whether one more connection may come to a listener: which clients may at all, how many its address has, how fast that comes, and how fast all
//! do; and how much memory clients without a backend may occupy. Pure: the moment comes in. What it keeps is shared by
//! all workers.

mod access;
mod addresses;
mod capacity;
mod exceeded;
mod gcra;
mod memory;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;

pub use self::access::{AccessDenial, AccessList, ClientSet};
pub use self::addresses::AddressSlot;
use self::addresses::AddressTable;
pub use self::capacity::{Acquire, Capacity, Permit};
pub use self::exceeded::{Exceeded, Limit};
use self::gcra::{Gcra, Nanos};
pub use self::memory::{MemoryClaim, MemoryExhausted, PreambleMemory};
use crate::config::model::{self, Rate};

/// The limits of one listener, with what counts against them.
#[derive(Debug)]
pub struct Limits {
    config: model::LimitsConfig,
    start: Instant,
    addresses: Option<AddressTable>,
    pace: Option<Gcra>,
    /// When as many as at the start may come at once.
    full_at: Arc<CachePadded<AtomicU64>>,
}

impl Limits {
    /// With nothing counted yet; `now` is a moment before any that [`Limits::admit`] gets.
    pub fn new(config: model::LimitsConfig, now: Instant) -> Limits {
        Limits::with(config, now, Arc::default(), AddressTable::new)
    }

    /// Other limits: what counts now goes on counting against those that both have.
    pub fn reconfigured(&self, config: model::LimitsConfig) -> Limits {
        let table = |most, pace| match &self.addresses {
            Some(addresses) => addresses.reconfigured(most, pace),
            None => AddressTable::new(most, pace),
        };
        Limits::with(config, self.start, Arc::clone(&self.full_at), table)
    }

    fn with(
        config: model::LimitsConfig,
        start: Instant,
        full_at: Arc<CachePadded<AtomicU64>>,
        table: impl FnOnce(Option<NonZeroU32>, Option<Gcra>) -> AddressTable,
    ) -> Limits {
        let (most, pace) = (config.connections_per_ip, config.connection_rate_per_ip);
        let by_address = most.is_some() || pace.is_some();
        Limits {
            addresses: by_address.then(|| table(most, pace.map(Gcra::new))),
            pace: config.connection_rate.map(Gcra::new),
            full_at,
            start,
            config,
        }
    }

    /// Whether there are any.
    pub fn are_set(&self) -> bool {
        self.addresses.is_some() || self.pace.is_some()
    }

    /// Lets one more connection of `client` in, which has none if it came by a unix socket. It counts until the claim is dropped.
    ///
    /// # Errors
    /// It is over a limit, and counts for none: who is refused for his own sake takes nothing from the others.
    pub fn admit(&self, client: Option<IpAddr>, now: Instant) -> Result<Option<AddressSlot>, Exceeded> {
        let now = self.nanos(now);
        match client.zip(self.addresses.as_ref()) {
            Some((client, addresses)) => addresses.admit(client, now, || self.take(now)),
            None => self.take(now).map(|()| None),
        }
    }

    /// Whether one more connection of `client` would be let in. Counts nothing.
    ///
    /// # Errors
    /// It would be over a limit.
    pub fn check(&self, client: Option<IpAddr>, now: Instant) -> Result<(), Exceeded> {
        let now = self.nanos(now);
        if let Some((client, addresses)) = client.zip(self.addresses.as_ref()) {
            addresses.check(client, now)?;
        }
        let Some(pace) = self.pace else { return Ok(()) };
        let taken = pace.take(self.full_at.load(Ordering::Relaxed), now);
        taken.map(|_| ()).map_err(|wait| Exceeded { limit: Limit::Rate, wait })
    }

    fn nanos(&self, now: Instant) -> Nanos {
        Nanos::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn take(&self, now: Nanos) -> Result<(), Exceeded> {
        let Some(pace) = self.pace else { return Ok(()) };
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = pace.take(full_at, now).map_err(|wait| Exceeded { limit: Limit::Rate, wait })?;
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(moved) => full_at = moved,
            }
        }
    }

    /// Connections that an address has open; 0 when they are not limited.
    pub fn open(&self, client: IpAddr) -> u32 {
        self.addresses.as_ref().map_or(0, |addresses| addresses.open(client))
    }

    /// What a client does that exceeds a limit, as the rest of a sentence.
    pub fn explain(&self, limit: Limit) -> impl fmt::Display + use<> {
        let model::LimitsConfig { connections_per_ip, connection_rate_per_ip, connection_rate, .. } = self.config;
        fmt::from_fn(move |f| {
            let rate = |rate: Option<Rate>| fmt::from_fn(move |f| rate.iter().try_for_each(|rate| write!(f, "{rate}")));
            match limit {
                Limit::ConnectionsOfAddress => {
                    let most = connections_per_ip.map_or(0, u32::from);
                    write!(f, "comes from an address that has {most} open, limits.connections_per_ip")
                }
                Limit::RateOfAddress => {
                    let most = rate(connection_rate_per_ip);
                    write!(f, "comes from an address that connects faster than {most}, limits.connection_rate_per_ip")
                }
                Limit::Rate => {
                    let most = rate(connection_rate);
                    write!(f, "comes when all together connect faster than {most}, limits.connection_rate")
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use std::time::Duration;

    use super::*;

    fn limits(of_address: Option<u32>, rate: Option<u32>) -> Limits {
        let per_hour = |count| Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(3600) };
        let config = model::LimitsConfig {
            connections_per_ip: of_address.and_then(NonZeroU32::new),
            connection_rate: rate.map(per_hour),
            ..model::LimitsConfig::default()
        };
        Limits::new(config, Instant::now())
    }

    #[test]
    fn who_is_refused_for_his_own_sake_takes_nothing_from_the_others() {
        let limits = limits(Some(1), Some(3));
        let now = Instant::now();
        let admit = |last: u8| limits.admit(Some([10, 0, 0, last].into()), now);
        let _first = admit(1).unwrap();
        for _ in 0..100 {
            assert_eq!(admit(1).unwrap_err().limit, Limit::ConnectionsOfAddress);
        }
        let _others = [admit(2).unwrap(), admit(3).unwrap()];
        assert_eq!(admit(4).unwrap_err().limit, Limit::Rate);
        assert_eq!(limits.open([10, 0, 0, 4].into()), 0);
    }

    #[test]
    fn without_an_address_the_rate_of_all_holds() {
        let limits = limits(Some(1), Some(2));
        let admit = || limits.admit(None, Instant::now());
        assert!(admit().unwrap().is_none() && admit().unwrap().is_none());
        let over = admit().unwrap_err();
        assert_eq!(over.limit, Limit::Rate);
        assert!(over.wait > Duration::from_secs(1700), "{over:?}");
        assert_eq!(
            limits.explain(over.limit).to_string(),
            "comes when all together connect faster than 2/h, limits.connection_rate"
        );
    }

    #[test]
    fn other_limits_go_on_with_what_was_counted() {
        let config = |most: u32, of_address: u32, of_all: u32| model::LimitsConfig {
            connections_per_ip: NonZeroU32::new(most),
            connection_rate_per_ip: per_hour(of_address),
            connection_rate: per_hour(of_all),
            ..model::LimitsConfig::default()
        };
        fn per_hour(count: u32) -> Option<Rate> {
            Some(Rate { count: NonZeroU32::new(count)?, per: Duration::from_secs(3600) })
        }
        let now = Instant::now();
        let admit = |limits: &Limits, last: u8| limits.admit(Some([10, 0, 0, last].into()), now);
        let refused = |limits: &Limits, last: u8| admit(limits, last).unwrap_err().limit;
        let first = Limits::new(config(2, 4, 100), now);
        let held = [admit(&first, 1).unwrap(), admit(&first, 1).unwrap()];
        let second = first.reconfigured(config(3, 4, 100));
        let _third = admit(&second, 1).unwrap();
        assert_eq!(refused(&second, 1), Limit::ConnectionsOfAddress, "the two of before count");
        drop(held);
        let _fourth = admit(&second, 1).unwrap();
        assert_eq!(refused(&second, 1), Limit::RateOfAddress, "the fifth within the hour");
        // A faster rate does not make up for the slower one's time.
        let faster = second.reconfigured(config(0, 3_600_000, 5));
        assert_eq!(refused(&faster, 1), Limit::RateOfAddress);
        let a_second_later = now + Duration::from_secs(1);
        assert!(faster.admit(Some([10, 0, 0, 1].into()), a_second_later).is_ok());
        // 4 of 100 were used, and 1 of 5: that leaves 3 whole ones.
        let last = faster.reconfigured(config(0, 0, 5));
        assert_eq!((2..12).filter(|other| admit(&last, *other).is_ok()).count(), 3);
    }

    #[test]
    fn threads_that_race_take_exactly_the_rate() {
        let (limits, admitted) = (limits(None, Some(1000)), AtomicU32::new(0));
        let now = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let count = (0..1000).filter(|_| limits.admit(None, now).is_ok()).count();
                    admitted.fetch_add(count as u32, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1000);
    }
}
