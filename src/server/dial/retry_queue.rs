//! Waiting for what no event announces: room in the listen queue of a unix socket, or a descriptor.
//!
//! A non-blocking connect(2) to a unix socket whose queue is full fails with EAGAIN, and socket(2) with EMFILE or ENFILE while
//! descriptors are used up. Both have to be tried again. Of all connections of a worker that wait for the same resource, only the
//! first one tries: the cost does not grow with their number, and they are served in their order.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::net::errno::{Call, CallError};
use crate::worker::{self, Waiter, poll_fn};

/// The first one tries again after this time, then after twice as long, up to [`PAUSE_MAX`]. So it waits at most twice as
/// long as it has to.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What connections wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    /// A descriptor for a socket.
    Descriptor,
    /// A descriptor, and room in the listen queue of the unix socket with this path.
    ListenQueue(Arc<PathBuf>),
}

/// Dials that wait for a descriptor, of all workers. While there are any, nothing is accepted: a new connection would
/// take the descriptor that an earlier one needs.
#[derive(Debug, Default)]
pub(in crate::server) struct DescriptorShortage(AtomicUsize);

impl DescriptorShortage {
    pub(in crate::server) fn exists(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn enter(&self) -> ShortOfDescriptor<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        ShortOfDescriptor(self)
    }
}

struct ShortOfDescriptor<'s>(&'s DescriptorShortage);

impl Drop for ShortOfDescriptor<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of a worker that wait for a resource.
#[derive(Default)]
pub(in crate::server) struct RetryQueues {
    /// Those with a connect that waits.
    by_resource: RefCell<HashMap<Resource, Rc<ResourceQueue>>>,
    shortage: Arc<DescriptorShortage>,
}

/// Those that wait for one resource.
struct ResourceQueue {
    /// By their ticket: the first is the one that tries.
    waiting: RefCell<BTreeMap<u64, Option<Waiter>>>,
    tickets: Cell<u64>,
    /// What the last try lacked.
    missing: Cell<CallError>,
    /// Pause before the next try. It belongs to the queue, so that the next connection in line keeps the long one.
    pause: Cell<Duration>,
}

/// A place in the queue, until it is dropped.
struct QueuePlace<'q> {
    queues: &'q RetryQueues,
    resource: &'q Resource,
    queue: Rc<ResourceQueue>,
    ticket: u64,
}

impl RetryQueues {
    pub(in crate::server) fn new(shortage: Arc<DescriptorShortage>) -> RetryQueues {
        RetryQueues { by_resource: RefCell::default(), shortage }
    }

    /// Starts a connect by `start`, once it is this connection's turn and the resource is there.
    ///
    /// # Errors
    /// Those of `start`: EAGAIN, EMFILE or ENFILE, if the resource does not come until `deadline`.
    pub(super) async fn start(
        &self,
        resource: &Resource,
        deadline: Instant,
        mut start: impl FnMut() -> Result<OwnedFd, CallError>,
    ) -> Result<OwnedFd, CallError> {
        let mut outcome = None;
        // Those who wait come first.
        if !self.has_waiting(resource) {
            match start() {
                Err(error) if is_missing(error) => outcome = Some(Err(error)),
                started => return started,
            }
        }
        let _shortage = matches!(outcome, Some(Err(error)) if is_descriptor(error)).then(|| self.shortage.enter());
        let place = self.join(resource);
        let first = worker::until(Some(deadline), place.becomes_first()).await;
        if first.is_none() {
            return outcome.unwrap_or(Err(place.queue.missing.get()));
        }
        loop {
            let error = match outcome.take().unwrap_or_else(&mut start) {
                Err(error) if is_missing(error) => error,
                started => {
                    place.queue.pause.set(PAUSE_MIN);
                    return started;
                }
            };
            place.queue.missing.set(error);
            if worker::now() >= deadline {
                return Err(error);
            }
            let pause = place.queue.pause.get();
            place.queue.pause.set((pause * 2).min(PAUSE_MAX));
            worker::sleep_until(deadline.min(worker::now() + pause)).await;
        }
    }

    fn has_waiting(&self, resource: &Resource) -> bool {
        let by_resource = self.by_resource.borrow();
        !by_resource.is_empty() && by_resource.contains_key(resource)
    }

    fn join<'q>(&'q self, resource: &'q Resource) -> QueuePlace<'q> {
        let queue = Rc::clone(self.by_resource.borrow_mut().entry(resource.clone()).or_insert_with(|| {
            Rc::new(ResourceQueue {
                waiting: RefCell::default(),
                tickets: Cell::new(0),
                missing: Cell::new(CallError { call: Call::Connect, errno: Errno::AGAIN }),
                pause: Cell::new(PAUSE_MIN),
            })
        }));
        let ticket = queue.tickets.replace(queue.tickets.get() + 1);
        queue.waiting.borrow_mut().insert(ticket, None);
        QueuePlace { queues: self, resource, queue, ticket }
    }
}

impl QueuePlace<'_> {
    async fn becomes_first(&self) {
        poll_fn(|_| {
            if self.is_first() {
                return Poll::Ready(());
            }
            self.queue.waiting.borrow_mut().insert(self.ticket, Waiter::current());
            Poll::Pending
        })
        .await;
    }

    fn is_first(&self) -> bool {
        self.queue.waiting.borrow().first_key_value().is_some_and(|(&first, _)| first == self.ticket)
    }
}

impl Drop for QueuePlace<'_> {
    /// However a connection stops waiting (it has its room, its time is over, its client has left), the next one tries.
    fn drop(&mut self) {
        let was_first = self.is_first();
        let mut waiting = self.queue.waiting.borrow_mut();
        waiting.remove(&self.ticket);
        match waiting.first_key_value().map(|(_, next)| next.clone()) {
            Some(next) if was_first => {
                // A waker may run anything.
                drop(waiting);
                next.iter().for_each(Waiter::wake);
            }
            Some(_) => {}
            None => drop(self.queues.by_resource.borrow_mut().remove(self.resource)),
        }
    }
}

fn is_missing(error: CallError) -> bool {
    error.errno == Errno::AGAIN || is_descriptor(error)
}

fn is_descriptor(error: CallError) -> bool {
    matches!(error.errno, Errno::MFILE | Errno::NFILE)
}

#[cfg(test)]
mod tests;
