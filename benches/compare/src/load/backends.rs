//! The backends: they read a request of the scenario's length and answer it, or stream.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::hub::{Hub, STREAM, Side, broken, token};
use crate::scenario::Shape;
use crate::sock::{self, EventFlags};

/// All backends' listening sockets and connections.
pub(crate) struct Backends {
    listeners: Vec<OwnedFd>,
    slots: Vec<Backend>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Backend {
    socket: Option<OwnedFd>,
    /// Of the request that is being read.
    got: usize,
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
        let count = 2 * (hub.scenario.connections + hub.scenario.beside) + hub.scenario.newcomers() + 64;
        let mut listeners = Vec::with_capacity(addresses.len());
        for (index, &address) in addresses.iter().enumerate() {
            let listener = sock::listen(address)?;
            hub.epoll.add(&listener, token(Side::Listener, index), EventFlags::IN)?;
            listeners.push(listener);
        }
        let slots = (0..count).map(|_| Backend::default()).collect();
        Ok(Backends { listeners, slots, free: (0..count).rev().collect() })
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
                let Some(sent) =
                    sock::ready(rustix::net::send(socket, &hub.payload[..slot.owed], SendFlags::NOSIGNAL))?
                else {
                    return Ok(());
                };
                hub.ledger.answers_sent += sent as u64;
                slot.owed -= sent;
                if slot.owed > 0 {
                    continue;
                }
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
            let Some((_, received)) =
                sock::ready(rustix::net::recv(socket, &mut hub.scratch[..1024], RecvFlags::empty()))?
            else {
                return Ok(());
            };
            if received == 0 {
                if slot.got > 0 {
                    return broken(format!("a backend saw the end after {} bytes of a request", slot.got));
                }
                return self.close(index);
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
                slot.owed = hub.scenario.answer;
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

    fn close(&mut self, index: usize) -> io::Result<()> {
        self.slots[index].socket = None;
        self.free.push(index);
        Ok(())
    }
}
