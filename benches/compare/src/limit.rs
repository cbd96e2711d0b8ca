//! The yardstick: a proxy that does nothing but relay. One thread, one epoll, edge-triggered; no limits, no
//! timeouts, no statistics, no names. What a real balancer costs more than this is what its features cost.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::sock::{self, Epoll, EventFlags, ready};

/// Read at once when copying.
const SCRATCH: usize = 64 << 10;
/// A read of this many bytes means that more will come: from then on they stay in the kernel.
const LARGE: usize = 32 << 10;
/// A turn of splicing that moved less goes back to copying.
const SMALL: usize = 16 << 10;
/// Reads of one direction in its turn.
const TURNS: usize = 4;

/// `compare limit`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddrV4,
    /// Where it connects to, in turn.
    #[arg(long, value_delimiter = ',', required = true)]
    backend: Vec<SocketAddrV4>,
    /// What a pipe holds, if the user may have that much.
    #[arg(long, default_value_t = 1 << 20)]
    pipe: usize,
    /// Datagrams instead of connections.
    #[arg(long)]
    udp: bool,
}

/// Relays until it is killed.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    if args.udp {
        return crate::udp::limit(args.listen, &args.backend);
    }
    let listener = sock::listen(args.listen)?;
    let mut epoll = Epoll::new()?;
    epoll.add(&listener, u64::MAX, EventFlags::IN)?;
    let mut pairs = Pairs::default();
    let mut tools = Tools { scratch: vec![0; SCRATCH], pipes: Vec::new(), size: args.pipe };
    let mut turn = 0;
    // Pairs with more to move than their turn allowed.
    let mut unfinished: Vec<usize> = Vec::new();
    loop {
        let wait = (!unfinished.is_empty()).then_some(std::time::Duration::ZERO);
        for index in std::mem::take(&mut unfinished) {
            drive(&mut pairs, &mut tools, index, &mut unfinished);
        }
        for event in 0..epoll.wait(wait)? {
            let (token, flags) = epoll.event(event);
            if token == u64::MAX {
                while let Some(client) = sock::accept(&listener)? {
                    let backend = sock::connect(args.backend[turn % args.backend.len()])?;
                    turn += 1;
                    pairs.add(&epoll, client, backend)?;
                }
                continue;
            }
            let (index, side) = ((token >> 1) as usize, (token & 1) as usize);
            let Some(pair) = &mut pairs.slots[index] else { continue };
            pair.ways[side].hung_up |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            pair.ways[side].readable |=
                flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            pair.ways[1 - side].writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
            drive(&mut pairs, &mut tools, index, &mut unfinished);
        }
    }
}

#[derive(Default)]
struct Pairs {
    slots: Vec<Option<Pair>>,
    free: Vec<usize>,
}

/// Two sockets; way 0 leads from the first to the second.
struct Pair {
    sockets: [OwnedFd; 2],
    ways: [Way; 2],
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Its source may have something.
    readable: bool,
    /// Its source has finished: what is left can be read to the end.
    hung_up: bool,
    /// Its target may take something.
    writable: bool,
    /// Read, not yet written. Empty, and without memory, most of the time.
    left: Vec<u8>,
    /// What comes is large: it is spliced.
    large: bool,
    /// Lent while bytes are in it, and how many.
    pipe: Option<(Pipe, usize)>,
    /// Its source has finished, and so has it.
    done: bool,
}

type Pipe = (OwnedFd, OwnedFd);

/// Shared by all pairs.
struct Tools {
    scratch: Vec<u8>,
    pipes: Vec<Pipe>,
    /// Of a pipe.
    size: usize,
}

impl Pairs {
    fn add(&mut self, epoll: &Epoll, client: OwnedFd, backend: OwnedFd) -> io::Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        epoll.add(&client, (index as u64) << 1, flags)?;
        epoll.add(&backend, (index as u64) << 1 | 1, flags)?;
        self.slots[index] = Some(Pair { sockets: [client, backend], ways: [Way::default(), Way::default()] });
        Ok(())
    }
}

