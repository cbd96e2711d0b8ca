//! Backends that come, change and leave: by DNS, and by another configuration.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::config::model::BackendAddress;

fn tcp(host: u8) -> Address {
    Address::Tcp(([10, 0, 0, host], 80).into())
}

/// A pool of one entry `db`, which DNS resolves.
fn named(balance: Balance) -> model::PoolConfig {
    let mut config = model::PoolConfig { balance, ..pool(backends(&[1])) };
    config.backends[0].name = "db".into();
    config.backends[0].address = BackendAddress::Name { host: "db.example".into(), port: 80 };
    config
}

fn resolve(pool: &Pool, hosts: &[u8]) -> Changes {
    pool.resolve("db", Ok(hosts.iter().map(|&host| tcp(host)).collect()))
}

fn names(pool: &Pool) -> Vec<String> {
    let shown = |backend: &Arc<Backend>| match backend.is_leaving() {
        true => format!("{} leaves", backend.name()),
        false => backend.name().to_string(),
    };
    pool.backends().iter().map(shown).collect()
}

fn by_address(pool: &Pool, host: u8) -> Arc<Backend> {
    pool.backends().iter().find(|backend| backend.address() == Some(&tcp(host))).map(Arc::clone).unwrap()
}

fn client(number: u8) -> Option<IpAddr> {
    Some([192, 0, 2, number].into())
}

#[test]
fn host_name_with_a_dead_address_gives_no_client_to_it() {
    for (balance, dead) in ALL.into_iter().flat_map(|balance| [(balance, 1), (balance, 3)]) {
        let config = model::PoolConfig { health: Some(health(HealthCheck::Tcp)), ..named(balance) };
        let pool = build(&config);
        resolve(&pool, &[1, 2, 3, 4]);
        for host in 1..=4 {
            match host == dead {
                true => pool.set_down(by_address(&pool, host).id(), "refused"),
                false => pool.set_up(by_address(&pool, host).id()),
            };
        }
        let leases: Vec<Lease> = (0..200).map(|number| pool.lease(client(number), &Excluded::new()).unwrap()).collect();
        let chosen: HashSet<_> = leases.iter().map(|lease| lease.backend().name().to_string()).collect();
        let alive = (1..=4).filter(|&host| host != dead).map(|host| format!("db@10.0.0.{host}:80")).collect();
        assert_eq!(chosen, alive, "{balance:?}");
    }
}

#[test]
fn ip_hash_over_a_host_name_is_sticky() {
    let pool = build(&named(Balance::IpHash));
    resolve(&pool, &[1, 2, 3, 4]);
    let choice = |number| pool.lease(client(number), &Excluded::new()).unwrap().backend().address().cloned();
    let before: Vec<_> = (0..200).map(choice).collect();
    assert_eq!((0..200).map(choice).collect::<Vec<_>>(), before);
    // Only the clients of an address that leaves have another backend then.
    resolve(&pool, &[1, 2, 4]);
    for (number, was) in (0..200).zip(&before).filter(|(_, was)| **was != Some(tcp(3))) {
        assert_eq!(choice(number), *was, "client {number}");
    }
}

#[test]
fn max_connections_of_a_host_name_are_those_of_each_address() {
    let mut config = named(Balance::RoundRobin);
    config.backends[0].max_connections = NonZeroU32::new(2);
    let pool = build(&config);
    resolve(&pool, &[1, 2, 3]);
    let held: Vec<Lease> = std::iter::from_fn(|| lease(&pool).ok()).collect();
    assert_eq!(held.len(), 6);
}

#[test]
fn address_that_stays_keeps_its_state_under_its_new_name() {
    let config = model::PoolConfig { health: Some(health(HealthCheck::Tcp)), ..named(Balance::RoundRobin) };
    let pool = build(&config);
    assert_eq!(names(&pool), ["db"]);
    let unresolved = pool.backends()[0].id();
    resolve(&pool, &[1]);
    let first = by_address(&pool, 1);
    assert_eq!((first.id(), &**first.name()), (unresolved, "db"), "the address of the backend that had none");
    pool.set_up(first.id());
    let lease = lease(&pool).unwrap();
    lease.backend().record_connect(Duration::from_micros(700));

    let changes = resolve(&pool, &[1, 2]);
    assert_eq!(changes.added, ["db@10.0.0.2:80".into()]);
    assert_eq!(changes.changed, ["db@10.0.0.1:80".into()]);
    let again = by_address(&pool, 1);
    assert_eq!((again.id(), again.connections(), again.latency_us()), (first.id(), 1, 700));
    assert!(again.is_up() && !lease.went_down());
    assert!(!by_address(&pool, 2).is_up(), "its own first check has not ended");

    resolve(&pool, &[1]);
    assert_eq!(names(&pool), ["db"]);
    drop(lease);
    assert_eq!(by_address(&pool, 1).connections(), 0);
}

