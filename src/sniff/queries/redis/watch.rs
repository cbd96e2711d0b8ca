//! What is known of a connection.

#![forbid(unsafe_code)]

use super::commands::RedisClientState;
use super::replies::RedisServerState;
use crate::sniff::queries::outstanding::{AnswerKind, Outstanding};

/// What a command changes, once its reply says that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedisChange {
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

impl AnswerKind for RedisChange {
    fn is_query(self) -> bool {
        true
    }
}

/// Watches a connection of Redis or Valkey.
#[derive(Debug, Default)]
pub(in crate::sniff::queries) struct RedisWatcher {
    pub(super) client: RedisClientState,
    pub(super) server: RedisServerState,
    pub(super) outstanding: Outstanding<RedisChange>,
    /// The client has asked for RESP3, in which messages of channels are told from replies.
    pub(super) asked_resp3: bool,
    /// The user that the client has named, and the database that it has chosen.
    pub(super) asked: Option<Box<AskedIdentity>>,
}

#[derive(Debug, Default)]
pub(super) struct AskedIdentity {
    pub(super) user: Option<Vec<u8>>,
    pub(super) database: Option<Vec<u8>>,
}
