//! Queries of PostgreSQL, MySQL, MariaDB, Redis and Valkey in passing, to count and time them.
//!
//! A watcher takes the bytes of both directions as they come, and gives events. Of messages it keeps the first word of a statement
//! and what names a prepared one; their bodies go by. What it cannot follow turns the connection opaque.

#![forbid(unsafe_code)]

mod event;
mod first_word;
mod framing;
mod memory;
mod mysql;
mod outstanding;
mod postgres;
mod redis;

use std::time::Instant;

use self::event::{Ended, Micros, Protocol};
pub use self::event::{MAX_NAME, MAX_OUTSTANDING_QUERIES, WatchEvent};
pub use self::mysql::MysqlLogin;
use self::mysql::MysqlWatcher;
use self::postgres::PostgresWatcher;
use self::redis::RedisWatcher;
use crate::stats::queries::QueryProtocol;
use crate::stats::termination::Side;

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

    /// Of a connection of MySQL or MariaDB whose login is over, as where `starttls: mysql` has tidegate take part in it.
    pub fn after_mysql_login(login: MysqlLogin, now: Instant, out: &mut dyn FnMut(WatchEvent<'_>)) -> QueryWatcher {
        let protocol = match MysqlWatcher::after_login(login, out) {
            Ok(watcher) => WatchedProtocol::Mysql(watcher),
            Err(ended) => {
                ended.into_iter().for_each(|reason| out(WatchEvent::Opaque(reason)));
                WatchedProtocol::Opaque
            }
        };
        QueryWatcher { began: now, protocol }
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

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