#[test]
fn address_that_leaves_drains_and_may_come_back() {
    let pool = build(&named(Balance::RoundRobin));
    resolve(&pool, &[1, 2]);
    let lease = pool.lease(client(1), &Excluded::new()).unwrap();
    let (host, id) =
        if lease.backend().address() == Some(&tcp(1)) { (1, lease.backend().id()) } else { (2, lease.backend().id()) };
    let other = 3 - host;
    assert_eq!(resolve(&pool, &[other]).removed, [format!("db@10.0.0.{host}:80").as_str().into()]);
    assert_eq!(names(&pool), ["db".to_owned(), format!("db@10.0.0.{host}:80 leaves")]);
    for number in 0..20 {
        assert_eq!(pool.lease(client(number), &Excluded::new()).unwrap().backend().address(), Some(&tcp(other)));
    }
    assert!(!lease.went_down(), "its connections go on");

    resolve(&pool, &[1, 2]);
    assert_eq!(by_address(&pool, host).id(), id, "the same one, with its connection");
    assert_eq!(by_address(&pool, host).connections(), 1);

    resolve(&pool, &[other]);
    drop(lease);
    pool.tick(Instant::now());
    assert_eq!(names(&pool), ["db"]);
    assert!(pool.backend(id).is_none());
    resolve(&pool, &[1, 2]);
    assert_ne!(by_address(&pool, host).id(), id, "another one, whose histograms are its own");
}

#[test]
fn all_addresses_changed_at_once_leave_no_gap_while_the_new_ones_are_checked() {
    let config = model::PoolConfig { health: Some(health(HealthCheck::Tcp)), ..named(Balance::RoundRobin) };
    let pool = build(&config);
    resolve(&pool, &[1, 2]);
    for host in [1, 2] {
        pool.set_up(by_address(&pool, host).id());
    }
    resolve(&pool, &[3, 4]);
    assert!(lease(&pool).is_ok(), "the old ones stand in");
    assert_eq!(names(&pool).len(), 4);
    // The first of the new ones is down, the second one up.
    pool.set_down(by_address(&pool, 3).id(), "refused");
    assert!(lease(&pool).is_ok());
    pool.set_up(by_address(&pool, 4).id());
    assert_eq!(names(&pool), ["db@10.0.0.3:80", "db@10.0.0.4:80"]);
    assert_eq!(lease(&pool).unwrap().backend().address(), Some(&tcp(4)));
    assert!(pool.status().up && pool.downs() == 0);

    // The only new one is down: the old ones still stand in, as they are well.
    resolve(&pool, &[5]);
    pool.set_down(by_address(&pool, 5).id(), "connection refused");
    assert_eq!(lease(&pool).unwrap().backend().address(), Some(&tcp(4)));
    assert_eq!(names(&pool), ["db", "db@10.0.0.4:80"], "no name twice; the old one that was down is gone");
    // One that stands in and goes down leaves.
    pool.set_down(by_address(&pool, 4).id(), "connection refused");
    assert_eq!(names(&pool), ["db"]);
    assert!(lease(&pool).is_err());
}

#[test]
fn leaving_backend_has_a_name_of_its_own_and_sums_never_go_back() {
    let pool = build(&named(Balance::RoundRobin));
    resolve(&pool, &[1]);
    let held = lease(&pool).unwrap();
    held.backend().record_connect(Duration::from_micros(700));
    held.backend().counters().retried();
    resolve(&pool, &[2]);
    assert_eq!(names(&pool), ["db", "db@10.0.0.1:80 leaves"]);
    assert_eq!(by_address(&pool, 1).counters().connections(), 1);
    assert_eq!(*pool.departed(), Departed::default());
    drop(held);
    pool.tick(Instant::now());
    assert_eq!(names(&pool), ["db"]);
    assert_eq!(*pool.departed(), Departed { connections: 1, retries: 1, ..Departed::default() });
}

#[test]
fn empty_or_failed_answer_keeps_the_last_addresses() {
    let pool = build(&named(Balance::RoundRobin));
    assert!(pool.resolve("db", Err("no such host")).is_empty());
    assert_eq!(pool.backends()[0].status().reason.as_deref(), Some("no such host"));
    resolve(&pool, &[1, 2]);
    let generation = pool.generation_now();
    assert!(resolve(&pool, &[]).is_empty() && pool.resolve("db", Err("timed out")).is_empty());
    assert_eq!(pool.generation_now(), generation);
    assert!(pool.backends().iter().all(|backend| backend.is_up()));
}

