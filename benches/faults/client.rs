//! A client: one connection after the other, each of which behaves as the seed says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::Shared;
use crate::balancer::{Listener, Place};
use crate::content::{self, Body};

/// Longer than a backend is ever stopped or away.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(4);

/// What becomes of a connection on the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    /// Some requests, each answered.
    Exchange,
    /// One request, then FIN, then the answer.
    HalfClose,
    /// A reset in the middle of the request.
    Reset,
    /// The same in the middle of the answer.
    ResetInAnswer,
    /// Half a request, then silence, then the end.
    Silent,
    /// The end with an answer that was not read.
    Unread,
    /// An answer that is read slowly.
    Slow,
    /// No byte.
    Mute,
    /// A part of what TLS begins with.
    Fragment,
}

const BEHAVIOURS: [Behaviour; 13] = [
    Behaviour::Exchange,
    Behaviour::Exchange,
    Behaviour::Exchange,
    Behaviour::Exchange,
    Behaviour::HalfClose,
    Behaviour::HalfClose,
    Behaviour::Reset,
    Behaviour::ResetInAnswer,
    Behaviour::Silent,
    Behaviour::Unread,
    Behaviour::Slow,
    Behaviour::Mute,
    Behaviour::Fragment,
];

pub(crate) struct Client {
    rng: Rng,
    next: u64,
    shared: Arc<Shared>,
    config: Arc<ClientConfig>,
    listeners: Vec<Listener>,
}

impl Client {
    pub(crate) fn new(
        rng: Rng,
        number: u64,
        shared: Arc<Shared>,
        config: Arc<ClientConfig>,
        listeners: Vec<Listener>,
    ) -> Client {
        Client { rng, next: number << 40, shared, config, listeners }
    }

