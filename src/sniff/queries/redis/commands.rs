//! Commands of a client: arrays of bulk strings, or lines.

#![forbid(unsafe_code)]

use super::resp::{Bulk, Number, line};
use super::{Asked, Changes, MALFORMED, PROTOCOL, RedisWatcher};
use crate::sniff::queries::{Ended, MAX_NAME, Micros};
use crate::stats::queries::PassthroughReason;

/// Bytes of a command's name that are kept: the longest that is counted.
const MAX_WORD: usize = 24;

/// Arguments that are looked at: of `HELLO 3 AUTH user password` all but the password.
const MAX_ARGUMENTS: u64 = 3;

/// What a client sends next.
#[derive(Debug, Default)]
pub(super) enum FromClient {
    /// A command.
    #[default]
    Next,
    /// The number of an array's strings.
    Count(Number),
    /// The `$` before the next string.
    Dollar(Command),
    /// Its length.
    Length(Command, Number),
    String(Command, Bulk),
    /// A command that is a line.
    Line(Command),
}

/// A command, as far as it is read.
#[derive(Debug, Default)]
pub(super) struct Command {
    /// Strings to come.
    left: u64,
    /// The place of the string that is being read.
    place: u64,
    /// Of a line: a word has begun.
    in_word: bool,
    name: Word<MAX_WORD>,
    /// Where it matters what they are; made with the first of them.
    arguments: Option<Box<Arguments>>,
}

#[derive(Debug, Default)]
struct Arguments([Word<MAX_NAME>; MAX_ARGUMENTS as usize]);

/// The first bytes of a string.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<const MOST: usize> {
    bytes: [u8; MOST],
    len: u8,
    is_cut: bool,
}

impl<const MOST: usize> Default for Word<MOST> {
    fn default() -> Word<MOST> {
        Word { bytes: [0; MOST], len: 0, is_cut: false }
    }
}

impl<const MOST: usize> Word<MOST> {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let from = usize::from(self.len);
        let count = bytes.len().min(MOST - from);
        if let (Some(places), Some(taken)) = (self.bytes.get_mut(from..from + count), bytes.get(..count)) {
            places.copy_from_slice(taken);
        }
        // At most MOST, which fits.
        self.len = (from + count) as u8;
        self.is_cut |= count < bytes.len();
    }

    /// What there is of it.
    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn is(&self, word: &[u8]) -> bool {
        !self.is_cut && self.get().eq_ignore_ascii_case(word)
    }
}

impl Command {
    fn string(&mut self, part: &[u8]) {
        match self.place {
            0 => self.name.push(part),
            place @ 1..=MAX_ARGUMENTS if self.has_meaning() && !self.is_password() => {
                let Arguments(words) = &mut **self.arguments.get_or_insert_default();
                if let Some(word) = words.get_mut(place as usize - 1) {
                    word.push(part);
                }
            }
            _ => {}
        }
    }

    /// Whether its arguments matter.
    fn has_meaning(&self) -> bool {
        [&b"AUTH"[..], b"HELLO", b"SELECT", b"CLIENT"].iter().any(|name| self.name.is(name))
    }

    /// Whether the string that is being read is the only argument of an AUTH, or its second one.
    fn is_password(&self) -> bool {
        (self.left == 1 || self.place > 1) && self.name.is(b"AUTH")
    }

    fn argument(&self, place: usize) -> &[u8] {
        self.arguments.as_ref().and_then(|it| it.0.get(place)).map_or(&[], Word::get)
    }

    /// Takes a part of a line, with words and spaces between them.
    fn line(&mut self, part: &[u8]) {
        let mut words = part.split(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        let mut next = words.next();
        while let Some(word) = next {
            self.string(word);
            self.in_word |= !word.is_empty();
            next = words.next();
            if next.is_some() && self.in_word {
                (self.place, self.in_word) = (self.place.saturating_add(1), false);
            }
        }
    }
}

impl FromClient {
    pub(super) fn skippable(&self) -> u64 {
        match self {
            FromClient::String(command, bulk)
                if command.place > 0 && (command.place > MAX_ARGUMENTS || !command.has_meaning()) =>
            {
                bulk.skippable()
            }
            _ => 0,
        }
    }

