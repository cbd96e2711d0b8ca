//! One connection, as far as it is known outside of its task.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admission::RejectSlot;
use super::listener::Listener;
use super::route::RouteMatch;
use crate::limits::AddressSlot;
use crate::net::addr::ClientAddr;
use crate::net::protocol::ClientProtocol;
use crate::pool::{Lease, Pool};
use crate::relay::Pacing;
use crate::sniff::proxy_protocol::ReceivedTlvs;
use crate::stats::registry::BackendId;
use crate::stats::termination::Termination;
use crate::worker::Waiter;

/// An open connection. Its task and the list of its worker share it.
///
/// What the list shows is what the task works with: nothing is kept twice, and listing costs a connection nothing while it
/// moves bytes. The first fields are those of each turn of the relay; with the counts of an `Rc` they take 56 bytes, which
/// the check for an abort has fetched already.
#[repr(C)]
pub(super) struct ConnectionState {
    abort: Cell<Option<Abort>>,
    is_connected: Cell<bool>,
    /// First bytes were read, or are left unread at the end.
    has_sent: Cell<bool>,
    /// The one that it was last given, connected or not.
    backend: Cell<BackendId>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    last_moved: Cell<Instant>,
    /// The claim on its backend.
    lease: RefCell<Option<Lease>>,
    pub(super) listener: Arc<Listener>,
    /// Woken to see to an abort.
    task: OnceCell<Waiter>,
    /// Boxed: most connections have none.
    preamble: OnceCell<Box<Preamble>>,
    pub(super) id: ConnectionId,
    pub(super) accepted: Instant,
    /// The peer, or the client that a PROXY header names.
    pub(super) client: Cell<ClientAddr>,
}

/// What a connection's first bytes and its address say.
#[derive(Default)]
pub(super) struct Preamble {
    /// They are a PostgreSQL CancelRequest, which nothing may follow in either direction.
    pub(super) is_cancel: bool,
    /// The listener's route that they match.
    pub(super) route: Option<RouteMatch>,
    /// The protocol of the first bytes, where routes ask for it.
    pub(super) protocol: Option<ClientProtocol>,
    /// The server name that was asked for.
    pub(super) server_name: OnceCell<Arc<str>>,
    /// What the client connected to, where a PROXY header says so.
    pub(super) destination: Option<SocketAddr>,
    /// How long the TLS handshake took. With `starttls: mysql`, this and the server name are known after the backend is connected.
    pub(super) handshake: OnceCell<Duration>,
    /// What counts against the limits of the client's address.
    pub(super) address_slot: Option<AddressSlot>,
    /// What a PROXY header says beyond addresses.
    pub(super) tlvs: Option<ReceivedTlvs>,
    /// The bandwidth of each direction, where it is limited.
    pub(super) pacing: Option<Pacing>,
    /// The client is denied, or exceeds a limit, and gets an answer that says so instead of a backend. Boxed: few do.
    pub(super) reject_slot: Option<Box<RejectSlot>>,
}

/// Why a connection is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    BackendDown,
    DrainDeadline,
    DrainAborted,
    Killed,
}

impl From<Abort> for Termination {
    fn from(abort: Abort) -> Termination {
        match abort {
            Abort::BackendDown => Termination::BackendDown,
            Abort::DrainDeadline => Termination::DrainDeadline,
            Abort::DrainAborted => Termination::DrainAborted,
            Abort::Killed => Termination::Killed,
        }
    }
}

impl ConnectionState {
    pub(super) fn new(
        id: ConnectionId,
        listener: Arc<Listener>,
        client: ClientAddr,
        accepted: Instant,
    ) -> ConnectionState {
        ConnectionState {
            abort: Cell::default(),
            is_connected: Cell::default(),
            has_sent: Cell::default(),
            backend: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
            last_moved: Cell::new(accepted),
            lease: RefCell::default(),
            listener,
            task: OnceCell::default(),
            preamble: OnceCell::default(),
            id,
            accepted,
            client: Cell::new(client),
        }
    }

    /// Has it ended, unless it is to end already. Returns whether it was not.
    pub(super) fn abort(&self, abort: Abort) -> bool {
        if self.abort.get().is_some() {
            return false;
        }
        self.abort.set(Some(abort));
        self.wake();
        true
    }

    /// Why it is to end now, if it is.
    pub(super) fn aborted(&self) -> Option<Abort> {
        self.abort.get()
    }

    /// Has its task look at what has changed.
    pub(super) fn wake(&self) {
        self.task.get().into_iter().for_each(Waiter::wake);
    }

    /// The running task is the one that is woken.
    pub(super) fn begin(&self) {
        if let Some(task) = Waiter::current() {
            // Once in a connection's life.
            let _ = self.task.set(task);
        }
    }

    /// Whether the client has sent anything, or not, since what tidegate took for itself.
    pub(super) fn set_sent(&self, sent: bool) {
        self.has_sent.set(sent);
    }

