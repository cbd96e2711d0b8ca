//! What is known of a connection.

#![forbid(unsafe_code)]

use super::answer_packet::{AnswerPlace, MysqlServerState};
use super::commands::CommandState;
use super::login::AskedNames;
use super::packet::PacketFraming;
use crate::sniff::queries::memory::StatementMemory;
use crate::sniff::queries::outstanding::{AnswerKind, Outstanding};
use crate::stats::queries::StatementKind;

/// Prepared statements whose first word is remembered.
const MAX_STATEMENTS: usize = 256;

/// How the answer to a command looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AwaitedAnswer {
    /// OK, ERR, a request for a file, or result sets.
    Results,
    /// A single packet.
    Packet,
    /// The same; with OK, the database that the client has asked for is chosen.
    Database,
    /// What names a prepared statement, and definitions of its parameters and columns.
    Prepared,
    /// Rows of a cursor.
    Rows,
    /// Definitions of columns.
    Fields,
    /// An exchange that ends with OK or ERR; with OK, the client is the user that it has named.
    User,
}

impl AnswerKind for AwaitedAnswer {
    fn is_query(self) -> bool {
        true
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The server speaks first.
    #[default]
    Greeting,
    /// The client's login.
    Login,
    /// What both exchange until the server says OK.
    Authentication,
    Commands,
    /// The client sends a file that the server has asked for.
    File,
}

/// Watches a connection of MySQL or MariaDB.
#[derive(Debug, Default)]
pub(in crate::sniff::queries) struct MysqlWatcher {
    pub(super) phase: Phase,
    /// What the server can, and since the login what both can.
    pub(super) capabilities: u64,
    pub(super) from_client: PacketFraming,
    pub(super) client: CommandState,
    pub(super) from_server: PacketFraming,
    pub(super) server: MysqlServerState,
    pub(super) answer: AnswerPlace,
    pub(super) outstanding: Outstanding<AwaitedAnswer>,
    pub(super) statements: StatementMemory<MAX_STATEMENTS>,
    /// First word of the last statement that was to be prepared: MariaDB's clients execute it before they know its id.
    pub(super) last_prepared: StatementKind,
    /// What the client is to become, once the server agrees.
    pub(super) asked: Option<Box<AskedNames>>,
}

impl MysqlWatcher {
    pub(super) fn can(&self, capability: u64) -> bool {
        self.capabilities & capability != 0
    }
}
