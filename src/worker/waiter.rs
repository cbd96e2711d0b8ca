//! Who is woken by an event: the future whose poll was pending last.
//!
//! By default that is the running task. A combinator that polls its parts with wakers of its own (FuturesUnordered, a
//! JoinSet, h2) is followed by [`poll_fn`] and [`with_waker`].

use std::cell::Cell;
use std::future::Future;
use std::num::NonZeroUsize;
use std::ptr::from_ref;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::executor::{Executor, Task, if_current};

/// What an event wakes.
#[derive(Clone)]
pub struct Waiter(WaiterKind);

#[derive(Clone)]
enum WaiterKind {
    /// A task of this worker, which is woken without an atomic operation.
    Task(Rc<Task>),
    /// Boxed: it is rare, and each socket would pay for its size.
    Waker(Box<Waker>),
}

impl Waiter {
    fn task(task: &Rc<Task>) -> Waiter {
        Waiter(WaiterKind::Task(Rc::clone(task)))
    }

    fn waker(waker: &Waker) -> Waiter {
        Waiter(WaiterKind::Waker(Box::new(waker.clone())))
    }

    fn polled(executor: &Executor) -> Option<Waiter> {
        executor.with_polled(|sub_waker, task| match sub_waker {
            Some(waker) => Some(Waiter::waker(waker)),
            None => task.map(Waiter::task),
        })
    }

    /// The future that is polled now; `known` if it is that one, or none is.
    fn renewed(executor: &Executor, known: Option<Waiter>) -> Option<Waiter> {
        let is_it = |waiter: &Waiter| {
            executor.with_polled(|sub_waker, task| match sub_waker {
                Some(waker) => waiter.is_waker(waker),
                None => task.is_none_or(|task| waiter.is_task(task)),
            })
        };
        match known {
            Some(waiter) if is_it(&waiter) => Some(waiter),
            _ => Waiter::polled(executor),
        }
    }

    /// The future that is polled now; `None` outside of tasks.
    pub fn current() -> Option<Waiter> {
        if_current(Waiter::polled).flatten()
    }

    /// Has it polled in a coming turn of the loop.
    pub fn wake(&self) {
        match &self.0 {
            // A task's waiter does not leave its worker's thread.
            WaiterKind::Task(task) => drop(if_current(|executor| executor.schedule(task))),
            WaiterKind::Waker(waker) => waker.wake_by_ref(),
        }
    }

    fn is_task(&self, other: &Rc<Task>) -> bool {
        matches!(&self.0, WaiterKind::Task(task) if Rc::ptr_eq(task, other))
    }

    fn is_waker(&self, other: &Waker) -> bool {
        matches!(&self.0, WaiterKind::Waker(waker) if waker.will_wake(other))
    }

    /// Tells it from others, as long as it lives.
    pub(super) fn id(&self) -> WaiterId {
        let address = match &self.0 {
            WaiterKind::Task(task) => from_ref::<Task>(task).addr(),
            WaiterKind::Waker(waker) => from_ref::<Waker>(waker).addr(),
        };
        WaiterId(NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MAX))
    }
}

/// The identity of a [`Waiter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(NonZeroUsize);

impl WaiterId {
    /// Whether the future that is polled now is this one.
    pub(super) fn is_polled(self, executor: &Executor) -> bool {
        executor.with_polled(|sub_waker, task| sub_waker.is_none() && task.map(WaiterId::of_task) == Some(self))
    }

    fn of_task(task: &Rc<Task>) -> WaiterId {
        WaiterId(NonZeroUsize::new(from_ref::<Task>(task).addr()).unwrap_or(NonZeroUsize::MAX))
    }
}

/// The waiter of a socket: the last one that was pending.
#[derive(Default)]
pub(super) struct Waiting(Cell<Option<Waiter>>);

impl Waiting {
    /// Has the future that is polled now woken from now on. For the one that is registered already, this is a comparison.
    pub(super) fn register(&self) {
        let known = self.0.take();
        self.0.set(if_current(|executor| Waiter::renewed(executor, known)).flatten());
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

/// [`std::future::poll_fn`] for `f` that polls what belongs to this worker: sockets, timers, [`reschedule`](super::reschedule). What is
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
            if_current(|executor| executor.restore_waker(self.0.take()));
        }
    }

    let _restore = if_current(|executor| executor.replace_waker(cx.waker())).flatten().map(Restore);
    f(cx)
}