#[test]
fn another_configuration_changes_what_it_says_and_no_more() {
    let weights = |weights: &[u32]| pool(backends(weights));
    let moved = |mut config: model::PoolConfig, place: usize| {
        config.backends[place].address = BackendAddress::Ip(([127, 0, 0, 9], 9).into());
        config
    };
    let without = |mut config: model::PoolConfig, place: usize| {
        config.backends.remove(place);
        config
    };
    // What is there before and after, and what is added, removed and changed.
    let cases = [
        (weights(&[1, 1]), weights(&[1, 1]), ["", "", ""]),
        (weights(&[1, 1]), weights(&[1, 1, 1]), ["c", "", ""]),
        (weights(&[1, 1, 1]), weights(&[1, 1]), ["", "c", ""]),
        (weights(&[1, 1, 1]), without(weights(&[1, 1, 1]), 0), ["", "a", ""]),
        (weights(&[1, 1]), weights(&[1, 7]), ["", "", "b"]),
        (weights(&[1, 1]), weights(&[0, 1, 3]), ["c", "", "a"]),
        (weights(&[1, 1]), moved(weights(&[1, 1]), 1), ["b", "b", ""]),
        (weights(&[1, 1]), limited(&[1, 1], 5), ["", "", "ab"]),
        (weights(&[1, 1]), model::PoolConfig { balance: Balance::Random, ..weights(&[1, 1]) }, ["", "", ""]),
    ];
    for (number, (before, after, expected)) in cases.into_iter().enumerate() {
        let pool = build(&before);
        let ids: HashMap<_, _> = pool
            .backends()
            .iter()
            .map(|backend| ((backend.name().clone(), backend.address().cloned()), backend.id()))
            .collect();
        let changes = pool.update(after.clone());
        let told = [changes.added, changes.removed, changes.changed].map(|names| names.concat());
        assert_eq!(told, expected, "case {number}");
        assert_eq!(*pool.settings(), after, "case {number}");
        for backend in pool.backends().iter() {
            let before = ids.get(&(backend.name().clone(), backend.address().cloned()));
            assert!(before.is_none_or(|id| *id == backend.id()), "case {number}: {backend:?} is another one");
            assert!(before.is_some() || ids.values().all(|id| *id != backend.id()), "case {number}: {backend:?}'s id");
        }
    }
}

#[test]
fn weight_of_another_configuration_counts_at_once_and_connections_stay() {
    let pool = build(&pool(backends(&[1, 1])));
    let another = model::PoolConfig { backends: backends(&[0, 3]), ..(*pool.settings()).clone() };
    let held: Vec<Lease> = (0..4).map(|_| lease(&pool).unwrap()).collect();
    pool.update(another);
    assert_eq!(order(&pool, 4), "bbbb");
    assert_eq!(pool.backends().iter().map(|backend| backend.connections()).collect::<Vec<_>>(), [2, 2]);
    drop(held);
    assert!(pool.backends().iter().all(|backend| backend.connections() == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any order of answers, verdicts, leases and returns: every address that DNS has is there once, what leaves is there as long
    /// as it has connections, ids are never reused, and the counts are right.
    #[test]
    fn members_are_those_of_dns_and_those_with_connections(
        steps in prop::collection::vec((0..5_u8, 0..32_u8, 0..8_usize), 1..60),
    ) {
        let pool = build(&model::PoolConfig { health: Some(health(HealthCheck::Tcp)), ..named(Balance::LeastConnections) });
        let mut leases: Vec<Lease> = Vec::new();
        let mut hosts: Vec<u8> = Vec::new();
        // By id: the address, which never changes but from none.
        let mut ids: HashMap<BackendId, Address> = HashMap::new();
        for (step, bits, number) in steps {
            match step {
                0 => {
                    hosts = (0..5).filter(|bit| bits & (1 << bit) != 0).collect::<Vec<_>>().into_iter().chain((bits == 0).then_some(9)).collect();
                    resolve(&pool, &hosts);
                }
                1 => leases.extend(pool.lease(client(bits), &Excluded::new()).ok()),
                2 => drop((number < leases.len()).then(|| leases.swap_remove(number))),
                _ => {
                    let backends = pool.backends();
                    let backend = &backends[number % backends.len()];
                    match step {
                        3 => pool.set_up(backend.id()),
                        _ => pool.set_down(backend.id(), "x"),
                    };
                }
            }
            pool.tick(Instant::now());
            let all = pool.backends();
            let unique: HashSet<_> = all.iter().map(|backend| backend.name()).collect();
            prop_assert_eq!(unique.len(), all.len(), "a name twice");
            for &host in &hosts {
                prop_assert_eq!(all.iter().filter(|it| it.address() == Some(&tcp(host)) && !it.is_leaving()).count(), 1);
            }
            for backend in all.iter() {
                let held = leases.iter().filter(|lease| lease.backend() == backend).count();
                prop_assert_eq!(backend.connections() as usize, held);
                prop_assert!(!backend.is_leaving() || held > 0, "{:?} has nothing left", backend);
                if let Some(address) = backend.address() {
                    prop_assert_eq!(ids.entry(backend.id()).or_insert_with(|| address.clone()), address);
                }
            }
            for lease in &leases {
                prop_assert!(all.iter().any(|backend| backend == lease.backend()), "a connection of an unknown backend");
            }
            let usable = all.iter().any(|it| it.is_up() && !it.is_leaving());
            prop_assert_eq!(pool.lease(client(0), &Excluded::new()).is_ok(), usable);
            prop_assert_eq!(pool.status().up, usable);
        }
    }
}
