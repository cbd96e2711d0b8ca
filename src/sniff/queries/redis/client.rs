//! What a client asks for.

#![forbid(unsafe_code)]

use super::commands::{MAX_WORD, RedisClientState, WatchedCommand};
use super::resp::{Bulk, MALFORMED, Number, PROTOCOL, line};
use super::watch::{AskedIdentity, RedisChange, RedisWatcher};
use crate::sniff::queries::event::{Ended, Micros};
use crate::stats::queries::PassthroughReason;

impl RedisWatcher {
    pub(super) fn read_client(&mut self, mut bytes: &[u8], now: Micros) -> Result<(), Ended> {
        while let Some(first) = bytes.first() {
            match &mut self.client {
                RedisClientState::Next => {
                    self.client = match first {
                        b'*' => {
                            bytes = bytes.get(1..).unwrap_or_default();
                            RedisClientState::Count(Number::default())
                        }
                        // The record of a TLS handshake.
                        0x16 => return Err(Some(PassthroughReason::Encrypted)),
                        _ => RedisClientState::Line(WatchedCommand::default()),
                    };
                }
                RedisClientState::Count(count) => match count.read(&mut bytes)? {
                    None => {}
                    // Nothing is answered.
                    Some(None | Some(0)) => self.client = RedisClientState::Next,
                    Some(Some(left)) => {
                        self.client = RedisClientState::Dollar(WatchedCommand { left, ..WatchedCommand::default() });
                    }
                },
                RedisClientState::Dollar(command) => {
                    if *first != b'$' {
                        return Err(MALFORMED);
                    }
                    bytes = bytes.get(1..).unwrap_or_default();
                    self.client = RedisClientState::Length(std::mem::take(command), Number::default());
                }
                RedisClientState::Length(command, length) => {
                    if let Some(length) = length.read(&mut bytes)? {
                        let bulk = Bulk::new(length.ok_or(MALFORMED)?);
                        self.client = RedisClientState::String(std::mem::take(command), bulk);
                    }
                }
                RedisClientState::String(command, bulk) => {
                    let (part, ends) = bulk.read(&mut bytes);
                    command.string(part);
                    if ends {
                        command.left = command.left.saturating_sub(1);
                        command.place += 1;
                        let command = std::mem::take(command);
                        match command.left {
                            0 => self.commands(&command, now)?,
                            _ => self.client = RedisClientState::Dollar(command),
                        }
                    }
                }
                RedisClientState::Line(command) => {
                    let (part, ends) = line(&mut bytes);
                    command.line(part);
                    if ends {
                        let command = std::mem::take(command);
                        match command.name.get() {
                            [] => self.client = RedisClientState::Next,
                            _ => {
                                let place = command.place + u64::from(command.in_word);
                                self.commands(&WatchedCommand { place, ..command }, now)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A whole command has come; `place` counts its strings.
    fn commands(&mut self, command: &WatchedCommand, now: Micros) -> Result<(), Ended> {
        self.client = RedisClientState::Next;
        let statement = PROTOCOL.statement(if command.name.is_cut { &[] } else { command.name.get() });
        let mut name = [0; MAX_WORD];
        // At most MAX_WORD, as the name is kept.
        let length = command.name.get().len();
        name[..length].copy_from_slice(command.name.get());
        name.make_ascii_uppercase();
        let changes = match &name[..length] {
            _ if command.name.is_cut => RedisChange::Nothing,
            b"MONITOR" => return Err(Some(PassthroughReason::Streaming)),
            b"SYNC" | b"PSYNC" => return Err(Some(PassthroughReason::Replication)),
            b"CLIENT" if command.argument(0).eq_ignore_ascii_case(b"REPLY") => {
                return Err(Some(PassthroughReason::Streaming));
            }
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"SUNSUBSCRIBE" => {
                match self.asked_resp3 {
                    true => RedisChange::Channels,
                    false => return Err(Some(PassthroughReason::Streaming)),
                }
            }
            b"AUTH" => {
                let user = if command.place > 2 { command.argument(0) } else { b"default" };
                self.asked.get_or_insert_default().user = Some(user.to_vec());
                RedisChange::User
            }
            b"HELLO" => {
                self.asked_resp3 = match command.argument(0) {
                    b"" => self.asked_resp3,
                    version => version == b"3",
                };
                if command.argument(1).eq_ignore_ascii_case(b"AUTH") {
                    self.asked.get_or_insert_default().user = Some(command.argument(2).to_vec());
                }
                RedisChange::Protocol
            }
            b"SELECT" => {
                self.asked.get_or_insert_default().database = Some(command.argument(0).to_vec());
                RedisChange::Database
            }
            b"RESET" => {
                self.asked_resp3 = false;
                let (user, database) = (Some(b"default".to_vec()), Some(b"0".to_vec()));
                self.asked = Some(Box::new(AskedIdentity { user, database }));
                RedisChange::Reset
            }
            _ => RedisChange::Nothing,
        };
        self.outstanding.push(statement, changes, now)
    }
}
