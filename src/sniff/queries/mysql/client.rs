//! Packets of a client.

#![forbid(unsafe_code)]

use super::login::{self, capability};
use super::packet::{PacketHeader, Piece};
use super::{AskedNames, Awaited, MALFORMED, MysqlWatcher, PROTOCOL, Phase};
use crate::sniff::queries::first_word::FirstWord;
use crate::sniff::queries::framing::Beginning;
use crate::sniff::queries::{Ended, MAX_NAME, Micros, WatchEvent};
use crate::stats::queries::{PassthroughReason, StatementKind};

/// What a packet of a client is, as far as it is read.
#[derive(Debug, Default)]
pub(super) enum FromClient {
    /// What it says does not matter.
    #[default]
    Other,
    /// Names, in the beginning of the payload, of which this is wanted: a login, or a command that has them.
    Names(Vec<u8>, usize),
    /// A command whose first byte is still to come.
    Command,
    /// A COM_QUERY with attributes, whose numbers of parameters and of sets come first.
    Attributes(Beginning<2>),
    Query(FirstWord),
    Prepare(FirstWord),
    /// A command with the number of a prepared statement.
    Prepared(u8, Beginning<4>),
    /// A command without more.
    Plain(u8),
}

mod command {
    pub(super) const QUIT: u8 = 0x01;
    pub(super) const INIT_DB: u8 = 0x02;
    pub(super) const QUERY: u8 = 0x03;
    pub(super) const FIELD_LIST: u8 = 0x04;
    pub(super) const PROCESS_INFO: u8 = 0x0a;
    pub(super) const PROCESS_KILL: u8 = 0x0c;
    pub(super) const PING: u8 = 0x0e;
    pub(super) const CHANGE_USER: u8 = 0x11;
    pub(super) const BINLOG_DUMP: u8 = 0x12;
    pub(super) const TABLE_DUMP: u8 = 0x13;
    pub(super) const STMT_PREPARE: u8 = 0x16;
    pub(super) const STMT_EXECUTE: u8 = 0x17;
    pub(super) const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub(super) const STMT_CLOSE: u8 = 0x19;
    pub(super) const STMT_RESET: u8 = 0x1a;
    pub(super) const SET_OPTION: u8 = 0x1b;
    pub(super) const STMT_FETCH: u8 = 0x1c;
    pub(super) const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub(super) const RESET_CONNECTION: u8 = 0x1f;
    pub(super) const CLONE: u8 = 0x20;
    pub(super) const SUBSCRIBE_GROUP_REPLICATION: u8 = 0x21;
    pub(super) const STMT_BULK_EXECUTE: u8 = 0xfa;
    /// The last that has an answer of one packet (COM_CREATE_DB to COM_RESET_CONNECTION).
    pub(super) const LAST_PLAIN: u8 = 0x1f;
}

/// The number with which MariaDB's clients execute the statement that they have prepared last.
const LAST_STATEMENT: u32 = u32::MAX;

impl FromClient {
    pub(super) fn is_read(&self) -> bool {
        match self {
            FromClient::Names(seen, wanted) => seen.len() >= *wanted,
            FromClient::Query(text) | FromClient::Prepare(text) => text.is_done(),
            FromClient::Prepared(_, number) => number.get().len() == 4,
            FromClient::Command | FromClient::Attributes(_) => false,
            FromClient::Other | FromClient::Plain(_) => true,
        }
    }

