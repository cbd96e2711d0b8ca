//! Commands of Redis and Valkey (RESP2 and RESP3).

#![forbid(unsafe_code)]

mod commands;
mod replies;
mod resp;

use self::commands::FromClient;
use self::replies::FromServer;
use super::outstanding::{AnswerKind, Outstanding};
use super::{Ended, Micros, Protocol, WatchEvent};
use crate::stats::queries::{PassthroughReason, QueryProtocol};
use crate::stats::termination::Side;

const PROTOCOL: QueryProtocol = QueryProtocol::Redis;

const MALFORMED: Ended = Some(PassthroughReason::Malformed);

/// What a command changes, once its reply says that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    Nothing,
    /// The user.
    User,
    /// The version of the protocol, and the user where it names one.
    Protocol,
    /// The database.
    Database,
    /// All of it is as at the beginning.
    Reset,
    /// The channels that it receives: pushed messages are the reply (RESP3).
    Channels,
}

impl AnswerKind for Changes {
    fn is_query(self) -> bool {
        true
    }
}

/// Watches a connection of Redis or Valkey.
#[derive(Debug, Default)]
pub(super) struct RedisWatcher {
    client: FromClient,
    server: FromServer,
    outstanding: Outstanding<Changes>,
    /// The client has asked for RESP3, in which messages of channels are told from replies.
    asked_resp3: bool,
    /// The user that the client has named, and the database that it has chosen.
    asked: Option<Box<Asked>>,
}

#[derive(Debug, Default)]
struct Asked {
    user: Option<Vec<u8>>,
    database: Option<Vec<u8>>,
}

impl Protocol for RedisWatcher {
    fn read(
        &mut self,
        from: Side,
        bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        match from {
            Side::Client => self.read_client(bytes, now),
            Side::Backend => self.read_server(bytes, now, out),
        }
    }

    fn skippable(&self, from: Side) -> u64 {
        match from {
            Side::Client => self.client.skippable(),
            Side::Backend => self.server.skippable(),
        }
    }

    fn skip(&mut self, from: Side, count: u64, _: Micros, _: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        // The end of a line follows, so that nothing ends here.
        match from {
            Side::Client => self.client.skip(count),
            Side::Backend => self.server.skip(count),
        }
        Ok(())
    }

    fn unanswered(&self) -> usize {
        self.outstanding.queries()
    }
}

#[cfg(test)]
mod tests;
