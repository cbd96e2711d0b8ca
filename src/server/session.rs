//! The life of one connection.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use super::accept::{Accepted, Permits};
use super::cancel;
use super::data_plane::WorkerSlot;
use super::dial::{self, Attempts};
use super::http_tap::HttpTap;
use super::listener::Listener;
use super::preamble::{self, Preamble};
use super::reject::reject;
use super::transport::{Backend, Client, Conn};
use super::upstream::Origin;
use super::worker_state::{SessionHandle, WorkerState};
use crate::config::model::ListenerTimeouts;
use crate::log::access::{Line, Open};
use crate::net::addr::ClientAddr;
use crate::pool::{Lease, Pool};
use crate::relay::{End, Relay, Stream, Tap, Turn};
use crate::stats::latency::Stage;
use crate::stats::registry::BackendId;
use crate::stats::termination::{Side, Termination};
use crate::worker::{self, Priority, Socket, Timer, poll_fn};

/// From this age on a connection lasts: keepalive is turned on towards its backend. Towards its client it is from
/// the start, as accepted sockets inherit it.
const LASTING: Duration = Duration::from_secs(5);

/// Bytes moved in one turn from which on a connection is bulk: twice a message of 64 KiB, half of what a turn allows.
const BULK_THRESHOLD: u64 = 128 * 1024;

/// The half-close timeout of a connection whose backend has finished, while tidegate drains.
const DRAIN_HALF_CLOSE: Duration = Duration::from_secs(1);

/// Turns after which a connection is no longer new, even if its backend has not answered.
const NEW_FOR: u8 = 8;

/// When a client that gets no backend may try again, where nobody knows better.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Begins a connection's life on this worker; it goes on as a task.
pub(super) fn start(accepted: Accepted) {
    let Accepted { socket, transport, client, at, listener, permits, slot } = accepted;
    let state = WorkerState::current();
    let handle = state.enter();
    let mut record = Record::new(state, listener, client, at);
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
    worker::spawn(async move { session.run().await });
}

/// A connection. However its life ends, by a panic even, its parts give back what they took when they are
/// dropped, in this order: the sockets are closed before the connection is counted and logged as ended, and
/// its room is given away last.
struct Session {
    /// Gone only while it is being opened.
    client: Option<Client>,
    backend: Option<Backend>,
    record: Record,
    handle: SessionHandle,
    _permits: Permits,
    _slot: WorkerSlot,
}

impl Session {
    async fn run(&mut self) {
        self.handle.begin();
        self.record.ending = self.serve().await;
    }

    /// Learns what the client wants, gives it a backend, and passes on what they have to say to each other.
    async fn serve(&mut self) -> Termination {
        if self.record.listener.looks_first()
            && let Err(ending) = self.open().await
        {
            return ending;
        }
        let served = match self.record.over_limit() {
            Some(ending) => Err(ending),
            None => self.dial().await,
        };
        if let Err(ending) = served {
            self.send_error(ending).await;
            return ending;
        }
        let ending = match self.record.preamble.as_ref().is_some_and(|preamble| preamble.is_cancel) {
            true => self.forward_cancel().await,
            false => self.relay().await,
        };
        self.reset_unless_complete(ending);
        ending
    }

    /// Forwards a CancelRequest, which is all of the client's that its backend gets.
    async fn forward_cancel(&mut self) -> Termination {
        let Session { client: Some(client), backend: Some(backend), record, handle, .. } = self else {
            return Termination::InternalError;
        };
        let request = record.preamble.as_mut().map(|preamble| std::mem::take(&mut preamble.peeked)).unwrap_or_default();
        record.count_to_backend(request.as_slice().len() as u64);
        let forwarding = Box::pin(cancel::forward(request.as_slice(), client, backend));
        handle.unless_aborted(forwarding).await.unwrap_or_else(|aborted| aborted)
    }

    async fn open(&mut self) -> Result<(), Termination> {
        let Session { client, record, handle, .. } = self;
        let Some(Conn::Plain(socket)) = client.take() else { return Err(Termination::InternalError) };
        // Boxed, as what follows is: few connections are in there at once, and what that takes is more than a relay does.
        let opening = Box::pin(preamble::read(&record.listener, &mut record.client, socket));
        let (client, preamble) = handle.unless_aborted(opening).await??;
        self.record.preamble = Some(Box::new(preamble));
        self.client = Some(client);
        Ok(())
    }

