//! The demo's HTTP backends, each of which can go away and come back, or reset its connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::http::{DemoRefusal, DemoRequest, DemoResponse, read_request};

/// What the health check requests.
pub(super) const HEALTH: &str = "/health";

/// Connections that one backend serves at once; others wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Requests on one connection.
const REQUESTS: usize = 1_000;
/// How long a connection may be idle, and how long a head may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is still read, and for how long, so that unread bytes do not turn the end of an answer into a reset.
const LINGER: (u64, Duration) = (64 * 1024, Duration::from_secs(1));
/// How long to wait with the next try after an accept or a bind has failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Statuses that `/status/NNN` answers with, for the classes on the dashboard.
const STATUSES: [u16; 5] = [200, 400, 404, 500, 503];

/// What sets a backend apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendKind {
    pub(super) name: &'static str,
    pub(super) weight: u32,
    /// Between a request and its answer.
    pub(super) delay: Duration,
}

/// The demo's backends. `heavy` has as much weight as the others together.
pub(super) const KINDS: [BackendKind; 3] = [
    BackendKind { name: "quick", weight: 1, delay: Duration::ZERO },
    BackendKind { name: "slow", weight: 1, delay: Duration::from_millis(20) },
    BackendKind { name: "heavy", weight: 2, delay: Duration::ZERO },
];

impl BackendKind {
    /// The status and the body of the answer to this path.
    pub(super) fn answer_to(&self, path: &str) -> (u16, String) {
        let name = self.name;
        let status = path.strip_prefix("/status/").and_then(|status| status.parse().ok());
        match status.filter(|status| STATUSES.contains(status)) {
            Some(status) => (status, format!("{status} from {name}\n")),
            None => (200, format!("hello from {name}\n")),
        }
    }

    fn respond(&self, request: &Result<DemoRequest, DemoRefusal>) -> DemoResponse {
        match request {
            Err(refusal) => DemoResponse::to_refused(refusal),
            Ok(request) if !["GET", "HEAD"].contains(&request.method.as_str()) => DemoResponse::only("GET, HEAD"),
            Ok(request) if request.path == HEALTH => DemoResponse::new(200, "ok\n"),
            Ok(request) => {
                let (status, body) = self.answer_to(&request.path);
                DemoResponse::new(status, body)
            }
        }
    }
}

/// How a backend behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendMode {
    /// It answers.
    Serving,
    /// As when its process has ended: its port refuses connections, and those that were open are closed.
    Away,
    /// It accepts, and resets connections instead of answering.
    Resetting,
}

