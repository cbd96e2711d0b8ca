//! The backends: they read a request of the scenario's length and answer it, or stream.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::hub::{Hub, STREAM, Side, broken, token};
use crate::http::{self, Head};
use crate::scenario::Shape;
use crate::sock::{self, EventFlags};

/// All backends' listening sockets and connections.
pub(crate) struct Backends {
    listeners: Vec<OwnedFd>,
    slots: Vec<Backend>,
    free: Vec<usize>,
    /// Connections that were accepted.
    accepted: u64,
    /// Requests that were answered.
    pub(crate) answered: u64,
}

#[derive(Default)]
struct Backend {
    socket: Option<OwnedFd>,
    /// Of the request that is being read.
    got: usize,
    /// Of the HTTP request that is being read.
    head: Head,
    /// Of the answer that is being sent.
    owed: usize,
    streams: bool,
    /// In the hub's queue.
    queued: bool,
}

impl Backends {
    /// Listens on all addresses.
    pub(crate) fn new(hub: &Hub, addresses: &[SocketAddrV4]) -> io::Result<Backends> {
        // Some more than clients: a closed connection's slot is only free once its end was seen.
        let mut count = 2 * (hub.scenario.connections + hub.scenario.beside) + hub.scenario.newcomers() + 64;
        if hub.scenario.http.is_some() {
            // Each backend may have, or keep, as many connections as there are requests at once.
            count *= addresses.len();
        }
        let mut listeners = Vec::with_capacity(addresses.len());
        for (index, &address) in addresses.iter().enumerate() {
            let listener = sock::listen(address)?;
            hub.epoll.add(&listener, token(Side::Listener, index), EventFlags::IN)?;
            listeners.push(listener);
        }
        let slots = (0..count).map(|_| Backend::default()).collect();
        Ok(Backends { listeners, slots, free: (0..count).rev().collect(), accepted: 0, answered: 0 })
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes all connections that wait.
    pub(crate) fn accept(&mut self, hub: &mut Hub, listener: usize) -> io::Result<()> {
        while let Some(socket) = sock::accept(&self.listeners[listener])? {
            let Some(index) = self.free.pop() else {
                return broken("more connections reached backends than were opened");
            };
            self.accepted += 1;
            self.slots[index] = Backend { socket: Some(socket), ..Backend::default() };
            self.serve(hub, index)?;
            // A short connection whose request was already there is answered and closed without ever having
            // been registered. Registering reports what came meanwhile.
            if let Some(socket) = &self.slots[index].socket {
                let flags = EventFlags::IN | EventFlags::RDHUP;
                let flags = if hub.scenario.shape == Shape::Short { flags } else { flags | EventFlags::OUT };
                hub.epoll.add(socket, token(Side::Backend, index), flags)?;
            }
        }
        Ok(())
    }

    /// Something happened to a connection.
    pub(crate) fn event(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        if !slot.streams {
            return self.serve(hub, index);
        }
        if !slot.queued {
            slot.queued = true;
            hub.streams.push_back(token(Side::Backend, index));
        }
        Ok(())
    }

    /// Reads a request and answers it.
    fn serve(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return Ok(()) };
        loop {
            if slot.owed > 0 {
                let rest = &hub.payload[hub.answer - slot.owed..hub.answer];
                let Some(sent) = sock::ready(rustix::net::send(socket, rest, SendFlags::NOSIGNAL))? else {
                    return Ok(());
                };
                // A head is not counted: balancers write their own.
                let body = hub.scenario.answer;
                hub.ledger.answers_sent += (slot.owed.min(body) - (slot.owed - sent).min(body)) as u64;
                slot.owed -= sent;
                if slot.owed > 0 {
                    continue;
                }
                self.answered += 1;
                if hub.scenario.shape == Shape::Short {
                    // The backend closes first. TIME_WAIT then stays on accepted sockets, here and at the
                    // balancer's listener, where it takes no port: tens of thousands of connections a second
                    // never run out of them, and connect(2) never has to search among ports that are taken.
                    return self.close(index);
                }
                // Whatever comes next is a new edge: there is no need to read until it would block.
                return Ok(());
            }
            // Room for more than a request, so that a byte too many is seen.
            let received = rustix::net::recv(socket, &mut hub.scratch[..http::MAX_HEAD], RecvFlags::empty());
            // HAProxy resets connections that it no longer keeps.
            if received == Err(Errno::CONNRESET) && hub.scenario.http.is_some() && slot.head.is_empty() {
                return self.close(index);
            }
            let Some((_, received)) = sock::ready(received)? else { return Ok(()) };
            if received == 0 {
                if slot.got > 0 || !slot.head.is_empty() {
                    return broken(format!("a backend saw the end after {} bytes of a request", slot.got));
                }
                return self.close(index);
            }
            if hub.scenario.http.is_some() {
                if slot.head.add(&hub.scratch[..received], |head, rest| request(head, rest, hub.forwarded))?.is_some() {
                    // As long as it was when the client sent it.
                    hub.ledger.requests_received += hub.scenario.request as u64;
                    slot.owed = hub.answer;
                }
                continue;
            }
            hub.ledger.requests_received += received as u64;
            let kind = hub.scratch[0];
            if slot.got == 0 && kind == STREAM {
                slot.streams = true;
            }
            slot.got += received;
            if slot.got > hub.scenario.request {
                return broken(format!(
                    "a backend received {} bytes of a request of {}",
                    slot.got, hub.scenario.request
                ));
            }
            if slot.got == hub.scenario.request {
                slot.got = 0;
                if slot.streams {
                    slot.queued = true;
                    hub.streams.push_back(token(Side::Backend, index));
                    return Ok(());
                }
                slot.owed = hub.answer;
            }
        }
    }

