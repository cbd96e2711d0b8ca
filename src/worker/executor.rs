//! Tasks: futures of one thread, run when they are woken.
//!
//! Sockets and timers of the worker wake a [`Task`] without an atomic operation. A [`Waker`] is for all other sources,
//! including other threads.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

use super::run_queue::{Priority, RunQueue};

/// The way to a worker from other threads: an inbox, and an eventfd that ends its wait.
#[derive(Debug)]
pub struct Remote {
    eventfd: OwnedFd,
    inbox: Mutex<Inbox>,
    /// Set until the worker takes the inbox: only the first of many messages makes a system call.
    signalled: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    woken: Vec<u32>,
    calls: Vec<Box<dyn FnOnce() + Send>>,
    closed: bool,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({} woken, {} calls)", self.woken.len(), self.calls.len())
    }
}

impl Remote {
    pub(crate) fn new() -> io::Result<Remote> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Remote { eventfd, inbox: Mutex::default(), signalled: AtomicBool::new(false) })
    }

    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Runs `call` on the worker's thread, in a later turn of its loop. A worker that has stopped drops it.
    pub fn run(&self, call: impl FnOnce() + Send + 'static) {
        self.post(|inbox| inbox.calls.push(Box::new(call)));
    }

    fn post(&self, add: impl FnOnce(&mut Inbox)) {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.closed {
                return;
            }
            add(&mut inbox);
        }
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // It can only fail when its counter is full, and then the worker is awake.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    fn take(&self) -> Inbox {
        // Cleared before the inbox is taken: later messages signal again.
        self.signalled.store(false, Ordering::SeqCst);
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        Inbox { woken: std::mem::take(&mut inbox.woken), calls: std::mem::take(&mut inbox.calls), closed: inbox.closed }
    }

    fn close(&self) {
        let left = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.closed = true;
            std::mem::take(&mut inbox.calls)
        };
        drop(left);
    }
}

thread_local! {
    static CURRENT: OnceCell<Rc<Executor>> = const { OnceCell::new() };
}

/// Runs `f` with this thread's executor, if it has one.
pub(super) fn if_current<T>(f: impl FnOnce(&Executor) -> T) -> Option<T> {
    CURRENT.try_with(|current| current.get().map(|executor| f(executor))).ok().flatten()
}

/// The data of a task's waker.
struct Handle {
    task: u32,
    remote: Arc<Remote>,
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let at_home = if_current(|executor| {
            let at_home = Arc::ptr_eq(&executor.remote, &self.remote);
            if at_home {
                executor.wake(self.task);
            }
            at_home
        });
        if at_home != Some(true) {
            self.remote.post(|inbox| inbox.woken.push(self.task));
        }
    }
}

/// A task of this worker.
pub(super) struct Task {
    /// `None` once it has ended.
    future: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    waker: Waker,
    key: u32,
    /// In the run queue: further wakes add nothing until it runs.
    queued: Cell<bool>,
    priority: Cell<Priority>,
    /// When its last event was taken from the kernel, in nanoseconds since the executor began: half of an [`Instant`].
    woken_at: Cell<u64>,
}

/// Time that tasks run until the loop takes new events: the longest wait of a new connection in each of its steps. An
/// epoll_wait(2) that finds nothing costs a thousandth of it. With half of it, 1,000 busy connections cost 5 % more CPU.
const SLICE: Duration = Duration::from_millis(1);

/// The tasks of a worker, and the queue of those that are ready.
pub(super) struct Executor {
    remote: Arc<Remote>,
    tasks: RefCell<Slab<Rc<Task>>>,
    queue: RefCell<RunQueue<Rc<Task>>>,
    current: RefCell<Option<Rc<Task>>>,
    /// The waker of the future that is polled, where it is not the running task's.
    sub_waker: RefCell<Option<Waker>>,
    began: Instant,
    /// When the loop last took events.
    now: Cell<Instant>,
    /// The same in nanoseconds since `began`.
    now_nanos: Cell<u64>,
    /// When a task other than a bulk transfer last ran, in the same.
    light_nanos: Cell<u64>,
}

