//! Queries of PostgreSQL ("Message Flow" and "Message Formats" of the frontend/backend protocol 3).

#![forbid(unsafe_code)]

mod backend;
mod client;
mod startup;

use self::backend::FromServer;
use self::client::FromClient;
use super::memory::{NameHash, StatementMemory};
use super::outstanding::{AnswerKind, Outstanding};
use super::{Ended, Micros, Protocol, WatchEvent};
use crate::stats::queries::{PassthroughReason, QueryProtocol, StatementKind};
use crate::stats::termination::Side;

const PROTOCOL: QueryProtocol = QueryProtocol::Postgres;

const MALFORMED: Ended = Some(PassthroughReason::Malformed);

/// Named prepared statements whose first word is remembered.
const MAX_STATEMENTS: usize = 256;

/// Named portals whose first word is remembered.
const MAX_PORTALS: usize = 32;

/// What ends the answer to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// A simple Query or a FunctionCall: ReadyForQuery.
    Ready,
    /// An Execute: CommandComplete, or what is sent instead.
    Complete,
    /// A Sync: ReadyForQuery, after what failed or not.
    Sync,
}

impl AnswerKind for Awaited {
    fn is_query(self) -> bool {
        self != Awaited::Sync
    }
}

/// Watches a connection of PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct PostgresWatcher {
    client: FromClient,
    server: FromServer,
    outstanding: Outstanding<Awaited>,
    statements: Prepared<MAX_STATEMENTS>,
    portals: Prepared<MAX_PORTALS>,
    /// After the first ReadyForQuery.
    is_ready: bool,
    /// The server takes a copy: it ignores Sync until CopyDone or CopyFail.
    copies_in: bool,
    /// After an error the server ignores what comes before the next Sync.
    skips: bool,
    /// The client waits for the answer to a request for encryption, a single byte.
    asks_encryption: bool,
}

/// What statements or portals are known, with the unnamed one.
#[derive(Debug, Default)]
struct Prepared<const MOST: usize> {
    unnamed: StatementKind,
    named: StatementMemory<MOST>,
}

impl<const MOST: usize> Prepared<MOST> {
    fn insert(&mut self, name: NameHash, statement: StatementKind) {
        match name {
            NameHash::EMPTY => self.unnamed = statement,
            name => self.named.insert(name.get(), statement),
        }
    }

    fn get(&self, name: NameHash) -> StatementKind {
        match name {
            NameHash::EMPTY => self.unnamed,
            name => self.named.get(name.get()),
        }
    }

    fn remove(&mut self, name: NameHash) {
        match name {
            NameHash::EMPTY => self.unnamed = StatementKind::OTHER,
            name => self.named.remove(name.get()),
        }
    }
}

impl Protocol for PostgresWatcher {
    fn read(
        &mut self,
        from: Side,
        bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        match from {
            Side::Client => self.read_client(bytes, now, out),
            Side::Backend => self.read_server(bytes, now, out),
        }
    }

    fn skippable(&self, from: Side) -> u64 {
        match from {
            Side::Client => self.client.skippable(),
            Side::Backend => self.server.skippable(),
        }
    }

    fn skip(&mut self, from: Side, count: u64, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        match from {
            Side::Client => self.skip_client(count, now, out),
            Side::Backend => self.skip_server(count, now, out),
        }
    }

    fn unanswered(&self) -> usize {
        self.outstanding.queries()
    }
}

/// The length of a message without the length itself, if there can be such a message.
fn body_length(length: [u8; 4]) -> Result<u64, Ended> {
    let length = u32::from_be_bytes(length);
    // The server takes no longer ones, nor sends them.
    match length.checked_sub(4) {
        Some(body) if i32::try_from(length).is_ok() => Ok(body.into()),
        _ => Err(MALFORMED),
    }
}

#[cfg(test)]
mod tests;
