//! What a listener with `sniff` has watched.

use std::rc::Rc;
use std::time::Instant;

use super::connection::ConnectionState;
use super::http_tap::HttpTap;
use super::query_tap::QueryTap;
use super::worker_state::WorkerState;
use crate::relay::Tap;
use crate::stats::termination::Side;

/// The watch of a connection.
pub(super) enum SniffTap {
    Http(HttpTap),
    Queries(QueryTap),
}

impl SniffTap {
    /// For a connection with a backend; `None` where nothing is watched, or has no reader.
    pub(super) fn new(state: &Rc<WorkerState>, connection: &ConnectionState) -> Option<Box<SniffTap>> {
        let queries = || QueryTap::new(state, connection).map(SniffTap::Queries);
        HttpTap::new(state, connection).map(SniffTap::Http).or_else(queries).map(Box::new)
    }
}

impl Tap for SniffTap {
    fn skippable(&self, from: Side) -> u64 {
        match self {
            SniffTap::Http(tap) => tap.skippable(from),
            SniffTap::Queries(tap) => tap.skippable(from),
        }
    }

    fn on_bytes(&mut self, from: Side, bytes: &[u8], now: Instant) {
        match self {
            SniffTap::Http(tap) => tap.on_bytes(from, bytes, now),
            SniffTap::Queries(tap) => tap.on_bytes(from, bytes, now),
        }
    }

    fn on_spliced(&mut self, from: Side, count: u64, now: Instant) {
        match self {
            SniffTap::Http(tap) => tap.on_spliced(from, count, now),
            SniffTap::Queries(tap) => tap.on_spliced(from, count, now),
        }
    }

    fn on_fin(&mut self, from: Side, now: Instant) {
        match self {
            SniffTap::Http(tap) => tap.on_fin(from, now),
            SniffTap::Queries(tap) => tap.on_fin(from, now),
        }
    }
}
