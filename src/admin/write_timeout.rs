//! A stream whose other side may be slow, but not for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long nothing at all may be taken of what is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Ends with an error once its reader has taken nothing for [`WRITE_TIMEOUT`].
pub(super) struct WriteTimeout<S> {
    stream: S,
    /// Runs while a write waits.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S) -> WriteTimeout<S> {
        WriteTimeout { stream, limit: None }
    }

    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.limit = None;
            return written;
        }
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(limit.as_mut().poll(cx));
        limit.as_mut().reset(Instant::now() + WRITE_TIMEOUT);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_but_not_for_ever() {
        let (near, mut far) = duplex(10);
        let mut near = WriteTimeout::new(near);
        let write = tokio::spawn(async move { near.write_all(&[7; 100]).await });
        // One byte within each span is enough.
        for _ in 0..90 {
            sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
            assert_eq!(far.read_u8().await.unwrap(), 7);
        }
        assert!(write.await.unwrap().is_ok());

        let (near, far) = duplex(10);
        let mut near = WriteTimeout::new(near);
        let began = Instant::now();
        assert_eq!(near.write_all(&[7; 100]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), WRITE_TIMEOUT);
        drop(far);
    }
}
