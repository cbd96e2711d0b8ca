//! Joining the queue of a pool, and the lease at the end of the wait.

use std::net::IpAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;
use std::task::{Poll, Waker};

use super::lease::Lease;
use super::queue::QueueStatus;
use super::{Excluded, Pool};

impl Pool {
    /// A place in the pool's queue; `None` if it has no queue, or that is full.
    pub fn enqueue(&self) -> Option<QueueSlot<'_>> {
        let size = self.snapshot.load().settings.queue.size;
        self.queue().enter(size).map(|ticket| QueueSlot { pool: self, ticket })
    }

    /// How its queue stands.
    pub fn queue_status(&self) -> QueueStatus {
        self.queue().status()
    }

    /// A connection has waited for `queue.timeout` in vain.
    pub fn record_queue_timeout(&self) {
        self.queue().timed_out();
    }
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub struct QueueSlot<'p> {
    pool: &'p Pool,
    ticket: u64,
}

impl QueueSlot<'_> {
    /// A lease, once it is this connection's turn and a backend can take it. `waker` is woken when it is worth another look.
    pub fn poll_lease(&self, waker: &Waker, client: Option<IpAddr>) -> Poll<Lease> {
        let QueueSlot { pool, ticket } = self;
        if !pool.queue().is_turn_of(*ticket, waker, pool.parts_with_room()) {
            return Poll::Pending;
        }
        fence(SeqCst);
        match pool.take_lease(client, &Excluded::new()) {
            Ok(lease) => {
                pool.queue().served(*ticket);
                Poll::Ready(lease)
            }
            Err(_) => Poll::Pending,
        }
    }

    /// Leaves the line for a while, and keeps the place in it: a backend was there, and could not be reached.
    pub fn step_aside(&self) {
        self.pool.queue().step_aside(self.ticket);
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.pool.queue().leave(self.ticket);
    }
}
