//! Who is woken by an event: the future whose poll was pending last.
//!
//! By default that is the running task. A combinator that polls its parts with wakers of its own (FuturesUnordered, a
//! JoinSet, h2) is followed by [`poll_fn`](super::poll_fn) and [`with_waker`](super::with_waker).

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::from_ref;
use std::rc::Rc;
use std::task::Waker;

use super::executor::Task;
use super::local;

/// Whom an event wakes.
#[derive(Clone)]
pub struct Waiter(Kind);

#[derive(Clone)]
enum Kind {
    /// A task of this worker, which is woken without an atomic operation.
    Task(Rc<Task>),
    /// Boxed: it is rare, and each socket would pay for its size.
    Waker(Box<Waker>),
}

impl Waiter {
    pub(super) fn task(task: &Rc<Task>) -> Waiter {
        Waiter(Kind::Task(Rc::clone(task)))
    }

    pub(super) fn waker(waker: &Waker) -> Waiter {
        Waiter(Kind::Waker(Box::new(waker.clone())))
    }

    /// The future that is polled now; `None` outside of tasks.
    pub fn current() -> Option<Waiter> {
        local(|worker| worker.executor.waiter())
    }

    /// Has it polled in a coming turn of the loop.
    pub fn wake(&self) {
        match &self.0 {
            Kind::Task(task) => local(|worker| worker.executor.schedule(task)),
            Kind::Waker(waker) => waker.wake_by_ref(),
        }
    }

    pub(super) fn is_task(&self, other: &Rc<Task>) -> bool {
        matches!(&self.0, Kind::Task(task) if Rc::ptr_eq(task, other))
    }

    pub(super) fn is_waker(&self, other: &Waker) -> bool {
        matches!(&self.0, Kind::Waker(waker) if waker.will_wake(other))
    }

    /// Tells it from others, as long as it lives.
    pub(super) fn id(&self) -> WaiterId {
        let address = match &self.0 {
            Kind::Task(task) => from_ref::<Task>(task).addr(),
            Kind::Waker(waker) => from_ref::<Waker>(waker).addr(),
        };
        WaiterId(NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MAX))
    }
}

/// The identity of a [`Waiter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(NonZeroUsize);

impl WaiterId {
    pub(super) fn of_task(task: &Rc<Task>) -> WaiterId {
        WaiterId(NonZeroUsize::new(from_ref::<Task>(task).addr()).unwrap_or(NonZeroUsize::MAX))
    }
}

/// The waiter of a socket: the last one that was pending.
#[derive(Default)]
pub(super) struct Waiting(Cell<Option<Waiter>>);

impl Waiting {
    /// Has the future that is polled now woken from now on. For the one that is registered already, this is a comparison.
    pub(super) fn register(&self) {
        self.0.set(local(|worker| worker.executor.renewed(self.0.take())));
    }

    /// It stays registered.
    pub(super) fn wake(&self) {
        let Some(waiter) = self.0.take() else { return };
        waiter.wake();
        // A waker may run anything, and that may have registered another.
        let newer = self.0.take();
        self.0.set(newer.or(Some(waiter)));
    }
}
