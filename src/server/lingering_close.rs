//! The last words to a client that is refused.

use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use super::peek::write_all;
use crate::relay::Stream;
use crate::worker::{self, poll_fn};

/// What the client is granted to read them.
#[derive(Clone, Copy, Debug)]
pub(super) struct LingerLimit {
    time: Duration,
    /// Bytes that are read meanwhile.
    at_most: usize,
}

impl LingerLimit {
    /// For one that has said little.
    pub(super) const SHORT: LingerLimit = LingerLimit { time: Duration::from_secs(1), at_most: 64 * 1024 };
    /// For one that may be sending much, and may look for an answer only behind that.
    pub(super) const LONG: LingerLimit = LingerLimit { time: Duration::from_secs(5), at_most: 64 * 1024 * 1024 };
}

/// Bytes read before the other connections of the worker get their turn.
const TURN: usize = 256 * 1024;

/// Tells the client why, and waits for a moment until it has closed. Closing at once would reset the connection if
/// the client has sent something that nobody has read, and a reset overtakes the words.
pub(super) async fn lingering_close(stream: &impl Stream, words: &[u8], patience: LingerLimit) {
    let saying = async {
        write_all(stream, words).await?;
        poll_fn(|_| stream.poll_shutdown(false)).await?;
        let mut left = patience.at_most;
        poll_fn(|_| {
            let mut discarded = [0; 4096];
            let mut turn = TURN;
            while turn > 0 {
                match ready!(stream.poll_read(&mut discarded)) {
                    Ok(count) if count > 0 && left > count => left -= count,
                    _ => return Poll::Ready(io::Result::Ok(())),
                }
                turn = turn.saturating_sub(discarded.len());
            }
            worker::reschedule();
            Poll::Pending
        })
        .await
    };
    // It is closed next, whatever became of it.
    let _ = worker::until(Some(worker::now() + patience.time), saying).await;
}
