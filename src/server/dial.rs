//! Connecting to a backend: to another one on failure, while nothing was sent.

mod failure;
pub(super) mod retry_queue;
mod waiting;

use std::convert::Infallible;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

pub(super) use self::failure::Attempts;
use self::failure::ConnectFailure;
use self::retry_queue::Resource;
use self::waiting::{QueueEnd, QueueWait};
use super::listener::Listener;
use super::transport::BackendConn;
use super::upstream::{self, Origin, ReceivedGreeting, Upstream, UpstreamError};
use super::worker_state::SessionHandle;
use crate::config::model::OnDown;
use crate::net::addr::Address;
use crate::net::dial;
use crate::net::errno::{CallError, Scope};
use crate::pool::{self, Excluded, Lease, NoBackend, Pool};
use crate::relay::Stream;
use crate::stats::latency::Stage;
use crate::stats::termination::Termination;
use crate::worker::{self, ConnectError, Transport, poll_fn};

/// A backend, and the claim on it.
pub(super) struct Dialled<R> {
    pub(super) link: Link<R>,
    pub(super) lease: Lease,
    /// The connect. Zero where a connection is reused.
    pub(super) took: Duration,
    /// The TLS handshake after it.
    pub(super) handshake: Option<Duration>,
    /// Where the client's login is rewritten: the server's greeting.
    pub(super) greeting: Option<Box<ReceivedGreeting>>,
}

/// The connection to a backend.
pub(super) enum Link<R> {
    New(BackendConn),
    Reused(R),
}

/// Idle connections to backends.
pub(super) trait Reuse {
    /// One of them.
    type Kept;

    /// Takes one to this backend.
    fn take(&self, backend: &Arc<pool::Backend>) -> Option<Self::Kept>;
}

/// Each connection is a new one.
pub(super) struct NoReuse;

impl Reuse for NoReuse {
    type Kept = Infallible;

    fn take(&self, _: &Arc<pool::Backend>) -> Option<Infallible> {
        None
    }
}

/// Where to begin.
#[derive(Default)]
pub(super) struct FirstChoice {
    /// A backend that was chosen already.
    pub(super) lease: Option<Lease>,
    /// Backends that failed before.
    pub(super) tried: Excluded,
}

/// Why a client gets no backend for now.
enum DialFailure {
    /// None can take it.
    NoBackend(NoBackend),
    /// None that could take it was reached.
    Unreachable(Termination),
    /// This host is at fault.
    Ours(Termination),
}

/// Leases a backend of the pool and connects to it, or to further ones when that fails. Where the pool has a queue, the connection
/// waits there until a backend can take it.
///
/// `attempts` keeps what failed. A client that has reset its connection ends this; one that has only sent FIN may have sent a request
/// before, and waits for the answer.
pub(super) async fn dial<R: Reuse>(
    handle: &SessionHandle,
    listener: &Listener,
    pool: &Pool,
    origin: &Origin<'_>,
    reuse: &R,
    first: FirstChoice,
    attempts: &mut Attempts,
) -> Result<Dialled<R::Kept>, Termination> {
    let mut dialling = pin!(dial_in_turn(handle, listener, pool, origin, reuse, first, attempts));
    poll_fn(|cx| {
        if let Some(abort) = handle.aborted() {
            return Poll::Ready(Err(abort.into()));
        }
        if !origin.is_stream && origin.client.poll_reset().is_ready() {
            return Poll::Ready(Err(Termination::ClientLeft));
        }
        dialling.as_mut().poll(cx)
    })
    .await
}

async fn dial_in_turn<R: Reuse>(
    handle: &SessionHandle,
    listener: &Listener,
    pool: &Pool,
    origin: &Origin<'_>,
    reuse: &R,
    mut first: FirstChoice,
    attempts: &mut Attempts,
) -> Result<Dialled<R::Kept>, Termination> {
    let mut waiting = QueueWait::new(pool);
    loop {
        let failure = match try_backends(handle, listener, pool, origin, reuse, first, attempts).await {
            Ok(dialled) => return Ok(dialled),
            Err(failure) => failure,
        };
        let unreachable = match failure {
            DialFailure::NoBackend(_) => false,
            DialFailure::Unreachable(_) => true,
            DialFailure::Ours(ending) => {
                pool.record_refusal();
                return Err(ending);
            }
        };
        match waiting.lease(origin, attempts, unreachable).await {
            Ok(waited_for) => first = FirstChoice { lease: Some(waited_for), tried: Excluded::new() },
            Err(end) => return Err(give_up(listener, pool, origin, attempts, &failure, end)),
        }
    }
}