    /// Whether no byte came from either side but a PROXY header or a TLS handshake.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_sent.get() && self.bytes_in.get() == 0 && self.bytes_out.get() == 0
    }

    /// Bytes from the client that were delivered to the backend.
    pub(super) fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    /// Bytes from the backend that were delivered to the client.
    pub(super) fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }

    /// When a byte or FIN was last delivered; when it was accepted, before the first.
    pub(super) fn last_moved(&self) -> Instant {
        self.last_moved.get()
    }

    /// The totals so far. Returns by how much they have grown.
    pub(super) fn moved(&self, bytes_in: u64, bytes_out: u64, at: Instant) -> (u64, u64) {
        let more = (bytes_in - self.bytes_in.get(), bytes_out - self.bytes_out.get());
        self.bytes_in.set(bytes_in);
        self.bytes_out.set(bytes_out);
        self.last_moved.set(at);
        more
    }

    /// It is to connect to this backend.
    pub(super) fn connects_to(&self, backend: BackendId) {
        self.backend.set(backend);
        self.is_connected.set(false);
    }

    /// It has connected to its backend: from here on it is cut with it. The lease follows when its client knows.
    pub(super) fn mark_connected(&self) {
        self.is_connected.set(true);
    }

    /// The backend that it is connected to.
    pub(super) fn backend(&self) -> BackendId {
        if self.is_connected.get() { self.backend.get() } else { BackendId::NONE }
    }

    /// The backend that it is connected to, or connecting to.
    pub(super) fn leased(&self) -> BackendId {
        self.backend.get()
    }

    pub(super) fn hold(&self, lease: Lease) {
        self.lease.replace(Some(lease));
    }

    pub(super) fn lease(&self) -> Ref<'_, Option<Lease>> {
        self.lease.borrow()
    }

    pub(super) fn take_lease(&self) -> Option<Lease> {
        self.lease.take()
    }

    /// What its first bytes say is known from now on.
    pub(super) fn opened(&self, preamble: Preamble) {
        // Once in a connection's life.
        let _ = self.preamble.set(Box::new(preamble));
    }

    /// `None` while they are read, and where none are.
    pub(super) fn preamble(&self) -> Option<&Preamble> {
        self.preamble.get().map(|preamble| &**preamble)
    }

    /// The bandwidth of each direction, where it is limited.
    pub(super) fn pacing(&self) -> Option<&Pacing> {
        self.preamble()?.pacing.as_ref()
    }

    /// Where it goes, as far as is known.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.listener.pool(self.preamble().and_then(|preamble| preamble.route))
    }

    /// Where it goes, unless its first bytes are still to say so.
    pub(super) fn known_pool(&self) -> Option<&Arc<Pool>> {
        let is_known = self.preamble().is_some() || self.listener.config().routes.is_empty();
        is_known.then(|| self.pool())
    }
}

/// Names a connection: in the list, in its access line and, as UNIQUE_ID of a PROXY header, to its backend. Never issued twice
/// by a process, and hardly ever by two: each offsets its ids by a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(NonZeroU64);

impl ConnectionId {
    /// The number.
    pub fn get(self) -> NonZeroU64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ConnectionId {
    type Err = String;

    fn from_str(text: &str) -> Result<ConnectionId, String> {
        let digits = (text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text);
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).and_then(NonZeroU64::new);
        number
            .map(ConnectionId)
            .ok_or_else(|| format!("`{}` is no connection's id: it has 16 hexadecimal digits", text.escape_debug()))
    }
}

/// Issues the ids of a process: which worker, and which of its connections, exclusive-or a random number.
pub(super) struct ConnectionIds(u64);

/// Bits of the number of a worker's connection: 89 years of 100,000 a second.
const COUNTER_BITS: u32 = 48;

/// Set in every id, so that none is zero.
const TOP_BIT: u64 = 1 << 63;

impl ConnectionIds {
    pub(super) fn new() -> ConnectionIds {
        ConnectionIds(fastrand::u64(..) & !TOP_BIT)
    }

    /// The id of a worker's connection with this number.
    pub(super) fn id(&self, worker: usize, number: u64) -> ConnectionId {
        let plain = (worker as u64) << COUNTER_BITS | number & ((1 << COUNTER_BITS) - 1);
        ConnectionId(NonZeroU64::MIN.saturating_add((plain ^ self.0 | TOP_BIT) - 1))
    }

    /// The worker whose connection has this id, if any has.
    pub(super) fn worker(&self, id: ConnectionId) -> usize {
        (((id.0.get() & !TOP_BIT) ^ self.0) >> COUNTER_BITS) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn id_is_issued_once_and_tells_its_worker() {
        let ids = ConnectionIds::new();
        let mut seen = HashSet::new();
        for worker in [0, 1, 2, 31, 1023] {
            for number in (0..1000).chain([1 << 40, (1 << COUNTER_BITS) - 1]) {
                let id = ids.id(worker, number);
                assert_eq!(ids.worker(id), worker);
                assert!(seen.insert(id), "{id}");
            }
        }
    }

    #[test]
    fn id_is_read_as_it_is_written() {
        let id = ConnectionIds::new().id(3, 77);
        assert_eq!(id.to_string().len(), 16);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "0", "0000000000000000", "+000000000000001", "00000000000000g1", "8000000000000000a"] {
            let error = wrong.parse::<ConnectionId>().unwrap_err();
            assert_eq!(error, format!("`{wrong}` is no connection's id: it has 16 hexadecimal digits"));
        }
    }

    /// With the counts of an `Rc` before it, 168 bytes: what its task had of it before, an id, a clock and two words.
    #[test]
    fn connection_takes_at_most_152_bytes() {
        assert!(size_of::<ConnectionState>() <= 152, "{} bytes", size_of::<ConnectionState>());
        assert_eq!(std::mem::offset_of!(ConnectionState, lease), 40, "what changes each turn lies together");
    }
}
