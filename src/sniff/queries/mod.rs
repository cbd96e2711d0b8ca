//! Queries of PostgreSQL, MySQL, MariaDB, Redis and Valkey in passing, to count and time them.
//!
//! A watcher takes the bytes of both directions as they come, and gives events. Of messages it keeps the first word of a statement
//! and what names a prepared one; their bodies go by. What it cannot follow turns the connection opaque.

#![forbid(unsafe_code)]

mod first_word;
mod framing;
mod memory;
mod mysql;
mod outstanding;
mod postgres;
mod redis;

use std::time::{Duration, Instant};

pub use self::mysql::MysqlLogin;
use self::mysql::MysqlWatcher;
use self::postgres::PostgresWatcher;
use self::redis::RedisWatcher;
use crate::stats::queries::{ErrorClass, PassthroughReason, QueryProtocol, StatementKind};
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

/// Watches the queries of one connection.
///
/// The order of the calls is the order of what happened: a query is seen before it is passed on.
#[derive(Debug)]
pub struct QueryWatcher {
    began: Instant,
    protocol: WatchedProtocol,
}

#[derive(Debug)]
enum WatchedProtocol {
    Postgres(PostgresWatcher),
    Mysql(MysqlWatcher),
    Redis(RedisWatcher),
    /// Not followed any more.
    Opaque,
}

/// Microseconds since a connection's watch began.
type Micros = u64;

/// Why a direction is not followed any more; `None` where that is no loss, as after a CancelRequest.
type Ended = Option<PassthroughReason>;

/// A watcher of one protocol.
trait Protocol {
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

impl QueryWatcher {
    /// Of a connection from its first byte on.
    pub fn new(protocol: QueryProtocol, now: Instant) -> QueryWatcher {
        let protocol = match protocol {
            QueryProtocol::Postgres => WatchedProtocol::Postgres(PostgresWatcher::default()),
            QueryProtocol::Mysql => WatchedProtocol::Mysql(MysqlWatcher::default()),
            QueryProtocol::Redis => WatchedProtocol::Redis(RedisWatcher::default()),
        };
        QueryWatcher { began: now, protocol }
    }

    /// Of a connection of MySQL or MariaDB whose login is over.
    pub fn after_mysql_login(login: MysqlLogin, now: Instant) -> QueryWatcher {
        QueryWatcher { began: now, protocol: WatchedProtocol::Mysql(MysqlWatcher::after_login(login)) }
    }

    /// These bytes come next from a side.
    pub fn read(&mut self, from: Side, bytes: &[u8], now: Instant, out: &mut dyn FnMut(WatchEvent<'_>)) {
        let now = self.micros(now);
        if let Some(protocol) = self.protocol()
            && let Err(ended) = protocol.read(from, bytes, now, out)
        {
            self.turn_opaque(ended, out);
        }
    }

    /// Count of the next bytes from a side that need not be seen.
    pub fn skippable(&self, from: Side) -> u64 {
        match &self.protocol {
            WatchedProtocol::Postgres(watcher) => watcher.skippable(from),
            WatchedProtocol::Mysql(watcher) => watcher.skippable(from),
            WatchedProtocol::Redis(watcher) => watcher.skippable(from),
            WatchedProtocol::Opaque => u64::MAX,
        }
    }

    /// Skips bytes from a side, at most [`QueryWatcher::skippable`].
    pub fn skip(&mut self, from: Side, count: u64, now: Instant, out: &mut dyn FnMut(WatchEvent<'_>)) {
        let now = self.micros(now);
        if let Some(protocol) = self.protocol()
            && let Err(ended) = protocol.skip(from, count, now, out)
        {
            self.turn_opaque(ended, out);
        }
    }

    /// The connection has ended.
    pub fn ended(&mut self, out: &mut dyn FnMut(WatchEvent<'_>)) {
        self.turn_opaque(None, out);
    }

    fn turn_opaque(&mut self, ended: Ended, out: &mut dyn FnMut(WatchEvent<'_>)) {
        let unanswered = self.protocol().map_or(0, |protocol| protocol.unanswered());
        self.protocol = WatchedProtocol::Opaque;
        if let Some(reason) = ended {
            out(WatchEvent::Opaque(reason));
        }
        (0..unanswered).for_each(|_| out(WatchEvent::Unanswered));
    }

    fn protocol(&mut self) -> Option<&mut dyn Protocol> {
        match &mut self.protocol {
            WatchedProtocol::Postgres(watcher) => Some(watcher),
            WatchedProtocol::Mysql(watcher) => Some(watcher),
            WatchedProtocol::Redis(watcher) => Some(watcher),
            WatchedProtocol::Opaque => None,
        }
    }

    fn micros(&self, now: Instant) -> Micros {
        // They last for half a million years.
        now.saturating_duration_since(self.began).as_micros() as Micros
    }
}

/// The first bytes of a name.
fn shortened(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME).unwrap_or(name)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