    /// One turn of a stream.
    pub(crate) fn stream(&mut self, hub: &mut Hub, index: usize) -> io::Result<()> {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return Ok(()) };
        slot.queued = false;
        if hub.stopping {
            slot.streams = false;
            rustix::net::shutdown(socket, Shutdown::Write)?;
            return self.serve(hub, index);
        }
        if let Some(sent) = sock::ready(rustix::net::send(socket, &hub.payload[..hub.chunk], SendFlags::NOSIGNAL))? {
            hub.ledger.answers_sent += sent as u64;
            slot.queued = true;
            hub.streams.push_back(token(Side::Backend, index));
        }
        Ok(())
    }

    /// Closes the connections that a balancer keeps, when there are no more clients.
    pub(crate) fn close_kept(&mut self, hub: &mut Hub) -> io::Result<()> {
        // Two accepted connections in ten requests are far more than balancers that keep them need.
        if self.accepted > 64 + self.answered / 5 {
            return broken(format!(
                "backends' connections were not kept: {} for {} requests",
                self.accepted, self.answered
            ));
        }
        for index in 0..self.slots.len() {
            if self.slots[index].socket.is_none() {
                continue;
            }
            // What came unasked is an error, and the end may have come already.
            self.serve(hub, index)?;
            if self.slots[index].owed > 0 {
                return broken("a backend still has to answer when there are no more clients");
            }
            if self.slots[index].socket.is_some() {
                self.close(index)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, index: usize) -> io::Result<()> {
        self.slots[index].socket = None;
        self.free.push(index);
        Ok(())
    }
}

/// Looks at the head of a request, and at how much follows it.
fn request(head: &[u8], rest: usize, forwarded: bool) -> io::Result<()> {
    let complete = head.starts_with(b"GET ") && rest == 0;
    if !complete || forwarded && http::field(head, "x-forwarded-for").is_none() {
        return broken(format!("a backend received {:?} and {rest} bytes", String::from_utf8_lossy(head)));
    }
    Ok(())
}