/// Tries a backend, and `retries` further ones.
async fn try_backends<R: Reuse>(
    handle: &SessionHandle,
    listener: &Listener,
    pool: &Pool,
    origin: &Origin<'_>,
    reuse: &R,
    first: FirstChoice,
    attempts: &mut Attempts,
) -> Result<Dialled<R::Kept>, DialFailure> {
    let state = handle.state();
    let FirstChoice { lease: mut chosen, mut tried } = first;
    let mut failed: Option<Arc<pool::Backend>> = None;
    let mut ending = Termination::OutOfResources;
    for _ in 0..=pool.settings().retries {
        let lease = match chosen.take().map_or_else(|| pool.lease(origin.address.ip(), &tried), Ok) {
            Ok(lease) => lease,
            Err(_) if !tried.is_empty() => break,
            Err(why) => return Err(DialFailure::NoBackend(why)),
        };
        let id = lease.backend().id();
        handle.connection().connects_to(id);
        match failed.take() {
            Some(failed) => {
                attempts.retried();
                failed.counters().retried();
                listener.counters().retried();
            }
            None => state.measure(listener, id, Stage::Queue, attempts.time_waited()),
        }
        if let Some(kept) = reuse.take(lease.backend()) {
            handle.connection().mark_connected();
            return Ok(Dialled {
                link: Link::Reused(kept),
                lease,
                took: Duration::ZERO,
                handshake: None,
                greeting: None,
            });
        }
        let started = Instant::now();
        match connect(handle, listener, pool, &lease, origin, attempts).await {
            Ok(_) if lease.went_down() && lease.backend().settings().on_down == OnDown::Cut => {
                attempts.add(lease.backend(), ConnectFailure::WentDown.to_string());
                ending = Termination::ConnectFailed;
            }
            Ok((Upstream { backend, handshake, greeting }, took)) => {
                handle.connection().mark_connected();
                // Where TLS comes after the greeting, the backend has still to succeed in it.
                if !upstream::has_tls_to_come(lease.backend(), greeting.as_deref()) {
                    lease.backend().record_connect(took);
                }
                state.measure(listener, id, Stage::Connect, took);
                if let Some(handshake) = handshake {
                    state.measure_backend(id, Stage::TlsHandshake, handshake);
                    lease.backend().counters().handshakes().add(backend.is_resumed());
                }
                return Ok(Dialled { link: Link::New(backend), lease, took, handshake, greeting });
            }
            Err(scope) if scope.is_ours() => {
                return Err(DialFailure::Ours(match scope {
                    Scope::Program => Termination::InternalError,
                    _ => Termination::OutOfResources,
                }));
            }
            // No port is left towards this backend, which has no part in that.
            Err(Scope::LocalAddress) => {}
            Err(_) => {
                pool.record_connect_failure(lease.backend(), started.elapsed());
                ending = Termination::ConnectFailed;
            }
        }
        tried.add(lease.backend().id());
        failed = Some(Arc::clone(lease.backend()));
    }
    Err(DialFailure::Unreachable(ending))
}

/// Counts and logs a connection that gets no backend, and says how it ends.
fn give_up(
    listener: &Listener,
    pool: &Pool,
    origin: &Origin<'_>,
    attempts: &Attempts,
    failure: &DialFailure,
    end: QueueEnd,
) -> Termination {
    if end == QueueEnd::ClientLeft {
        return Termination::ClientLeft;
    }
    pool.record_refusal();
    let ending = match (failure, end) {
        (_, QueueEnd::Full) => Termination::QueueFull,
        (_, QueueEnd::TimedOut(_)) => Termination::QueueTimeout,
        (DialFailure::Unreachable(ending) | DialFailure::Ours(ending), _) => *ending,
        (DialFailure::NoBackend(_), _) => Termination::NoBackend,
    };
    match failure {
        DialFailure::NoBackend(why) => tell_no_backend(listener, pool, origin, why, end),
        DialFailure::Unreachable(_) | DialFailure::Ours(_) => tell_unreachable(listener, pool, origin, attempts, end),
    }
    ending
}

/// Connects to the leased backend within the connect timeout, TLS included. Says how long the connect itself took, or how far the
/// failure reaches.
async fn connect(
    handle: &SessionHandle,
    listener: &Listener,
    pool: &Pool,
    lease: &Lease,
    origin: &Origin<'_>,
    attempts: &mut Attempts,
) -> Result<(Upstream, Duration), Scope> {
    let backend = lease.backend();
    let address = backend.address().map(|address| address.for_client(|| origin.port()));
    let connected = match &address {
        Some(Some(address)) => connect_to(address, handle, listener, pool, backend, origin).await,
        Some(None) => Err(ConnectFailure::NoPort),
        None => Err(ConnectFailure::NoAddress),
    };
    connected.map_err(|failure| {
        tell_failed(listener, pool, backend, address.flatten().as_ref(), &failure, attempts);
        failure.scope()
    })
}

