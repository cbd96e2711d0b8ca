//! The life of one connection.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use super::accept::Fresh;
use super::context::{Context, Entered, ListenerState};
use super::dial;
use crate::config::model::ListenerTimeouts;
use crate::log::access::Line;
use crate::net::addr::ClientAddr;
use crate::pool::Lease;
use crate::relay::{End, Relay, Stream};
use crate::stats::ending::Ending;
use crate::worker::{self, Socket, Timer};

/// Serves a connection from accept to its end.
///
/// Whatever happens on the way, a panic included, what it holds gives back what it took, and its [`Record`]
/// is counted and logged.
pub(super) async fn serve(fresh: Fresh) {
    let Fresh { socket, transport, client, accepted, listener, permits: _permits, place: _place } = fresh;
    let context = Context::current();
    let entered = context.enter();
    let mut record = Record::new(context, listener, client, accepted);
    record.ending = match Socket::new(socket, transport) {
        Ok(socket) => converse(&entered, socket, &mut record).await,
        Err(_) => Ending::OutOfResources,
    };
}

async fn converse(entered: &Entered, client: Socket, record: &mut Record) -> Ending {
    // Boxed, because few connections are in here at once, and its state is larger than that of a relay.
    let dialled = Box::pin(dial::dial(entered, &record.listener, record.client_ip(), &client)).await;
    let backend = match dialled {
        Ok(dialled) => {
            record.connect = Some(dialled.took);
            record.lease = Some(dialled.lease);
            dialled.socket
        }
        Err(ending) => return ending,
    };
    let ending = relay(entered, &client, &backend, record).await;
    if !matches!(ending, Ending::Closed(_)) {
        // Cut short: neither side may take it for complete. For the side that was told already, it is the same.
        client.reset_on_close();
        backend.reset_on_close();
    }
    ending
}

/// Moves bytes until the connection ends by itself, or a timeout or the outside ends it.
async fn relay(entered: &Entered, client: &Socket, backend: &Socket, record: &mut Record) -> Ending {
    let mut relay = Relay::new(worker::now());
    let mut timer = Timer::default();
    let expires = expiry(&record.listener.config().timeouts, record.accepted);
    let ending = poll_fn(|cx| {
        if let Poll::Ready(cut) = entered.poll_cut(cx) {
            return Poll::Ready(cut.into());
        }
        loop {
            let context = entered.context();
            let now = worker::now();
            let polled = relay.poll(cx, client, backend, &mut context.tools.borrow_mut(), now);
            if let (Some(took), Some(lease)) = (relay.take_first_byte(), &record.lease) {
                context.record_first_byte(record.listener.pool(), lease.backend(), took);
            }
            if let Poll::Ready(end) = polled {
                return Poll::Ready(end.into());
            }
            let Some((deadline, ending)) = next_deadline(&relay, &record.listener.config().timeouts, expires) else {
                return Poll::Pending;
            };
            if timer.poll_expired(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            if let Some(ending) = ending {
                return Poll::Ready(ending);
            }
        }
    })
    .await;
    record.bytes_in = relay.bytes_to_backend();
    record.bytes_out = relay.bytes_to_client();
    ending
}

/// When a connection that was accepted then is too old: `lifetime` ± 10 %, so that those which came together
/// do not go together.
fn expiry(timeouts: &ListenerTimeouts, accepted: Instant) -> Option<Instant> {
    let lifetime = timeouts.lifetime?;
    accepted.checked_add(lifetime.mul_f64(0.9 + 0.2 * fastrand::f64()))
}

/// The next moment at which something has to be done if no byte moves until then: the connection ended, or,
/// with `None`, the relay polled again.
fn next_deadline(
    relay: &Relay,
    timeouts: &ListenerTimeouts,
    expires: Option<Instant>,
) -> Option<(Instant, Option<Ending>)> {
    let after = |timeout: Option<Duration>| timeout.and_then(|timeout| relay.last_moved().checked_add(timeout));
    let half_close = if relay.is_half_closed() { after(timeouts.half_close) } else { None };
    let all = [
        (relay.wake_at(), None),
        (half_close, Some(Ending::HalfCloseTimeout)),
        (after(timeouts.idle), Some(Ending::IdleTimeout)),
        (expires, Some(Ending::Lifetime)),
    ];
    all.into_iter().filter_map(|(at, ending)| Some((at?, ending))).min_by_key(|&(at, _)| at)
}

impl From<End> for Ending {
    fn from(end: End) -> Ending {
        match end {
            End::Closed(side) => Ending::Closed(side),
            End::Reset(side) => Ending::Reset(side),
            End::Lost(side) => Ending::Lost(side),
        }
    }
}

/// What becomes known of a connection; counted and logged when dropped.
struct Record {
    context: Rc<Context>,
    listener: Arc<ListenerState>,
    client: ClientAddr,
    accepted: Instant,
    /// The connection's claim on its backend.
    lease: Option<Lease>,
    connect: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    ending: Ending,
}

impl Record {
    fn new(context: Rc<Context>, listener: Arc<ListenerState>, client: ClientAddr, accepted: Instant) -> Record {
        // Unless it gets as far as to say otherwise.
        let ending = Ending::InternalError;
        Record { context, listener, client, accepted, lease: None, connect: None, bytes_in: 0, bytes_out: 0, ending }
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.client.ip()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(writer) = &mut *self.context.access() {
            writer.write(&Line {
                time: SystemTime::now(),
                listener: &self.listener.config().name,
                client: self.client,
                backend: self.lease.as_ref().map(|lease| &**lease.backend().name()),
                connect: self.connect,
                duration: self.accepted.elapsed(),
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                ending: self.ending,
            });
        }
        if let Some(lease) = self.lease.take() {
            lease.backend().record_session(self.bytes_in, self.bytes_out);
        }
        self.listener.counters().closed(self.ending, self.bytes_in, self.bytes_out);
    }
}
