//! Joining the queue of a pool, and the lease at the end of the wait.

use std::net::IpAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::lease::Lease;
use super::queue::QueueStatus;
use super::{Excluded, Pool};
use crate::config::model::QueueConfig;

impl Pool {
    /// A place in the pool's queue.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enqueue(&self) -> Result<QueueSlot<'_>, NotQueued> {
        let QueueConfig { size, timeout } = self.snapshot.load().settings.queue;
        if size == 0 {
            return Err(NotQueued::NoQueue);
        }
        let (ticket, behind) = self.queue().enter(size).ok_or(NotQueued::Full)?;
        Ok(QueueSlot { pool: self, ticket, behind, timeout })
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

/// Why a connection cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotQueued {
    /// The pool has no queue.
    NoQueue,
    /// As many wait as may.
    Full,
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub struct QueueSlot<'p> {
    pool: &'p Pool,
    ticket: u64,
    behind: u32,
    timeout: Duration,
}

impl QueueSlot<'_> {
    /// How many had a place before it when it joined.
    pub fn behind(&self) -> u32 {
        self.behind
    }

    /// How long it may wait: `queue.timeout` when it joined.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A lease, once it is this connection's turn and a backend can take it. `waker` is woken when it is worth another look.
    pub fn poll_lease(&self, waker: &Waker, client: Option<IpAddr>) -> Poll<Lease> {
        let QueueSlot { pool, ticket, .. } = self;
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
