//! The clients.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use hdrhistogram::Histogram;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::hub::{ANSWER, Hub, STREAM, Side, broken, token};
use super::tls::{Connector, Heard, Stream};
use crate::http::{REQUEST, ResponseReader};
use crate::result::Handshakes;
use crate::scenario::Shape;
use crate::sock::{self, EventFlags};

/// Connections that may be waiting for their first answer while others are being opened: below any backlog.
const OPENING: usize = 64;

/// All clients, and what they saw.
pub(crate) struct Clients {
    targets: Vec<SocketAddrV4>,
    slots: Vec<Client>,
    /// For one answer, and for a stream.
    requests: [Vec<u8>; 2],
    /// Nanoseconds are counted from here.
    epoch: Instant,
    /// How many are to be opened, of all slots.
    wanted: usize,
    started: usize,
    /// Those that had their first answer.
    pub(crate) up: usize,
    open: usize,
    /// The measured window, in nanoseconds.
    pub(crate) window: (u64, u64),
    /// Completed in the window.
    pub(crate) operations: u64,
    /// Of operations in the window, in nanoseconds.
    pub(crate) histogram: Histogram<u64>,
    schedule: Option<Schedule>,
    /// Slots of newcomers that were used, behind those of the others.
    newcomers: usize,
    /// How long newcomers waited for their answer, in nanoseconds.
    pub(crate) waits: Vec<u64>,
    /// Newcomers that have their answer.
    answered: usize,
    /// Of scenarios with TLS.
    connector: Option<Connector>,
}

/// Fixed points in time, dealt to the connections in turn.
struct Schedule {
    start: u64,
    interval: u64,
    connections: usize,
    /// Points that have come.
    issued: u64,
}

#[derive(Default)]
struct Client {
    socket: Option<OwnedFd>,
    tls: Option<Box<Stream>>,
    /// Of scenarios with HTTP.
    http: Option<ResponseReader>,
    /// Streams instead of asking.
    bulk: bool,
    /// Asks once and then holds the connection.
    newcomer: bool,
    up: bool,
    /// A request is under way.
    busy: bool,
    sent: usize,
    got: usize,
    /// When the request was begun, or was due.
    since: u64,
    /// Requests that are due and wait for the one under way.
    due: u64,
    /// Requests that were begun on schedule.
    begun: u64,
    /// We have finished sending.
    ended: bool,
    /// In the hub's queue.
    queued: bool,
}

impl Clients {
    /// None of them is connected yet.
    pub(crate) fn new(hub: &Hub, targets: Vec<SocketAddrV4>, connector: Option<Connector>) -> io::Result<Clients> {
        let asking = if hub.scenario.shape == Shape::Bulk { 0 } else { hub.scenario.connections };
        let total = hub.scenario.connections + hub.scenario.beside;
        let mut slots: Vec<Client> =
            (0..total).map(|index| Client { bulk: index >= asking, ..Client::default() }).collect();
        slots.extend((0..hub.scenario.newcomers()).map(|_| Client { newcomer: true, ..Client::default() }));
        let requests = [ANSWER, STREAM].map(|kind| match hub.scenario.http {
            Some(_) => REQUEST.as_bytes().to_vec(),
            None => {
                let mut request = vec![0; hub.scenario.request];
                request[0] = kind;
                request
            }
        });
        // A minute is longer than any run; what is slower is counted as that.
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?;
        Ok(Clients {
            targets,
            slots,
            requests,
            epoch: Instant::now(),
            wanted: total,
            started: 0,
            up: 0,
            open: 0,
            window: (u64::MAX, u64::MAX),
            operations: 0,
            histogram,
            schedule: None,
            newcomers: 0,
            waits: Vec::with_capacity(hub.scenario.newcomers()),
            answered: 0,
            connector,
        })
    }

    /// Nanoseconds since the load began.
    pub(crate) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// TLS handshakes so far.
    pub(crate) fn handshakes(&self) -> Option<Handshakes> {
        self.connector.as_ref().map(|connector| connector.handshakes)
    }

    /// Opens connections until there are so many; they come up as others do.
    pub(crate) fn open_up_to(&mut self, hub: &mut Hub, count: usize) -> io::Result<()> {
        self.wanted = count.min(self.slots.len() - hub.scenario.newcomers());
        while self.started < self.wanted && self.started - self.up < OPENING {
            let index = self.started;
            self.started += 1;
            self.connect(hub, index)?;
        }
        Ok(())
    }

