//! When a turnaround begins: before the write, as the answer may come before that returns.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::super::{Relay, RelayResources, Stream, Tap};
use super::model::at;

thread_local! {
    static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn clock() -> Instant {
    CLOCK.get().expect("the test has set it")
}

/// A socket with bytes to read, and on which each write takes a second.
struct Slow {
    arrived: Cell<usize>,
}

impl Stream for Slow {
    fn chunk(&self) -> usize {
        1024
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn poll_read(&self, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.arrived.take() {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        CLOCK.set(Some(clock() + Duration::from_secs(1)));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_splice_from(&self, _: BorrowedFd<'_>, _: usize) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_splice_to(&self, _: BorrowedFd<'_>, _: usize) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_reset(&self) -> Poll<()> {
        Poll::Pending
    }

    fn poll_shutdown(&self, _: bool) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn unacknowledged(&self) -> usize {
        0
    }

    fn reset_on_close(&self) {}
}

/// Sees nothing.
struct Blind;

impl Tap for Blind {
    fn skippable(&self, _: crate::stats::termination::Side) -> u64 {
        u64::MAX
    }

    fn on_bytes(&mut self, _: crate::stats::termination::Side, _: &[u8], _: Instant) {}
    fn on_spliced(&mut self, _: crate::stats::termination::Side, _: u64, _: Instant) {}
    fn on_fin(&mut self, _: crate::stats::termination::Side, _: Instant) {}
}

#[test]
fn a_turnaround_begins_before_the_write() {
    let start = Instant::now();
    CLOCK.set(Some(start));
    let (client, backend) = (Slow { arrived: Cell::new(5) }, Slow { arrived: Cell::new(0) });
    let (mut relay, mut resources) = (Relay::new(start, Vec::new()), RelayResources::default());
    resources.set_clock(Some(clock));
    relay.turn(&client, &backend, &mut resources, &mut Blind, at(start), None);
    assert_eq!(relay.take_turnaround(), None);
    // It was answered while the write went on: as its bytes had left, and its process had not come to run again.
    backend.arrived.set(7);
    let later = start + Duration::from_millis(400);
    relay.turn(&client, &backend, &mut resources, &mut Blind, at(later), None);
    assert_eq!(relay.take_turnaround(), Some(Duration::from_millis(400)));
}
