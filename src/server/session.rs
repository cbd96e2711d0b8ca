//! The life of one connection.

use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::cancel;
use super::crew::WorkerSlot;
use super::deadline::{Due, expiry, next_deadline};
use super::dial::{self, Attempts, FirstChoice, Link, NoReuse};
use super::http;
use super::listener::Listener;
use super::login::{self, Unserved};
use super::peek::write_all;
use super::preamble;
use super::record::Record;
use super::reject::reject;
use super::sniff_tap::SniffTap;
use super::transport::{BackendConn, ClientConn, Conn};
use super::upstream::{Origin, ReceivedGreeting};
use super::worker_state::{SessionHandle, WorkerState};
use crate::limits::Permit;
use crate::net::addr::ClientAddr;
use crate::relay::{End, Relay, Stream, Tap, Turn, TurnTimes};
use crate::stats::termination::{Side, Termination};
use crate::worker::{self, Priority, Socket, Timer, Transport, poll_fn};

/// Age at which keepalive is turned on towards the backend. Towards the client it is on from the start, as accepted sockets inherit
/// it.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);

/// Bytes moved in one turn from which on a connection is bulk: twice a message of 64 KiB, half of what a turn allows.
const BULK_THRESHOLD: u64 = 128 * 1024;

/// Turns after which a connection is no longer new, even if its backend has not answered.
const NEW_FOR: u8 = 8;

/// Time to tell a client at the end of the drain that the process ends: less than the end waits for its connections.
const DRAIN_ANSWER: Duration = Duration::from_millis(200);

/// Retry-After of a rejection whose end is unknown.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A connection that was accepted, and nothing else yet. It may change its thread.
pub(super) struct Accepted {
    pub(super) socket: OwnedFd,
    pub(super) transport: Transport,
    pub(super) client: ClientAddr,
    pub(super) at: Instant,
    pub(super) listener: Arc<Listener>,
    pub(super) permits: Permits,
    pub(super) slot: WorkerSlot,
}

/// Room for one connection: in the process, and in its listener.
pub(super) struct Permits {
    _process: Permit,
    _listener: Permit,
}

impl Permits {
    pub(super) fn new(process: Permit, listener: Permit) -> Permits {
        Permits { _process: process, _listener: listener }
    }
}

/// Starts a connection's task on this worker.
pub(super) fn start(accepted: Accepted) {
    let Accepted { socket, transport, client, at, listener, permits, slot } = accepted;
    let state = WorkerState::current();
    let handle = state.enter(listener, client, at);
    let mut record = Record::new(&handle);
    let socket = match Socket::new(socket, transport) {
        Ok(socket) => socket,
        Err(_) => {
            record.ending = Termination::OutOfResources;
            return;
        }
    };
    let client = Some(Conn::Plain(socket));
    let mut session = Session { client, backend: None, record, handle, _permits: permits, _slot: slot };
    // A block, because an async fn would keep what it is given twice.
    worker::spawn(async move {
        session.handle.connection().begin();
        let ending = session.serve().await;
        session.record.end(ending);
    });
}

/// A connection. However its life ends, by a panic even, its parts give back what they took when they are
/// dropped, in this order: the sockets are closed before the connection is counted and logged as ended, and
/// its room is given away last.
struct Session {
    /// Gone only while it is being opened.
    client: Option<ClientConn>,
    backend: Option<BackendConn>,
    record: Record,
    handle: SessionHandle,
    _permits: Permits,
    _slot: WorkerSlot,
}

impl Session {
    /// Reads the preamble, connects a backend, relays.
    async fn serve(&mut self) -> Termination {
        if self.record.listener().looks_first()
            && let Err(ending) = self.open().await
        {
            return ending;
        }
        if self.record.rejected().is_none() && self.record.listener().config().http.is_some() {
            return Box::pin(self.serve_http()).await;
        }
        let served = match self.record.rejected() {
            Some(ending) => Err(Unserved::ungreeted(ending)),
            None => self.dial().await,
        };
        if let Err(Unserved { ending, sequence }) = served {
            self.send_error(ending, sequence).await;
            let is_reset = matches!(ending, Termination::Reset(_));
            if is_reset || self.handle.aborted().is_some() && !ending.is_of_drain() {
                self.reset_unless_complete(ending);
            }
            return ending;
        }
        let ending = match self.record.connection.preamble().is_some_and(|preamble| preamble.is_cancel) {
            true => self.forward_cancel().await,
            false => {
                let ending = self.relay().await;
                self.classify(ending)
            }
        };
        self.reset_unless_complete(ending);
        ending
    }

