//! Leases, health and slow start, as a session and the control thread see them.

mod administrative;
mod persist;
mod policy;
mod sources;
mod update;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::testing::{backends, health, id, place, pool};
use super::*;
use crate::config::model::{Balance, HealthCheck, Initial, OnDown};

const ALL: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::IpHash,
    Balance::PowerOfTwo,
    Balance::LeastLatency,
    Balance::Random,
];

fn build(config: &model::PoolConfig) -> Arc<Pool> {
    Pool::new(config.clone(), &Registry::default(), 1)
}

fn lease(pool: &Pool) -> Result<Lease, NoBackend> {
    pool.lease(Some([10, 0, 0, 1].into()), &Excluded::new())
}

/// The names of the next `count` that are chosen, each given back at once.
fn order(pool: &Pool, count: usize) -> String {
    (0..count).map(|_| lease(pool).unwrap().backend().name().to_string()).collect()
}

fn limited(weights: &[u32], max: u32) -> model::PoolConfig {
    let mut config = pool(backends(weights));
    config.backends.iter_mut().for_each(|b| b.max_connections = NonZeroU32::new(max));
    config
}

#[test]
fn thirty_connections_are_shared_exactly() {
    let count = |weights: &[u32], name| order(&build(&pool(backends(weights))), 30).matches(name).count();
    assert_eq!([count(&[1, 1], "a"), count(&[1, 1], "b")], [15, 15]);
    assert_eq!([count(&[1, 2], "a"), count(&[1, 2], "b")], [10, 20]);
    assert_eq!(order(&build(&pool(backends(&[5, 1, 1]))), 7), "aabacaa");
}

#[test]
fn a_lease_counts_until_it_is_dropped() {
    let pool = build(&limited(&[1], 2));
    let (one, two) = (lease(&pool).unwrap(), lease(&pool).unwrap());
    assert_eq!(pool.backends()[0].connections(), 2);
    assert_eq!(lease(&pool).unwrap_err(), NoBackend::AllFull { up: 1 });
    drop(one);
    let three = lease(&pool).unwrap();
    drop((two, three));
    assert_eq!(pool.backends()[0].connections(), 0);
}

#[test]
fn says_why_there_is_nobody() {
    let why = |pool: &Pool, tried: &[usize]| {
        let mut set = Excluded::new();
        tried.iter().for_each(|&n| set.add(id(pool, n)));
        pool.lease(None, &set).unwrap_err()
    };
    assert_eq!(why(&build(&pool(backends(&[0, 0]))), &[]), NoBackend::NoWeight);

    let mut config = limited(&[1, 1, 1, 0], 1);
    config.health = Some(health(HealthCheck::Tcp));
    let pool = build(&config);
    assert_eq!(why(&pool, &[]), NoBackend::AllDown { backends: 3 });
    pool.set_up(id(&pool, 0));
    pool.set_up(id(&pool, 1));
    assert_eq!(why(&pool, &[0, 1]), NoBackend::AllTried { up: 2 });
    let lease = lease(&pool).unwrap();
    let other = 1 - place(&pool, lease.backend());
    assert_eq!(why(&pool, &[other]), NoBackend::AllFull { up: 2 });
    assert_eq!(why(&pool, &[0, 1]), NoBackend::AllTried { up: 2 });
}

#[test]
fn nobody_is_tried_twice() {
    for balance in ALL {
        let pool = build(&model::PoolConfig { balance, ..pool(backends(&[1; 9])) });
        let mut tried = Excluded::new();
        for _ in 0..9 {
            let lease = pool.lease(Some([10, 0, 0, 1].into()), &tried).unwrap();
            assert!(!tried.contains(lease.backend().id()), "{balance:?}");
            tried.add(lease.backend().id());
        }
        assert!(pool.lease(None, &tried).is_err(), "{balance:?}");
    }
}

