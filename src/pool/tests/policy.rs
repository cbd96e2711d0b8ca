//! Outlier ejection, fail open, the queue.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;
use std::task::{Poll, Wake, Waker};

use super::super::testing::outlier;
use super::*;
use crate::config::model::{AdminState, ForcedHealth, OutlierConfig, QueueConfig};

const SECOND: Duration = Duration::from_secs(1);

fn fail(pool: &Pool, place: usize, times: usize) {
    let backend = Arc::clone(&pool.backends()[place]);
    (0..times).for_each(|_| pool.record_connect_failure(&backend, Duration::ZERO));
}

fn ejecting(weights: &[u32]) -> model::PoolConfig {
    model::PoolConfig { outlier: Some(outlier(3, Duration::ZERO)), ..pool(backends(weights)) }
}

#[test]
fn failures_eject_a_backend_until_its_time_is_over() {
    let pool = build(&ejecting(&[1, 1]));
    fail(&pool, 0, 2);
    pool.backends()[0].record_connect(Duration::ZERO);
    fail(&pool, 0, 2);
    assert_eq!(order(&pool, 4), "abab", "never three in a row");
    fail(&pool, 0, 1);
    assert_eq!(order(&pool, 4), "bbbb", "at once, before the next snapshot");
    let status = pool.backends()[0].status();
    assert_eq!(status.reason.as_deref(), Some("ejected for 30s: 3 failed connects in a row"));
    assert!(status.ejected && !status.up);
    assert_eq!((pool.backends()[0].downs(), pool.backends()[0].counters().ejections()), (0, 1));
    let now = Instant::now();
    pool.tick(now + SECOND * 29);
    assert_eq!(order(&pool, 4), "bbbb");
    pool.tick(now + SECOND * 31);
    assert_eq!(order(&pool, 4).matches('a').count(), 2);
    fail(&pool, 0, 2);
    assert!(pool.backends()[0].is_up(), "its failures are forgotten");
}

#[test]
fn no_more_than_the_share_is_ejected() {
    let pool = build(&ejecting(&[1, 1, 1, 0]));
    (0..3).for_each(|place| fail(&pool, place, 3));
    let up: Vec<bool> = pool.backends().iter().map(|backend| backend.is_up()).collect();
    assert_eq!(up, [false, true, true, true], "one of three, as the weight of the fourth is 0");
    let alone = build(&ejecting(&[1]));
    fail(&alone, 0, 30);
    assert!(alone.backends()[0].is_up());
}

#[test]
fn health_checks_and_ejection_are_causes_of_their_own() {
    let config = model::PoolConfig { health: Some(health(HealthCheck::Tcp)), ..ejecting(&[1, 1]) };
    let pool = build(&config);
    let ids = [id(&pool, 0), id(&pool, 1)];
    ids.iter().for_each(|&id| assert!(pool.set_up(id)));
    fail(&pool, 0, 3);
    pool.set_down(ids[0], "refused");
    assert_eq!(pool.backends()[0].status().reason.as_deref(), Some("refused"));
    pool.tick(Instant::now() + SECOND * 31);
    assert!(!pool.backends()[0].is_up(), "the check still says down");
    pool.set_up(ids[0]);
    assert!(pool.backends()[0].is_up());
    fail(&pool, 0, 3);
    let rise = 2;
    pool.record_check(ids[0], true, rise);
    pool.record_check(ids[0], false, rise);
    pool.record_check(ids[0], true, rise);
    assert!(!pool.backends()[0].is_up());
    pool.record_check(ids[0], true, rise);
    assert!(pool.backends()[0].is_up(), "two checks in a row bring it back");
}