    /// Connects this many newcomers.
    pub(crate) fn add_newcomers(&mut self, hub: &mut Hub, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let index = self.slots.len() - hub.scenario.newcomers() + self.newcomers;
            self.newcomers += 1;
            self.connect(hub, index)?;
        }
        Ok(())
    }

    /// Whether all of them have their answer.
    pub(crate) fn newcomers_are_up(&self) -> bool {
        self.answered == self.newcomers
    }

    /// Whether all that are wanted are up.
    pub(crate) fn all_up(&self) -> bool {
        self.up == self.wanted
    }

    /// From now on requests are due.
    pub(crate) fn start_schedule(&mut self, hub: &Hub) {
        let interval = 1_000_000_000 / hub.scenario.rate.max(1);
        self.schedule =
            Some(Schedule { start: self.now(), interval, connections: hub.scenario.connections, issued: 0 });
    }

    /// Begins the requests that have become due.
    pub(crate) fn tick(&mut self, hub: &mut Hub) -> io::Result<()> {
        if hub.stopping || self.schedule.is_none() {
            return Ok(());
        }
        let now = self.now();
        while let Some(schedule) = &mut self.schedule
            && schedule.start + schedule.issued * schedule.interval <= now
        {
            let index = (schedule.issued % schedule.connections as u64) as usize;
            schedule.issued += 1;
            self.slots[index].due += 1;
            if !self.slots[index].busy {
                self.ask_due(hub, index)?;
            }
        }
        Ok(())
    }

    fn ask_due(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let Some(schedule) = &self.schedule else { return Ok(()) };
        let slot = &mut self.slots[index];
        // Counted from when it was due: what a slow answer holds back behind it is part of what it costs.
        let point = index as u64 + slot.begun * schedule.connections as u64;
        let since = schedule.start + point * schedule.interval;
        slot.due -= 1;
        slot.begun += 1;
        self.ask(hub, index, since)
    }

    fn connect(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let since = self.now();
        let socket = sock::connect(self.targets[index % self.targets.len()])?;
        let tls = self.connector.as_ref().map(Connector::open).transpose()?.map(Box::new);
        let slot = &mut self.slots[index];
        *slot = Client {
            socket: Some(socket),
            tls,
            http: hub.scenario.http.map(|_| ResponseReader::default()),
            bulk: slot.bulk,
            newcomer: slot.newcomer,
            up: slot.up,
            ..Client::default()
        };
        self.open += 1;
        // On the loopback the connection is usually established by now: one wake-up less.
        self.ask(hub, index, since)?;
        let slot = &self.slots[index];
        if let Some(socket) = &slot.socket {
            let flags = EventFlags::IN | EventFlags::RDHUP;
            let flushed = slot.tls.as_ref().map_or(slot.sent == hub.scenario.request, |tls| tls.is_flushed());
            let flags = if flushed { flags } else { flags | EventFlags::OUT };
            hub.epoll.add(socket, token(Side::Client, index), flags)?;
        }
        Ok(())
    }

    /// Begins a request.
    fn ask(&mut self, hub: &mut Hub, index: usize, since: u64) -> io::Result<()> {
        let slot = &mut self.slots[index];
        (slot.busy, slot.sent, slot.got, slot.since) = (true, 0, 0, since);
        self.send(hub, index)
    }

    fn send(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return Ok(()) };
        let rest = &self.requests[usize::from(slot.bulk)][slot.sent..];
        let sent = match &mut slot.tls {
            Some(tls) => tls.send(socket, rest)?,
            None => sock::ready(rustix::net::send(socket, rest, SendFlags::NOSIGNAL))?,
        };
        if let Some(sent) = sent {
            slot.sent += sent;
            hub.ledger.requests_sent += sent as u64;
        }
        Ok(())
    }

    /// Something happened to a connection.
    pub(crate) fn event(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        if slot.socket.is_none() {
            return Ok(());
        }
        if slot.busy && slot.sent < hub.scenario.request {
            let handshake = slot.tls.is_some();
            self.send(hub, index)?;
            return if handshake { self.receive(hub, index) } else { Ok(()) };
        }
        if !slot.bulk {
            return self.receive(hub, index);
        }
        slot.queue(hub, index);
        Ok(())
    }

    fn receive(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        loop {
            let slot = &mut self.slots[index];
            // Room for more than an answer, so that a byte too many is seen.
            let Some(heard) = slot.hear(&mut hub.scratch, hub.scenario.answer)? else { return Ok(()) };
            if heard.end {
                return self.ended(hub, index);
            }
            hub.ledger.answers_received += heard.bytes as u64;
            slot.got += heard.bytes;
            if heard.established {
                self.established(hub, index)?;
                if self.slots[index].bulk {
                    self.slots[index].queue(hub, index);
                    return Ok(());
                }
                continue;
            }
            if heard.bytes == 0 {
                // What TLS says for itself, or a head.
                continue;
            }
            if !slot.busy || slot.got > hub.scenario.answer {
                return broken(format!("a client received {} bytes of an answer of {}", slot.got, hub.scenario.answer));
            }
            // A short connection is complete once its end was seen, too.
            if slot.got == hub.scenario.answer && hub.scenario.shape != Shape::Short {
                return self.complete(hub, index);
            }
        }
    }

    /// A TLS handshake has completed: now the request can be sent.
    fn established(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &self.slots[index];
        if let (Some(connector), Some(tls)) = (&mut self.connector, &slot.tls) {
            connector.completed(tls, !slot.up)?;
        }
        self.send(hub, index)
    }

    /// The other side has finished.
    fn ended(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        let short = hub.scenario.shape == Shape::Short && !slot.bulk;
        if short && slot.got == hub.scenario.answer {
            slot.socket = None;
            self.open -= 1;
            return self.complete(hub, index);
        }
        if !(slot.ended || slot.bulk && hub.stopping) {
            return broken(format!("a client saw the end after {} bytes of {}", slot.got, hub.scenario.answer));
        }
        slot.socket = None;
        self.open -= 1;
        Ok(())
    }

    fn complete(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let now = self.now();
        let slot = &mut self.slots[index];
        slot.busy = false;
        if slot.newcomer {
            self.answered += 1;
            self.waits.push(now.saturating_sub(slot.since));
            return if hub.stopping { self.finish(index) } else { Ok(()) };
        }
        if !slot.up {
            self.came_up(hub, index)?;
        } else {
            // At a fixed rate a request belongs to the window in which it was due, also if its answer comes
            // after it; otherwise to the one in which it was answered.
            let counts = if self.schedule.is_some() { slot.since } else { now };
            if (self.window.0..self.window.1).contains(&counts) {
                self.operations += 1;
                self.histogram.saturating_record(now.saturating_sub(slot.since).max(1));
            }
        }
        match hub.scenario.shape {
            Shape::Short if hub.stopping => Ok(()),
            Shape::Short => self.connect(hub, index),
            Shape::Closed | Shape::Newcomers if !hub.stopping => self.ask(hub, index, now),
            _ if self.slots[index].due > 0 => self.ask_due(hub, index),
            _ if hub.stopping => self.finish(index),
            _ => Ok(()),
        }
    }

    fn came_up(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        self.slots[index].up = true;
        self.up += 1;
        self.open_up_to(hub, self.wanted)
    }

    /// One turn of a stream.
    pub(crate) fn stream(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        slot.queued = false;
        let chunk = (4 * hub.chunk).min(hub.scratch.len());
        match slot.hear(&mut hub.scratch[..chunk], hub.scenario.answer)? {
            None => Ok(()),
            Some(heard) if heard.end => self.ended(hub, index),
            Some(heard) => {
                hub.ledger.answers_received += heard.bytes as u64;
                slot.got += heard.bytes;
                slot.queue(hub, index);
                if !slot.up && slot.got > 0 {
                    self.came_up(hub, index)?;
                }
                Ok(())
            }
        }
    }

    /// Ends all connections that have nothing under way; the others follow.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if !slot.bulk && !slot.busy && slot.due == 0 {
                self.finish(index)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        if let Some(socket) = &slot.socket {
            slot.ended = true;
            if let Some(tls) = &mut slot.tls {
                tls.finish(socket)?;
            }
            rustix::net::shutdown(socket, Shutdown::Write)?;
        }
        Ok(())
    }
}

impl Client {
    /// Reads once and discards what came: in the kernel, because what is measured is the balancer, and its load
    /// must not be what is slow; or, over TLS, once it is decrypted; or, of HTTP, once the head is read. `None`:
    /// there is nothing yet.
    fn hear(&mut self, scratch: &mut [u8], answer: usize) -> io::Result<Option<Heard>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        if let Some(tls) = &mut self.tls {
            return tls.receive(socket, scratch);
        }
        let flags = match &self.http {
            Some(http) if !http.in_body() => RecvFlags::empty(),
            _ => RecvFlags::TRUNC,
        };
        let Some((_, received)) = sock::ready(rustix::net::recv(socket, &mut scratch[..], flags))? else {
            return Ok(None);
        };
        let bytes = match &mut self.http {
            Some(http) if http.in_body() => http.add_body(received).map(|()| received)?,
            Some(http) => http.add(&scratch[..received], answer)?,
            None => received,
        };
        Ok(Some(Heard { bytes, end: received == 0, established: false }))
    }

    /// Its stream can go on.
    fn queue(&mut self, hub: &mut Hub, index: usize) {
        if !self.queued {
            self.queued = true;
            hub.streams.push_back(token(Side::Client, index));
        }
    }
}