#[test]
fn backups_only_when_no_other_can() {
    let mut config = limited(&[1, 1, 1], 1);
    config.backends[0].backup = true;
    let pool = build(&config);
    let (one, two) = (lease(&pool).unwrap(), lease(&pool).unwrap());
    let names = [one.backend().name().as_ref(), two.backend().name().as_ref()];
    assert_eq!(names, ["b", "c"]);
    let three = lease(&pool).unwrap();
    assert_eq!(three.backend().name().as_ref(), "a");
    drop((one, three));
    assert_eq!(lease(&pool).unwrap().backend().name().as_ref(), "b");

    pool.set_down(id(&pool, 1), "refused");
    pool.set_down(id(&pool, 2), "refused");
    assert_eq!(order(&pool, 2), "aa");
}

#[test]
fn threads_that_race_never_exceed_the_limit() {
    const MAX: u32 = 7;
    for balance in ALL {
        let pool = build(&model::PoolConfig { balance, ..limited(&[1, 3], MAX) });
        let open: [AtomicU32; 2] = Default::default();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for round in 0..2_000 {
                        // More than all of them together may hold.
                        let leases: Vec<Lease> = (0..6).filter_map(|_| lease(&pool).ok()).collect();
                        for lease in &leases {
                            let own = &open[place(&pool, lease.backend())];
                            assert!(own.fetch_add(1, SeqCst) < MAX);
                        }
                        if round % 16 == 0 {
                            std::thread::yield_now();
                        }
                        for lease in leases {
                            open[place(&pool, lease.backend())].fetch_sub(1, SeqCst);
                            drop(lease);
                        }
                    }
                });
            }
        });
        assert!(pool.backends().iter().all(|b| b.connections() == 0));
        assert_eq!(pool.connections(), 0);
        let all: Vec<Lease> = std::iter::from_fn(|| lease(&pool).ok()).collect();
        assert_eq!(all.len(), 2 * MAX as usize, "{balance:?}");
        assert_eq!(pool.peak(), 2 * MAX, "{balance:?}");
    }
}

#[test]
fn the_most_at_once_is_that_of_the_pool_as_a_whole() {
    let pool = build(&pool(backends(&[1, 1])));
    let held: Vec<Lease> = (0..3).map(|_| lease(&pool).unwrap()).collect();
    assert_eq!((pool.connections(), pool.peak()), (3, 3));
    drop(held);
    assert_eq!((pool.connections(), pool.peak()), (0, 3));
    // Each of the two has had two at once, and then one more; never four of both together.
    let held: Vec<Lease> = (0..3).map(|_| lease(&pool).unwrap()).collect();
    assert_eq!(pool.backends().iter().map(|backend| backend.counters().peak()).sum::<u32>(), 4);
    assert_eq!(pool.peak(), 3);
    // Who finds nobody up has none.
    (0..2).for_each(|index| _ = pool.set_down(id(&pool, index), "refused"));
    assert!(!pool.backends()[0].try_acquire(false));
    drop(held);
    assert_eq!((pool.connections(), pool.peak()), (0, 3));
}

#[test]
fn a_pool_is_down_while_nobody_with_a_weight_is_up() {
    let pool = build(&pool(backends(&[1, 1, 0])));
    let before = pool.status();
    assert!(before.up && before.downtime.is_zero());
    pool.set_down(id(&pool, 0), "refused");
    assert_eq!((pool.status().up, pool.status().since, pool.downs()), (true, before.since, 0));

    for outages in 1..=2 {
        pool.set_down(id(&pool, 1), "refused");
        let down = pool.status();
        assert_eq!((down.up, pool.downs()), (false, outages));
        assert_ne!(down.since, before.since);
        // It goes on being down, whatever else happens.
        pool.set_down(id(&pool, 2), "refused");
        pool.set_up(id(&pool, 2));
        pool.set_down(id(&pool, 1), "timed out");
        assert_eq!((pool.status().since, pool.downs()), (down.since, outages));
        pool.set_up(id(&pool, 1));
        let up = pool.status();
        assert!(up.up);
        assert_eq!(up.downtime, down.downtime + up.since.duration_since(down.since).unwrap_or_default());
        assert_eq!(up.downtime_so_far(), up.downtime);
    }
}