    /// Takes the next bytes of a payload.
    fn read(&mut self, mut bytes: &[u8], agreed: u64) -> Result<(), Ended> {
        while !bytes.is_empty() && !self.is_read() {
            match self {
                FromClient::Names(seen, wanted) => {
                    let count = wanted.saturating_sub(seen.len()).min(bytes.len());
                    seen.extend_from_slice(bytes.get(..count).unwrap_or_default());
                    return Ok(());
                }
                FromClient::Command => {
                    let (first, rest) = bytes.split_first().ok_or(MALFORMED)?;
                    *self = FromClient::command(*first, agreed)?;
                    bytes = rest;
                }
                FromClient::Attributes(numbers) => {
                    if !numbers.fill(&mut bytes, 2) {
                        return Ok(());
                    }
                    let text = FirstWord::new();
                    *self = match numbers.whole() {
                        [0, _] => FromClient::Query(text),
                        // The statement is behind types, names and values.
                        _ => FromClient::Plain(command::QUERY),
                    };
                }
                FromClient::Query(text) | FromClient::Prepare(text) => {
                    text.read(bytes, PROTOCOL);
                    return Ok(());
                }
                FromClient::Prepared(_, number) => _ = number.fill(&mut bytes, 4),
                FromClient::Other | FromClient::Plain(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn command(first: u8, agreed: u64) -> Result<FromClient, Ended> {
        use command::*;

        Ok(match first {
            QUERY if agreed & capability::QUERY_ATTRIBUTES != 0 => FromClient::Attributes(Beginning::default()),
            QUERY => FromClient::Query(FirstWord::new()),
            STMT_PREPARE => FromClient::Prepare(FirstWord::new()),
            STMT_EXECUTE | STMT_BULK_EXECUTE | STMT_CLOSE => FromClient::Prepared(first, Beginning::default()),
            INIT_DB => FromClient::Names(vec![first], 1 + MAX_NAME),
            CHANGE_USER => FromClient::Names(vec![first], login::MAX_SEEN),
            BINLOG_DUMP | BINLOG_DUMP_GTID | TABLE_DUMP | CLONE | SUBSCRIBE_GROUP_REPLICATION => {
                return Err(Some(PassthroughReason::Replication));
            }
            QUIT..=LAST_PLAIN => FromClient::Plain(first),
            _ => return Err(Some(PassthroughReason::Unsupported)),
        })
    }
}

impl MysqlWatcher {
    pub(super) fn read_client(
        &mut self,
        mut bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        while let Some(piece) = self.from_client.next(&mut bytes) {
            let ends = match piece {
                Piece::Header { header, ends } => {
                    self.client = self.begins(header)?;
                    ends
                }
                Piece::Payload { bytes, ends } => {
                    self.client.read(bytes, self.capabilities)?;
                    ends
                }
            };
            if ends {
                self.client_packet(now, out)?;
            }
        }
        Ok(())
    }

    /// What a packet with this header is.
    fn begins(&mut self, header: PacketHeader) -> Result<FromClient, Ended> {
        let PacketHeader { length, sequence } = header;
        Ok(match self.phase {
            Phase::Greeting => return Err(MALFORMED),
            Phase::Login => FromClient::Names(Vec::new(), login::MAX_SEEN.min(length as usize)),
            Phase::Authentication => FromClient::Other,
            Phase::File => {
                if length == 0 {
                    self.phase = Phase::Commands;
                }
                FromClient::Other
            }
            // A command is the first packet of an exchange.
            Phase::Commands if sequence == 0 && length > 0 => FromClient::Command,
            Phase::Commands => FromClient::Other,
        })
    }

    /// All of a packet has come.
    pub(super) fn client_packet(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        let packet = std::mem::take(&mut self.client);
        let (statement, awaited) = match packet {
            FromClient::Other => return Ok(()),
            FromClient::Names(seen, wanted) if self.phase == Phase::Login => return self.logs_in(&seen, wanted, out),
            FromClient::Names(seen, _) => match seen.split_first() {
                Some((&command::INIT_DB, name)) => {
                    self.asked.get_or_insert_default().database = Some(name.to_vec());
                    (word(b"USE"), Awaited::Database)
                }
                Some((_, rest)) => {
                    let names = login::change_user(rest, self.capabilities).ok_or(MALFORMED)?;
                    self.asked = Some(Box::new(names));
                    (word(b"CHANGE"), Awaited::User)
                }
                None => return Err(MALFORMED),
            },
            FromClient::Query(text) => (text.statement(PROTOCOL), Awaited::Results),
            FromClient::Prepare(text) => {
                self.last_prepared = text.statement(PROTOCOL);
                // Which of them it is, is known again when the answer comes.
                (self.last_prepared, Awaited::Prepared)
            }
            FromClient::Prepared(command, number) => {
                let number = u32::from_le_bytes(number.whole());
                if command == command::STMT_CLOSE {
                    self.statements.remove(number);
                    return Ok(());
                }
                let statement = match number {
                    LAST_STATEMENT => self.last_prepared,
                    number => self.statements.get(number),
                };
                (statement, Awaited::Results)
            }
            FromClient::Plain(command) => match command {
                command::QUIT | command::STMT_SEND_LONG_DATA => return Ok(()),
                command::QUERY | command::PROCESS_INFO => (StatementKind::OTHER, Awaited::Results),
                command::FIELD_LIST => (StatementKind::OTHER, Awaited::Fields),
                command::STMT_FETCH => (word(b"FETCH"), Awaited::Rows),
                command::PING => (word(b"PING"), Awaited::Packet),
                command::PROCESS_KILL => (word(b"KILL"), Awaited::Packet),
                command::SET_OPTION => (word(b"SET"), Awaited::Packet),
                command::STMT_RESET | command::RESET_CONNECTION => (word(b"RESET"), Awaited::Packet),
                _ => (StatementKind::OTHER, Awaited::Packet),
            },
            FromClient::Command | FromClient::Attributes(_) => return Err(MALFORMED),
        };
        self.outstanding.push(statement, awaited, now)
    }

    fn logs_in(&mut self, seen: &[u8], wanted: usize, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        // Longer ones are no SSLRequest.
        let length = u32::try_from(wanted).unwrap_or(u32::MAX);
        let (agreed, names) = login::login(seen, length, self.capabilities)?;
        self.names(names, out);
        self.capabilities = agreed;
        if self.can(capability::COMPRESS | capability::ZSTD) {
            return Err(Some(PassthroughReason::Compressed));
        }
        if self.can(capability::OPTIONAL_METADATA | capability::COM_MULTI) {
            return Err(Some(PassthroughReason::Unsupported));
        }
        self.phase = Phase::Authentication;
        Ok(())
    }

    /// These are in effect from now on.
    pub(super) fn names(&self, names: AskedNames, out: &mut dyn FnMut(WatchEvent<'_>)) {
        names.user.into_iter().for_each(|user| out(WatchEvent::User(&user)));
        names.database.into_iter().for_each(|database| out(WatchEvent::Database(&database)));
    }
}

fn word(word: &[u8]) -> StatementKind {
    PROTOCOL.statement(word)
}
