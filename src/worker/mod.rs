//! The data plane's thread: one event loop with its sockets, timers and tasks.
//!
//! Connections use [`Socket`], [`spawn`], [`Timer`], [`now`] and [`poll_fn`]. All of it belongs to one thread and is
//! reached through a thread-local: no lock, and no other thread is woken. Other threads reach a worker only through its
//! [`Remote`].
//!
//! The loop is one epoll. A connection's socket is registered once, edge-triggered, for reading and writing,
//! and leaves by being closed: no further epoll_ctl for its whole life. Listening sockets are level-triggered.

mod executor;
mod reactor;
mod run_queue;
mod socket;
mod timer;
mod waiter;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use executor::Executor;
pub use executor::Remote;
use reactor::Reactor;
pub use run_queue::Priority;
pub use socket::{Listener, Socket, Transport};
use timer::{Key, Wheel};
pub use waiter::Waiter;
use waiter::WaiterId;

use crate::threads;

/// Timers are rounded up to this.
const TICK: Duration = Duration::from_millis(1);

/// Number of ready tasks from which on a worker is busy.
const BACKLOG: usize = 32;

thread_local! {
    static CURRENT: OnceCell<Rc<Local>> = const { OnceCell::new() };
}

/// The worker of this thread.
struct Local {
    reactor: Reactor,
    executor: Executor,
    timers: RefCell<Wheel<Waiter>>,
    started: Instant,
    turn: Cell<u64>,
    /// Whether this slice began with a backlog.
    is_busy: Cell<bool>,
    stopping: Cell<bool>,
}

/// The handle of a worker thread, for the thread that started it.
#[derive(Debug)]
pub struct Worker {
    remote: Arc<Remote>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker; `name` is its thread's name (the kernel shows 15 bytes of it). `at_end` runs on the thread once its
    /// tasks are dropped. Thread-locals that wake tasks must be dropped there: in their destructors, the thread-locals that
    /// a waker needs may be gone.
    ///
    /// # Errors
    /// No thread, epoll or eventfd is available.
    pub fn start(name: &str, at_end: fn()) -> io::Result<Worker> {
        let remote = Arc::new(Remote::new()?);
        let epoll = reactor::open(remote.eventfd())?;
        let of_thread = Arc::clone(&remote);
        let thread = threads::spawn(name, move || {
            let local = Rc::new(Local::new(Reactor::new(epoll), of_thread));
            CURRENT.with(|current| {
                // A new thread's cell is empty.
                let _ = current.set(Rc::clone(&local));
            });
            local.run();
            // While the worker is still in its thread-local, which the Drop of tasks may use.
            local.executor.clear();
            at_end();
        })?;
        Ok(Worker { remote, thread })
    }

    /// The way to this worker from other threads.
    pub fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Ends the loop after its present turn, and drops the remaining tasks. Returns its thread.
    pub fn stop(self) -> JoinHandle<()> {
        self.remote.run(|| local(|worker| worker.stopping.set(true)));
        self.thread
    }
}

impl Local {
    fn new(reactor: Reactor, remote: Arc<Remote>) -> Local {
        let started = Instant::now();
        Local {
            reactor,
            executor: Executor::new(remote),
            timers: RefCell::new(Wheel::new(0)),
            started,
            turn: Cell::new(0),
            is_busy: Cell::new(false),
            stopping: Cell::new(false),
        }
    }

    fn run(&self) {
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
    fn ticks_passed(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// The first tick that does not lie before `instant`.
    fn tick_of(&self, instant: Instant) -> u64 {
        self.ticks_passed(instant + (TICK - Duration::from_nanos(1)))
    }
}

/// Runs `f` with this thread's worker.
///
/// # Panics
/// On a thread that is no worker.
fn local<T>(f: impl FnOnce(&Local) -> T) -> T {
    #[allow(clippy::expect_used, reason = "a worker's thread sets it before anything else runs")]
    if_local(f).expect("called on a worker's thread")
}

/// Runs `f` with this thread's worker, if it has one.
fn if_local<T>(f: impl FnOnce(&Local) -> T) -> Option<T> {
    CURRENT.try_with(|current| current.get().map(|worker| f(worker))).ok().flatten()
}

/// Starts a task on this worker. A panic ends the task alone, and drops what it owns.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    local(|worker| worker.executor.spawn(Box::pin(task)));
}

/// When this turn of the loop began. Exact enough for deadlines, and saves a system call.
pub fn now() -> Instant {
    local(|worker| worker.executor.now())
}

/// When the last event of the running task was taken from the kernel, before it waited for other tasks.
pub fn woken_at() -> Instant {
    local(|worker| worker.executor.woken_at())
}

/// Sets the priority of the running task, from its next run on.
pub fn set_priority(priority: Priority) {
    local(|worker| worker.executor.set_priority(priority));
}

/// Lets other tasks run first, and the loop take new events.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|_| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        reschedule();
        Poll::Pending
    })
    .await;
}

/// Whether many tasks wait for this worker. Then a system call that may return EAGAIN costs less than another turn.
pub fn is_busy() -> bool {
    local(|worker| worker.is_busy.get())
}

/// Has the future that is polled now polled once more, after new events were taken.
pub fn reschedule() {
    Waiter::current().iter().for_each(Waiter::wake);
}

/// [`std::future::poll_fn`] for `f` that polls what belongs to this worker: sockets, timers, [`reschedule`]. What is
/// pending in `f` wakes the waker that it was polled with, be it the task's or a combinator's.
pub fn poll_fn<T>(mut f: impl FnMut(&mut Context<'_>) -> Poll<T>) -> impl Future<Output = T> {
    std::future::poll_fn(move |cx| with_waker(cx, &mut f))
}

/// Runs `f`, in which what is pending wakes the waker of `cx`.
pub fn with_waker<T>(cx: &mut Context<'_>, f: impl FnOnce(&mut Context<'_>) -> T) -> T {
    /// Sets again what was set before, also after a panic.
    struct Restore(Option<Waker>);

    impl Drop for Restore {
        fn drop(&mut self) {
            if_local(|worker| worker.executor.restore_waker(self.0.take()));
        }
    }

    let _restore = if_local(|worker| worker.executor.replace_waker(cx.waker())).flatten().map(Restore);
    f(cx)
}

/// The number of this turn of the loop. Consecutive turns have consecutive numbers.
pub fn turn() -> u64 {
    local(|worker| worker.turn.get())
}

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
                if armed.tick <= tick && worker.executor.is_polling(armed.waiter) {
                    return Poll::Pending;
                }
                let waiter = worker.timers.borrow_mut().cancel(armed.key);
                drop(waiter);
            }
            self.armed = worker.executor.waiter().map(|waiter| {
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

#[cfg(test)]
mod tests;
