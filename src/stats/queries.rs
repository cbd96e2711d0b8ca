//! What is counted of database queries where they are watched.
//!
//! Statements, classes of errors and reasons come from fixed tables: nothing that a client or a server sends adds one.

mod tables;

use serde::{Deserialize, Serialize};

/// A protocol whose queries are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum QueryProtocol {
    Postgres,
    Mysql,
    Redis,
}

/// A statement by its first word, or a command, as a place in its protocol's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StatementKind(u8);

/// A class of errors: the first two characters of an SQLSTATE, or the first word of a Redis error, as a place in its protocol's
/// table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ErrorClass(u8);

/// Why the queries of a connection are no longer followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PassthroughReason {
    /// Both sides agreed on encryption.
    Encrypted,
    /// Both sides agreed on compression.
    Compressed,
    /// A replica receives the server's changes.
    Replication,
    /// A stream of messages or commands, or replies that are turned off.
    Streaming,
    /// More queries without an answer than are followed.
    Pipelined,
    /// Bytes that are not of the protocol.
    Malformed,
    /// A part of the protocol that is not followed.
    #[serde(other)]
    Unsupported,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryEvent {
    /// A query got its answer, to the end.
    Answered {
        /// What it was.
        statement: StatementKind,
        /// The answer was an error.
        failed: bool,
        /// It was sent before the query ahead of it was answered.
        pipelined: bool,
    },
    /// The server sent an error, to a query or by itself.
    Failed(ErrorClass),
    /// A query got no answer: its connection ended or turned opaque, or an error before it in its pipeline skipped it.
    Unanswered,
    /// The queries of a connection are no longer followed.
    Passthrough(PassthroughReason),
}

impl QueryProtocol {
    /// Every protocol.
    pub const ALL: [QueryProtocol; 3] = [QueryProtocol::Postgres, QueryProtocol::Mysql, QueryProtocol::Redis];

    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            QueryProtocol::Postgres => "postgres",
            QueryProtocol::Mysql => "mysql",
            QueryProtocol::Redis => "redis",
        }
    }

    /// The statement with this first word, in whatever case; the other one, if there is none.
    pub fn statement(self, word: &[u8]) -> StatementKind {
        StatementKind(place(self.statements(), word))
    }

    /// The class of an error with these first characters; the other one, if there is none.
    pub fn error_class(self, start: &[u8]) -> ErrorClass {
        ErrorClass(place(self.classes(), start))
    }

    /// A statement's first word in capitals, or `other`.
    pub fn statement_name(self, statement: StatementKind) -> &'static str {
        named(self.statements(), statement.0)
    }

    /// An error's class, or `other`.
    pub fn class_name(self, class: ErrorClass) -> &'static str {
        named(self.classes(), class.0)
    }

    fn statements(self) -> &'static [&'static str] {
        match self {
            QueryProtocol::Postgres | QueryProtocol::Mysql => &tables::SQL,
            QueryProtocol::Redis => &tables::REDIS,
        }
    }

    fn classes(self) -> &'static [&'static str] {
        match self {
            QueryProtocol::Postgres | QueryProtocol::Mysql => &tables::SQLSTATE,
            QueryProtocol::Redis => &tables::REDIS_ERRORS,
        }
    }
}

impl StatementKind {
    /// One that is in no table.
    pub const OTHER: StatementKind = StatementKind(0);
}

impl PassthroughReason {
    /// Every reason.
    pub const ALL: [PassthroughReason; 7] = [
        PassthroughReason::Encrypted,
        PassthroughReason::Compressed,
        PassthroughReason::Replication,
        PassthroughReason::Streaming,
        PassthroughReason::Pipelined,
        PassthroughReason::Malformed,
        PassthroughReason::Unsupported,
    ];

    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            PassthroughReason::Encrypted => "encrypted",
            PassthroughReason::Compressed => "compressed",
            PassthroughReason::Replication => "replication",
            PassthroughReason::Streaming => "streaming",
            PassthroughReason::Pipelined => "pipelined",
            PassthroughReason::Malformed => "malformed",
            PassthroughReason::Unsupported => "unsupported",
        }
    }
}

/// The place of a word in a sorted table of capitals, counted from 1; 0 is none.
fn place(table: &[&str], word: &[u8]) -> u8 {
    let upper = word.iter().map(u8::to_ascii_uppercase);
    let found = table.binary_search_by(|entry| entry.bytes().cmp(upper.clone()));
    // No table has more than 255 words, which a test states.
    found.map_or(0, |at| at as u8 + 1)
}

fn named(table: &'static [&'static str], place: u8) -> &'static str {
    usize::from(place).checked_sub(1).and_then(|at| table.get(at)).copied().unwrap_or(OTHER)
}

const OTHER: &str = "other";

/// An event in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedQuery(u16);