/// Switches of all backends.
#[derive(Clone)]
pub(super) struct BackendModes(Arc<[(&'static str, watch::Sender<BackendMode>)]>);

impl BackendModes {
    /// Returns false if no backend has this name.
    pub(super) fn set(&self, name: &str, mode: BackendMode) -> bool {
        let Some((_, switch)) = self.0.iter().find(|(known, _)| *known == name) else { return false };
        switch.send_replace(mode);
        true
    }
}

/// The running backends; they end when this is dropped.
pub(super) struct Backends {
    addresses: Vec<(BackendKind, SocketAddr)>,
    modes: BackendModes,
    closing: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Backends {
    /// Starts all of [`KINDS`] on ports that are free.
    pub(super) fn start() -> io::Result<Backends> {
        let (closing, told) = watch::channel(false);
        let (mut addresses, mut switches, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        for kind in KINDS {
            let port = ReservedPort::new()?;
            let (switch, mode) = watch::channel(BackendMode::Serving);
            addresses.push((kind, port.address));
            switches.push((kind.name, switch));
            // The first one here, so that it accepts before anybody connects.
            let listener = port.listen()?;
            tasks.spawn(DemoBackend { kind, mode, closing: told.clone() }.run(port, listener));
        }
        Ok(Backends { addresses, modes: BackendModes(switches.into()), closing, _tasks: tasks })
    }

    pub(super) fn addresses(&self) -> &[(BackendKind, SocketAddr)] {
        &self.addresses
    }

    pub(super) fn modes(&self) -> &BackendModes {
        &self.modes
    }

    /// From now on connections are closed as soon as they are idle, so that a drain need not wait for a browser.
    pub(super) fn close_idle(&self) {
        self.closing.send_replace(true);
    }
}

/// A port that stays the demo's while nothing listens there. Its socket is bound and does not listen: connects are refused.
struct ReservedPort {
    address: SocketAddr,
    _socket: Socket,
}

impl ReservedPort {
    fn new() -> io::Result<ReservedPort> {
        let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address of the internet"))?;
        Ok(ReservedPort { address, _socket: socket })
    }

    fn listen(&self) -> io::Result<TcpListener> {
        let socket = bound(self.address)?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    }
}

/// A socket that shares its address with others that do so (SO_REUSEPORT).
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[derive(Clone)]
struct DemoBackend {
    kind: BackendKind,
    mode: watch::Receiver<BackendMode>,
    closing: watch::Receiver<bool>,
}

impl DemoBackend {
    /// Listens and accepts, but while it is away. The switch lives as long as the backends.
    async fn run(mut self, port: ReservedPort, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            let listening = match listener.take().map_or_else(|| port.listen(), Ok) {
                Ok(listening) => listening,
                Err(_) => {
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            let mut connections = JoinSet::new();
            let is_away = |mode: &BackendMode| *mode == BackendMode::Away;
            let mut mode = self.mode.clone();
            tokio::select! {
                _ = mode.wait_for(is_away) => {}
                () = self.accept(&listening, &mut connections) => return,
            }
            drop(listening);
            // They see the mode too, and end by it.
            if self.mode.wait_for(|mode| *mode != BackendMode::Away).await.is_err() {
                return;
            }
        }
    }

    async fn accept(&self, listener: &TcpListener, connections: &mut JoinSet<()>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((socket, _)) => {
                    let backend = self.clone();
                    connections.spawn(async move {
                        backend.connection(socket).await;
                        drop(place);
                    });
                }
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn connection(&self, mut socket: TcpStream) {
        let (mut mode, mut closing) = (self.mode.clone(), self.closing.clone());
        let is_reset = if *mode.borrow() == BackendMode::Resetting {
            // With a request in it, as a server that crashes while it works.
            let _ = timeout(PATIENCE, socket.readable()).await;
            true
        } else {
            tokio::select! {
                biased;
                mode = mode.wait_for(|mode| *mode != BackendMode::Serving) => {
                    mode.is_ok_and(|mode| *mode == BackendMode::Resetting)
                }
                // A client that went away is its own business.
                _ = serve(&mut socket, self.kind, &mut closing) => false,
            }
        };
        if is_reset {
            // Closed without lingering, the kernel sends a reset.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn serve(socket: &mut TcpStream, kind: BackendKind, closing: &mut watch::Receiver<bool>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut received = Vec::new();
    for served in 0..REQUESTS {
        if served > 0 && received.is_empty() {
            tokio::select! {
                // Not before the first request, which gets an answer.
                _ = closing.wait_for(|closing| *closing) => break,
                readable = timeout(PATIENCE, socket.readable()) => match readable {
                    Ok(readable) => readable?,
                    Err(_) => break,
                },
            }
        }
        let Ok(request) = timeout(PATIENCE, read_request(socket, &mut received)).await else { break };
        let Some(request) = request? else { break };
        // Not for no time: the timer knows nothing shorter than a millisecond.
        if request.as_ref().is_ok_and(|request| request.path != HEALTH) && !kind.delay.is_zero() {
            sleep(kind.delay).await;
        }
        let is_last = served + 1 == REQUESTS || *closing.borrow();
        let keep = request.as_ref().is_ok_and(|request| request.keep_alive) && !is_last;
        socket.write_all(&kind.respond(&request).encode(&request, keep)).await?;
        if !keep {
            break;
        }
    }
    socket.shutdown().await?;
    let (bytes, time) = LINGER;
    let _ = timeout(time, tokio::io::copy(&mut socket.take(bytes), &mut tokio::io::sink())).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_chooses_the_status() {
        let quick = KINDS[0];
        for (path, status, body) in [
            ("/", 200, "hello from quick\n"),
            ("/anything", 200, "hello from quick\n"),
            ("/status/503", 503, "503 from quick\n"),
            ("/status/204", 200, "hello from quick\n"),
            ("/status/x", 200, "hello from quick\n"),
        ] {
            assert_eq!(quick.answer_to(path), (status, body.to_owned()), "{path}");
        }
    }

    /// What a client of the backend sees: an answer, a refusal or a reset.
    async fn seen(address: SocketAddr) -> Result<String, io::ErrorKind> {
        let exchange = async {
            let mut socket = TcpStream::connect(address).await?;
            socket.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer.lines().last().unwrap_or_default().to_owned())
        };
        exchange.await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_backend_goes_away_resets_and_comes_back_on_its_port() {
        let backends = Backends::start().unwrap();
        let (kind, address) = backends.addresses()[0];
        let is = |mode| assert!(backends.modes().set(kind.name, mode));
        assert_eq!(seen(address).await, Ok("hello from quick".to_owned()));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello from quick\n") {
            assert_ne!(idle.read_buf(&mut answer).await.unwrap(), 0);
        }
        is(BackendMode::Away);
        while seen(address).await != Err(io::ErrorKind::ConnectionRefused) {
            tokio::task::yield_now().await;
        }
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "what was open is closed");
        is(BackendMode::Resetting);
        while seen(address).await != Err(io::ErrorKind::ConnectionReset) {
            tokio::task::yield_now().await;
        }
        is(BackendMode::Serving);
        while seen(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert!(!backends.modes().set("nobody", BackendMode::Away));
    }
}
