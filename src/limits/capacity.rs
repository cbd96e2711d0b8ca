//! Permits for a number of things at once, which may change: connections of a listener or of the process, TLS handshakes.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicUsize, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A resizable number of permits, first come, first served.
///
/// Taking a permit that is free, and giving one back without a waiter, are one atomic each.
#[derive(Debug)]
pub struct Capacity {
    max: AtomicUsize,
    used: AtomicUsize,
    /// The length of `queue`, to be read without its lock.
    waiting: AtomicUsize,
    queue: Mutex<WaitQueue>,
}

#[derive(Debug, Default)]
struct WaitQueue {
    next_ticket: u64,
    waiters: VecDeque<(u64, Waker)>,
    /// Permits that are handed to a waiter, which has not taken it yet.
    granted: Vec<u64>,
}

/// Room for one; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Capacity>);

impl Capacity {
    /// `max` permits at once.
    pub fn new(max: usize) -> Arc<Capacity> {
        Arc::new(Capacity {
            max: AtomicUsize::new(max),
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
        })
    }

    /// Permits at once.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Permits that are taken. More than [`Capacity::max`] for a while after it became less.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Whether a permit can be had at once.
    pub fn has_room(&self) -> bool {
        self.used() < self.max() && self.waiting.load(Relaxed) == 0
    }

    /// Changes the number of permits. Those that are taken stay so.
    pub fn resize(&self, max: usize) {
        self.max.store(max, SeqCst);
        self.grant();
    }

    /// A permit, if one is free and nothing waits for it.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        if self.waiting.load(SeqCst) > 0 {
            return None;
        }
        self.take().then(|| Permit(Arc::clone(self)))
    }

    /// A permit, once one is free and all earlier waiters have theirs.
    pub fn acquire(self: &Arc<Self>) -> Acquire {
        Acquire { capacity: Arc::clone(self), ticket: None }
    }

    fn take(&self) -> bool {
        let more = |used: usize| (used < self.max.load(SeqCst)).then(|| used + 1);
        self.used.try_update(SeqCst, Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, SeqCst);
        // A waiter counts itself before it looks for a permit once more: one of the two sees the other.
        fence(SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.grant();
        }
    }

    /// Hands free permits to those who wait, the first first.
    fn grant(&self) {
        let mut woken = Vec::new();
        let mut queue = self.queue();
        while !queue.waiters.is_empty() && self.take() {
            if let Some((ticket, waker)) = queue.waiters.pop_front() {
                queue.granted.push(ticket);
                woken.push(waker);
            }
        }
        self.waiting.store(queue.waiters.len(), SeqCst);
        drop(queue);
        woken.into_iter().for_each(Waker::wake);
    }

    fn queue(&self) -> MutexGuard<'_, WaitQueue> {
        // Nothing in there is left half done by a panic in between.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// Waits for a permit. One that is dropped leaves its place to those behind it.
#[derive(Debug)]
pub struct Acquire {
    capacity: Arc<Capacity>,
    /// Its place in the queue, once it waits.
    ticket: Option<u64>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let capacity = Arc::clone(&self.capacity);
        let Some(ticket) = self.ticket else {
            if let Some(permit) = capacity.try_acquire() {
                return Poll::Ready(permit);
            }
            let mut queue = capacity.queue();
            let ticket = queue.next_ticket;
            queue.next_ticket += 1;
            queue.waiters.push_back((ticket, cx.waker().clone()));
            capacity.waiting.store(queue.waiters.len(), SeqCst);
            drop(queue);
            self.ticket = Some(ticket);
            fence(SeqCst);
            // One may have been given back before this one was in the queue.
            capacity.grant();
            return self.granted(ticket);
        };
        if let Some((_, waker)) = capacity.queue().waiters.iter_mut().find(|(waiting, _)| *waiting == ticket) {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        self.granted(ticket)
    }
}