impl PackedQuery {
    const FAILED: u16 = 1 << 8;
    const PIPELINED: u16 = 1 << 9;
    const KIND: u32 = 14;

    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn of_bits(bits: u16) -> PackedQuery {
        PackedQuery(bits)
    }
}

impl From<QueryEvent> for PackedQuery {
    fn from(event: QueryEvent) -> PackedQuery {
        let (kind, detail) = match event {
            QueryEvent::Answered { statement, failed, pipelined } => {
                let failed = if failed { PackedQuery::FAILED } else { 0 };
                let pipelined = if pipelined { PackedQuery::PIPELINED } else { 0 };
                (0, u16::from(statement.0) | failed | pipelined)
            }
            QueryEvent::Failed(class) => (1, class.0.into()),
            QueryEvent::Unanswered => (2, 0),
            QueryEvent::Passthrough(reason) => (3, reason as u16),
        };
        PackedQuery(kind << PackedQuery::KIND | detail)
    }
}

impl From<PackedQuery> for QueryEvent {
    fn from(PackedQuery(bits): PackedQuery) -> QueryEvent {
        let [detail, _] = bits.to_le_bytes();
        match bits >> PackedQuery::KIND {
            0 => QueryEvent::Answered {
                statement: StatementKind(detail),
                failed: bits & PackedQuery::FAILED != 0,
                pipelined: bits & PackedQuery::PIPELINED != 0,
            },
            1 => QueryEvent::Failed(ErrorClass(detail)),
            2 => QueryEvent::Unanswered,
            _ => QueryEvent::Passthrough(
                PassthroughReason::ALL.get(usize::from(detail)).copied().unwrap_or(PassthroughReason::Unsupported),
            ),
        }
    }
}

/// How often it was, by protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryCounts {
    protocols: [Option<Box<ProtocolCounts>>; QueryProtocol::ALL.len()],
}

/// How often it was in one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolCounts {
    /// As long as the last place that was counted.
    statements: Vec<u64>,
    errors: Vec<u64>,
    failed: u64,
    pipelined: u64,
    unanswered: u64,
    passthrough: [u64; PassthroughReason::ALL.len()],
}

impl QueryCounts {
    /// Counts one more.
    pub fn count(&mut self, protocol: QueryProtocol, event: QueryEvent) {
        self.protocols[protocol as usize].get_or_insert_default().count(event);
    }

    /// The protocols in which anything was seen.
    pub fn protocols(&self) -> impl Iterator<Item = (QueryProtocol, &ProtocolCounts)> {
        QueryProtocol::ALL.into_iter().zip(&self.protocols).filter_map(|(it, counts)| Some((it, counts.as_deref()?)))
    }

    /// Queries of all protocols, answered or not.
    pub fn queries(&self) -> u64 {
        self.protocols().map(|(_, counts)| counts.queries()).sum()
    }
}

impl ProtocolCounts {
    fn count(&mut self, event: QueryEvent) {
        match event {
            QueryEvent::Answered { statement, failed, pipelined } => {
                add(&mut self.statements, statement.0);
                self.failed += u64::from(failed);
                self.pipelined += u64::from(pipelined);
            }
            QueryEvent::Failed(class) => add(&mut self.errors, class.0),
            QueryEvent::Unanswered => self.unanswered += 1,
            QueryEvent::Passthrough(reason) => self.passthrough[reason as usize] += 1,
        }
    }

    /// Answered queries by statement; those that never came are left out.
    pub fn statements(&self) -> impl Iterator<Item = (StatementKind, u64)> {
        counted(&self.statements).map(|(place, count)| (StatementKind(place), count))
    }

    /// Errors by class; those that never came are left out.
    pub fn errors(&self) -> impl Iterator<Item = (ErrorClass, u64)> {
        counted(&self.errors).map(|(place, count)| (ErrorClass(place), count))
    }

    /// Connections that are no longer followed by reason; those that never came are left out.
    pub fn passthrough(&self) -> impl Iterator<Item = (PassthroughReason, u64)> {
        PassthroughReason::ALL.into_iter().zip(self.passthrough).filter(|(_, count)| *count > 0)
    }

    /// Queries, answered or not.
    pub fn queries(&self) -> u64 {
        self.statements.iter().sum::<u64>() + self.unanswered
    }

    /// Queries whose answer was an error.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Answered queries that were sent before the one ahead of them was answered.
    pub fn pipelined(&self) -> u64 {
        self.pipelined
    }

    /// Queries without an answer.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }
}

fn add(counts: &mut Vec<u64>, place: u8) {
    let place = usize::from(place);
    if counts.len() <= place {
        counts.resize(place + 1, 0);
    }
    counts[place] += 1;
}

/// With the place 0 last, which is `other`.
fn counted(counts: &[u64]) -> impl Iterator<Item = (u8, u64)> {
    let places = (1..=u8::MAX).chain([0]);
    places.filter_map(|place| Some((place, *counts.get(usize::from(place))?))).filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests;