/// The claim itself, without the look at who is full that goes before it.
#[test]
fn claims_that_race_never_exceed_the_limit() {
    let pool = build(&limited(&[1], 2));
    let backend = &pool.backends()[0];
    assert_eq!([(); 3].map(|()| backend.try_acquire(false)), [true, true, false]);
    backend.release(None);
    backend.release(None);

    let open = AtomicU32::new(0);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..50_000 {
                    if backend.try_acquire(false) {
                        assert!(open.fetch_add(1, SeqCst) < 2);
                        open.fetch_sub(1, SeqCst);
                        backend.release(None);
                    }
                }
            });
        }
    });
    assert_eq!(backend.connections(), 0);
}

#[test]
fn one_that_went_down_cannot_be_claimed() {
    // What a pick with the snapshot of a moment ago would do.
    let pool = build(&pool(backends(&[1])));
    pool.set_down(id(&pool, 0), "refused");
    assert!(!pool.backends()[0].try_acquire(false));
    assert_eq!(pool.backends()[0].connections(), 0);
}

#[test]
fn one_that_is_down_gets_nothing_and_comes_back() {
    for balance in ALL {
        let pool = build(&model::PoolConfig { balance, ..pool(backends(&[1, 1, 1])) });
        assert!(pool.set_down(id(&pool, 1), "refused"));
        assert!(!pool.set_down(id(&pool, 1), "timed out after 1s"));
        let condition = pool.backends()[1].status();
        assert!(!condition.up);
        assert_eq!(condition.reason.as_deref(), Some("timed out after 1s"));
        for client in 0..100 {
            let lease = pool.lease(Some([10, 0, 0, client].into()), &Excluded::new()).unwrap();
            assert_ne!(place(&pool, lease.backend()), 1, "{balance:?}");
        }
        assert!(pool.set_up(id(&pool, 1)));
        assert!(!pool.set_up(id(&pool, 1)));
        assert!(pool.backends()[1].status().reason.is_none());
        let found = |client| {
            pool.lease(Some([10, 0, 0, client].into()), &Excluded::new())
                .is_ok_and(|lease| place(&pool, lease.backend()) == 1)
        };
        assert!((0..200).any(found), "{balance:?}");
    }
}

#[test]
fn a_burst_of_changes_is_complete_after_a_tick() {
    let pool = build(&pool(backends(&[1; 100])));
    for n in 0..99 {
        pool.set_down(id(&pool, n), "refused");
        let next = lease(&pool).unwrap();
        assert!(place(&pool, next.backend()) > n, "down from that instant");
    }
    for n in 0..99 {
        pool.set_up(id(&pool, n));
    }
    pool.tick(Instant::now());
    let chosen: std::collections::HashSet<_> = (0..100).map(|_| lease(&pool).unwrap().backend().id()).collect();
    assert_eq!(chosen.len(), 100);
}

#[test]
fn cut_is_told_of_every_going_down_when_asked_for() {
    for (on_down, times) in [(OnDown::Cut, 2), (OnDown::Keep, 0)] {
        let config = model::PoolConfig { on_down, ..pool(backends(&[1, 1])) };
        let pool = build(&config);
        let cut = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&cut);
        pool.on_cut(Box::new(move |id| told.lock().unwrap().push(id)));
        let lease = lease(&pool).unwrap();
        assert!(!lease.went_down());
        for _ in 0..2 {
            pool.set_down(id(&pool, 0), "refused");
            pool.set_down(id(&pool, 0), "refused");
            pool.set_up(id(&pool, 0));
        }
        assert_eq!(*cut.lock().unwrap(), vec![pool.backends()[0].id(); times]);
        assert!(lease.went_down(), "although it is up again");
    }
}

#[test]
fn a_first_verdict_is_no_going_down() {
    let mut config = model::PoolConfig { on_down: OnDown::Cut, ..pool(backends(&[1])) };
    config.health = Some(health(HealthCheck::Tcp));
    let pool = build(&config);
    pool.on_cut(Box::new(|_| panic!("nobody was connected")));
    assert!(!pool.backends()[0].is_up());
    assert!(pool.backends()[0].status().reason.is_none());
    assert!(pool.set_down(id(&pool, 0), "refused"));
    let condition = pool.status();
    assert_eq!((condition.up, pool.downs()), (false, 0));
    assert!(condition.downtime_so_far() > Duration::ZERO, "but it was down since it is there");
}

