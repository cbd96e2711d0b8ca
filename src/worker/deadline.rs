//! Deadlines of tasks.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use super::local::{if_local, local};
use super::timer::Key;
use super::waiter::{Waiter, WaiterId, poll_fn};

/// Waits until `deadline`, and up to a millisecond longer.
pub async fn sleep_until(deadline: Instant) {
    let mut timer = Timer::default();
    poll_fn(|_| timer.poll_expired(deadline)).await;
}

/// The output of `future`; `None` once `deadline` has passed.
pub async fn until<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    let mut timer = Timer::default();
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        match deadline {
            Some(deadline) => timer.poll_expired(deadline).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// One lazy timer: a deadline that moves away costs nothing until the old one has passed.
#[derive(Debug, Default)]
pub struct Timer {
    armed: Option<Armed>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    key: Key,
    tick: u64,
    /// Who is woken then: the wheel holds it, so that no other has its identity meanwhile.
    waiter: WaiterId,
}

impl Timer {
    /// Ready once `deadline` has passed; otherwise the future that is polled now is woken then, or earlier.
    pub fn poll_expired(&mut self, deadline: Instant) -> Poll<()> {
        local(|worker| {
            let now = worker.executor.now();
            if deadline <= now {
                return Poll::Ready(());
            }
            let (tick, passed) = (worker.tick_of(deadline), worker.ticks_passed(now));
            // One that is armed for a tick that has passed has expired, and its key is gone with it.
            if let Some(armed) = self.armed.filter(|armed| armed.tick > passed) {
                if armed.tick <= tick && armed.waiter.is_polled(&worker.executor) {
                    return Poll::Pending;
                }
                let waiter = worker.timers.borrow_mut().cancel(armed.key);
                drop(waiter);
            }
            self.armed = Waiter::current().map(|waiter| {
                let id = waiter.id();
                Armed { key: worker.timers.borrow_mut().insert(tick, waiter), tick, waiter: id }
            });
            Poll::Pending
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(armed) = self.armed else { return };
        if_local(|worker| {
            // The loop expires timers as soon as it has moved `now`, before any task runs.
            if armed.tick > worker.ticks_passed(worker.executor.now()) {
                let waiter = worker.timers.borrow_mut().cancel(armed.key);
                drop(waiter);
            }
        });
    }
}
