//! Resources that the directions of a worker share: one scratch buffer, pipes for splice(2), and a clock.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// The largest [`Stream::chunk`](super::stream::Stream::chunk).
const SCRATCH_SIZE: usize = 64 * 1024;
/// Bytes that one direction moves until the worker's other connections run, and the size requested for a pipe. Four times
/// the default halves the CPU of a bulk transfer. Where the kernel refuses it (pipe(7), pipe-user-pages-soft), a splice
/// moves less at a time.
pub(super) const TURN_BYTES: usize = 256 * 1024;
/// The same for a direction that splices, where a worker has nothing but bulk transfers. What a stream has in its socket's buffers leaves the CPU's cache
/// in the turns of the others: 16 streams cost half as much as with turns of 256 KiB on a CPU with 1 MiB of cache.
pub(super) const LARGE_TURN_BYTES: usize = 1024 * 1024;
/// Pipes of a worker that hold a large turn. Others keep slow receivers' bytes: at 1 MiB each, that would be 64 MiB.
const LARGE_PIPES: usize = 8;
/// Pipes of a worker. A connection holds one only while bytes are in it: the next one copies once this many receivers
/// are slow. All workers' pipes stay below the 1,024 after which Linux makes those of an unprivileged user small
/// (pipe(7), pipe-user-pages-soft).
pub const MAX_PIPES: usize = 64;

/// A worker's scratch buffer, pipes and clock.
#[derive(Debug)]
pub struct RelayResources {
    scratch: Box<[u8]>,
    idle: Vec<Pipe>,
    /// Pipes that exist, idle or acquired.
    count: Rc<Cell<usize>>,
    clock: Option<fn() -> Instant>,
    /// Start of the last timed write.
    last_write: Option<Instant>,
    /// Bytes of the turn of a direction that splices.
    turn: usize,
}

impl Default for RelayResources {
    fn default() -> RelayResources {
        RelayResources {
            scratch: vec![0; SCRATCH_SIZE].into(),
            idle: Vec::new(),
            count: Rc::default(),
            clock: None,
            last_write: None,
            turn: TURN_BYTES,
        }
    }
}

impl RelayResources {
    /// Whether turns are large, as where no lighter work waits for their end.
    pub fn set_large_turns(&mut self, are_large: bool) {
        self.turn = if are_large { LARGE_TURN_BYTES } else { TURN_BYTES };
    }

    /// Bytes that a direction which splices moves in a turn.
    pub(super) fn turn(&self) -> usize {
        self.turn
    }

    /// Times turnarounds by a clock, or no longer.
    pub fn set_clock(&mut self, clock: Option<fn() -> Instant>) {
        (self.clock, self.last_write) = (clock, None);
    }

    /// Takes the time of a write that begins now: its bytes may be answered before it returns.
    pub(super) fn time_write(&mut self) {
        self.last_write = self.clock.map(|clock| clock());
    }

    /// Start of the last timed write; `None` without a clock.
    pub(super) fn last_write(&self) -> Option<Instant> {
        self.last_write
    }

    pub(super) fn scratch(&mut self, size: usize) -> &mut [u8] {
        let size = size.min(self.scratch.len());
        &mut self.scratch[..size]
    }

    /// An empty pipe; `None` at [`MAX_PIPES`], or when the process has no descriptors left.
    pub(super) fn acquire(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.count.get() >= MAX_PIPES {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // Refused to users with many pipes, whose pipe stays smaller.
        let is_large = self.count.get() < LARGE_PIPES && fcntl_setpipe_size(&write, LARGE_TURN_BYTES).is_ok();
        if !is_large {
            let _ = fcntl_setpipe_size(&write, TURN_BYTES);
        }
        self.count.set(self.count.get() + 1);
        Some(Pipe { read, write, _counted: Counted(Rc::clone(&self.count)) })
    }

    /// Takes back an empty pipe. A direction drops one that is not empty.
    pub(super) fn release(&mut self, pipe: Pipe) {
        self.idle.push(pipe);
    }
}

#[cfg(test)]
impl RelayResources {
    pub(super) fn acquired(&self) -> usize {
        self.count.get() - self.idle.len()
    }
}

/// A pipe, in use by one direction or idle.
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

    /// Reads the `count` bytes that are in it.
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
