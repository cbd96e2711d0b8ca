//! Backends that do what a test tells them, in threads of the test process.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};

use super::client::{Place, with_deadline};
use super::{DEADLINE, own_address};

/// A listening socket whose connections go to a closure. Dropping it closes the listening socket: further connects are
/// refused, connections that were handed out live on.
pub(crate) struct Backend {
    place: Place,
    listener: Arc<Listening>,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Backend {
    /// On an address of its own; `serve` is called in the accepting thread.
    pub(crate) fn start(serve: impl FnMut(TcpStream) + Send + 'static) -> Backend {
        Backend::bind(SocketAddr::from((own_address(), 0)), serve)
    }

    /// At this address, which may be one that a backend had before.
    pub(crate) fn bind(address: SocketAddr, serve: impl FnMut(TcpStream) + Send + 'static) -> Backend {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
        let place = Place::Tcp(listener.local_addr().expect("its address"));
        Backend::run(place, Listening::Tcp(listener), serve)
    }

    pub(crate) fn bind_unix(path: &Path, serve: impl FnMut(TcpStream) + Send + 'static) -> Backend {
        let listener = UnixListener::bind(path).unwrap_or_else(|error| panic!("bind {}: {error}", path.display()));
        Backend::run(Place::Unix(path.to_owned()), Listening::Unix(listener), serve)
    }

    fn run(place: Place, listener: Listening, mut serve: impl FnMut(TcpStream) + Send + 'static) -> Backend {
        let listener = Arc::new(listener);
        let accepted = Arc::new(AtomicUsize::new(0));
        let thread = thread::spawn({
            let (listener, accepted) = (Arc::clone(&listener), Arc::clone(&accepted));
            move || {
                loop {
                    let stream = match &*listener {
                        Listening::Tcp(listener) => listener.accept().map(|(stream, _)| stream),
                        Listening::Unix(listener) => {
                            listener.accept().map(|(stream, _)| TcpStream::from(OwnedFd::from(stream)))
                        }
                    };
                    match stream {
                        Ok(stream) => {
                            accepted.fetch_add(1, Ordering::SeqCst);
                            with_deadline(&stream).expect("timeouts");
                            serve(stream);
                        }
                        Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                        Err(_) => return, // shut down by drop
                    }
                }
            }
        });
        Backend { place, listener, accepted, thread: Some(thread) }
    }

    /// Sends back what it gets; its own FIN answers the client's.
    pub(crate) fn echo() -> Backend {
        Backend::start(in_thread(echo))
    }

    /// Sends its name, then FIN, and waits for the client's.
    pub(crate) fn named(name: &str) -> Backend {
        Backend::start(in_thread(send_name(name)))
    }

    /// As [`Backend::named`], at an address that a backend had before.
    pub(crate) fn named_at(address: SocketAddr, name: &str) -> Backend {
        Backend::bind(address, in_thread(send_name(name)))
    }

    /// Sends its name, and keeps the connection until the client closes it.
    pub(crate) fn named_and_open(name: &str) -> Backend {
        let name = name.to_owned();
        Backend::start(in_thread(move |mut stream| {
            _ = stream.write_all(name.as_bytes());
            _ = stream.read(&mut [0]);
        }))
    }

    /// Answers each request with its name, as an HTTP server would.
    pub(crate) fn web(name: &'static str) -> Backend {
        Backend::web_with(200, name)
    }

    /// Answers each request with this status.
    pub(crate) fn web_with(status: u16, name: &'static str) -> Backend {
        Backend::start(in_thread(move |mut stream: TcpStream| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                head.push(byte[0]);
            }
            let length = name.len();
            let reason = if status == 200 { "OK" } else { "Error" };
            let answer =
                format!("HTTP/1.1 {status} {reason}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
            _ = stream.write_all(answer.as_bytes());
        }))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.place.tcp()
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Wakes the thread out of accept.
        _ = match &*self.listener {
            Listening::Tcp(listener) => rustix::net::shutdown(listener, Shutdown::Both),
            Listening::Unix(listener) => rustix::net::shutdown(listener, Shutdown::Both),
        };
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// A thread for each connection.
pub(crate) fn in_thread(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> impl FnMut(TcpStream) + Send + 'static {
    let serve = Arc::new(serve);
    move |stream| {
        let serve = Arc::clone(&serve);
        thread::spawn(move || serve(stream));
    }
}

pub(crate) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        }
    }
}

