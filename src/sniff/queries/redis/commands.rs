//! Commands of a client: arrays of bulk strings, or lines.

#![forbid(unsafe_code)]

use super::resp::{Bulk, Number, Word};
use crate::sniff::queries::event::MAX_NAME;

/// Bytes of a command's name that are kept: the longest that is counted.
pub(super) const MAX_WORD: usize = 24;

/// CommandArguments that are looked at: of `HELLO 3 AUTH user password` all but the password.
const MAX_ARGUMENTS: u64 = 3;

/// What a client sends next.
#[derive(Debug, Default)]
pub(super) enum RedisClientState {
    /// A command.
    #[default]
    Next,
    /// The number of an array's strings.
    Count(Number),
    /// The `$` before the next string.
    Dollar(WatchedCommand),
    /// Its length.
    Length(WatchedCommand, Number),
    String(WatchedCommand, Bulk),
    /// A command that is a line.
    Line(WatchedCommand),
}

/// A command, as far as it is read.
#[derive(Debug, Default)]
pub(super) struct WatchedCommand {
    /// Strings to come.
    pub(super) left: u64,
    /// The place of the string that is being read.
    pub(super) place: u64,
    /// Of a line: a word has begun.
    pub(super) in_word: bool,
    pub(super) name: Word<MAX_WORD>,
    /// Where it matters what they are; made with the first of them.
    pub(super) arguments: Option<Box<CommandArguments>>,
}

#[derive(Debug, Default)]
pub(super) struct CommandArguments([Word<MAX_NAME>; MAX_ARGUMENTS as usize]);

impl WatchedCommand {
    pub(super) fn string(&mut self, part: &[u8]) {
        match self.place {
            0 => self.name.push(part),
            place @ 1..=MAX_ARGUMENTS if self.has_meaning() && !self.is_password() => {
                let CommandArguments(words) = &mut **self.arguments.get_or_insert_default();
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

    pub(super) fn argument(&self, place: usize) -> &[u8] {
        self.arguments.as_ref().and_then(|it| it.0.get(place)).map_or(&[], Word::get)
    }

    /// Takes a part of a line, with words and spaces between them.
    pub(super) fn line(&mut self, part: &[u8]) {
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

impl RedisClientState {
    pub(super) fn skippable(&self) -> u64 {
        match self {
            RedisClientState::String(command, bulk)
                if command.place > 0 && (command.place > MAX_ARGUMENTS || !command.has_meaning()) =>
            {
                bulk.skippable()
            }
            _ => 0,
        }
    }

    pub(super) fn skip(&mut self, count: u64) {
        if let RedisClientState::String(_, bulk) = self {
            bulk.skip(count);
        }
    }
}