#[test]
fn connections_of_an_ejected_backend_are_not_cut_and_slow_start_follows() {
    let config = model::PoolConfig { on_down: OnDown::Cut, slow_start: SECOND * 16, ..ejecting(&[1, 1]) };
    let pool = build(&config);
    let cut = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&cut);
    pool.on_cut(Box::new(move |_| _ = count.fetch_add(1, Relaxed)));
    let before = lease(&pool).unwrap();
    fail(&pool, 0, 3);
    assert_eq!((cut.load(Relaxed), before.went_down()), (0, false));
    let now = Instant::now();
    pool.tick(now + SECOND * 31);
    let share = order(&pool, 34).matches('a').count();
    assert_eq!(share, 2, "one sixteenth of its weight against all of the other's");
}

#[test]
fn without_outlier_all_are_back() {
    let pool = build(&ejecting(&[1, 1]));
    fail(&pool, 0, 3);
    pool.update(model::PoolConfig { outlier: None, ..ejecting(&[1, 1]) });
    pool.tick(Instant::now());
    assert!(pool.backends()[0].is_up());
}

#[test]
fn responses_with_status_5xx_in_a_row_eject() {
    let rules = OutlierConfig { http_5xx: true, ..outlier(2, Duration::ZERO) };
    let pool = build(&model::PoolConfig { outlier: Some(rules), ..pool(backends(&[1, 1])) });
    let backend = Arc::clone(&pool.backends()[0]);
    for is_error in [true, false, true] {
        pool.record_response(&backend, is_error);
        backend.record_connect(Duration::ZERO);
    }
    assert!(backend.is_up());
    pool.record_response(&backend, true);
    let reason = backend.status().reason;
    assert_eq!(reason.as_deref(), Some("ejected for 30s: 2 responses with status 5xx in a row"));
}

#[test]
fn with_too_few_backends_up_all_are_used() {
    let health = Some(model::Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
    let mut config = model::PoolConfig { health, fail_open: 50, ..pool(backends(&[1, 1, 1, 1])) };
    config.backends[3].state = AdminState::Drain;
    let pool = build(&config);
    pool.set_down(id(&pool, 0), "refused");
    assert_eq!((order(&pool, 4).as_str(), pool.fails_open()), ("bcbc", false), "two of three");
    pool.set_down(id(&pool, 1), "refused");
    assert!(pool.fails_open(), "one of three");
    assert_eq!(order(&pool, 3).chars().collect::<std::collections::BTreeSet<_>>(), ['a', 'b', 'c'].into());
    pool.set_down(id(&pool, 2), "refused");
    assert!(pool.is_usable() && pool.status().up);
    config.backends[0].forced = Some(ForcedHealth::Down);
    pool.update(config.clone());
    assert!(!order(&pool, 4).contains('a'), "an administrator's word holds");
    config.fail_open = 0;
    pool.update(config);
    assert!(!pool.is_usable() && !pool.status().up);
    assert_eq!(lease(&pool).unwrap_err(), NoBackend::AllDown { backends: 3 });
}

#[test]
fn max_connections_grows_in_slow_start() {
    let mut config = model::PoolConfig { slow_start: SECOND * 15, ..pool(backends(&[1])) };
    config.health = Some(health(HealthCheck::Tcp));
    config.backends[0].max_connections = NonZeroU32::new(32);
    let pool = build(&config);
    let now = Instant::now();
    pool.set_down(id(&pool, 0), "refused");
    pool.set_up(id(&pool, 0));
    let mut held = Vec::new();
    let mut fill = |after: Duration| {
        pool.tick(now + after);
        held.extend(std::iter::from_fn(|| lease(&pool).ok()));
        held.len()
    };
    assert_eq!([fill(Duration::ZERO), fill(SECOND * 8), fill(SECOND * 16)], [2, 16, 32]);
}

/// Counts its wakes.
#[derive(Default)]
struct CountedWaker(AtomicUsize);

impl Wake for CountedWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

struct TestWaiter<'p> {
    place: QueueSlot<'p>,
    wakes: Arc<CountedWaker>,
    seen: usize,
}