    /// Answers requests, and relays what comes after a switch of protocols.
    async fn serve_http(&mut self) -> Termination {
        let Some(client) = self.client.take() else { return Termination::InternalError };
        let peeked = self.record.take_peeked();
        match http::serve(client, peeked, &self.handle).await {
            http::Served::Ended(ending) => ending,
            http::Served::Switched(client, tunnel) => {
                let ahead = tunnel.ahead;
                self.record.connection.connects_to(tunnel.lease.backend().id());
                self.record.connection.mark_connected();
                self.record.connection.hold(tunnel.lease);
                self.client = Some(client);
                self.backend = Some(tunnel.backend);
                let ending = match self.send_ahead(ahead).await {
                    Ok(()) => self.relay().await,
                    Err(ending) => ending,
                };
                let ending = self.classify(ending);
                self.reset_unless_complete(ending);
                ending
            }
        }
    }

    /// Gives the client what its backend has sent already.
    async fn send_ahead(&self, ahead: Vec<u8>) -> Result<(), Termination> {
        let Session { client: Some(client), handle, .. } = self else { return Err(Termination::InternalError) };
        let sending = Box::pin(async {
            write_all(client, &ahead).await?;
            poll_fn(|_| client.poll_flush()).await
        });
        handle.unless_aborted(sending).await?.map_err(|_| Termination::Reset(Side::Client))?;
        self.record.passed(0, ahead.len() as u64);
        Ok(())
    }

    /// Forwards a CancelRequest, the only bytes of the client that its backend gets.
    async fn forward_cancel(&mut self) -> Termination {
        let Session { client: Some(client), backend: Some(backend), record, handle, .. } = self else {
            return Termination::InternalError;
        };
        let request = record.take_peeked();
        record.passed(request.as_slice().len() as u64, 0);
        let forwarding = Box::pin(cancel::forward(request.as_slice(), client, backend));
        handle.unless_aborted(forwarding).await.unwrap_or_else(|aborted| aborted)
    }

    async fn open(&mut self) -> Result<(), Termination> {
        let Session { client, record, handle, .. } = self;
        let Some(Conn::Plain(socket)) = client.take() else { return Err(Termination::InternalError) };
        // Boxed, as what follows is: few connections are in there at once, and what that takes is more than a relay does.
        let opening = Box::pin(preamble::read(&record.connection, socket));
        let (client, preamble, peeked) = handle.unless_aborted(opening).await??;
        self.record.opened(preamble, peeked);
        self.client = Some(client);
        Ok(())
    }

    /// Connects a backend, and has the client log in where its login is rewritten.
    async fn dial(&mut self) -> Result<(), Unserved> {
        let Session { client: Some(client), record, handle, .. } = self else {
            return Err(Unserved::ungreeted(Termination::InternalError));
        };
        let connection = &*record.connection;
        let (listener, pool) = (&*connection.listener, &**connection.pool());
        let origin = Origin::of(connection, client);
        let mut attempts = Attempts::default();
        let dialling = dial::dial(handle, listener, pool, &origin, &NoReuse, FirstChoice::default(), &mut attempts);
        let dialled = Box::pin(dialling).await;
        record.attempts = attempts;
        let dialled = dialled.map_err(Unserved::ungreeted)?;
        record.connect = Some(dialled.took);
        record.backend_handshake = dialled.handshake;
        record.connection.hold(dialled.lease);
        let Link::New(backend) = dialled.link;
        self.backend = Some(backend);
        match dialled.greeting {
            Some(greeting) => self.log_in(greeting).await,
            None => Ok(()),
        }
    }

    /// Rewrites the login of a MySQL client, with TLS on either side.
    async fn log_in(&mut self, greeting: Box<ReceivedGreeting>) -> Result<(), Unserved> {
        let Session { client, backend, record, handle, .. } = self;
        Box::pin(login::log_in(greeting, client, backend, record, handle)).await
    }

    /// Tells the client why it gets no backend, unless the connection is cut meanwhile.
    async fn send_error(&mut self, ending: Termination, sequence: Option<u8>) {
        let Session { client: Some(client), record, handle, .. } = self else { return };
        let peeked = record.take_peeked();
        let connection = &*record.connection;
        record.state.look_for_unread(connection, &*client);
        let slot = connection.preamble().and_then(|preamble| preamble.reject_slot.as_ref());
        let retry_after = slot.map_or(DEFAULT_RETRY_AFTER, |slot| slot.retry_after);
        let saying = reject(connection, client, peeked, ending, retry_after, sequence);
        let saying = Box::pin(async {
            match ending.is_of_drain() {
                true => worker::until(Some(worker::now() + DRAIN_ANSWER), saying).await,
                false => handle.unless_aborted(pin!(saying)).await.ok(),
            }
        });
        // Aborted, late or not, it is over.
        let _ = saying.await;
    }

