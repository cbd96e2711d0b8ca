//! Session persistence.

use std::num::NonZeroU32;

use super::*;
use crate::config::model::{AdminState, Persist, PersistConfig};

const SECOND: Duration = Duration::from_secs(1);

fn persisting(weights: &[u32]) -> model::PoolConfig {
    let persist = PersistConfig { ttl: SECOND * 600, size: NonZeroU32::new(1000).unwrap() };
    model::PoolConfig { persist: Some(Persist::ClientIp(persist)), ..pool(backends(weights)) }
}

fn of_client(pool: &Pool, number: u8) -> String {
    let lease = pool.lease(Some(IpAddr::from([10, 0, 0, number])), &Excluded::new()).unwrap();
    lease.backend().name().to_string()
}

#[test]
fn a_client_stays_with_its_backend_over_changes() {
    let config = persisting(&[1, 1]);
    let pool = build(&config);
    let first: Vec<String> = (0..10).map(|client| of_client(&pool, client)).collect();
    let again = |pool: &Pool| (0..10).map(|client| of_client(pool, client)).collect::<Vec<_>>();
    assert_eq!(again(&pool), first);
    let mut more = persisting(&[1, 100, 5]);
    pool.update(more.clone());
    assert_eq!(again(&pool), first, "weights and members have changed");
    more.backends[0].state = AdminState::Drain;
    pool.update(more.clone());
    assert_eq!(again(&pool), first, "drained: those who persist go on");
    assert_ne!(of_client(&pool, 200), "a", "and no others");
    more.backends[0].state = AdminState::Maintenance;
    pool.update(more.clone());
    assert!(again(&pool).iter().all(|backend| backend != "a"), "maintenance moves them");
    let moved = again(&pool);
    more.backends[0].state = AdminState::Ready;
    pool.update(more);
    assert_eq!(again(&pool), moved, "and they stay where they are now");
    assert_eq!(pool.persistent_clients(), 11);
}

#[test]
fn a_client_with_an_open_connection_is_not_forgotten() {
    let mut config = persisting(&[1, 1, 1]);
    // Clients without a connection are forgotten at once.
    let rules = PersistConfig { ttl: Duration::from_nanos(1), size: NonZeroU32::new(1000).unwrap() };
    config.persist = Some(Persist::ClientIp(rules));
    let pool = build(&config);
    let client = Some(IpAddr::from([10, 0, 0, 1]));
    let held = pool.lease(client, &Excluded::new()).unwrap();
    pool.tick(Instant::now() + SECOND);
    assert_eq!(&**held.backend().name(), "a");
    assert_eq!([2, 1, 3, 1].map(|number| of_client(&pool, number)), ["b", "a", "c", "a"], "the first one stays");
    pool.record_end(client, held.backend());
    drop(held);
    assert_eq!([2, 1].map(|number| of_client(&pool, number)), ["a", "b"], "its turn, as any other's");
    pool.tick(Instant::now() + SECOND);
    assert_eq!(pool.persistent_clients(), 0);
}

#[test]
fn a_client_whose_backend_cannot_take_it_gets_another() {
    let mut config = persisting(&[1, 1]);
    config.health = Some(model::Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
    config.backends[0].max_connections = NonZeroU32::new(1);
    let pool = build(&config);
    let client = Some(IpAddr::from([10, 0, 0, 1]));
    let held = pool.lease(client, &Excluded::new()).unwrap();
    assert_eq!((&**held.backend().name(), of_client(&pool, 1).as_str()), ("a", "b"), "it is full");
    drop(held);
    assert_eq!(of_client(&pool, 1), "b", "where it was last");
    pool.set_down(id(&pool, 1), "refused");
    assert_eq!(of_client(&pool, 1), "a");
    let mut tried = Excluded::new();
    tried.add(id(&pool, 0));
    pool.set_up(id(&pool, 1));
    assert_eq!(&**pool.lease(client, &tried).unwrap().backend().name(), "b", "its backend was tried in vain");
}

#[test]
fn a_client_of_a_drained_backend_passes_those_who_wait_for_another() {
    let mut config = persisting(&[1]);
    config.queue = model::QueueConfig { size: 1, timeout: SECOND };
    let pool = build(&config);
    assert_eq!(of_client(&pool, 1), "a");
    config.backends[0].state = AdminState::Drain;
    pool.update(config.clone());
    let of = |number: u8| pool.lease(Some(IpAddr::from([10, 0, 0, number])), &Excluded::new());
    assert!(of(2).is_err());
    let _waits = pool.enqueue().unwrap();
    assert_eq!(of_client(&pool, 1), "a");
    assert_eq!(of(2).unwrap_err(), NoBackend::Queued);
    // Ready again, it is for those who wait first.
    config.backends[0].state = AdminState::Ready;
    pool.update(config);
    assert_eq!(of(1).unwrap_err(), NoBackend::Queued);
}