    pub(super) fn skip(&mut self, count: u64) {
        if let FromClient::String(_, bulk) = self {
            bulk.skip(count);
        }
    }
}

impl RedisWatcher {
    pub(super) fn read_client(&mut self, mut bytes: &[u8], now: Micros) -> Result<(), Ended> {
        while let Some(first) = bytes.first() {
            match &mut self.client {
                FromClient::Next => {
                    self.client = match first {
                        b'*' => {
                            bytes = bytes.get(1..).unwrap_or_default();
                            FromClient::Count(Number::default())
                        }
                        // The record of a TLS handshake.
                        0x16 => return Err(Some(PassthroughReason::Encrypted)),
                        _ => FromClient::Line(Command::default()),
                    };
                }
                FromClient::Count(count) => match count.read(&mut bytes)? {
                    None => {}
                    // Nothing is answered.
                    Some(None | Some(0)) => self.client = FromClient::Next,
                    Some(Some(left)) => self.client = FromClient::Dollar(Command { left, ..Command::default() }),
                },
                FromClient::Dollar(command) => {
                    if *first != b'$' {
                        return Err(MALFORMED);
                    }
                    bytes = bytes.get(1..).unwrap_or_default();
                    self.client = FromClient::Length(std::mem::take(command), Number::default());
                }
                FromClient::Length(command, length) => {
                    if let Some(length) = length.read(&mut bytes)? {
                        let bulk = Bulk::new(length.ok_or(MALFORMED)?);
                        self.client = FromClient::String(std::mem::take(command), bulk);
                    }
                }
                FromClient::String(command, bulk) => {
                    let (part, ends) = bulk.read(&mut bytes);
                    command.string(part);
                    if ends {
                        command.left = command.left.saturating_sub(1);
                        command.place += 1;
                        let command = std::mem::take(command);
                        match command.left {
                            0 => self.commands(&command, now)?,
                            _ => self.client = FromClient::Dollar(command),
                        }
                    }
                }
                FromClient::Line(command) => {
                    let (part, ends) = line(&mut bytes);
                    command.line(part);
                    if ends {
                        let command = std::mem::take(command);
                        match command.name.get() {
                            [] => self.client = FromClient::Next,
                            _ => {
                                let place = command.place + u64::from(command.in_word);
                                self.commands(&Command { place, ..command }, now)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// All of a command has come, with so many strings as `place` says.
    fn commands(&mut self, command: &Command, now: Micros) -> Result<(), Ended> {
        self.client = FromClient::Next;
        let statement = PROTOCOL.statement(if command.name.is_cut { &[] } else { command.name.get() });
        let mut name = [0; MAX_WORD];
        let length = command.name.get().len();
        name[..length].copy_from_slice(command.name.get());
        name.make_ascii_uppercase();
        let changes = match &name[..length] {
            _ if command.name.is_cut => Changes::Nothing,
            b"MONITOR" => return Err(Some(PassthroughReason::Streaming)),
            b"SYNC" | b"PSYNC" => return Err(Some(PassthroughReason::Replication)),
            b"CLIENT" if command.argument(0).eq_ignore_ascii_case(b"REPLY") => {
                return Err(Some(PassthroughReason::Streaming));
            }
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"SUNSUBSCRIBE" => {
                match self.asked_resp3 {
                    true => Changes::Channels,
                    false => return Err(Some(PassthroughReason::Streaming)),
                }
            }
            b"AUTH" => {
                let user = if command.place > 2 { command.argument(0) } else { b"default" };
                self.asked.get_or_insert_default().user = Some(user.to_vec());
                Changes::User
            }
            b"HELLO" => {
                self.asked_resp3 = match command.argument(0) {
                    b"" => self.asked_resp3,
                    version => version == b"3",
                };
                if command.argument(1).eq_ignore_ascii_case(b"AUTH") {
                    self.asked.get_or_insert_default().user = Some(command.argument(2).to_vec());
                }
                Changes::Protocol
            }
            b"SELECT" => {
                self.asked.get_or_insert_default().database = Some(command.argument(0).to_vec());
                Changes::Database
            }
            b"RESET" => {
                self.asked_resp3 = false;
                let (user, database) = (Some(b"default".to_vec()), Some(b"0".to_vec()));
                self.asked = Some(Box::new(Asked { user, database }));
                Changes::Reset
            }
            _ => Changes::Nothing,
        };
        self.outstanding.push(statement, changes, now)
    }
}
