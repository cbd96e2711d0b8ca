//! What is seen of a connection, and what each protocol's watcher does.

#![forbid(unsafe_code)]

use std::time::Duration;

use crate::stats::queries::{ErrorClass, PassthroughReason, StatementKind};
use crate::stats::termination::Side;

/// Bytes that are kept of the name of a user or a database, at most: the longest that PostgreSQL and MySQL have.
pub const MAX_NAME: usize = 64;

/// Queries without an answer, at most; with more, the connection turns opaque. Each takes 8 bytes.
pub const MAX_OUTSTANDING_QUERIES: usize = 4096;

/// What is seen of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEvent<'a> {
    /// A query got its answer. Both times count from the end of the query; with pipelining they include the answers before it.
    Answered {
        /// What it was.
        statement: StatementKind,
        /// The answer was an error.
        failed: bool,
        /// It was sent before the query ahead of it was answered.
        pipelined: bool,
        /// Until the first message of the answer.
        first_byte: Duration,
        /// Until its last byte.
        took: Duration,
    },
    /// The server sent an error, to a query or by itself.
    Failed(ErrorClass),
    /// A query got no answer: its connection ended or turned opaque, or an error before it in its pipeline skipped it.
    Unanswered,
    /// The user that the client names, at most [`MAX_NAME`] bytes of it.
    User(&'a [u8]),
    /// The database that the client has chosen, at most [`MAX_NAME`] bytes of it.
    Database(&'a [u8]),
    /// Neither side is followed any more. Once on a connection.
    Opaque(PassthroughReason),
}

/// Microseconds since a connection's watch began.
pub(super) type Micros = u64;

/// Why a direction is not followed any more; `None` where that is no loss, as after a CancelRequest.
pub(super) type Ended = Option<PassthroughReason>;

/// A watcher of one protocol.
pub(super) trait Protocol {
    /// Takes the next bytes of one side.
    fn read(&mut self, from: Side, bytes: &[u8], now: Micros, out: &mut dyn FnMut(WatchEvent<'_>))
    -> Result<(), Ended>;

    /// Count of the next bytes of one side that need not be seen.
    fn skippable(&self, from: Side) -> u64;

    /// Skips bytes of one side, at most [`Protocol::skippable`].
    fn skip(&mut self, from: Side, count: u64, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended>;

    /// Queries without an answer.
    fn unanswered(&self) -> usize;
}

/// The first bytes of a name.
pub(super) fn shortened(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME).unwrap_or(name)
}
