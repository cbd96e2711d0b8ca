//! The handle by which accepting from a listening socket is stopped, or goes on for another configuration.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::task::Poll;

use super::listener::Listener;
use crate::config::model::ListenerState;
use crate::net::addr::Address;
use crate::worker::{Waiter, poll_fn};

/// A listening socket of one worker while it accepts.
pub(super) struct Accepting {
    listener: RefCell<Arc<Listener>>,
    /// As bound.
    pub(super) address: Address,
    /// Among the sockets of its address.
    pub(super) number: usize,
    stopped: Cell<bool>,
    /// Another worker has a duplicate of the socket.
    handed_over: Cell<bool>,
    task: OnceCell<Waiter>,
}

impl Accepting {
    pub(super) fn new(listener: Arc<Listener>, address: Address, number: usize) -> Accepting {
        Accepting {
            listener: RefCell::new(listener),
            address,
            number,
            stopped: Cell::new(false),
            handed_over: Cell::new(false),
            task: OnceCell::new(),
        }
    }

    /// The task that accepts has begun: it is woken when it is to stop.
    pub(super) fn begin(&self) {
        if let Some(task) = Waiter::current() {
            // Once in the task's life.
            let _ = self.task.set(task);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Whose connections it takes.
    pub(super) fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.listener.borrow())
    }

    /// Connections are those of `listener` from now on.
    pub(super) fn replace(&self, listener: &Arc<Listener>) {
        let was_paused = self.is_paused();
        self.listener.replace(Arc::clone(listener));
        if was_paused && !self.is_paused() {
            self.task.get().into_iter().for_each(Waiter::wake);
        }
    }

    /// New connections are to wait in the kernel's accept queue.
    pub(super) fn is_paused(&self) -> bool {
        self.listener.borrow().config().state == ListenerState::Paused
    }

    /// Until it is paused no more.
    pub(super) async fn resumed(&self) {
        // `replace` wakes the task.
        poll_fn(|_| if self.is_paused() { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    /// Leaves what waits in the kernel's queue to another worker.
    pub(super) fn hand_over(&self) {
        self.handed_over.set(true);
        self.stop();
    }

    /// Whether what waits in the queue is left to another worker.
    pub(super) fn is_handed_over(&self) -> bool {
        self.handed_over.get()
    }

    /// Takes what waits in the kernel's queue, and closes the socket.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.task.get().into_iter().for_each(Waiter::wake);
    }
}
