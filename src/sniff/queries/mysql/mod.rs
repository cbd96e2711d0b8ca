//! Queries of MySQL and MariaDB ("Client/Server Protocol" of both manuals).

#![forbid(unsafe_code)]

mod answers;
mod client;
mod login;
mod packet;
mod server;

use self::answers::Answer;
use self::client::FromClient;
pub use self::login::MysqlLogin;
use self::packet::Framing;
use self::server::FromServer;
use super::memory::StatementMemory;
use super::outstanding::{AnswerKind, Outstanding};
use super::{Ended, Micros, Protocol, WatchEvent};
use crate::stats::queries::{PassthroughReason, QueryProtocol, StatementKind};
use crate::stats::termination::Side;

const PROTOCOL: QueryProtocol = QueryProtocol::Mysql;

const MALFORMED: Ended = Some(PassthroughReason::Malformed);

/// Prepared statements whose first word is remembered.
const MAX_STATEMENTS: usize = 256;

/// How the answer to a command looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
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

impl AnswerKind for Awaited {
    fn is_query(self) -> bool {
        true
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
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
pub(super) struct MysqlWatcher {
    phase: Phase,
    /// What the server can, and since the login what both can.
    capabilities: u64,
    from_client: Framing,
    client: FromClient,
    from_server: Framing,
    server: FromServer,
    answer: Answer,
    outstanding: Outstanding<Awaited>,
    statements: StatementMemory<MAX_STATEMENTS>,
    /// First word of the last statement that was to be prepared: MariaDB's clients execute it before they know its id.
    last_prepared: StatementKind,
    /// What the client is to become, once the server agrees.
    asked: Option<Box<AskedNames>>,
}

/// User and database that the client has asked for by a command.
#[derive(Debug, Default)]
struct AskedNames {
    user: Option<Vec<u8>>,
    database: Option<Vec<u8>>,
}

impl MysqlWatcher {
    /// Of a connection whose login is over.
    pub(super) fn after_login(login: MysqlLogin) -> MysqlWatcher {
        MysqlWatcher { phase: Phase::Commands, capabilities: login.capabilities, ..MysqlWatcher::default() }
    }

    fn can(&self, capability: u64) -> bool {
        self.capabilities & capability != 0
    }
}

impl Protocol for MysqlWatcher {
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
        let (framing, is_read) = match from {
            Side::Client => (&self.from_client, self.client.is_read()),
            Side::Backend => (&self.from_server, self.server.is_read()),
        };
        if is_read { framing.left() } else { 0 }
    }

    fn skip(&mut self, from: Side, count: u64, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        match from {
            Side::Client if self.from_client.skip(count) => self.client_packet(now, out),
            Side::Backend if self.from_server.skip(count) => self.server_packet(now, out),
            Side::Client | Side::Backend => Ok(()),
        }
    }

    fn unanswered(&self) -> usize {
        self.outstanding.queries()
    }
}

#[cfg(test)]
mod tests;
