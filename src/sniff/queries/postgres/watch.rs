//! What is known of a connection.

#![forbid(unsafe_code)]

use super::messages::PgClientState;
use super::responses::PgServerState;
use crate::sniff::queries::memory::{NameHash, StatementMemory};
use crate::sniff::queries::outstanding::{AnswerKind, Outstanding};
use crate::stats::queries::StatementKind;

/// Named prepared statements whose first word is remembered.
const MAX_STATEMENTS: usize = 256;

/// Named portals whose first word is remembered.
const MAX_PORTALS: usize = 32;

/// What ends the answer to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PgAwaited {
    /// A simple Query or a FunctionCall: ReadyForQuery.
    Ready,
    /// An Execute: CommandComplete, or what is sent instead.
    Complete,
    /// A Sync: ReadyForQuery, after what failed or not.
    Sync,
}

impl AnswerKind for PgAwaited {
    fn is_query(self) -> bool {
        self != PgAwaited::Sync
    }
}

/// Watches a connection of PostgreSQL.
#[derive(Debug, Default)]
pub(in crate::sniff::queries) struct PostgresWatcher {
    pub(super) client: PgClientState,
    pub(super) server: PgServerState,
    pub(super) outstanding: Outstanding<PgAwaited>,
    pub(super) statements: PreparedNames<MAX_STATEMENTS>,
    pub(super) portals: PreparedNames<MAX_PORTALS>,
    /// After the first ReadyForQuery.
    pub(super) is_ready: bool,
    /// The server takes a copy: it ignores Sync until CopyDone or CopyFail.
    pub(super) copies_in: bool,
    /// After an error the server ignores what comes before the next Sync.
    pub(super) skips: bool,
    /// The client waits for the answer to a request for encryption, a single byte.
    pub(super) asks_encryption: bool,
}

/// What statements or portals are known, with the unnamed one.
#[derive(Debug, Default)]
pub(super) struct PreparedNames<const MOST: usize> {
    unnamed: StatementKind,
    named: StatementMemory<MOST>,
}

impl<const MOST: usize> PreparedNames<MOST> {
    pub(super) fn insert(&mut self, name: NameHash, statement: StatementKind) {
        match name {
            NameHash::EMPTY => self.unnamed = statement,
            name => self.named.insert(name.get(), statement),
        }
    }

    pub(super) fn get(&self, name: NameHash) -> StatementKind {
        match name {
            NameHash::EMPTY => self.unnamed,
            name => self.named.get(name.get()),
        }
    }

    pub(super) fn remove(&mut self, name: NameHash) {
        match name {
            NameHash::EMPTY => self.unnamed = StatementKind::OTHER,
            name => self.named.remove(name.get()),
        }
    }
}