impl Executor {
    pub(super) fn new(remote: Arc<Remote>) -> Executor {
        let now = Instant::now();
        Executor {
            remote,
            tasks: RefCell::default(),
            queue: RefCell::default(),
            current: RefCell::default(),
            sub_waker: RefCell::default(),
            began: now,
            now: Cell::new(now),
            now_nanos: Cell::new(0),
            light_nanos: Cell::new(0),
        }
    }

    /// Makes it the executor of this thread, which has none yet.
    pub(super) fn install(self: &Rc<Self>) {
        CURRENT.with(|current| {
            // Empty on a new worker's thread.
            let _ = current.set(Rc::clone(self));
        });
    }

    /// When the loop last took events.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Starts a slice after events were taken at `now`: tasks that other tasks have woken become ready.
    pub(super) fn begin_slice(&self, now: Instant) {
        // They last for 584 years.
        let nanos = now.saturating_duration_since(self.began).as_nanos() as u64;
        self.now.set(now);
        self.now_nanos.set(nanos);
        self.queue.borrow_mut().admit_deferred(|task| task.woken_at.set(nanos));
    }

    pub(super) fn spawn(&self, future: Pin<Box<dyn Future<Output = ()>>>) {
        let mut tasks = self.tasks.borrow_mut();
        let vacant = tasks.vacant_entry();
        // 2^32 tasks need terabytes.
        let key = vacant.key() as u32;
        let waker = Waker::from(Arc::new(Handle { task: key, remote: Arc::clone(&self.remote) }));
        let task = Rc::new(Task {
            future: RefCell::new(Some(future)),
            waker,
            key,
            queued: Cell::new(true),
            priority: Cell::default(),
            woken_at: Cell::new(self.now_nanos.get()),
        });
        // In this slice: nothing that it waits for can have happened before.
        self.queue.borrow_mut().push(Rc::clone(&task), Priority::default());
        vacant.insert(task);
    }

    /// What is polled now: a waker that is not the running task's, and the running task.
    pub(super) fn with_polled<T>(&self, f: impl FnOnce(Option<&Waker>, Option<&Rc<Task>>) -> T) -> T {
        f(self.sub_waker.borrow().as_ref(), self.current.borrow().as_ref())
    }

    /// From now on, `waker` is that of the future that is polled. Returns what was set before, if that was another.
    pub(super) fn replace_waker(&self, waker: &Waker) -> Option<Option<Waker>> {
        let is_own = self.current.borrow().as_ref().is_some_and(|task| task.waker.will_wake(waker));
        let mut sub_waker = self.sub_waker.borrow_mut();
        match &*sub_waker {
            None if is_own => None,
            Some(known) if known.will_wake(waker) => None,
            _ => Some(std::mem::replace(&mut sub_waker, (!is_own).then(|| waker.clone()))),
        }
    }

    pub(super) fn restore_waker(&self, before: Option<Waker>) {
        // Dropped when the cell is no longer borrowed: it may run anything.
        let _ = self.sub_waker.replace(before);
    }

    /// Queues a task: for this slice, or for the next when a running task wakes it.
    pub(super) fn schedule(&self, task: &Rc<Task>) {
        task.woken_at.set(self.now_nanos.get());
        if task.queued.replace(true) {
            return;
        }
        let (mut queue, priority) = (self.queue.borrow_mut(), task.priority.get());
        match &*self.current.borrow() {
            Some(running) => queue.defer(Rc::clone(task), priority, Rc::ptr_eq(running, task)),
            None => queue.push(Rc::clone(task), priority),
        }
    }

    /// Sets the priority of the running task, from its next run on.
    pub(super) fn set_priority(&self, priority: Priority) {
        if let Some(task) = &*self.current.borrow() {
            task.priority.set(priority);
        }
    }

    /// When the last event of the running task was taken from the kernel: no later than [`Executor::now`].
    pub(super) fn woken_at(&self) -> Instant {
        let woken_at = |task: &Rc<Task>| self.began + Duration::from_nanos(task.woken_at.get());
        self.current.borrow().as_ref().map_or(self.now.get(), woken_at)
    }