fn send_name(name: &str) -> impl Fn(TcpStream) + Send + Sync + 'static {
    let name = name.to_owned();
    move |mut stream| {
        _ = stream.write_all(name.as_bytes());
        _ = stream.shutdown(std::net::Shutdown::Write);
        _ = stream.read(&mut [0]);
    }
}

/// A backend whose connections the test itself takes and drives.
pub(crate) struct Scripted {
    backend: Backend,
    connections: Receiver<TcpStream>,
}

impl Scripted {
    pub(crate) fn start() -> Scripted {
        let (sender, connections) = mpsc::channel();
        let backend = Backend::start(move |stream| _ = sender.send(stream));
        Scripted { backend, connections }
    }

    pub(crate) fn place(&self) -> &Place {
        self.backend.place()
    }

    /// Whether one more connection comes within `limit`; it is closed at once.
    pub(crate) fn accepts_within(&self, limit: Duration) -> bool {
        self.connections.recv_timeout(limit).is_ok()
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        self.connections.recv_timeout(DEADLINE).expect("a connection to the backend")
    }
}

/// A backend that answers every request with a status that the test sets: what health checks ask.
pub(crate) struct HealthPage {
    backend: Backend,
    status: Arc<AtomicU16>,
}

impl HealthPage {
    pub(crate) fn start() -> HealthPage {
        let status = Arc::new(AtomicU16::new(200));
        // On all addresses: what it tells is the health of backends elsewhere.
        let backend = Backend::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), {
            let status = Arc::clone(&status);
            in_thread(move |mut stream| {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut byte) {
                        Ok(1) => head.push(byte[0]),
                        _ => return,
                    }
                }
                let status = status.load(Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                _ = stream.write_all(answer.as_bytes());
            })
        });
        HealthPage { backend, status }
    }

    pub(crate) fn port(&self) -> u16 {
        self.backend.address().port()
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.backend.accepted()
    }

    pub(crate) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// Listens, accepts nothing, and its queue is full: the kernel drops each further SYN, and a connect to it hangs.
pub(crate) struct Unreachable {
    listener: TcpListener,
    queue: Vec<OwnedFd>,
}

impl Unreachable {
    pub(crate) fn start() -> Unreachable {
        let listener = TcpListener::bind((own_address(), 0)).expect("bind");
        rustix::net::listen(&listener, 0).expect("a shorter queue");
        let mut unreachable = Unreachable { listener, queue: Vec::new() };
        while unreachable.fill() {}
        unreachable
    }

    /// Puts one more connection into the queue; false when it did not fit.
    fn fill(&mut self) -> bool {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)
            .expect("socket");
        _ = rustix::net::connect(&socket, &self.address()); // EINPROGRESS
        let connected = {
            let mut waiting = [PollFd::new(&socket, PollFlags::OUT)];
            let limit = Timespec::try_from(Duration::from_millis(300)).expect("a duration");
            poll(&mut waiting, Some(&limit)).expect("poll") > 0
        };
        // Also the last one is kept: on a busy machine its handshake may still come about, and it is not taken for another's.
        self.queue.push(socket);
        connected
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("its address")
    }

    /// From now on it accepts, and hands over the connections that were not its own.
    pub(crate) fn accept_next(&mut self) -> TcpStream {
        let own: Vec<SocketAddr> =
            self.queue.drain(..).map(|socket| TcpStream::from(socket).local_addr().expect("its address")).collect();
        loop {
            let limit = Timespec::try_from(DEADLINE).expect("a duration");
            let ready = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&limit)).expect("poll");
            assert!(ready > 0, "no connection to the backend");
            let (stream, peer) = self.listener.accept().expect("accept");
            if !own.contains(&peer) {
                with_deadline(&stream).expect("timeouts");
                return stream;
            }
        }
    }
}

/// An address on which nobody listens, and which nobody gets: it is bound, so that connects to it are refused.
pub(crate) struct Dead(OwnedFd);

impl Dead {
    pub(crate) fn start() -> Dead {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("socket");
        rustix::net::bind(&socket, &SocketAddr::new(IpAddr::V4(own_address()), 0)).expect("bind");
        Dead(socket)
    }

    pub(crate) fn place(&self) -> Place {
        Place::Tcp(self.address())
    }

    /// Listens from now on.
    pub(crate) fn revive(self, serve: impl FnMut(TcpStream) + Send + 'static) -> Backend {
        rustix::net::listen(&self.0, 128).expect("listen");
        let place = self.place();
        Backend::run(place, Listening::Tcp(TcpListener::from(self.0)), serve)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let address = rustix::net::getsockname(&self.0).expect("its address");
        SocketAddr::try_from(address).expect("an IP address")
    }
}