    /// Panics when it has seen what must not be.
    pub(crate) fn run(&mut self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            let chosen = self.rng.usize(..self.listeners.len());
            let (listener, behaviour) = (self.listeners[chosen].clone(), self.rng.choice(BEHAVIOURS).expect("some"));
            // Refusals, resets and timeouts are what faults look like.
            if self.connection(&listener, behaviour).is_err() {
                self.shared.cut.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn connection(&mut self, listener: &Listener, behaviour: Behaviour) -> io::Result<()> {
        let kills = self.shared.kills.load(Ordering::SeqCst);
        let socket = match &listener.place {
            Place::Tcp(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?,
            Place::Unix(path) => TcpStream::from(OwnedFd::from(UnixStream::connect(path)?)),
        };
        socket.set_read_timeout(Some(SOCKET_TIMEOUT))?;
        socket.set_write_timeout(Some(SOCKET_TIMEOUT))?;
        match behaviour {
            Behaviour::Mute => {
                thread::sleep(Duration::from_millis(self.rng.u64(..200)));
                return Ok(());
            }
            Behaviour::Fragment => {
                let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0];
                (&socket).write_all(&hello[..self.rng.usize(1..hello.len())])?;
                thread::sleep(Duration::from_millis(self.rng.u64(..100)));
                return Ok(());
            }
            _ => {}
        }
        let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let end = Ending { listener, address, kills, shared: Arc::clone(&self.shared) };
        if listener.tls {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(connection, socket);
            self.talk(&mut stream, behaviour, &end, |stream| {
                stream.conn.send_close_notify();
                stream.flush()?;
                stream.sock.shutdown(Shutdown::Write)
            })
        } else {
            let mut stream = socket;
            self.talk(&mut stream, behaviour, &end, |stream| stream.shutdown(Shutdown::Write))
        }
    }

    fn talk<S: Read + Write + AsSocket>(
        &mut self,
        stream: &mut S,
        behaviour: Behaviour,
        end: &Ending<'_>,
        finish: impl Fn(&mut S) -> io::Result<()>,
    ) -> io::Result<()> {
        let requests = if behaviour == Behaviour::Exchange { self.rng.u64(1..4) } else { 1 };
        for _ in 0..requests {
            self.next += 1;
            let id = self.next;
            let (length, answer) = (self.size(), self.size());
            stream.write_all(content::request_head(id, length, answer).as_bytes())?;
            let stops_at = match behaviour {
                Behaviour::Reset | Behaviour::Silent => self.rng.u64(..=length),
                _ => length,
            };
            self.send(stream, id, stops_at)?;
            match behaviour {
                Behaviour::Reset => return reset(stream),
                Behaviour::Silent => {
                    thread::sleep(Duration::from_millis(self.rng.u64(..700)));
                    return Ok(());
                }
                Behaviour::HalfClose => finish(stream)?,
                _ => stream.flush()?,
            }
            let Some(head) = content::read_head(stream).map_err(|error| end.check(error, id, 0, answer))? else {
                return Err(end.check(ErrorKind::UnexpectedEof.into(), id, 0, answer));
            };
            // The balancer's own 503 where no backend could be reached.
            if !head.starts_with("HTTP/1.1 200 ") {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            let reads_to = match behaviour {
                Behaviour::ResetInAnswer | Behaviour::Unread => self.rng.u64(..=answer),
                _ => answer,
            };
            self.receive(stream, id, reads_to, answer, behaviour, end)?;
            match behaviour {
                Behaviour::ResetInAnswer => return reset(stream),
                Behaviour::Unread => return Ok(()),
                _ => self.shared.exchanges.fetch_add(1, Ordering::Relaxed),
            };
        }
        Ok(())
    }

    /// Mostly small, sometimes as much as is spliced, or as fills every buffer.
    fn size(&mut self) -> u64 {
        match self.rng.u8(..16) {
            0..8 => self.rng.u64(..2_000),
            8..13 => self.rng.u64(..100_000),
            13 | 14 => self.rng.u64(..1_000_000),
            _ => self.rng.u64(..8_000_000),
        }
    }

    fn send(&mut self, to: &mut impl Write, id: u64, length: u64) -> io::Result<()> {
        let (mut offset, mut buffer) = (0, vec![0; 64 << 10]);
        while offset < length {
            let count = usize::try_from(length - offset).unwrap_or(usize::MAX).min(self.rng.usize(1..=buffer.len()));
            content::fill(id, Body::Request, offset, &mut buffer[..count]);
            to.write_all(&buffer[..count])?;
            offset += count as u64;
        }
        Ok(())
    }

    fn receive(
        &mut self,
        from: &mut impl Read,
        id: u64,
        reads_to: u64,
        answer: u64,
        behaviour: Behaviour,
        end: &Ending<'_>,
    ) -> io::Result<()> {
        let (mut offset, mut buffer) = (0, vec![0; 64 << 10]);
        while offset < reads_to {
            let slow = behaviour == Behaviour::Slow && offset < 200_000;
            let most = if slow { 8_000 } else { buffer.len() };
            let want = usize::try_from(reads_to - offset).unwrap_or(usize::MAX).min(most);
            let count = match from.read(&mut buffer[..want]) {
                Ok(0) => return Err(end.check(ErrorKind::UnexpectedEof.into(), id, offset, answer)),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(|error| end.check(error, id, offset, answer))?,
            };
            if let Some(wrong) = content::difference(id, Body::Answer, offset, &buffer[..count]) {
                panic!("at listener {}: {wrong}", end.listener.name);
            }
            offset += count as u64;
            self.shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
            if slow {
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

/// What a clean end in the middle of an answer would mean.
struct Ending<'l> {
    listener: &'l Listener,
    /// The client's own, as the access log has it.
    address: String,
    /// [`Shared::kills`] before the connection began.
    kills: u64,
    shared: Arc<Shared>,
}

impl Ending<'_> {
    /// The error of an answer that was cut, unless it must not look like an end.
    fn check(&self, error: io::Error, id: u64, offset: u64, answer: u64) -> io::Error {
        // A FIN or a close_notify reads as `UnexpectedEof` here; rustls says the same, in words, of a FIN alone.
        let is_clean = error.kind() == ErrorKind::UnexpectedEof && error.get_ref().is_none();
        // Before the first byte of its answer, a backend may close a connection whose request it could not read.
        let killed = self.kills % 2 == 1 || self.shared.kills.load(Ordering::SeqCst) != self.kills;
        let is_truth = !self.listener.authenticated_end && killed;
        assert!(
            !is_clean || offset == 0 || is_truth,
            "at listener {}: answer {id:x} to {} ended cleanly after {offset} of {answer} bytes",
            self.listener.name,
            self.address
        );
        error
    }
}

trait AsSocket {
    fn socket(&self) -> &TcpStream;
}

impl AsSocket for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl AsSocket for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// Unix sockets have no reset, and close instead.
fn reset(stream: &impl AsSocket) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream.socket(), Some(Duration::ZERO))?)
}
