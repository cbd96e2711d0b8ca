//! Lingering close: a rejected client reads why before its connection is closed.

use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use super::peek::write_all;
use crate::relay::Stream;
use crate::worker::{self, poll_fn};

/// Time and bytes that the client has to read and close.
#[derive(Clone, Copy, Debug)]
pub(super) struct LingerLimit {
    time: Duration,
    /// Bytes of input that are discarded.
    max_bytes: usize,
}

impl LingerLimit {
    /// For a client that has sent little.
    pub(super) const SHORT: LingerLimit = LingerLimit { time: Duration::from_secs(1), max_bytes: 64 * 1024 };
    /// For a client that may be sending much, and reads the answer only after that.
    pub(super) const LONG: LingerLimit = LingerLimit { time: Duration::from_secs(5), max_bytes: 64 * 1024 * 1024 };
}

/// Bytes read before the other connections of the worker get their turn.
const TURN: usize = 256 * 1024;

/// Sends `message` and FIN, and discards input until the client has closed. Closing at once would reset a connection with unread
/// input, and a reset overtakes the message.
pub(super) async fn lingering_close(stream: &impl Stream, message: &[u8], limit: LingerLimit) {
    let saying = async {
        write_all(stream, message).await?;
        poll_fn(|_| stream.poll_shutdown(false)).await?;
        let mut left = limit.max_bytes;
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
    // The connection is closed next, also after an error.
    let _ = worker::until(Some(worker::now() + limit.time), saying).await;
}
