//! The worker of this thread, and its loop.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::executor::{Executor, Remote};
use super::reactor::Reactor;
use super::timer::Wheel;
use super::waiter::Waiter;

/// Timers are rounded up to this.
const TICK: Duration = Duration::from_millis(1);

/// Number of ready tasks from which on a worker is busy.
const BACKLOG: usize = 32;

thread_local! {
    static CURRENT: OnceCell<Rc<Local>> = const { OnceCell::new() };
}

/// The worker of this thread.
pub(super) struct Local {
    pub(super) reactor: Reactor,
    pub(super) executor: Rc<Executor>,
    pub(super) timers: RefCell<Wheel<Waiter>>,
    started: Instant,
    pub(super) turn: Cell<u64>,
    /// Whether this slice began with a backlog.
    pub(super) is_busy: Cell<bool>,
    pub(super) stopping: Cell<bool>,
}

impl Local {
    pub(super) fn new(reactor: Reactor, remote: Arc<Remote>) -> Local {
        let started = Instant::now();
        Local {
            reactor,
            executor: Rc::new(Executor::new(remote)),
            timers: RefCell::new(Wheel::new(0)),
            started,
            turn: Cell::new(0),
            is_busy: Cell::new(false),
            stopping: Cell::new(false),
        }
    }

    /// Makes it the worker of this thread, which has none yet.
    pub(super) fn install(self: &Rc<Self>) {
        self.executor.install();
        CURRENT.with(|current| {
            // Empty on a new worker's thread.
            let _ = current.set(Rc::clone(self));
        });
    }

    pub(super) fn run(&self) {
        while !self.stopping.get() {
            let timeout = if self.executor.has_ready() { Some(Duration::ZERO) } else { self.until_next_timer() };
            self.reactor.wait(timeout);
            self.executor.begin_slice(Instant::now());
            self.turn.set(self.turn.get() + 1);
            // First: a timer whose tick has passed is no longer in the wheel when its owner drops it.
            self.expire_timers();
            if self.reactor.dispatch() {
                self.executor.take_remote();
            }
            self.is_busy.set(self.executor.ready() >= BACKLOG);
            self.executor.run_slice();
        }
    }

    fn until_next_timer(&self) -> Option<Duration> {
        let next = self.timers.borrow().next()?;
        let at = self.started + Duration::from_millis(next);
        Some(at.saturating_duration_since(self.executor.now()))
    }

    fn expire_timers(&self) {
        let now = self.ticks_passed(self.executor.now());
        loop {
            // Not borrowed any more when it is woken: a waker may run anything.
            let expired = self.timers.borrow_mut().expire(now);
            let Some(waiter) = expired else { break };
            waiter.wake();
        }
    }

    /// Whole ticks from the start to `instant`.
    pub(super) fn ticks_passed(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// The first tick that does not lie before `instant`.
    pub(super) fn tick_of(&self, instant: Instant) -> u64 {
        self.ticks_passed(instant + (TICK - Duration::from_nanos(1)))
    }
}

/// Runs `f` with this thread's worker.
///
/// # Panics
/// On a thread that is no worker.
pub(super) fn local<T>(f: impl FnOnce(&Local) -> T) -> T {
    #[allow(clippy::expect_used, reason = "a worker's thread sets it before anything else runs")]
    if_local(f).expect("called on a worker's thread")
}

/// Runs `f` with this thread's worker, if it has one.
pub(super) fn if_local<T>(f: impl FnOnce(&Local) -> T) -> Option<T> {
    CURRENT.try_with(|current| current.get().map(|worker| f(worker))).ok().flatten()
}
