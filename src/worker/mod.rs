//! The data plane's thread: one event loop with its sockets, timers and tasks.
//!
//! Connections use [`Socket`], [`spawn`], [`Timer`], [`now`] and [`poll_fn`]. All of it belongs to one thread and is
//! reached through a thread-local: no lock, and no other thread is woken. Other threads reach a worker only through its
//! [`Remote`].
//!
//! The loop is one epoll. A connection's socket is registered once, edge-triggered, for reading and writing,
//! and leaves by being closed: no further epoll_ctl for its whole life. Listening sockets are level-triggered.

mod accept;
mod connect;
mod datagram;
mod deadline;
mod executor;
mod local;
mod reactor;
mod run_queue;
mod socket;
mod timer;
mod waiter;

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Instant;

pub use accept::AcceptSocket;
pub use connect::{ConnectError, connect};
pub use datagram::DatagramSocket;
pub use deadline::{Timer, sleep_until, until};
pub use executor::Remote;
use local::{Local, local};
use reactor::Reactor;
pub use run_queue::Priority;
pub use socket::{Socket, Transport};
pub use waiter::{Waiter, poll_fn, with_waker};

use crate::threads;

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
            local.install();
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

/// Whether no lighter work than bulk transfers waits for the end of their turns.
pub fn has_only_bulk() -> bool {
    local(|worker| worker.executor.has_only_bulk())
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

/// The number of this turn of the loop. Consecutive turns have consecutive numbers.
pub fn turn() -> u64 {
    local(|worker| worker.turn.get())
}

#[cfg(test)]
mod tests;