    async fn dial(&mut self) -> Result<(), Termination> {
        let Session { client: Some(client), record, handle, .. } = self else {
            return Err(Termination::InternalError);
        };
        if record.pool().settings().send_proxy.is_some() {
            record.preamble.get_or_insert_default().id = NonZeroU64::new(fastrand::u64(1..));
        }
        let (listener, pool) = (&record.listener, record.pool());
        let negotiates = listener.config().tls.as_ref().is_some_and(|tls| !tls.alpn.is_empty());
        let origin = Origin { client, address: record.client, preamble: record.preamble.as_deref(), negotiates };
        let mut attempts = Attempts::default();
        let dialled = Box::pin(dial::dial(handle, listener, pool, &origin, &mut attempts)).await;
        record.attempts = attempts;
        let dialled = dialled?;
        record.backend = dialled.lease.backend().id();
        record.connect = Some(dialled.took);
        record.backend_handshake = dialled.handshake;
        record.lease = Some(dialled.lease);
        self.backend = Some(dialled.backend);
        Ok(())
    }

    /// Tells the client why it gets no backend, unless the connection is cut meanwhile.
    async fn send_error(&mut self, ending: Termination) {
        let Session { client: Some(client), record, handle, .. } = self else { return };
        let peeked = record.preamble.as_mut().map(|preamble| std::mem::take(&mut preamble.peeked)).unwrap_or_default();
        let slot = record.preamble.as_ref().and_then(|preamble| preamble.reject_slot.as_ref());
        let retry_after = slot.map_or(A_MOMENT, |slot| slot.over.wait);
        let saying = Box::pin(reject(&record.listener, client, peeked, ending, retry_after));
        // Aborted or not, it is over.
        let _ = handle.unless_aborted(saying).await;
    }

    /// Cut short, neither side may take it for complete. For one that was told already, it is the same.
    fn reset_unless_complete(&self, ending: Termination) {
        if matches!(ending, Termination::Closed(_) | Termination::Truncated(_)) {
            return;
        }
        // Whoever broke the rules of TLS was told so by an alert, which a reset would overtake.
        if ending != Termination::TlsProtocolError(Side::Client) {
            self.client.as_ref().inspect(|client| client.reset_on_close());
        }
        if ending != Termination::TlsProtocolError(Side::Backend) {
            self.backend.as_ref().inspect(|backend| backend.reset_on_close());
        }
    }

    /// Moves bytes until the connection ends by itself, or a timeout or the outside ends it.
    async fn relay(&mut self) -> Termination {
        let Session { client: Some(client), backend: Some(backend), record, handle, .. } = self else {
            return Termination::InternalError;
        };
        let peeked = record.preamble.as_mut().map(|preamble| std::mem::take(&mut preamble.peeked)).unwrap_or_default();
        let peeked = peeked.into_bytes();
        // Where nobody reads what is seen, nothing is looked for.
        let watches = record.listener.sniffs_http() && record.state.measures();
        let mut http_tap = watches
            .then(|| Box::new(HttpTap::new(Rc::clone(&record.state), Arc::clone(&record.listener), record.backend)));
        if !peeked.is_empty() {
            http_tap.saw(Side::Client, &peeked, worker::now());
        }
        let mut relay = Relay::new(worker::now(), peeked);
        let mut timer = Timer::default();
        let expires = expiry(&record.listener.config().timeouts, record.accepted);
        let (mut is_lasting, mut priority, mut turns) = (false, Priority::New, 0u8);
        let ending = poll_fn(|_| {
            if let Some(abort) = handle.aborted() {
                return Poll::Ready(abort.into());
            }
            loop {
                let now = worker::now();
                let mut tools = record.state.tools.borrow_mut();
                let turn = relay.turn(client, backend, &mut tools, &mut http_tap, now, worker::woken_at());
                drop(tools);
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
                let (timeouts, options) = (&record.listener.config().timeouts, record.listener.options());
                let lasts_from =
                    options.keepalive.filter(|_| !is_lasting).map(|idle| record.accepted + idle.min(LASTING));
                let Some((deadline, due)) =
                    next_deadline(&relay, timeouts, record.state.draining_since(), expires, lasts_from)
                else {
                    return Poll::Pending;
                };
                if timer.poll_expired(deadline).is_pending() {
                    return Poll::Pending;
                }
                match due {
                    Due::End(ending) => return Poll::Ready(ending),
                    Due::Relay => {}
                    Due::Lasting => {
                        is_lasting = true;
                        // Over a unix socket there is no such thing, and no need of it.
                        let _ = options.apply_lasting(&*backend);
                    }
                }
            }
        })
        .await;
        if let Some((ending, why)) = client.late_header() {
            record.listener.refuse(record.client, why);
            return ending;
        }
        match ending {
            Termination::Closed(Side::Client) if client.is_truncated() => Termination::Truncated(Side::Client),
            Termination::Closed(Side::Backend) if backend.is_truncated() => Termination::Truncated(Side::Backend),
            ending => ending,
        }
    }
}