#[test]
fn initially_up_means_up() {
    let mut config = pool(backends(&[1]));
    config.health = Some(model::Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
    let pool = build(&config);
    assert!(lease(&pool).is_ok());
    assert!(!pool.set_up(id(&pool, 0)));
}

#[test]
fn slow_start_after_having_been_down() {
    let mut config = pool(backends(&[3, 3]));
    config.slow_start = Duration::from_secs(15);
    let pool = build(&config);
    assert_eq!(order(&pool, 4), "abab", "not at the start of the process");

    pool.set_down(id(&pool, 1), "refused");
    pool.set_up(id(&pool, 1));
    let share = |pool: &Pool| order(pool, 170).matches('b').count();
    let up = Instant::now();
    assert_eq!(share(&pool), 10, "1 in 17");
    pool.tick(up + Duration::from_millis(7_500));
    assert!((50..=60).contains(&share(&pool)), "8 in 24: {}", share(&pool));
    pool.tick(up + Duration::from_secs(16));
    assert_eq!(order(&pool, 4).matches('b').count(), 2);
}

#[test]
fn no_slow_start_for_a_first_verdict_but_after_a_bad_one() {
    let mut config = pool(backends(&[1, 1, 1]));
    config.slow_start = Duration::from_secs(60);
    config.health = Some(health(HealthCheck::Tcp));
    let pool = build(&config);
    pool.set_up(id(&pool, 0));
    pool.set_up(id(&pool, 1));
    assert_eq!(order(&pool, 4), "abab");
    pool.set_down(id(&pool, 2), "refused");
    pool.set_up(id(&pool, 2));
    assert_eq!(order(&pool, 33).matches('c').count(), 1);
}

#[test]
fn latency_is_an_average_that_fades() {
    let pool = build(&pool(backends(&[1])));
    let backend = &pool.backends()[0];
    assert_eq!(backend.latency_us(), 0);
    backend.record_connect(Duration::from_micros(800));
    assert_eq!(backend.latency_us(), 800);
    backend.record_first_byte(Duration::from_micros(1_600));
    assert_eq!(backend.latency_us(), 900);
    assert_eq!(backend.counters().connections(), 1);

    let start = Instant::now();
    let tick = |second: u64| pool.tick(start + Duration::from_secs(second));
    tick(0);
    tick(1);
    assert_eq!(backend.latency_us(), 900, "measured within the second");
    tick(2);
    assert!((843..=844).contains(&backend.latency_us()), "1/16 less: {}", backend.latency_us());
    (3..200).for_each(tick);
    assert_eq!(backend.latency_us(), 0);
    backend.record_first_byte(Duration::ZERO);
    assert_eq!(backend.latency_us(), 1, "measured, even if in no time");
    backend.record_first_byte(Duration::MAX);
    assert!(backend.latency_us() > 0);
}

#[test]
fn one_that_refuses_at_once_is_not_the_fastest() {
    let pool = build(&model::PoolConfig { balance: Balance::LeastLatency, ..pool(backends(&[1, 1])) });
    pool.backends()[0].record_connect(Duration::from_micros(300));
    pool.backends()[1].record_connect(Duration::from_micros(900));
    let mut refused = 0;
    for _ in 0..100 {
        let lease = lease(&pool).unwrap();
        if place(&pool, lease.backend()) == 0 {
            lease.backend().record_connect_failure(Duration::from_micros(20));
            refused += 1;
        }
    }
    assert!((1..10).contains(&refused), "{refused} of 100 connections");
    assert_eq!(pool.backends()[0].counters().connect_failures(), refused);
}

#[test]
fn clients_stay_with_their_backend() {
    let config = model::PoolConfig { balance: Balance::IpHash, ..pool(backends(&[1; 5])) };
    let choice =
        |pool: &Pool, client: u8| pool.lease(Some([10, 0, 0, client].into()), &Excluded::new()).unwrap().backend().id();
    let pool = build(&config);
    let before: Vec<_> = (0..=255).map(|c| choice(&pool, c)).collect();
    pool.set_down(id(&pool, 2), "refused");
    let without: Vec<_> = (0..=255).map(|c| choice(&pool, c)).collect();
    assert!(!without.contains(&id(&pool, 2)));
    let moved = before.iter().zip(&without).filter(|(before, now)| before != now).count();
    assert!(moved <= 64, "{moved} of 256 moved");
    pool.set_up(id(&pool, 2));
    let after: Vec<_> = (0..=255).map(|c| choice(&pool, c)).collect();
    assert_eq!(before, after);
}

/// Each connection's first choice, and with it a second one if the first is backend `a`, which is dead.
fn firsts_beside_a_dead_one(balance: Balance, weights: &[u32], connections: usize) -> (Vec<usize>, Vec<usize>) {
    let pool = build(&model::PoolConfig { balance, ..pool(backends(weights)) });
    let (mut firsts, mut seconds) = (vec![0; weights.len()], vec![0; weights.len()]);
    for _ in 0..connections {
        let first = place(&pool, lease(&pool).unwrap().backend());
        firsts[first] += 1;
        if first == 0 {
            let mut tried = Excluded::new();
            tried.add(id(&pool, first));
            seconds[place(&pool, pool.lease(None, &tried).unwrap().backend())] += 1;
        }
    }
    (firsts, seconds)
}

#[test]
fn retry_does_not_move_the_turn_on() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::LeastLatency] {
        let (firsts, seconds) = firsts_beside_a_dead_one(balance, &[1, 1], 100);
        assert_eq!((firsts, seconds), (vec![50, 50], vec![0, 50]), "{balance:?}");
    }
    let (firsts, seconds) = firsts_beside_a_dead_one(Balance::RoundRobin, &[2, 1, 3], 600);
    assert_eq!(firsts, [200, 100, 300], "smooth and by weight, whoever is dead");
    // By weight among the others: 50 and 150.
    assert!(seconds[0] == 0 && (25..80).contains(&seconds[1]), "{seconds:?}");
    let (_, seconds) = firsts_beside_a_dead_one(Balance::LeastConnections, &[1, 1, 1], 900);
    assert!(seconds[0] == 0 && (100..200).contains(&seconds[1]), "{seconds:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any order of leases, returns and changes of health keeps the books straight.
    #[test]
    fn the_books_are_straight(
        balance in prop::sample::select(&ALL[..]),
        steps in prop::collection::vec((0..4_u8, 0..4_usize), 1..80),
    ) {
        let mut config = model::PoolConfig { balance, ..limited(&[1, 2, 0, 3], 3) };
        config.backends[3].backup = true;
        let pool = build(&config);
        let mut leases: Vec<Lease> = Vec::new();
        let mut up = [true; 4];
        for (step, number) in steps {
            match step {
                0 | 1 => {
                    let held = |i: usize| leases.iter().filter(|l| place(&pool, l.backend()) == i).count();
                    let can = |i: usize| up[i] && i != 2 && held(i) < 3;
                    match pool.lease(Some([10, 0, 0, number as u8].into()), &Excluded::new()) {
                        Ok(lease) => {
                            let index = place(&pool, lease.backend());
                            prop_assert!(can(index));
                            prop_assert!(index != 3 || !(can(0) || can(1)), "a backup too early");
                            leases.push(lease);
                        }
                        Err(why) => prop_assert!(!(0..4).any(can), "{why}"),
                    }
                }
                2 => drop((number < leases.len()).then(|| leases.swap_remove(number))),
                _ => {
                    up[number] = !up[number];
                    let index = id(&pool, number);
                    let changed =
                        if up[number] { pool.set_up(index) } else { pool.set_down(index, "x") };
                    prop_assert!(changed);
                    pool.tick(Instant::now());
                }
            }
            for backend in pool.backends().iter() {
                let held = leases.iter().filter(|l| l.backend() == backend).count();
                prop_assert_eq!(backend.connections() as usize, held);
            }
        }
    }
}
