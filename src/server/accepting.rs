//! The handle by which accepting from a listening socket is stopped, or goes on for another configuration.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use super::listener::Listener;
use crate::net::addr::Address;
use crate::worker::Waiter;

/// A listening socket of one worker while it accepts.
pub(super) struct Accepting {
    listener: RefCell<Arc<Listener>>,
    /// As bound.
    pub(super) address: Address,
    stopped: Cell<bool>,
    task: OnceCell<Waiter>,
}

impl Accepting {
    pub(super) fn new(listener: Arc<Listener>, address: Address) -> Accepting {
        Accepting { listener: RefCell::new(listener), address, stopped: Cell::new(false), task: OnceCell::new() }
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
        self.listener.replace(Arc::clone(listener));
    }

    /// Takes what waits in the kernel's queue, and closes the socket.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.task.get().into_iter().for_each(Waiter::wake);
    }
}