    /// Whether nothing but bulk transfers has run for [`SLICE`]: no lighter work waits for the end of a turn.
    pub(super) fn has_only_bulk(&self) -> bool {
        Duration::from_nanos(self.now_nanos.get().saturating_sub(self.light_nanos.get())) > SLICE
    }

    /// A waker that outlived its task names none or a newer one, which gets a spurious poll.
    fn wake(&self, key: u32) {
        if let Some(task) = self.tasks.borrow().get(key as usize) {
            self.schedule(task);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Tasks that could run now.
    pub(super) fn ready(&self) -> usize {
        self.queue.borrow().ready()
    }

    /// Runs ready tasks until there are none, or a [`SLICE`] has passed.
    pub(super) fn run_slice(&self) {
        let began = self.now.get();
        let mut last = began;
        loop {
            let next = self.queue.borrow_mut().next_priority();
            let Some(priority) = next else { return };
            if priority != Priority::Bulk {
                self.light_nanos.set(self.now_nanos.get());
            }
            for _ in 0..priority.quantum() {
                let next = self.queue.borrow_mut().pop(priority);
                let Some(task) = next else { break };
                self.run(&task);
            }
            if self.ready() == 0 {
                // No other priority competed for this time, which saves the clock.
                return;
            }
            let now = Instant::now();
            self.queue.borrow_mut().charge(priority, now.saturating_duration_since(last));
            last = now;
            if priority.is_costly() || now.saturating_duration_since(began) >= SLICE {
                return;
            }
        }
    }

    fn run(&self, task: &Rc<Task>) {
        task.queued.set(false);
        let mut slot = task.future.borrow_mut();
        let Some(future) = &mut *slot else { return };
        *self.current.borrow_mut() = Some(Rc::clone(task));
        let mut cx = Context::from_waker(&task.waker);
        // Unwind safe: the state of a task that panics is dropped.
        let outcome = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
        *self.current.borrow_mut() = None;
        if matches!(outcome, Ok(Poll::Pending)) {
            return;
        }
        let ended = slot.take();
        drop(slot);
        // Dropped before its key is free, as its Drop may spawn; a panic in it ends here.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
        self.tasks.borrow_mut().remove(task.key as usize);
    }

    /// Takes the messages of other threads.
    pub(super) fn take_remote(&self) {
        let mut drained = [0u8; 8];
        let _ = rustix::io::read(&self.remote.eventfd, &mut drained);
        let Inbox { woken, calls, .. } = self.remote.take();
        for key in woken {
            self.wake(key);
        }
        for call in calls {
            let _ = catch_unwind(AssertUnwindSafe(call));
        }
    }

    /// Drops all tasks, and closes the inbox.
    pub(super) fn clear(&self) {
        self.remote.close();
        self.queue.borrow_mut().clear();
        loop {
            let tasks: Vec<Rc<Task>> = self.tasks.borrow_mut().drain().collect();
            if tasks.is_empty() {
                break;
            }
            for task in tasks {
                let future = task.future.borrow_mut().take();
                drop(future);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bulk_is_left_once_nothing_lighter_has_run_for_a_slice() {
        let executor = Rc::new(Executor::new(Arc::new(Remote::new().unwrap())));
        let at = |micros| executor.began + Duration::from_micros(micros);
        let of_task = Rc::clone(&executor);
        let bulk = std::future::poll_fn(move |_| {
            of_task.set_priority(Priority::Bulk);
            of_task.with_polled(|_, task| of_task.schedule(task.unwrap()));
            Poll::Pending
        });
        executor.begin_slice(at(10_000));
        executor.spawn(Box::pin(bulk));
        executor.run_slice();
        assert!(!executor.has_only_bulk(), "it was new");
        for (micros, only_bulk) in [(10_500, false), (11_000, false), (11_001, true), (12_000, true)] {
            executor.begin_slice(at(micros));
            executor.run_slice();
            assert_eq!(executor.has_only_bulk(), only_bulk, "at {micros} µs");
        }
        executor.spawn(Box::pin(async {}));
        executor.begin_slice(at(13_000));
        executor.run_slice();
        executor.run_slice();
        assert!(!executor.has_only_bulk());
        executor.clear();
    }
}
