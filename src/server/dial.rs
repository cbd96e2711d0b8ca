//! Connecting to a backend: to another one on failure, while nothing was sent.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::context::{Entered, ListenerState};
use super::peer::Backend;
use super::upstream::{self, Origin, Upstream};
use crate::config::model::OnDown;
use crate::net::addr::Address;
use crate::net::dial;
use crate::pool::{self, Lease, Pool, Tried};
use crate::relay::Stream;
use crate::stats::ending::Ending;
use crate::stats::latency::Stage;
use crate::worker::{self, Socket, Transport};

/// How long to wait before another try when a unix socket's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// A backend, and the claim on it.
pub(super) struct Dialled {
    pub(super) backend: Backend,
    pub(super) lease: Lease,
    /// The connect.
    pub(super) took: Duration,
    /// The TLS handshake after it.
    pub(super) handshake: Option<Duration>,
}

/// Leases a backend of the pool and connects to it, or to further ones when that fails.
///
/// Counts in `retries` the further ones. A client that has reset its connection ends this; one that has only sent FIN may have sent a request
/// before, and waits for the answer.
pub(super) async fn dial(
    entered: &Entered,
    listener: &ListenerState,
    pool: &Pool,
    origin: &Origin<'_>,
    retries: &mut u32,
) -> Result<Dialled, Ending> {
    let mut dialling = pin!(dial_in_turn(entered, listener, pool, origin, retries));
    poll_fn(|cx| {
        if let Some(cut) = entered.cut() {
            return Poll::Ready(Err(cut.into()));
        }
        if origin.client.poll_reset().is_ready() {
            return Poll::Ready(Err(Ending::ClientLeft));
        }
        dialling.as_mut().poll(cx)
    })
    .await
}

async fn dial_in_turn(
    entered: &Entered,
    listener: &ListenerState,
    pool: &Pool,
    origin: &Origin<'_>,
    retries: &mut u32,
) -> Result<Dialled, Ending> {
    let context = entered.context();
    let mut tried = Tried::new();
    let mut failed: Option<Arc<pool::Backend>> = None;
    for _ in 0..=pool.config().retries {
        let lease = match pool.lease(origin.address.ip(), &tried) {
            Ok(lease) => lease,
            Err(_) if !tried.is_empty() => break,
            Err(why) => {
                if let Some(more) = listener.refusals.admit(worker::now()) {
                    listener.remember(origin.address, format!("pool {}: {why}", pool.name()), more);
                    let (listener, pool) = (&listener.config().name, pool.name());
                    tracing::warn!(%listener, %pool, reason = %why, more, "no backend for a connection: closed");
                }
                pool.record_refusal();
                return Err(Ending::NoBackend);
            }
        };
        let id = context.shared.backend_id(pool.index(), lease.backend().index());
        match failed.take() {
            Some(failed) => {
                *retries += 1;
                failed.counters().retried();
                listener.counters().retried();
            }
            // There is no queue yet: whoever finds no place is refused.
            None => context.measure(listener, id, Stage::Queue, Duration::ZERO),
        }
        let started = Instant::now();
        let upstream = entered.context().shared.upstream(pool.index());
        match connect(listener, pool, &lease, upstream, origin).await {
            Ok(_) if lease.went_down() && pool.config().on_down == OnDown::Cut => {}
            Ok((backend, took, handshake)) => {
                entered.is_on(pool.index(), lease.backend().index());
                lease.backend().record_connect(took);
                context.measure(listener, id, Stage::Connect, took);
                if let Some(handshake) = handshake {
                    context.measure_backend(id, Stage::TlsHandshake, handshake);
                    lease.backend().counters().handshakes().add(backend.is_resumed());
                }
                return Ok(Dialled { backend, lease, took, handshake });
            }
            Err(failure) => {
                if let Some(more) = listener.failed_connects.admit(worker::now()) {
                    let (pool, backend) = (pool.name(), lease.backend().name());
                    tracing::warn!(%pool, %backend, reason = %failure, more, "connect failed");
                }
                if failure.is_local {
                    pool.record_refusal();
                    return Err(Ending::OutOfResources);
                }
                lease.backend().record_connect_failure(started.elapsed());
            }
        }
        tried.add(lease.backend().index());
        failed = Some(Arc::clone(lease.backend()));
    }
    pool.record_refusal();
    Err(Ending::ConnectFailed)
}