/// When a connection that was accepted then is too old: `lifetime` ± 10 %, so that those which came together
/// do not go together.
fn expiry(timeouts: &ListenerTimeouts, accepted: Instant) -> Option<Instant> {
    let lifetime = timeouts.lifetime?;
    accepted.checked_add(lifetime.mul_f64(0.9 + 0.2 * fastrand::f64()))
}

/// What there is to do at a moment until which no byte has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The connection ends.
    End(Termination),
    /// The relay wants to be polled.
    Relay,
    /// The connection has lasted.
    Lasting,
}

/// The next moment at which there is something to do.
fn next_deadline(
    relay: &Relay,
    timeouts: &ListenerTimeouts,
    draining_since: Option<Instant>,
    expires: Option<Instant>,
    lasts_from: Option<Instant>,
) -> Option<(Instant, Due)> {
    let after = |timeout: Option<Duration>| timeout.and_then(|timeout| relay.last_moved().checked_add(timeout));
    let mut half_close = if relay.is_half_closed() { after(timeouts.half_close) } else { None };
    if let (Some(Side::Backend), Some(since)) = (relay.finished_first(), draining_since) {
        // Only the client's own FIN is missing, which a pooled connection sends when it is next used.
        let drain = relay.last_moved().max(since) + DRAIN_HALF_CLOSE;
        half_close = Some(half_close.map_or(drain, |at| at.min(drain)));
    }
    let all = [
        (relay.wake_at(), Due::Relay),
        (lasts_from, Due::Lasting),
        (half_close, Due::End(Termination::HalfCloseTimeout)),
        (after(timeouts.idle), Due::End(Termination::IdleTimeout)),
        (expires, Due::End(Termination::Lifetime)),
    ];
    all.into_iter().filter_map(|(at, due)| Some((at?, due))).min_by_key(|&(at, _)| at)
}

impl From<End> for Termination {
    fn from(end: End) -> Termination {
        match end {
            End::Closed(side) => Termination::Closed(side),
            End::Reset(side) => Termination::Reset(side),
            End::Lost(side) => Termination::Unreachable(side),
            End::TlsProtocolError(side) => Termination::TlsProtocolError(side),
        }
    }
}

/// What becomes known of a connection; counted and logged when dropped.
struct Record {
    state: Rc<WorkerState>,
    listener: Arc<Listener>,
    client: ClientAddr,
    accepted: Instant,
    /// The connection's claim on its backend.
    lease: Option<Lease>,
    backend: BackendId,
    connect: Option<Duration>,
    /// The TLS handshake with the backend.
    backend_handshake: Option<Duration>,
    first_byte: Option<Duration>,
    /// How many there were, and their sum.
    turnarounds: (u32, Duration),
    attempts: Attempts,
    bytes_in: u64,
    bytes_out: u64,
    /// Boxed: most connections have none.
    preamble: Option<Box<Preamble>>,
    ending: Termination,
}

impl Record {
    fn new(state: Rc<WorkerState>, listener: Arc<Listener>, client: ClientAddr, accepted: Instant) -> Record {
        Record {
            state,
            listener,
            client,
            accepted,
            lease: None,
            backend: BackendId::NONE,
            connect: None,
            backend_handshake: None,
            first_byte: None,
            turnarounds: (0, Duration::ZERO),
            attempts: Attempts::default(),
            bytes_in: 0,
            bytes_out: 0,
            preamble: None,
            // Unless it gets as far as to say otherwise.
            ending: Termination::InternalError,
        }
    }

    /// The limit that the client is over, if it is to be told so.
    fn over_limit(&self) -> Option<Termination> {
        Some(self.preamble.as_ref()?.reject_slot.as_ref()?.over.limit.into())
    }

    /// Where the connection goes.
    fn pool(&self) -> &Arc<Pool> {
        self.listener.pool(self.preamble.as_ref().and_then(|preamble| preamble.route))
    }

    /// Counts bytes that go to the backend without a relay.
    fn count_to_backend(&mut self, bytes: u64) {
        let Record { state, listener, lease: Some(lease), .. } = self else { return };
        self.bytes_in += bytes;
        listener.traffic().add(state.worker, bytes, 0);
        lease.backend().traffic().add(state.worker, bytes, 0);
    }