impl<'p> TestWaiter<'p> {
    fn join(pool: &'p Pool) -> Option<TestWaiter<'p>> {
        let mut waiter = TestWaiter { place: pool.enqueue().ok()?, wakes: Arc::default(), seen: 0 };
        assert!(waiter.poll().is_none());
        Some(waiter)
    }

    fn poll(&mut self) -> Option<Lease> {
        self.seen = self.wakes.0.load(Relaxed);
        match self.place.poll_lease(&Waker::from(Arc::clone(&self.wakes)), None) {
            Poll::Ready(lease) => Some(lease),
            Poll::Pending => None,
        }
    }

    /// A lease, if it was woken and finds one.
    fn poll_if_woken(&mut self) -> Option<Lease> {
        (self.wakes.0.load(Relaxed) > self.seen).then(|| self.poll()).flatten()
    }
}

fn queueing(size: u32, limits: &[u32]) -> model::PoolConfig {
    let mut config = pool(backends(&vec![1; limits.len()]));
    config.queue = QueueConfig { size, timeout: SECOND * 5 };
    for (backend, limit) in config.backends.iter_mut().zip(limits) {
        backend.max_connections = NonZeroU32::new(*limit);
    }
    config
}

#[test]
fn newcomers_come_after_those_who_wait() {
    let pool = build(&queueing(2, &[1]));
    let held = lease(&pool).unwrap();
    assert_eq!(lease(&pool).unwrap_err(), NoBackend::AllFull { up: 1 });
    let mut first = TestWaiter::join(&pool).unwrap();
    let mut second = TestWaiter::join(&pool).unwrap();
    assert_eq!([&first, &second].map(|waiter| waiter.place.behind()), [0, 1]);
    assert_eq!(pool.enqueue().unwrap_err(), NotQueued::Full, "two may wait");
    drop(held);
    assert_eq!(lease(&pool).unwrap_err(), NoBackend::Queued, "its turn comes after the others'");
    assert!(second.poll().is_none(), "not its turn");
    let served = first.poll_if_woken().expect("the first is woken and served");
    assert!(second.poll_if_woken().is_none(), "full again");
    drop((served, first));
    assert!(second.poll_if_woken().is_some());
    drop(second);
    let status = pool.queue_status();
    assert_eq!((status.waiting, status.peak, status.queued, status.overflowed), (0, 2, 2, 1));
    assert!(lease(&pool).is_ok(), "nobody waits any more");
}

/// Each learns of a place of its own, as it is counted when the place is given.
#[test]
fn places_of_those_who_join_at_the_same_time_are_different() {
    let pool = build(&queueing(1000, &[1]));
    let join = || (0..200).map(|_| pool.enqueue().unwrap()).collect::<Vec<_>>();
    let slots: Vec<QueueSlot<'_>> = std::thread::scope(|scope| {
        let joining = [(); 4].map(|()| scope.spawn(join));
        joining.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    let mut behind: Vec<u32> = slots.iter().map(QueueSlot::behind).collect();
    behind.sort_unstable();
    assert!(behind.into_iter().eq(0..800));
    assert_eq!(build(&queueing(0, &[1])).enqueue().unwrap_err(), NotQueued::NoQueue);
}

#[test]
fn a_waiter_that_leaves_passes_its_turn_on() {
    let pool = build(&queueing(3, &[1]));
    let held = lease(&pool).unwrap();
    let (first, mut second) = (TestWaiter::join(&pool).unwrap(), TestWaiter::join(&pool).unwrap());
    drop(held);
    drop(first); // woken, and gone before it looked
    assert!(second.poll_if_woken().is_some());
}

#[test]
fn a_backend_that_comes_back_and_a_change_wake_the_queue() {
    let health = Some(model::Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
    let config = model::PoolConfig { health, ..queueing(9, &[0]) };
    let pool = build(&config);
    pool.set_down(id(&pool, 0), "refused");
    let mut waiter = TestWaiter::join(&pool).unwrap();
    pool.set_up(id(&pool, 0));
    assert!(waiter.poll_if_woken().is_some());
    drop(waiter);
    let mut drained = config.clone();
    drained.backends[0].state = AdminState::Drain;
    pool.update(drained);
    let mut waiter = TestWaiter::join(&pool).unwrap();
    let mut smaller = config;
    smaller.queue.size = 0;
    pool.update(smaller);
    assert!(waiter.poll_if_woken().is_some(), "who waits is kept when the size changes");
}

#[test]
fn the_queue_is_served_at_the_pace_of_slow_start() {
    let mut config = queueing(100, &[0]);
    config.health = Some(health(HealthCheck::Tcp));
    config.slow_start = SECOND * 15;
    let pool = build(&config);
    pool.set_down(id(&pool, 0), "refused");
    let mut waiters: VecDeque<TestWaiter<'_>> = (0..64).map(|_| TestWaiter::join(&pool).unwrap()).collect();
    pool.set_up(id(&pool, 0));
    let now = Instant::now();
    let mut served = Vec::new();
    let mut serve = |after: Duration| {
        pool.tick(now + after);
        while let Some(lease) = waiters.front_mut().and_then(TestWaiter::poll_if_woken) {
            served.push(lease);
            waiters.pop_front();
        }
        served.len()
    };
    assert_eq!([0, 1, 7, 14].map(|seconds| serve(SECOND * seconds)), [4, 8, 32, 60]);
    assert_eq!(serve(SECOND * 16), 64);
    assert!(lease(&pool).is_ok());
}

#[derive(Clone, Debug)]
enum QueueStep {
    Arrive,
    /// A connection ends: of those served, the one at this place.
    End(usize),
    /// A waiter leaves.
    Leave(usize),
    /// A waiter's backend could not be reached: it steps aside, and comes back at the second of these.
    Aside(usize),
    Limit(u32),
    Down,
    Up,
}

fn step() -> impl Strategy<Value = QueueStep> {
    prop_oneof![
        5 => Just(QueueStep::Arrive),
        4 => any::<usize>().prop_map(QueueStep::End),
        1 => any::<usize>().prop_map(QueueStep::Leave),
        1 => any::<usize>().prop_map(QueueStep::Aside),
        1 => (1_u32..4).prop_map(QueueStep::Limit),
        1 => Just(QueueStep::Down),
        2 => Just(QueueStep::Up),
    ]
}

proptest! {
    /// Against a list: waiting connections are served in order, as soon as there is room, and none is forgotten.
    #[test]
    fn queue_serves_as_a_list_would(steps in prop::collection::vec(step(), 1..80)) {
        let health = Some(model::Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
        let mut config = model::PoolConfig { health, ..queueing(4, &[2]) };
        let pool = build(&config);
        let id = id(&pool, 0);
        let (mut up, mut limit, mut aside) = (true, 2, Vec::new());
        let mut waiting: Vec<(usize, TestWaiter<'_>)> = Vec::new();
        let (mut served, mut names) = (Vec::new(), 0..);
        for step in steps {
            match step {
                QueueStep::Arrive => {
                    let name = names.next().unwrap();
                    match pool.lease(None, &Excluded::new()) {
                        Ok(lease) => {
                            prop_assert!(waiting.is_empty() && aside.is_empty(), "{name} has overtaken");
                            served.push(lease);
                        }
                        Err(_) => match TestWaiter::join(&pool) {
                            Some(waiter) => waiting.push((name, waiter)),
                            None => prop_assert_eq!(waiting.len() + aside.len(), 4),
                        },
                    }
                }
                QueueStep::End(place) if !served.is_empty() => drop(served.remove(place % served.len())),
                QueueStep::Leave(place) if !waiting.is_empty() => drop(waiting.remove(place % waiting.len())),
                QueueStep::Aside(place) if !waiting.is_empty() && aside.is_empty() => {
                    let (name, waiter) = waiting.remove(place % waiting.len());
                    waiter.place.step_aside();
                    aside.push((name, waiter));
                }
                QueueStep::Aside(_) => {
                    if let Some((name, mut waiter)) = aside.pop() {
                        let place = waiting.partition_point(|(other, _)| *other < name);
                        match waiter.poll() {
                            Some(lease) => {
                                prop_assert_eq!(place, 0, "{} has overtaken", name);
                                served.push(lease);
                            }
                            None => waiting.insert(place, (name, waiter)),
                        }
                    }
                }
                QueueStep::Limit(most) => {
                    limit = most;
                    config.backends[0].max_connections = NonZeroU32::new(most);
                    pool.update(config.clone());
                }
                QueueStep::Down => { up = false; pool.set_down(id, "test"); }
                QueueStep::Up => { up = true; pool.set_up(id); }
                QueueStep::End(_) | QueueStep::Leave(_) => {}
            }
            // All who are woken look; only the first finds something.
            let mut progress = true;
            while progress {
                progress = false;
                for place in 0..waiting.len() {
                    if let Some(lease) = waiting[place].1.poll_if_woken() {
                        prop_assert_eq!(place, 0, "the first in line is served");
                        let name = waiting[place].0;
                        prop_assert!(aside.iter().all(|(aside, _)| *aside > name), "{} passes who is aside", name);
                        served.push(lease);
                        waiting.remove(0);
                        progress = true;
                        break;
                    }
                }
            }
            let room = up && served.len() < limit as usize;
            let first_is_aside = aside.iter().any(|(aside, _)| waiting.first().is_none_or(|(name, _)| aside < name));
            prop_assert!(waiting.is_empty() || !room || first_is_aside, "{} wait, and there is room", waiting.len());
            prop_assert_eq!(pool.queue_status().waiting as usize, waiting.len() + aside.len());
        }
    }
}

#[test]
fn ejections_end_when_fewer_backends_are_left() {
    let config = ejecting(&[1, 1]);
    let changes: [fn(&mut model::PoolConfig); 3] = [
        |config| config.backends[1].state = AdminState::Drain,
        |config| config.backends[1].weight = 0,
        |config| drop(config.backends.remove(1)),
    ];
    for change in changes {
        let pool = build(&config);
        fail(&pool, 0, 3);
        let mut fewer = config.clone();
        change(&mut fewer);
        pool.update(fewer);
        assert_eq!((order(&pool, 2).as_str(), pool.is_usable()), ("aa", true), "a pool of one ejects none");
    }
    let pool = build(&config);
    fail(&pool, 0, 3);
    let mut forced = config;
    forced.backends[0].forced = Some(ForcedHealth::Up);
    pool.update(forced);
    assert_eq!(order(&pool, 4).matches('a').count(), 2, "an administrator's word holds");
}

#[test]
fn what_one_port_refuses_says_nothing_of_the_others() {
    let mut config = ejecting(&[1, 1]);
    config.backends[0].address = model::BackendAddress::Ip(([127, 0, 0, 1], crate::net::addr::CLIENT_PORT).into());
    let pool = build(&config);
    fail(&pool, 0, 30);
    assert!(pool.backends()[0].is_up());
}

#[test]
fn forced_down_does_not_count_for_fail_open() {
    let health = Some(model::Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
    let mut config = model::PoolConfig { health, fail_open: 40, ..pool(backends(&[1, 1, 1])) };
    config.backends[1].forced = Some(ForcedHealth::Down);
    let pool = build(&config);
    pool.set_down(id(&pool, 2), "refused");
    assert_eq!((order(&pool, 3).as_str(), pool.fails_open()), ("aaa", false), "one of two");
}

/// A connect may take seconds, and the place is kept for them.
#[test]
fn the_next_is_woken_while_the_first_still_connects() {
    let pool = build(&queueing(9, &[2]));
    let held = [lease(&pool).unwrap(), lease(&pool).unwrap()];
    let (mut first, mut second) = (TestWaiter::join(&pool).unwrap(), TestWaiter::join(&pool).unwrap());
    drop(held);
    let _connecting = first.poll_if_woken().expect("there is room");
    assert!(second.poll_if_woken().is_some(), "there is room for two");
}