async fn connect_to(
    address: &Address,
    handle: &SessionHandle,
    listener: &Listener,
    pool: &Pool,
    chosen: &pool::Backend,
    origin: &Origin<'_>,
) -> Result<(Upstream, Duration), ConnectFailure> {
    let connector = handle.state().plane.connector(pool.id());
    let (started, timeout) = (Instant::now(), chosen.settings().connect_timeout);
    let deadline = worker::now() + timeout;
    let (resource, transport) = match address {
        Address::Tcp(_) => (Resource::Descriptor, Transport::Tcp),
        Address::Unix(path) => (Resource::ListenQueue(Arc::clone(path)), Transport::Other),
    };
    let start = || start(address, pool, chosen, listener.options());
    let fd =
        handle.state().retry_queues.start(&resource, deadline, start).await.map_err(|error| match error.scope() {
            Scope::Retry => ConnectFailure::QueueFull(timeout),
            _ => ConnectFailure::Call(error),
        })?;
    let socket = worker::connect(fd, address, transport, deadline).await.map_err(|error| match error {
        ConnectError::TimedOut => ConnectFailure::TimedOut(timeout),
        ConnectError::Failed(call, error) => ConnectFailure::of(call, error),
    })?;
    let took = started.elapsed();
    let upstream = upstream::handshake(socket, chosen, connector.as_deref(), origin, deadline)
        .await
        .map_err(ConnectFailure::UpstreamError)?;
    Ok((upstream, took))
}

/// Counts and logs a backend whose TLS failed after the client had got its greeting: no other backend can take the client's login.
pub(super) fn fail_late(
    listener: &Listener,
    pool: &Pool,
    backend: &pool::Backend,
    error: UpstreamError,
    took: Duration,
    attempts: &mut Attempts,
) -> Termination {
    let failure = ConnectFailure::UpstreamError(error);
    tell_failed(listener, pool, backend, None, &failure, attempts);
    pool.record_connect_failure(backend, took);
    pool.record_refusal();
    Termination::ConnectFailed
}

/// Starts the connect from the next source address; from the one after that when that one cannot be used, or has no port
/// left towards this destination.
fn start(
    address: &Address,
    pool: &Pool,
    backend: &pool::Backend,
    options: dial::Options,
) -> Result<OwnedFd, CallError> {
    let mut outcome = None;
    for source in pool.sources(backend.settings(), address) {
        match dial::start(address, Some(source), options) {
            Err(error) if error.scope() == Scope::LocalAddress => outcome = Some(Err(error)),
            started => return started,
        }
    }
    outcome.unwrap_or_else(|| dial::start(address, None, options))
}

/// Logs a connect that failed, and keeps it for the connection's own line.
fn tell_failed(
    listener: &Listener,
    pool: &Pool,
    backend: &pool::Backend,
    address: Option<&Address>,
    failure: &ConnectFailure,
    attempts: &mut Attempts,
) {
    let reason = failure.told(address);
    let more = match failure.scope().is_ours() {
        // The same for all backends.
        true => listener.refusals().admit(worker::now(), &failure.to_string()),
        false => backend.failed_connects().admit(worker::now(), &reason),
    };
    if let Some(more) = more {
        let (pool, backend) = (pool.name(), backend.name());
        tracing::warn!(%pool, %backend, %reason, more, "connect failed");
    }
    attempts.add(backend, reason);
}

/// Logs that no backend could take a connection.
fn tell_no_backend(listener: &Listener, pool: &Pool, origin: &Origin<'_>, why: &NoBackend, end: QueueEnd) {
    let Some(more) = listener.refusals().admit(worker::now(), &(pool.id(), why, end)) else { return };
    let reason = format!("{why}{}", told(end));
    listener.remember(origin.address, format!("pool {}: {reason}", pool.name()), more);
    let (listener, pool) = (&listener.config().name, pool.name());
    tracing::warn!(%listener, %pool, %reason, more, "no backend for a connection: closed");
}

/// Logs that a connection found no backend that could be reached, and what was wrong with each.
fn tell_unreachable(listener: &Listener, pool: &Pool, origin: &Origin<'_>, attempts: &Attempts, end: QueueEnd) {
    let reason = format!("{attempts}{}", told(end));
    let Some(more) = listener.refusals().admit(worker::now(), &(pool.id(), &reason)) else { return };
    listener.remember(origin.address, format!("pool {}: no backend could be reached ({reason})", pool.name()), more);
    // One alone was logged where it failed.
    if attempts.failed().len() > 1 || end != QueueEnd::NoQueue {
        let (listener, pool) = (&listener.config().name, pool.name());
        tracing::warn!(%listener, %pool, %reason, more, "no backend could be reached: closed");
    }
}

/// What the queue adds to the reason.
fn told(end: QueueEnd) -> String {
    match end {
        QueueEnd::NoQueue | QueueEnd::ClientLeft => String::new(),
        QueueEnd::Full => "; the queue is full".to_owned(),
        QueueEnd::TimedOut(after) => format!("; waited for {after:?} (queue.timeout)"),
    }
}