impl Acquire {
    fn granted(&mut self, ticket: u64) -> Poll<Permit> {
        let mut queue = self.capacity.queue();
        let Some(place) = queue.granted.iter().position(|granted| *granted == ticket) else { return Poll::Pending };
        queue.granted.swap_remove(place);
        drop(queue);
        self.ticket = None;
        Poll::Ready(Permit(Arc::clone(&self.capacity)))
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut queue = self.capacity.queue();
        queue.waiters.retain(|(waiting, _)| *waiting != ticket);
        self.capacity.waiting.store(queue.waiters.len(), SeqCst);
        let granted = queue.granted.iter().position(|granted| *granted == ticket);
        granted.map(|place| queue.granted.swap_remove(place));
        drop(queue);
        match granted {
            Some(_) => self.capacity.give_back(),
            // Those behind it may be first now.
            None => self.capacity.grant(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct WokenFlag(AtomicBool);

    impl Wake for WokenFlag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    /// Polls once; `None` while it waits.
    fn poll(acquire: &mut Acquire, woken: &Arc<WokenFlag>) -> Option<Permit> {
        let waker = Arc::clone(woken).into();
        match Pin::new(acquire).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn first_to_wait_is_first_served_and_nobody_overtakes() {
        let capacity = Capacity::new(1);
        let held = capacity.try_acquire().unwrap();
        let (mut one, mut two) = (capacity.acquire(), capacity.acquire());
        let wakers: [Arc<WokenFlag>; 2] = Default::default();
        assert!(poll(&mut one, &wakers[0]).is_none() && poll(&mut two, &wakers[1]).is_none());
        drop(held);
        assert!(wakers[0].0.load(SeqCst) && !wakers[1].0.load(SeqCst));
        assert!(capacity.try_acquire().is_none());
        assert!(poll(&mut two, &wakers[1]).is_none());
        let held = poll(&mut one, &wakers[0]).unwrap();
        assert_eq!(capacity.used(), 1);
        drop(held);
        assert!(poll(&mut two, &wakers[1]).is_some());
        assert_eq!(capacity.used(), 0);
        assert!(capacity.has_room());
    }

    #[test]
    fn waiter_that_leaves_passes_its_permit_on() {
        let capacity = Capacity::new(1);
        let held = capacity.try_acquire().unwrap();
        let (mut one, mut two) = (capacity.acquire(), capacity.acquire());
        let wakers: [Arc<WokenFlag>; 2] = Default::default();
        assert!(poll(&mut one, &wakers[0]).is_none() && poll(&mut two, &wakers[1]).is_none());
        drop(held);
        drop(one); // woken, and never asked
        assert!(wakers[1].0.load(SeqCst));
        assert!(poll(&mut two, &wakers[1]).is_some());
    }

    #[test]
    fn resize_serves_those_who_wait_and_takes_nothing_away() {
        let capacity = Capacity::new(1);
        let _held = capacity.try_acquire().unwrap();
        let (mut waiting, woken) = (capacity.acquire(), Arc::<WokenFlag>::default());
        assert!(poll(&mut waiting, &woken).is_none());
        capacity.resize(2);
        let second = poll(&mut waiting, &woken).unwrap();
        capacity.resize(1);
        assert_eq!((capacity.used(), capacity.max()), (2, 1));
        drop(second);
        assert!(capacity.try_acquire().is_none());
    }

    #[test]
    fn threads_that_race_never_exceed_the_limit_nor_sleep_for_ever() {
        const MAX: usize = 3;
        let capacity = Capacity::new(MAX);
        let (open, start) = (AtomicUsize::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    start.wait();
                    runtime.block_on(async {
                        for round in 0..5_000 {
                            let permit = capacity.acquire().await;
                            assert!(open.fetch_add(1, SeqCst) < MAX);
                            if round % 8 == 0 {
                                std::thread::yield_now();
                            }
                            open.fetch_sub(1, SeqCst);
                            drop(permit);
                        }
                    });
                });
            }
        });
        assert_eq!((capacity.used(), capacity.waiting.load(SeqCst)), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Against a model: permits in use, and a queue.
        #[test]
        fn permits_go_to_the_queue_in_order(steps in prop::collection::vec((0..5_u8, 0..6_usize), 1..60)) {
            let capacity = Capacity::new(2);
            let woken = Arc::<WokenFlag>::default();
            let (mut max, mut held) = (2, Vec::new());
            // With the order in which each began to wait.
            let mut waiting: Vec<(u32, Acquire)> = Vec::new();
            for (order, (step, number)) in (0..).zip(steps) {
                match step {
                    0 => {
                        let permit = capacity.try_acquire();
                        prop_assert_eq!(permit.is_some(), held.len() < max && waiting.is_empty());
                        held.extend(permit);
                    }
                    1 => {
                        let mut acquire = capacity.acquire();
                        match poll(&mut acquire, &woken) {
                            Some(permit) => held.push(permit),
                            None => waiting.push((order, acquire)),
                        }
                    }
                    2 => drop((number < held.len()).then(|| held.swap_remove(number))),
                    3 => drop((number < waiting.len()).then(|| waiting.remove(number))),
                    _ => {
                        max = number;
                        capacity.resize(max);
                    }
                }
                while let Some((_, first)) = waiting.first_mut()
                    && let Some(permit) = poll(first, &woken)
                {
                    waiting.remove(0);
                    held.push(permit);
                }
                prop_assert!(waiting.is_empty() || held.len() >= max, "somebody waits beside a free permit");
                prop_assert_eq!(capacity.used(), held.len());
            }
        }
    }
}
