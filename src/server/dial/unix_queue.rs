//! Waiting for room in the listen queue of a unix socket.
//!
//! A non-blocking connect(2) to a unix socket whose queue is full fails with EAGAIN, and no event tells when there is room: it
//! has to be tried again. Of all connections of a worker that wait for the same socket, only the first one
//! tries. What the waiting costs does not grow with the number of those who wait, and they get their places in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::net::errno::{Call, CallError};
use crate::worker::{self, TaskHandle};

/// The first one tries again after this time, then after twice as long, up to [`PAUSE_MAX`]. So it waits at most twice as
/// long as it has to.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The connections of a worker that wait for unix sockets, by the socket's path.
#[derive(Default)]
pub(in crate::server) struct UnixQueues {
    /// Only those that have somebody waiting.
    by_path: RefCell<HashMap<Arc<PathBuf>, Rc<Queue>>>,
}

/// Those that wait for one socket.
struct Queue {
    /// By their ticket: the first is the one that tries.
    waiting: RefCell<BTreeMap<u64, Option<TaskHandle>>>,
    tickets: Cell<u64>,
    /// Pause before the next try. It belongs to the queue, so that the next connection in line keeps the long one.
    pause: Cell<Duration>,
}

/// A place in the queue, until it is dropped.
struct Place<'q> {
    queues: &'q UnixQueues,
    path: &'q Arc<PathBuf>,
    queue: Rc<Queue>,
    ticket: u64,
}

impl UnixQueues {
    /// Connects by `start`, once it is this connection's turn and there is room.
    ///
    /// # Errors
    /// Those of `start`: EAGAIN, if there is no room until `deadline`.
    pub(super) async fn connect(
        &self,
        path: &Arc<PathBuf>,
        deadline: Instant,
        mut start: impl FnMut() -> Result<OwnedFd, CallError>,
    ) -> Result<OwnedFd, CallError> {
        let mut outcome = None;
        // Those who wait come first.
        if !self.has_waiting(path) {
            let started = start();
            if !is_full(&started) {
                return started;
            }
            outcome = Some(started);
        }
        let place = self.join(path);
        let first = worker::until(Some(deadline), place.becomes_first()).await;
        if first.is_none() {
            return Err(CallError { call: Call::Connect, errno: Errno::AGAIN });
        }
        loop {
            let started = outcome.take().unwrap_or_else(&mut start);
            if !is_full(&started) {
                place.queue.pause.set(PAUSE_MIN);
                return started;
            }
            if worker::now() >= deadline {
                return started;
            }
            let pause = place.queue.pause.get();
            place.queue.pause.set((pause * 2).min(PAUSE_MAX));
            worker::sleep_until(deadline.min(worker::now() + pause)).await;
        }
    }

    fn has_waiting(&self, path: &Arc<PathBuf>) -> bool {
        let by_path = self.by_path.borrow();
        !by_path.is_empty() && by_path.contains_key(path)
    }

    fn join<'q>(&'q self, path: &'q Arc<PathBuf>) -> Place<'q> {
        let queue = Rc::clone(self.by_path.borrow_mut().entry(Arc::clone(path)).or_insert_with(|| {
            Rc::new(Queue { waiting: RefCell::default(), tickets: Cell::new(0), pause: Cell::new(PAUSE_MIN) })
        }));
        let ticket = queue.tickets.replace(queue.tickets.get() + 1);
        queue.waiting.borrow_mut().insert(ticket, TaskHandle::current());
        Place { queues: self, path, queue, ticket }
    }
}

impl Place<'_> {
    async fn becomes_first(&self) {
        poll_fn(|_| if self.is_first() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn is_first(&self) -> bool {
        self.queue.waiting.borrow().first_key_value().is_some_and(|(&first, _)| first == self.ticket)
    }
}

impl Drop for Place<'_> {
    /// However a connection stops waiting (it has its room, its time is over, its client has left), the next one tries.
    fn drop(&mut self) {
        let was_first = self.is_first();
        let mut waiting = self.queue.waiting.borrow_mut();
        waiting.remove(&self.ticket);
        match waiting.first_key_value() {
            Some((_, next)) if was_first => next.iter().for_each(TaskHandle::wake),
            Some(_) => {}
            None => drop(self.queues.by_path.borrow_mut().remove(self.path)),
        }
    }
}

fn is_full(started: &Result<OwnedFd, CallError>) -> bool {
    matches!(started, Err(error) if error.errno == Errno::AGAIN)
}

#[cfg(test)]
mod tests;