/// Tries the backend's addresses, beginning with a random one, each for the whole connect timeout, TLS included. Says
/// how long the connect itself took, and the TLS handshake.
async fn connect(
    listener: &ListenerState,
    pool: &Pool,
    lease: &Lease,
    upstream: Option<&Upstream>,
    origin: &Origin<'_>,
) -> Result<(Backend, Duration, Option<Duration>), Failure> {
    let addresses = lease.backend().addresses();
    let first = if addresses.len() > 1 { fastrand::usize(..addresses.len()) } else { 0 };
    let (tail, head) = addresses.split_at(first);
    let mut failure = Failure { what: "it has no address".to_owned(), is_local: false };
    for address in head.iter().chain(tail) {
        let started = Instant::now();
        let deadline = worker::now() + pool.config().connect_timeout;
        match connect_to(address, listener, pool, deadline).await {
            Ok(socket) => {
                let took = started.elapsed();
                let backend = lease.backend().index().0;
                match upstream::introduce(socket, pool, backend, upstream, origin, deadline).await {
                    Ok(backend) => {
                        let handshake = upstream.map(|_| started.elapsed() - took);
                        return Ok((backend, took, handshake));
                    }
                    Err(trouble) => failure = Failure { what: format!("{address}: {trouble}"), is_local: false },
                }
            }
            Err(error) => failure = Failure::new(address, &error, pool.config().connect_timeout),
        }
        if failure.is_local {
            break;
        }
    }
    Err(failure)
}

async fn connect_to(address: &Address, listener: &ListenerState, pool: &Pool, deadline: Instant) -> io::Result<Socket> {
    let transport = match address {
        Address::Tcp(_) => Transport::Tcp,
        Address::Unix(_) => Transport::Other,
    };
    let socket = loop {
        match start(address, pool, listener.options()) {
            // A unix socket's full queue: no event tells when there is room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && worker::now() < deadline => {
                worker::sleep_until(deadline.min(worker::now() + QUEUE_FULL_PAUSE)).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            started => break started?,
        }
    };
    let socket = Socket::new(socket, transport)?;
    worker::until(Some(deadline), socket.connected()).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    if transport == Transport::Tcp {
        dial::refuse_self_connect(&socket)?;
    }
    Ok(socket)
}

/// Starts the connect from the next source address; from the one after that when its ports are used up.
fn start(address: &Address, pool: &Pool, options: dial::Options) -> io::Result<OwnedFd> {
    let mut attempts = pool.config().source.len().max(1);
    loop {
        match dial::start(address, pool.source(address), options) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && attempts > 1 => attempts -= 1,
            result => return result,
        }
    }
}

/// Why a connect failed, in words.
struct Failure {
    what: String,
    /// Of this host's making: another backend would not help, and the backend is not to blame.
    is_local: bool,
}

impl Failure {
    fn new(address: &Address, error: &io::Error, timeout: Duration) -> Failure {
        let errno = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
        let is_local = matches!(
            errno,
            Some(
                rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::NOBUFS
                    | rustix::io::Errno::NOMEM
                    | rustix::io::Errno::ADDRNOTAVAIL
            )
        );
        let what = match error.kind() {
            io::ErrorKind::TimedOut if errno.is_none() => format!("{address}: timed out after {timeout:?}"),
            io::ErrorKind::ConnectionRefused if errno.is_some() => format!("{address}: refused"),
            io::ErrorKind::AddrNotAvailable => {
                format!("{address}: no local address or port left to connect from (pools[].source adds some)")
            }
            _ => format!("{address}: {error}"),
        };
        Failure { what, is_local }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}
