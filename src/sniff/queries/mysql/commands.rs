//! Commands of a client.

#![forbid(unsafe_code)]

use super::wire::{MALFORMED, PROTOCOL};
use super::{capability, command, login};
use crate::sniff::queries::event::{Ended, MAX_NAME};
use crate::sniff::queries::first_word::FirstWord;
use crate::sniff::queries::framing::Prefix;
use crate::stats::queries::PassthroughReason;

/// What a packet of a client is, as far as it is read.
#[derive(Debug, Default)]
pub(super) enum CommandState {
    /// What it says does not matter.
    #[default]
    Other,
    /// Names, in the beginning of the payload, of which this is wanted: a login, or a command that has them.
    Names(Vec<u8>, usize),
    /// A command whose first byte is still to come.
    Command,
    /// A COM_QUERY with attributes, whose numbers of parameters and of sets come first.
    Attributes(Prefix<2>),
    Query(FirstWord),
    Prepare(FirstWord),
    /// A command with the number of a prepared statement.
    Prepared(u8, Prefix<4>),
    /// A command without more.
    Plain(u8),
}

impl CommandState {
    pub(super) fn is_read(&self) -> bool {
        match self {
            CommandState::Names(seen, wanted) => seen.len() >= *wanted,
            CommandState::Query(text) | CommandState::Prepare(text) => text.is_done(),
            CommandState::Prepared(_, number) => number.get().len() == 4,
            CommandState::Command | CommandState::Attributes(_) => false,
            CommandState::Other | CommandState::Plain(_) => true,
        }
    }

    /// Takes the next bytes of a payload.
    pub(super) fn read(&mut self, mut bytes: &[u8], agreed: u64) -> Result<(), Ended> {
        while !bytes.is_empty() && !self.is_read() {
            match self {
                CommandState::Names(seen, wanted) => {
                    let count = wanted.saturating_sub(seen.len()).min(bytes.len());
                    seen.extend_from_slice(bytes.get(..count).unwrap_or_default());
                    return Ok(());
                }
                CommandState::Command => {
                    let (first, rest) = bytes.split_first().ok_or(MALFORMED)?;
                    *self = CommandState::command(*first, agreed)?;
                    bytes = rest;
                }
                CommandState::Attributes(numbers) => {
                    if !numbers.fill(&mut bytes, 2) {
                        return Ok(());
                    }
                    let text = FirstWord::new();
                    *self = match numbers.whole() {
                        [0, _] => CommandState::Query(text),
                        // The statement is behind types, names and values.
                        _ => CommandState::Plain(command::QUERY),
                    };
                }
                CommandState::Query(text) | CommandState::Prepare(text) => {
                    text.read(bytes, PROTOCOL);
                    return Ok(());
                }
                CommandState::Prepared(_, number) => _ = number.fill(&mut bytes, 4),
                CommandState::Other | CommandState::Plain(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn command(first: u8, agreed: u64) -> Result<CommandState, Ended> {
        use super::command::*;

        Ok(match first {
            QUERY if agreed & capability::QUERY_ATTRIBUTES != 0 => CommandState::Attributes(Prefix::default()),
            QUERY => CommandState::Query(FirstWord::new()),
            STMT_PREPARE => CommandState::Prepare(FirstWord::new()),
            STMT_EXECUTE | STMT_BULK_EXECUTE | STMT_CLOSE => CommandState::Prepared(first, Prefix::default()),
            INIT_DB => CommandState::Names(vec![first], 1 + MAX_NAME),
            CHANGE_USER => CommandState::Names(vec![first], login::MAX_SEEN),
            BINLOG_DUMP | BINLOG_DUMP_GTID | TABLE_DUMP | CLONE | SUBSCRIBE_GROUP_REPLICATION => {
                return Err(Some(PassthroughReason::Replication));
            }
            QUIT..=LAST_PLAIN => CommandState::Plain(first),
            _ => return Err(Some(PassthroughReason::Unsupported)),
        })
    }
}
