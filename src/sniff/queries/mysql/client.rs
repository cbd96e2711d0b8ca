//! What a client asks for.

#![forbid(unsafe_code)]

use super::commands::CommandState;
use super::login::{AskedNames, MysqlLogin};
use super::packet::{PacketHeader, Piece};
use super::watch::{AwaitedAnswer, MysqlWatcher, Phase};
use super::wire::{MALFORMED, PROTOCOL};
use super::{command, login};
use crate::sniff::queries::event::{Ended, Micros, WatchEvent};
use crate::stats::queries::StatementKind;

/// The number with which MariaDB's clients execute the statement that they have prepared last.
const LAST_STATEMENT: u32 = u32::MAX;

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
    fn begins(&mut self, header: PacketHeader) -> Result<CommandState, Ended> {
        let PacketHeader { length, sequence } = header;
        Ok(match self.phase {
            Phase::Greeting => return Err(MALFORMED),
            Phase::Login => CommandState::Names(Vec::new(), login::MAX_SEEN.min(length as usize)),
            Phase::Authentication => CommandState::Other,
            Phase::File => {
                if length == 0 {
                    self.phase = Phase::Commands;
                }
                CommandState::Other
            }
            // A command is the first packet of an exchange.
            Phase::Commands if sequence == 0 && length > 0 => CommandState::Command,
            Phase::Commands => CommandState::Other,
        })
    }

    /// All of a packet has come.
    pub(super) fn client_packet(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        let packet = std::mem::take(&mut self.client);
        let (statement, awaited) = match packet {
            CommandState::Other => return Ok(()),
            CommandState::Names(seen, wanted) if self.phase == Phase::Login => return self.logs_in(&seen, wanted, out),
            CommandState::Names(seen, _) => match seen.split_first() {
                Some((&command::INIT_DB, name)) => {
                    self.asked.get_or_insert_default().database = Some(name.to_vec());
                    (word(b"USE"), AwaitedAnswer::Database)
                }
                Some((_, rest)) => {
                    let names = login::change_user(rest, self.capabilities).ok_or(MALFORMED)?;
                    self.asked = Some(Box::new(names));
                    (word(b"CHANGE"), AwaitedAnswer::User)
                }
                None => return Err(MALFORMED),
            },
            CommandState::Query(text) => (text.statement(PROTOCOL), AwaitedAnswer::Results),
            CommandState::Prepare(text) => {
                self.last_prepared = text.statement(PROTOCOL);
                // Which of them it is, is known again when the answer comes.
                (self.last_prepared, AwaitedAnswer::Prepared)
            }
            CommandState::Prepared(command, number) => {
                let number = u32::from_le_bytes(number.whole());
                if command == command::STMT_CLOSE {
                    self.statements.remove(number);
                    return Ok(());
                }
                let statement = match number {
                    LAST_STATEMENT => self.last_prepared,
                    number => self.statements.get(number),
                };
                (statement, AwaitedAnswer::Results)
            }
            CommandState::Plain(command) => match command {
                command::QUIT | command::STMT_SEND_LONG_DATA => return Ok(()),
                command::QUERY | command::PROCESS_INFO => (StatementKind::OTHER, AwaitedAnswer::Results),
                command::FIELD_LIST => (StatementKind::OTHER, AwaitedAnswer::Fields),
                command::STMT_FETCH => (word(b"FETCH"), AwaitedAnswer::Rows),
                command::PING => (word(b"PING"), AwaitedAnswer::Packet),
                command::PROCESS_KILL => (word(b"KILL"), AwaitedAnswer::Packet),
                command::SET_OPTION => (word(b"SET"), AwaitedAnswer::Packet),
                command::STMT_RESET | command::RESET_CONNECTION => (word(b"RESET"), AwaitedAnswer::Packet),
                _ => (StatementKind::OTHER, AwaitedAnswer::Packet),
            },
            CommandState::Command | CommandState::Attributes(_) => return Err(MALFORMED),
        };
        self.outstanding.push(statement, awaited, now)
    }

    fn logs_in(&mut self, seen: &[u8], wanted: usize, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        // Longer ones are no SSLRequest.
        let length = u32::try_from(wanted).unwrap_or(u32::MAX);
        let (agreed, names) = login::login(seen, length, self.capabilities)?;
        self.names(names, out);
        self.capabilities = agreed;
        login::is_followed(agreed)?;
        self.phase = Phase::Authentication;
        Ok(())
    }

    /// The login is over, and was not watched.
    pub(in crate::sniff::queries) fn after_login(
        login: MysqlLogin,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<MysqlWatcher, Ended> {
        let MysqlLogin { agreed, names } = login;
        let watcher = MysqlWatcher { phase: Phase::Commands, capabilities: agreed, ..MysqlWatcher::default() };
        watcher.names(names, out);
        login::is_followed(agreed)?;
        Ok(watcher)
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
