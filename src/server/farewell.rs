//! The last words to a client that is refused.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use super::ahead::write_all;
use crate::relay::Stream;
use crate::worker;

/// How long the client has to read them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read meanwhile.
const AT_MOST: usize = 64 * 1024;

/// Tells the client why, and waits for a moment until it has closed. Closing at once would reset the connection if
/// the client has sent something that nobody has read, and a reset overtakes the words.
pub(super) async fn farewell(stream: &impl Stream, words: &[u8]) {
    let saying = async {
        write_all(stream, words).await?;
        poll_fn(|_| stream.poll_shutdown(false)).await?;
        let mut left = AT_MOST;
        poll_fn(|_| {
            let mut discarded = [0; 4096];
            loop {
                match ready!(stream.poll_read(&mut discarded)) {
                    Ok(count) if count > 0 && left > count => left -= count,
                    _ => return Poll::Ready(io::Result::Ok(())),
                }
            }
        })
        .await
    };
    // It is closed next, whatever became of it.
    let _ = worker::until(Some(worker::now() + PATIENCE), saying).await;
}
