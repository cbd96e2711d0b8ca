//! What becomes known of a connection, and what it leaves behind: counters, histograms, its access line.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::dial::Attempts;
use super::listener::Listener;
use super::preamble::Preamble;
use super::worker_state::WorkerState;
use crate::log::access::{AccessLine, OpenConnections};
use crate::net::addr::ClientAddr;
use crate::pool::{Lease, Pool};
use crate::relay::Relay;
use crate::stats::latency::Stage;
use crate::stats::registry::BackendId;
use crate::stats::termination::{Side, Termination};

/// What becomes known of a connection; counted and logged when dropped.
pub(super) struct Record {
    pub(super) state: Rc<WorkerState>,
    pub(super) listener: Arc<Listener>,
    pub(super) client: ClientAddr,
    pub(super) accepted: Instant,
    /// The connection's claim on its backend.
    pub(super) lease: Option<Lease>,
    pub(super) backend: BackendId,
    pub(super) connect: Option<Duration>,
    /// The TLS handshake with the backend.
    pub(super) backend_handshake: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    turnarounds: u32,
    /// Their sum in nanoseconds.
    turnaround_nanos: u64,
    pub(super) attempts: Attempts,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Boxed: most connections have none.
    pub(super) preamble: Option<Box<Preamble>>,
    pub(super) ending: Termination,
}

impl Record {
    pub(super) fn new(
        state: Rc<WorkerState>,
        listener: Arc<Listener>,
        client: ClientAddr,
        accepted: Instant,
    ) -> Record {
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
            turnarounds: 0,
            turnaround_nanos: 0,
            attempts: Attempts::default(),
            bytes_in: 0,
            bytes_out: 0,
            preamble: None,
            // Unless it gets as far as to say otherwise.
            ending: Termination::InternalError,
        }
    }

    pub(super) fn end(&mut self, ending: Termination) {
        self.ending = ending;
    }

    /// The limit that the client exceeds, if it gets an answer that says so.
    pub(super) fn over_limit(&self) -> Option<Termination> {
        Some(self.preamble.as_ref()?.reject_slot.as_ref()?.exceeded.limit.into())
    }

    /// Where the connection goes.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.listener.pool(self.preamble.as_ref().and_then(|preamble| preamble.route))
    }

    /// Counts bytes that go to the backend without a relay.
    pub(super) fn count_to_backend(&mut self, bytes: u64) {
        let Record { state, listener, lease: Some(lease), .. } = self else { return };
        self.bytes_in += bytes;
        listener.traffic().add(state.worker, bytes, 0);
        lease.backend().traffic().add(state.worker, bytes, 0);
    }

    /// Takes down what a turn of the relay has moved and measured. Returns the bytes.
    pub(super) fn moved(&mut self, relay: &mut Relay) -> u64 {
        let Record { state, listener, lease: Some(lease), backend, .. } = self else { return 0 };
        let (bytes_in, bytes_out) = (relay.bytes_to_backend(), relay.bytes_to_client());
        let (more_in, more_out) = (bytes_in - self.bytes_in, bytes_out - self.bytes_out);
        if more_in + more_out > 0 {
            (self.bytes_in, self.bytes_out) = (bytes_in, bytes_out);
            listener.traffic().add(state.worker, more_in, more_out);
            lease.backend().traffic().add(state.worker, more_in, more_out);
            if let Some(took) = relay.take_turnaround() {
                self.turnarounds = self.turnarounds.saturating_add(1);
                // They last for 584 years.
                self.turnaround_nanos = self.turnaround_nanos.saturating_add(took.as_nanos() as u64);
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
        let open = self.state.access().is_some().then(|| OpenConnections {
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
            writer.write(&AccessLine {
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
                turnarounds: self.turnarounds,
                turnaround: Duration::from_nanos(self.turnaround_nanos).checked_div(self.turnarounds),
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
