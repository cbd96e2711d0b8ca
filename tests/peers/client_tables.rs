//! What is kept of clients has a bound: a million addresses take no more memory than the tables may.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use tidegate::config::files::Unread;
use tidegate::config::{self, model};
use tidegate::limits::{AccessList, Limits};
use tidegate::pool::{Excluded, Pool};
use tidegate::stats::registry::Registry;

use crate::support::proc::resident;

const CLIENTS: u32 = 1_000_000;

/// Bytes: 229,376 addresses of rates (9 MB), 100,000 persistent clients (10 MB), and what an allocator keeps.
const BOUND: u64 = 32 << 20;

#[test]
fn a_million_addresses_through_access_limits_and_persist_take_bounded_memory() {
    let yaml = "listeners: [{ name: in, bind: \"127.0.0.1:0\", pool: p, access: { deny: [192.0.2.0/24, 198.51.100.0/24] }, \
         limits: { connections_per_ip: 10, connection_rate_per_ip: 20/h } }]\n\
         pools: [{ name: p, persist: { by: client_ip, size: 100000 }, backends: [{ address: 127.0.0.1:1 }, { address: 127.0.0.1:2 }] }]\n";
    let config = config::parse("test.yaml", yaml, &Unread).unwrap().config;
    let model::Config { listeners, pools, .. } = config;
    let access = AccessList::new(&listeners[0].access);
    let limits = Limits::new(listeners[0].limits.clone(), Instant::now());
    let pool = Pool::new(pools[0].clone(), &Registry::default(), 1);
    let before = resident(std::process::id());
    let mut grown = 0;
    for number in 0..CLIENTS {
        let client = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number * 7));
        access.check(Some(client), None).unwrap();
        let slot = limits.admit(Some(client), Instant::now()).unwrap();
        let lease = pool.lease(Some(client), &Excluded::new()).unwrap();
        pool.record_end(Some(client), lease.backend());
        drop(slot);
        if number % 100_000 == 99_999 {
            pool.tick(Instant::now() + Duration::from_millis(number.into()));
            grown = resident(std::process::id()).saturating_sub(before);
            println!("{:>7} addresses: {} KiB more are resident", number + 1, grown / 1024);
        }
    }
    assert_eq!(pool.persistent_clients(), 100_000);
    assert!(grown <= BOUND, "{grown} bytes");
}