    /// Takes down what a turn of the relay has moved and measured. Returns the bytes.
    fn moved(&mut self, relay: &mut Relay) -> u64 {
        let Record { state, listener, lease: Some(lease), backend, .. } = self else { return 0 };
        let (bytes_in, bytes_out) = (relay.bytes_to_backend(), relay.bytes_to_client());
        let (more_in, more_out) = (bytes_in - self.bytes_in, bytes_out - self.bytes_out);
        if more_in + more_out > 0 {
            (self.bytes_in, self.bytes_out) = (bytes_in, bytes_out);
            listener.traffic().add(state.worker, more_in, more_out);
            lease.backend().traffic().add(state.worker, more_in, more_out);
            if let Some(took) = relay.take_turnaround() {
                self.turnarounds = (self.turnarounds.0.saturating_add(1), self.turnarounds.1 + took);
                state.measure(listener, *backend, Stage::Turnaround, took);
            }
            if let Some(took) = relay.take_first_byte() {
                self.first_byte = Some(took);
                lease.backend().record_first_byte(took);
                state.measure(listener, *backend, Stage::FirstByte, took);
            }
        }
        more_in + more_out
    }
}

impl Drop for Record {
    /// Counts first: whatever happens to the log line, the books are right.
    fn drop(&mut self) {
        let duration = self.accepted.elapsed();
        let backend = self.lease.as_ref().map(|lease| Arc::clone(lease.backend()));
        // This connection among them.
        let open = self.state.access().is_some().then(|| Open {
            process: self.state.plane.open(),
            listener: self.listener.counters().open(),
            pool: self.pool().connections(),
            backend: backend.as_ref().map_or(0, |backend| backend.connections()),
        });
        if let Some(lease) = self.lease.take() {
            match self.ending.fault() {
                Some(Side::Backend) => lease.backend().counters().failed(),
                Some(Side::Client) => lease.backend().counters().client_aborted(),
                None => {}
            }
        }
        self.listener.counters().closed(self.ending);
        self.state.measure(&self.listener, self.backend, Stage::Session, duration);
        if let (Some(writer), Some(open)) = (&mut *self.state.access(), open) {
            let (turnarounds, sum) = self.turnarounds;
            writer.write(&Line {
                time: SystemTime::now(),
                listener: &self.listener.config().name,
                pool: self.pool().name(),
                client: self.client,
                backend: backend.as_ref().map(|backend| &**backend.name()),
                id: self.preamble.as_ref().and_then(|preamble| preamble.id),
                queue: self.connect.map(|_| Duration::ZERO),
                connect: self.connect,
                client_handshake: self.preamble.as_ref().and_then(|preamble| preamble.handshake),
                backend_handshake: self.backend_handshake,
                first_byte: self.first_byte,
                turnarounds,
                turnaround: sum.checked_div(turnarounds),
                duration,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                retries: self.attempts.retries(),
                failed_connects: self.attempts.failed(),
                open,
                ending: self.ending,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn timeouts() -> ListenerTimeouts {
        ListenerTimeouts {
            sniff: None,
            handshake: None,
            idle: Some(IDLE),
            half_close: Some(Duration::from_secs(1)),
            lifetime: Some(HOUR),
        }
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let now = Instant::now();
        let relay = Relay::new(now, Vec::new());
        let due = |expires, lasts_from| next_deadline(&relay, &timeouts(), None, expires, lasts_from);
        // Not half-closed, so that half_close does not count.
        assert_eq!(due(None, None), Some((now + IDLE, Due::End(Termination::IdleTimeout))));
        assert_eq!(due(Some(now + HOUR), None), Some((now + IDLE, Due::End(Termination::IdleTimeout))));
        assert_eq!(due(Some(now), None), Some((now, Due::End(Termination::Lifetime))));
        assert_eq!(due(Some(now + HOUR), Some(now + LASTING)), Some((now + LASTING, Due::Lasting)));
        let none = ListenerTimeouts { idle: None, half_close: None, lifetime: None, ..timeouts() };
        assert_eq!(next_deadline(&relay, &none, None, None, None), None);
    }

    #[test]
    fn lifetimes_are_spread_over_a_tenth_either_way() {
        let accepted = Instant::now();
        let ages: Vec<Duration> =
            (0..1000).map(|_| expiry(&timeouts(), accepted).unwrap().duration_since(accepted)).collect();
        assert!(ages.iter().all(|age| (HOUR.mul_f64(0.9)..=HOUR.mul_f64(1.1)).contains(age)));
        assert!(ages.iter().any(|&age| age < HOUR.mul_f64(0.95)) && ages.iter().any(|&age| age > HOUR.mul_f64(1.05)));
        assert_eq!(expiry(&ListenerTimeouts { lifetime: None, ..timeouts() }, accepted), None);
    }
}
