//! A PostgreSQL CancelRequest in plain text, where sessions may not be: its own bytes go to a backend, and nothing comes
//! back.

use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use super::peek::write_all;
use super::transport::{BackendConn, ClientConn};
use crate::relay::Stream;
use crate::stats::termination::{Side, Termination};
use crate::worker::{self, poll_fn};

/// How long the backend has to close. PostgreSQL does so as soon as it has passed the request on.
const DEADLINE: Duration = Duration::from_secs(2);

/// Bytes of an answer that are discarded until the connection is closed. There is none in the protocol.
const MAX_DISCARDED: usize = 64 * 1024;

/// Forwards the request, and FIN behind it. Returns once the backend has closed, which tells a client that the request
/// was carried out: its own connection is to be closed next.
pub(super) async fn forward(request: &[u8], client: &ClientConn, backend: &BackendConn) -> Termination {
    let forwarding = async {
        write_all(backend, request).await?;
        poll_fn(|_| backend.poll_shutdown(false)).await?;
        poll_fn(|_| poll_closed(client, backend)).await
    };
    match worker::until(Some(worker::now() + DEADLINE), forwarding).await {
        Some(Ok(ending)) => ending,
        Some(Err(_)) => Termination::Reset(Side::Backend),
        None => Termination::HalfCloseTimeout,
    }
}

fn poll_closed(client: &ClientConn, backend: &BackendConn) -> Poll<io::Result<Termination>> {
    if client.poll_reset().is_ready() {
        return Poll::Ready(Ok(Termination::Reset(Side::Client)));
    }
    let mut discarded = [0; 4096];
    for _ in 0..MAX_DISCARDED / discarded.len() {
        if ready!(backend.poll_read(&mut discarded))? == 0 {
            break;
        }
    }
    Poll::Ready(Ok(Termination::Closed(Side::Client)))
}
