//! What a worker lends to the directions it drives: one scratch buffer, pipes for splice(2), and a clock.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Read by all directions of a worker in turn; the largest [`Stream::chunk`](super::Stream::chunk).
const SCRATCH: usize = 64 * 1024;
/// The most that is spliced into a pipe, and the size that is asked for: four times that of a new one halves what a
/// bulk costs. Whoever may not have it (pipe(7), pipe-user-pages-soft) splices less at a time.
pub(super) const PIPE_SIZE: usize = 256 * 1024;
/// Pipes of a worker. A pipe is lent only while bytes are in it, so that many connections have to have a
/// receiver that cannot keep up before the next one copies instead. All of them stay below the 1,024 after
/// which Linux makes the pipes of an unprivileged user small (pipe(7), pipe-user-pages-soft).
pub const MAX_PIPES: usize = 64;

/// A worker's scratch buffer, pipes and clock.
#[derive(Debug)]
pub struct Tools {
    scratch: Box<[u8]>,
    idle: Vec<Pipe>,
    /// Pipes that exist, idle or lent.
    count: Rc<Cell<usize>>,
    clock: Option<fn() -> Instant>,
    /// When the last write began that is timed.
    writing: Option<Instant>,
}

impl Default for Tools {
    fn default() -> Tools {
        Tools { scratch: vec![0; SCRATCH].into(), idle: Vec::new(), count: Rc::default(), clock: None, writing: None }
    }
}

impl Tools {
    /// Tools with a clock, by which turnarounds are timed.
    pub fn with_clock(clock: fn() -> Instant) -> Tools {
        Tools { clock: Some(clock), ..Tools::default() }
    }

    /// A write begins whose time matters. Before it and not after it: its bytes may be answered before it returns.
    pub(super) fn writes(&mut self) {
        self.writing = self.clock.map(|clock| clock());
    }

    /// When the last of these writes began.
    pub(super) fn last_write(&self) -> Option<Instant> {
        self.writing
    }

    pub(super) fn scratch(&mut self, size: usize) -> &mut [u8] {
        let size = size.min(self.scratch.len());
        &mut self.scratch[..size]
    }

    /// An empty pipe; `None` when too many are in use, or the process has no descriptors left for one.
    pub(super) fn lend(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.count.get() >= MAX_PIPES {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // Refused to users with many pipes; then it is smaller.
        let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
        self.count.set(self.count.get() + 1);
        Some(Pipe { read, write, _counted: Counted(Rc::clone(&self.count)) })
    }

    /// Takes back a pipe, which must be empty. One that is not is dropped by its direction instead.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.idle.push(pipe);
    }
}

#[cfg(test)]
impl Tools {
    pub(super) fn lent(&self) -> usize {
        self.count.get() - self.idle.len()
    }
}

/// A pipe lent to one direction.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pipe {
    pub(super) fn read_end(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    pub(super) fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// Takes out the `count` bytes that are in it.
    pub(super) fn drain(&self, count: usize) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match rustix::io::read(&self.read, &mut bytes[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        Ok(bytes.into())
    }
}