    /// Sends RST unless both sides finished: a truncated stream must not look complete. A no-op on a side that is closed already.
    fn reset_unless_complete(&self, ending: Termination) {
        if matches!(ending, Termination::Closed(_) | Termination::Truncated(_)) {
            return;
        }
        // A reset would overtake the alert that was sent to the side that broke TLS.
        if ending != Termination::TlsProtocolError(Side::Client) {
            self.client.as_ref().inspect(|client| client.reset_on_close());
        }
        if ending != Termination::TlsProtocolError(Side::Backend) {
            self.backend.as_ref().inspect(|backend| backend.reset_on_close());
        }
    }

    /// Moves bytes until the connection ends by itself, or a timeout or the outside ends it.
    ///
    /// No async fn, which would keep its arguments and locals twice while the connection is idle.
    fn relay(&mut self) -> impl Future<Output = Termination> {
        let record = &mut self.record;
        let peeked = record.take_peeked().into_bytes();
        let connection = &*record.connection;
        let mut sniff_tap = SniffTap::new(&record.state, connection);
        if !peeked.is_empty() {
            sniff_tap.on_bytes(Side::Client, &peeked, worker::now());
        }
        let mut relay = Relay::new(worker::now(), peeked).resume(connection.bytes_in(), connection.bytes_out());
        let mut timer = Timer::default();
        let expires = expiry(&connection.listener.config().timeouts, connection.accepted);
        let (mut has_keepalive, mut priority, mut turns) = (false, Priority::New, 0u8);
        poll_fn(move |_| {
            let Session { client: Some(client), backend: Some(backend), record, handle, .. } = &mut *self else {
                return Poll::Ready(Termination::InternalError);
            };
            if let Some(abort) = handle.aborted() {
                return Poll::Ready(abort.into());
            }
            loop {
                let now = worker::now();
                let mut resources = record.state.relay_resources.borrow_mut();
                let times = TurnTimes { now, arrived: worker::woken_at() };
                let pacing = record.connection.pacing();
                resources.set_large_turns(priority == Priority::Bulk && worker::has_only_bulk());
                let turn = relay.turn(client, backend, &mut resources, &mut sniff_tap, times, pacing);
                drop(resources);
                let moved = record.moved(&mut relay);
                turns = turns.saturating_add(1);
                let next = match moved >= BULK_THRESHOLD {
                    true => Priority::Bulk,
                    false if relay.bytes_to_client() == 0 && turns < NEW_FOR => Priority::New,
                    false => Priority::Interactive,
                };
                if next != priority {
                    priority = next;
                    worker::set_priority(priority);
                }
                match turn {
                    Turn::Ended(end) => return Poll::Ready(end.into()),
                    Turn::Again => worker::reschedule(),
                    Turn::Wait => {}
                }
                let connection = &*record.connection;
                let pacing = connection.pacing();
                let (timeouts, options) = (&connection.listener.config().timeouts, connection.listener.options());
                let keepalive_at = options
                    .keepalive
                    .filter(|_| !has_keepalive)
                    .map(|idle| connection.accepted + idle.min(KEEPALIVE_AFTER));
                let Some((deadline, due)) =
                    next_deadline(&relay, pacing, timeouts, record.state.draining_since(), expires, keepalive_at)
                else {
                    return Poll::Pending;
                };
                if timer.poll_expired(deadline).is_pending() {
                    return Poll::Pending;
                }
                match due {
                    Due::End(ending) => return Poll::Ready(ending),
                    Due::Relay => {}
                    Due::Keepalive => {
                        has_keepalive = true;
                        // A unix socket has no keepalive, and needs none.
                        let _ = options.apply_lasting(&*backend);
                    }
                }
            }
        })
    }

    /// How a relay ended, by what its sides know of it.
    fn classify(&self, ending: Termination) -> Termination {
        let Session { client: Some(client), backend: Some(backend), record, .. } = self else {
            return ending;
        };
        if let Some((ending, why)) = client.late_header() {
            record.connection.set_sent(true);
            record.listener().log_refusal(record.connection.client.get(), why);
            return ending;
        }
        match ending {
            Termination::Closed(Side::Client) if client.is_truncated() => Termination::Truncated(Side::Client),
            Termination::Closed(Side::Backend) if backend.is_truncated() => Termination::Truncated(Side::Backend),
            ending => ending,
        }
    }
}

impl From<End> for Termination {
    fn from(end: End) -> Termination {
        match end {
            End::Closed(side) => Termination::Closed(side),
            End::Reset(side) => Termination::Reset(side),
            End::Unreachable(side) => Termination::Unreachable(side),
            End::TlsProtocolError(side) => Termination::TlsProtocolError(side),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most of the memory of an idle connection.
    #[test]
    fn task_of_a_session_takes_at_most_408_bytes() {
        fn size_of_future<'s, F: Future>(_: impl FnOnce(&'s mut Session) -> F) -> usize {
            size_of::<F>()
        }

        let size = size_of::<Session>() + size_of_future(Session::serve);
        assert!(size <= 408, "{size} bytes");
    }
}