/// Moves what can be moved; closes the pair when both ways are done, or one has failed.
fn drive(pairs: &mut Pairs, tools: &mut Tools, index: usize, unfinished: &mut Vec<usize>) {
    let Some(Some(pair)) = pairs.slots.get_mut(index) else { return };
    let mut more = false;
    let mut failed = false;
    for side in 0..2 {
        let (source, target) = (&pair.sockets[side], &pair.sockets[1 - side]);
        match pair.ways[side].advance(source, target, tools) {
            Ok(again) => more |= again,
            Err(_) => failed = true,
        }
    }
    if failed {
        // What one side did not get, neither side may take for complete.
        for socket in &pair.sockets {
            let _ = sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
        }
    }
    if failed || pair.ways.iter().all(|way| way.done) {
        pairs.slots[index] = None;
        pairs.free.push(index);
    } else if more {
        unfinished.push(index);
    }
}

impl Way {
    /// Returns whether there is more to do without a new event.
    fn advance(&mut self, source: &OwnedFd, target: &OwnedFd, tools: &mut Tools) -> io::Result<bool> {
        for _ in 0..TURNS {
            // Before the target is connected there is nothing to read for: it could not be passed on.
            if self.done || !self.writable {
                return Ok(false);
            }
            if !self.left.is_empty() {
                let Some(sent) = ready(rustix::net::send(target, &self.left, SendFlags::NOSIGNAL))? else {
                    self.writable = false;
                    return Ok(false);
                };
                self.left.drain(..sent);
                if self.left.is_empty() {
                    self.left = Vec::new();
                }
                continue;
            }
            let going_on = if self.large || self.pipe.is_some() {
                self.splice(source, target, tools)?
            } else {
                self.copy(source, target, tools)?
            };
            if !going_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether there may be more.
    fn copy(&mut self, source: &OwnedFd, target: &OwnedFd, tools: &mut Tools) -> io::Result<bool> {
        if !self.readable {
            return Ok(false);
        }
        let Some((_, received)) = ready(rustix::net::recv(source, &mut tools.scratch[..], RecvFlags::empty()))? else {
            self.readable = false;
            return Ok(false);
        };
        if received == 0 {
            return self.finish(target);
        }
        let sent = ready(rustix::net::send(target, &tools.scratch[..received], SendFlags::NOSIGNAL))?.unwrap_or(0);
        if sent < received {
            self.left.extend_from_slice(&tools.scratch[sent..received]);
            self.writable = false;
        }
        self.large = received >= LARGE;
        // A short read emptied the source; what comes later is a new edge. But the end may have come together
        // with the bytes, in one event.
        self.readable = received == SCRATCH || self.hung_up;
        Ok(self.readable)
    }

    /// Returns whether there may be more.
    fn splice(&mut self, source: &OwnedFd, target: &OwnedFd, tools: &mut Tools) -> io::Result<bool> {
        let (pipe, mut held) = match self.pipe.take() {
            Some(lent) => lent,
            None => (tools.pipe()?, 0),
        };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let mut ended = false;
        if self.readable {
            match ready(rustix::pipe::splice(source, None, &pipe.1, None, tools.size, flags))? {
                // Would block: because the source is empty only if the pipe is.
                None => self.readable = held > 0,
                Some(0) => ended = true,
                Some(moved) => (self.large, held) = (moved >= SMALL, held + moved),
            }
        }
        while held > 0 {
            let Some(moved) = ready(rustix::pipe::splice(&pipe.0, None, target, None, held, flags))? else {
                self.writable = false;
                self.pipe = Some((pipe, held));
                return Ok(false);
            };
            held -= moved;
        }
        tools.pipes.push(pipe);
        if ended { self.finish(target) } else { Ok(self.readable) }
    }

    fn finish(&mut self, target: &OwnedFd) -> io::Result<bool> {
        self.done = true;
        match rustix::net::shutdown(target, Shutdown::Write) {
            // The other way ended by a reset that is not read yet.
            Err(rustix::io::Errno::NOTCONN) | Ok(()) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Tools {
    fn pipe(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.pipes.pop() {
            return Ok(pipe);
        }
        let pipe = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller one is slower, not wrong.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe.0, self.size);
        Ok(pipe)
    }
}
