//! Waiting in a pool's queue for a backend.

use std::task::Poll;
use std::time::{Duration, Instant};

use super::super::upstream::Origin;
use super::failure::Attempts;
use crate::pool::{Lease, NotQueued, Pool, QueueSlot};
use crate::worker::{self, poll_fn};

/// Pause after all backends that are up could not be reached. It doubles up to [`RETRY_MAX`]: until a health check notices, each
/// waiting connection tries them at this pace.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// One connection's wait, over all its tries.
pub(super) struct QueueWait<'p> {
    pool: &'p Pool,
    place: Option<QueueSlot<'p>>,
    deadline: Instant,
    pause: Duration,
}

/// Why there is no lease after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueueEnd {
    /// The pool has no queue.
    NoQueue,
    /// As many wait as may.
    Full,
    /// It was too long.
    TimedOut(Duration),
    /// The client has left.
    ClientLeft,
}

impl<'p> QueueWait<'p> {
    pub(super) fn new(pool: &'p Pool) -> QueueWait<'p> {
        QueueWait { pool, place: None, deadline: worker::now(), pause: RETRY_MIN }
    }

    /// Waits for a lease: behind all who came before, and after a pause where backends were there and could not be reached.
    ///
    /// While it waits, a client's FIN counts as its end, as with HAProxy's abortonclose: one that gives up looks the same as one that
    /// has sent its request and waits for the answer, and is the common case when backends are down.
    pub(super) async fn lease(
        &mut self,
        origin: &Origin<'_>,
        attempts: &mut Attempts,
        unreachable: bool,
    ) -> Result<Lease, QueueEnd> {
        let QueueWait { pool, place, deadline, pause } = self;
        let place = match place {
            Some(place) => place,
            None => {
                let new = pool.enqueue().map_err(|why| match why {
                    NotQueued::NoQueue => QueueEnd::NoQueue,
                    NotQueued::Full => QueueEnd::Full,
                })?;
                attempts.queued(new.behind());
                *deadline = worker::now() + new.timeout();
                place.insert(new)
            }
        };
        let began = Instant::now();
        let (until, timeout) = (*deadline, place.timeout());
        let retry_at = unreachable.then(|| worker::now() + *pause);
        let wait = async {
            if let Some(at) = retry_at {
                place.step_aside();
                worker::sleep_until(at).await;
            }
            poll_fn(|cx| place.poll_lease(cx.waker(), origin.address.ip())).await
        };
        let mut wait = std::pin::pin!(worker::until(Some(until), wait));
        let outcome = poll_fn(|cx| {
            if !origin.is_stream && origin.client.poll_finished().is_ready() {
                return Poll::Ready(Err(QueueEnd::ClientLeft));
            }
            wait.as_mut().poll(cx).map(|lease| lease.ok_or(QueueEnd::TimedOut(timeout)))
        })
        .await;
        if unreachable {
            *pause = (*pause * 2).min(RETRY_MAX);
        }
        attempts.waited(began.elapsed());
        if let Err(QueueEnd::TimedOut(_)) = outcome {
            pool.record_queue_timeout();
        }
        outcome
    }
}
