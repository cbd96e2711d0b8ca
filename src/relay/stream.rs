//! What a relay knows of a socket.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::Poll;

/// One side of a relayed pair: a socket, or a layer over one.
///
/// A method that is pending registers the future that is polled as the waiter of the socket, which wakes it at the next
/// event in either direction.
pub trait Stream {
    /// Preferred size of a read or write in bytes; at most 64 KiB.
    fn chunk(&self) -> usize;
    /// Whether bytes may pass by splice(2).
    fn can_splice(&self) -> bool;
    /// Reads; `Ok(0)` is FIN.
    fn poll_read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Accepts bytes to write. A layer may hold back what its socket has no room for; it accepts no more until
    /// [`Stream::poll_flush`] is ready.
    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Ready once no accepted byte is held back, or the connection is gone.
    fn poll_flush(&self) -> Poll<io::Result<()>>;
    /// Moves up to `limit` bytes into `pipe`, which is empty.
    fn poll_splice_from(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>>;
    /// Moves up to `limit` bytes out of `pipe`.
    fn poll_splice_to(&self, pipe: BorrowedFd<'_>, limit: usize) -> Poll<io::Result<usize>>;
    /// Ready once the peer has reset the connection.
    fn poll_reset(&self) -> Poll<()>;
    /// Sends FIN, after all accepted bytes. With `last`, the close that follows sends the socket's own.
    ///
    /// # Errors
    /// The connection is gone.
    fn poll_shutdown(&self, last: bool) -> Poll<io::Result<()>>;
    /// Sends FIN without the layer's own end: a truncated stream must not look complete.
    ///
    /// # Errors
    /// The connection is gone.
    fn poll_truncate(&self, last: bool) -> Poll<io::Result<()>> {
        self.poll_shutdown(last)
    }
    /// Whether the peer sent FIN without the layer's own end: the stream may be truncated.
    fn is_truncated(&self) -> bool {
        false
    }
    /// Accepted bytes that the peer has not acknowledged.
    fn unacknowledged(&self) -> usize;
    /// Makes the close a RST.
    fn reset_on_close(&self);
}
