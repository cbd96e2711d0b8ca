//! What becomes known of a connection, and what it leaves behind: counters, histograms, its access line.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::connection::{ConnectionState, Preamble};
use super::dial::Attempts;
use super::listener::Listener;
use super::peek::PeekedBytes;
use super::worker_state::{SessionHandle, WorkerState};
use crate::log::access::{AccessLine, OpenConnections};
use crate::relay::Relay;
use crate::sniff::proxy_protocol::ReceivedTlvs;
use crate::stats::latency::Stage;
use crate::stats::termination::{Side, Termination};
use crate::worker;

/// What becomes known of a connection, besides what its worker's list shows; counted and logged when dropped.
pub(super) struct Record {
    pub(super) state: Rc<WorkerState>,
    pub(super) connection: Rc<ConnectionState>,
    pub(super) connect: Option<Duration>,
    /// The TLS handshake with the backend.
    pub(super) backend_handshake: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    turnarounds: u32,
    /// Their sum in nanoseconds.
    turnaround_nanos: u64,
    pub(super) attempts: Attempts,
    /// First bytes that are for the backend. Boxed: most connections have none, and none has them for long.
    peeked: Option<Box<PeekedBytes>>,
    pub(super) ending: Termination,
}

impl Record {
    pub(super) fn new(handle: &SessionHandle) -> Record {
        Record {
            state: Rc::clone(handle.state()),
            connection: Rc::clone(handle.connection()),
            connect: None,
            backend_handshake: None,
            first_byte: None,
            turnarounds: 0,
            turnaround_nanos: 0,
            attempts: Attempts::default(),
            peeked: None,
            // Unless it gets as far as to say otherwise.
            ending: Termination::InternalError,
        }
    }

    pub(super) fn end(&mut self, ending: Termination) {
        self.ending = ending;
    }

    pub(super) fn listener(&self) -> &Arc<Listener> {
        &self.connection.listener
    }

    /// The first bytes were read.
    pub(super) fn opened(&mut self, preamble: Preamble, peeked: PeekedBytes) {
        self.connection.opened(preamble);
        self.peeked = (!peeked.as_slice().is_empty()).then(|| Box::new(peeked));
    }

    /// First bytes that are for the backend. Returned once.
    pub(super) fn take_peeked(&mut self) -> PeekedBytes {
        self.peeked.take().map_or_else(PeekedBytes::default, |peeked| *peeked)
    }

    /// Why the client gets no backend, but an answer that says so.
    pub(super) fn rejected(&self) -> Option<Termination> {
        Some(self.connection.preamble()?.reject_slot.as_ref()?.reason)
    }

    /// Counts bytes that are passed on without a relay.
    pub(super) fn passed(&self, to_backend: u64, to_client: u64) {
        let connection = &self.connection;
        let Some(lease) = &*connection.lease() else { return };
        connection.moved(connection.bytes_in() + to_backend, connection.bytes_out() + to_client, worker::now());
        connection.listener.traffic().add(self.state.worker, to_backend, to_client);
        lease.backend().traffic().add(self.state.worker, to_backend, to_client);
    }

    /// The backend's first byte came before the relay.
    pub(super) fn took_first_byte(&mut self, took: Duration) {
        self.first_byte = Some(took);
        if let Some(lease) = &*self.connection.lease() {
            lease.backend().record_first_byte(took);
        }
        self.state.measure(&self.connection.listener, self.connection.backend(), Stage::FirstByte, took);
    }

    /// Takes down what a turn of the relay has moved and measured. Returns the bytes.
    pub(super) fn moved(&mut self, relay: &mut Relay) -> u64 {
        let Record { state, connection, .. } = self;
        let (more_in, more_out) =
            connection.moved(relay.bytes_to_backend(), relay.bytes_to_client(), relay.last_moved());
        if more_in + more_out > 0
            && let Some(lease) = &*connection.lease()
        {
            let (listener, backend) = (&connection.listener, connection.backend());
            listener.traffic().add(state.worker, more_in, more_out);
            lease.backend().traffic().add(state.worker, more_in, more_out);
            if let Some(took) = relay.take_turnaround() {
                self.turnarounds = self.turnarounds.saturating_add(1);
                // They last for 584 years.
                self.turnaround_nanos = self.turnaround_nanos.saturating_add(took.as_nanos() as u64);
                state.measure(listener, backend, Stage::Turnaround, took);
            }
            if let Some(took) = relay.take_first_byte() {
                self.first_byte = Some(took);
                lease.backend().record_first_byte(took);
                state.measure(listener, backend, Stage::FirstByte, took);
            }
        }
        more_in + more_out
    }
}

impl Drop for Record {
    /// Counts first: whatever happens to the log line, the books are right.
    fn drop(&mut self) {
        let connection = &*self.connection;
        let listener = &connection.listener;
        let duration = connection.accepted.elapsed();
        let session = self.state.database_sessions.end(connection.id);
        let lease = connection.take_lease();
        let backend = lease.as_ref().map(|lease| Arc::clone(lease.backend()));
        // This connection among them.
        let open = self.state.access().is_some().then(|| OpenConnections {
            process: self.state.plane.open(),
            listener: listener.counters().open(),
            pool: connection.pool().connections(),
            backend: backend.as_ref().map_or(0, |backend| backend.connections()),
        });
        if let Some(lease) = lease {
            connection.pool().record_end(connection.client.get().ip(), lease.backend());
            match self.ending.fault() {
                Some(Side::Backend) => lease.backend().counters().failed(),
                Some(Side::Client) => lease.backend().counters().client_aborted(),
                None => {}
            }
        }
        listener.counters().closed(self.ending);
        self.state.measure(listener, connection.backend(), Stage::Session, duration);
        let tlvs = connection.preamble().and_then(|preamble| preamble.tlvs.as_ref());
        let tlvs = tlvs.map_or_else(Vec::new, ReceivedTlvs::described);
        let user = session.as_ref().and_then(|session| session.user());
        let database = session.as_ref().and_then(|session| session.database());
        let is_quiet = listener.config().http.is_some() && backend.is_none() && !self.ending.is_rejection();
        if let (Some(writer), Some(open), false) = (&mut *self.state.access(), open, is_quiet) {
            writer.write(&AccessLine {
                time: SystemTime::now(),
                listener: &listener.config().name,
                pool: connection.pool().name(),
                client: connection.client.get(),
                backend: backend.as_ref().map(|backend| &**backend.name()),
                id: connection.id.get(),
                queue: Some(self.attempts.time_waited()).filter(|waited| self.connect.is_some() || !waited.is_zero()),
                request: None,
                protocol: connection.preamble().and_then(|preamble| preamble.protocol),
                proxy_tlvs: &tlvs,
                user: user.as_deref(),
                database: database.as_deref(),
                queries: session.as_ref().map(|session| session.queries()),
                datagrams: None,
                queued_behind: self.attempts.queued_behind(),
                connect: self.connect,
                client_handshake: connection.preamble().and_then(|preamble| preamble.handshake.get().copied()),
                backend_handshake: self.backend_handshake,
                first_byte: self.first_byte,
                turnarounds: self.turnarounds,
                turnaround: Duration::from_nanos(self.turnaround_nanos).checked_div(self.turnarounds),
                duration,
                bytes_in: connection.bytes_in(),
                bytes_out: connection.bytes_out(),
                retries: self.attempts.retries(),
                failed_connects: self.attempts.failed(),
                open,
                is_empty: connection.is_empty(),
                ending: self.ending,
            });
        }
    }
}
