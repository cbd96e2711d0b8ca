//! The data plane's thread: one event loop with its sockets, timers and tasks.
//!
//! What a connection needs of its worker is this small face: [`Socket`], [`spawn`], [`Timer`], [`now`].
//! Everything behind it belongs to one thread and is reached through a thread-local, so nothing on a
//! connection's path takes a lock or wakes another thread. Other threads reach a worker only through its
//! [`Remote`].
//!
//! The loop is one edge-triggered epoll. A socket is registered once, for reading and writing, and leaves
//! by being closed: no further epoll_ctl for the whole life of a connection.

mod executor;
mod reactor;
mod socket;
mod timer;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use executor::Executor;
pub use executor::Remote;
use reactor::Reactor;
pub use socket::{Socket, Transport};
use timer::{Key, Wheel};

/// Timers are rounded up to this.
const TICK: Duration = Duration::from_millis(1);

thread_local! {
    static CURRENT: OnceCell<Rc<Local>> = const { OnceCell::new() };
}

/// What belongs to the worker of this thread.
struct Local {
    reactor: Reactor,
    executor: Executor,
    timers: RefCell<Wheel<Waker>>,
    started: Instant,
    now: Cell<Instant>,
    stopping: Cell<bool>,
}

/// A worker thread, seen from the thread that started it.
#[derive(Debug)]
pub struct Worker {
    remote: Arc<Remote>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker; `name` is its thread's name (the kernel shows 15 bytes of it).
    ///
    /// # Errors
    /// No thread, epoll or eventfd to be had.
    pub fn start(name: String) -> io::Result<Worker> {
        let remote = Arc::new(Remote::new()?);
        let epoll = reactor::open(remote.eventfd())?;
        let of_thread = Arc::clone(&remote);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let local = Rc::new(Local::new(Reactor::new(epoll), of_thread));
            CURRENT.with(|current| {
                // A new thread's cell is empty.
                let _ = current.set(Rc::clone(&local));
            });
            local.run();
            // Tasks that are left give back what they hold while the loop's face is still there.
            local.executor.clear();
        })?;
        Ok(Worker { remote, thread })
    }

    /// The way to this worker from other threads.
    pub fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Ends the loop after its present turn, drops the tasks that are left, and waits for the thread.
    pub fn stop(self) {
        self.remote.run(|| local(|worker| worker.stopping.set(true)));
        // Tasks are caught when they panic; a panic of the loop itself has been reported by its hook.
        let _ = self.thread.join();
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
            now: Cell::new(started),
            stopping: Cell::new(false),
        }
    }

    fn run(&self) {
        while !self.stopping.get() {
            self.executor.run_ready();
            let timeout = if self.executor.has_ready() { Some(Duration::ZERO) } else { self.until_next_timer() };
            self.reactor.wait(timeout, || self.executor.take_remote());
            self.now.set(Instant::now());
            self.expire_timers();
        }
    }

    fn until_next_timer(&self) -> Option<Duration> {
        let next = self.timers.borrow().next()?;
        let at = self.started + Duration::from_millis(next);
        Some(at.saturating_duration_since(self.now.get()))
    }

    fn expire_timers(&self) {
        let now = self.ticks_passed(self.now.get());
        // The waker runs no task here, but it may drop one's last reference, so the wheel is not borrowed.
        while let Some(waker) = { self.timers.borrow_mut().expire(now) } {
            waker.wake();
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
/// On a thread that is no worker: the face of the data plane has no meaning there.
fn local<T>(f: impl FnOnce(&Local) -> T) -> T {
    #[allow(clippy::expect_used, reason = "a worker's thread sets it before anything else runs")]
    if_local(f).expect("called on a worker's thread")
}

/// Runs `f` with this thread's worker, if it has one.
fn if_local<T>(f: impl FnOnce(&Local) -> T) -> Option<T> {
    CURRENT.try_with(|current| current.get().map(|worker| f(worker))).ok().flatten()
}

/// Starts a task on this worker. A panic ends the task and nothing else; what it owned is dropped.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    local(|worker| worker.executor.spawn(Box::pin(task)));
}

/// The time at which this turn of the loop began: exact enough for deadlines, and costs no system call.
pub fn now() -> Instant {
    local(|worker| worker.now.get())
}

/// Waits until `deadline`, and up to a millisecond longer.
pub async fn sleep_until(deadline: Instant) {
    let mut timer = Timer::default();
    std::future::poll_fn(|cx| timer.poll_expired(cx, deadline)).await;
}

/// One lazy timer: a deadline that moves away costs nothing until the old one has passed.
#[derive(Debug, Default)]
pub struct Timer {
    armed: Option<(Key, u64)>,
}

impl Timer {
    /// Ready once `deadline` has passed; otherwise the task is woken then, or earlier.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        local(|worker| {
            if deadline <= worker.now.get() {
                return Poll::Ready(());
            }
            let tick = worker.tick_of(deadline);
            let mut timers = worker.timers.borrow_mut();
            let passed = worker.ticks_passed(worker.now.get());
            if let Some((key, armed)) = self.armed {
                if armed <= passed {
                    // It has expired, and its key is gone with it.
                } else if armed <= tick {
                    let waker = timers.value_mut(key);
                    if !waker.will_wake(cx.waker()) {
                        *waker = cx.waker().clone();
                    }
                    return Poll::Pending;
                } else {
                    timers.cancel(key);
                }
            }
            self.armed = Some((timers.insert(tick, cx.waker().clone()), tick));
            Poll::Pending
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some((key, armed)) = self.armed else { return };
        local(|worker| {
            // The loop expires timers as soon as it has moved `now`, before any task runs.
            if armed > worker.ticks_passed(worker.now.get()) {
                worker.timers.borrow_mut().cancel(key);
            }
        });
    }
}

/// Lets the other tasks of this worker run before the caller goes on.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

#[cfg(test)]
mod tests;
