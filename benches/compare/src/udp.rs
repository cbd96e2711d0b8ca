//! UDP: the load's clients and backends, and the yardstick.
//!
//! A client has a socket of its own, and so is a session of the balancer's. Each datagram carries its client's count: a reply
//! that is lost, comes twice or out of order makes the run fail.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::result::Ledger;
use crate::scenario::Scenario;
use crate::sock::{self, Epoll, EventFlags};

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Room for one datagram, as long as an Ethernet frame.
const ROOM: usize = 1_500;
/// Until a datagram counts as lost.
const LOST: Duration = Duration::from_secs(2);

/// Datagrams that are under way at once. Fewer than the 277 of 64 B that a socket's receive buffer of 208 KiB, Linux' default,
/// takes: nothing may be lost.
pub(crate) fn under_way(scenario: &Scenario) -> usize {
    if scenario.connections == 1 { 16 } else { 64 }
}

/// Clients and backends in one thread.
pub(crate) struct Echo {
    epoll: Epoll,
    backends: Vec<OwnedFd>,
    clients: Vec<Client>,
    /// The client that sends next.
    next: usize,
    under_way: usize,
    stopping: bool,
    /// Replies, from the start.
    pub(crate) replies: u64,
    /// Requests, from the start.
    requests: u64,
    /// Datagrams at the backends, from the start.
    echoed: u64,
    payload: Vec<u8>,
    buffer: Vec<u8>,
    last_reply: Instant,
}

struct Client {
    socket: OwnedFd,
    sent: u64,
    received: u64,
}

impl Echo {
    /// Opens all sockets, and sends the first datagrams.
    pub(crate) fn start(scenario: &Scenario, targets: &[SocketAddrV4], backends: &[SocketAddrV4]) -> io::Result<Echo> {
        let epoll = Epoll::new()?;
        let backends = backends.iter().map(|&address| sock::bind_udp(address)).collect::<io::Result<Vec<_>>>()?;
        let clients = targets.iter().cycle().take(scenario.connections);
        let client = |&address: &SocketAddrV4| Ok(Client { socket: sock::connect_udp(address)?, sent: 0, received: 0 });
        let clients = clients.map(client).collect::<io::Result<Vec<_>>>()?;
        let sockets = backends.iter().chain(clients.iter().map(|client| &client.socket));
        for (token, socket) in sockets.enumerate() {
            epoll.add(socket, token as u64, EventFlags::IN)?;
        }
        let mut echo = Echo {
            epoll,
            backends,
            clients,
            next: 0,
            under_way: 0,
            stopping: false,
            replies: 0,
            requests: 0,
            echoed: 0,
            payload: vec![b'.'; scenario.request.max(8)],
            buffer: vec![0; ROOM],
            last_reply: Instant::now(),
        };
        for _ in 0..under_way(scenario) {
            echo.send()?;
        }
        Ok(echo)
    }

    /// Whether each client has had a reply.
    pub(crate) fn is_up(&self) -> bool {
        self.clients.iter().all(|client| client.received > 0)
    }

    /// Sends no more.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether everything was answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// Every byte.
    pub(crate) fn ledger(&self, scenario: &Scenario) -> Ledger {
        let (request, answer) = (scenario.request as u64, scenario.answer as u64);
        Ledger {
            requests_sent: self.requests * request,
            requests_received: self.echoed * request,
            answers_sent: self.echoed * answer,
            answers_received: self.replies * answer,
        }
    }

    /// Waits for events once, at most so long.
    pub(crate) fn turn(&mut self, wait: Duration) -> io::Result<()> {
        for index in 0..self.epoll.wait(Some(wait))? {
            let token = self.epoll.event(index).0 as usize;
            match token.checked_sub(self.backends.len()) {
                None => self.echo(token)?,
                Some(client) => self.receive(client)?,
            }
        }
        if self.under_way > 0 && self.last_reply.elapsed() > LOST {
            return Err(io::Error::other(format!("{} datagrams were lost", self.under_way)));
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let count = self.clients.len();
        let client = &mut self.clients[self.next];
        self.next = (self.next + 1) % count;
        self.payload[..8].copy_from_slice(&client.sent.to_le_bytes());
        rustix::net::send(&client.socket, &self.payload, SendFlags::empty())?;
        client.sent += 1;
        self.under_way += 1;
        self.requests += 1;
        Ok(())
    }

    fn echo(&mut self, backend: usize) -> io::Result<()> {
        let socket = &self.backends[backend];
        loop {
            match rustix::net::recvfrom(socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, _, Some(from))) => {
                    rustix::net::sendto(socket, &self.buffer[..self.payload.len()], SendFlags::empty(), &from)?;
                    self.echoed += 1;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Ok(_) => return Err(io::Error::other("a datagram without a sender")),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive(&mut self, client: usize) -> io::Result<()> {
        loop {
            let it = &mut self.clients[client];
            match rustix::net::recv(&it.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, count)) => {
                    let expected = it.received.to_le_bytes();
                    if count != self.payload.len() || self.buffer[..8] != expected {
                        return Err(io::Error::other("a reply was lost, came twice or out of order"));
                    }
                    it.received += 1;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            self.under_way -= 1;
            self.replies += 1;
            self.last_reply = Instant::now();
            if !self.stopping {
                self.send()?;
            }
        }
    }
}

/// The yardstick: a connected socket for each client, recvmmsg(2) and sendmmsg(2), and nothing else. No limit, no timeout, no
/// statistics.
pub(crate) fn limit(listen: SocketAddrV4, backends: &[SocketAddrV4]) -> io::Result<()> {
    let listener = sock::bind_udp(listen)?;
    let mut epoll = Epoll::new()?;
    epoll.add(&listener, u64::MAX, EventFlags::IN)?;
    let mut sessions: Vec<(OwnedFd, SockaddrIn)> = Vec::new();
    let mut known: HashMap<(u32, u16), usize> = HashMap::new();
    let (mut inward, mut outward) = (Datagrams::new(), Datagrams::new());
    let mut by_session: VecDeque<(usize, usize)> = VecDeque::with_capacity(BATCH);
    loop {
        for index in 0..epoll.wait(None)? {
            let (token, _) = epoll.event(index);
            if token != u64::MAX {
                let (socket, client) = &sessions[token as usize];
                while let Some(count) = outward.receive(socket)? {
                    outward.send(&listener, (0..count).collect::<Vec<_>>().as_slice(), Some(*client))?;
                    if count < BATCH {
                        break;
                    }
                }
                continue;
            }
            while let Some(count) = inward.receive(&listener)? {
                by_session.clear();
                for datagram in 0..count {
                    let Some(client) = inward.from[datagram] else { continue };
                    let key = (u32::from(client.ip()), client.port());
                    let session = match known.get(&key) {
                        Some(&session) => session,
                        None => {
                            let socket = sock::connect_udp(backends[sessions.len() % backends.len()])?;
                            epoll.add(&socket, sessions.len() as u64, EventFlags::IN)?;
                            sessions.push((socket, client));
                            known.insert(key, sessions.len() - 1);
                            sessions.len() - 1
                        }
                    };
                    by_session.push_back((session, datagram));
                }
                // Those of one session that follow each other in one system call.
                let mut train = Vec::with_capacity(BATCH);
                while let Some((session, datagram)) = by_session.pop_front() {
                    train.push(datagram);
                    if by_session.front().is_none_or(|&(next, _)| next != session) {
                        inward.send(&sessions[session].0, &train, None)?;
                        train.clear();
                    }
                }
                if count < BATCH {
                    break;
                }
            }
        }
    }
}

/// Room for a batch.
struct Datagrams {
    buffers: Vec<[u8; ROOM]>,
    lengths: Vec<usize>,
    from: Vec<Option<SockaddrIn>>,
    headers: MultiHeaders<SockaddrIn>,
    /// Of their own: sending leaves addresses in them that receiving would write to.
    sending: MultiHeaders<SockaddrIn>,
}

impl Datagrams {
    fn new() -> Datagrams {
        Datagrams {
            buffers: vec![[0; ROOM]; BATCH],
            lengths: vec![0; BATCH],
            from: vec![None; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
            sending: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Datagrams that wait; `None` where there is none.
    fn receive(&mut self, socket: &OwnedFd) -> io::Result<Option<usize>> {
        let mut parts: Vec<[IoSliceMut<'_>; 1]> =
            self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let received = recvmmsg(socket.as_raw_fd(), &mut self.headers, parts.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
        match received {
            Ok(received) => {
                let mut count = 0;
                for datagram in received {
                    (self.lengths[count], self.from[count]) = (datagram.bytes, datagram.address);
                    count += 1;
                }
                Ok(Some(count))
            }
            Err(nix::errno::Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self, socket: &OwnedFd, which: &[usize], to: Option<SockaddrIn>) -> io::Result<()> {
        let parts: Vec<[IoSlice<'_>; 1]> =
            which.iter().map(|&at| [IoSlice::new(&self.buffers[at][..self.lengths[at]])]).collect();
        let to: Vec<Option<SockaddrIn>> = vec![to; parts.len()];
        let sent = sendmmsg(socket.as_raw_fd(), &mut self.sending, &parts, &to, [], MsgFlags::MSG_DONTWAIT);
        match sent {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
