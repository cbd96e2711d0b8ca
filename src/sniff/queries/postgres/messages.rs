//! Messages of a client.

#![forbid(unsafe_code)]

use super::startup::FirstMessage;
use super::wire::{MALFORMED, PROTOCOL};
use crate::sniff::queries::event::Ended;
use crate::sniff::queries::first_word::FirstWord;
use crate::sniff::queries::framing::Prefix;
use crate::sniff::queries::memory::NameHash;

/// What a client sends next.
#[derive(Debug)]
pub(super) enum PgClientState {
    First(FirstMessage),
    /// Type and length.
    Header(Prefix<5>),
    /// Bytes of a message that are still to come.
    Body(u64, ClientMessage),
}

/// A message, as far as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientMessage {
    /// What it says does not matter.
    Other,
    Query(FirstWord),
    FunctionCall,
    Parse {
        name: NameHash,
        text: Option<FirstWord>,
    },
    Bind {
        portal: NameHash,
        statement: MessageName,
    },
    Execute(MessageName),
    /// Of a statement (`S`) or a portal (`P`), which its first byte says.
    Close(Option<u8>, MessageName),
    Sync,
    /// CopyDone or CopyFail.
    CopyEnd,
}

/// A name, as far as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum MessageName {
    /// What lies before it is being read.
    Awaited,
    Begun(NameHash),
    Whole(NameHash),
}

impl MessageName {
    const EMPTY: MessageName = MessageName::Begun(NameHash::EMPTY);

    /// Takes the name's bytes off `bytes`.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) {
        if let MessageName::Begun(hash) = self {
            match hash.read(bytes) {
                Some(end) => {
                    *bytes = bytes.get(end..).unwrap_or_default();
                    *self = MessageName::Whole(*hash);
                }
                None => *bytes = &[],
            }
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, MessageName::Whole(_))
    }

    pub(super) fn hash(self) -> Result<NameHash, Ended> {
        match self {
            MessageName::Whole(hash) => Ok(hash),
            MessageName::Awaited | MessageName::Begun(_) => Err(MALFORMED),
        }
    }
}

impl Default for PgClientState {
    fn default() -> PgClientState {
        PgClientState::First(FirstMessage::default())
    }
}

impl PgClientState {
    pub(super) fn next() -> PgClientState {
        PgClientState::Header(Prefix::default())
    }

    pub(super) fn skippable(&self) -> u64 {
        match self {
            PgClientState::Body(left, message) if message.is_read() => *left,
            _ => 0,
        }
    }
}

impl ClientMessage {
    pub(super) fn of(kind: u8) -> Result<ClientMessage, Ended> {
        Ok(match kind {
            b'Q' => ClientMessage::Query(FirstWord::new()),
            b'F' => ClientMessage::FunctionCall,
            b'P' => ClientMessage::Parse { name: NameHash::EMPTY, text: None },
            b'B' => ClientMessage::Bind { portal: NameHash::EMPTY, statement: MessageName::Awaited },
            b'E' => ClientMessage::Execute(MessageName::EMPTY),
            b'C' => ClientMessage::Close(None, MessageName::EMPTY),
            b'S' => ClientMessage::Sync,
            b'c' | b'f' => ClientMessage::CopyEnd,
            // Describe, Flush, Terminate, CopyData, and the answers to requests for authentication.
            b'D' | b'H' | b'X' | b'd' | b'p' => ClientMessage::Other,
            _ => return Err(MALFORMED),
        })
    }

    /// Whether what follows of it does not matter.
    pub(super) fn is_read(&self) -> bool {
        match self {
            ClientMessage::Query(text) => text.is_done(),
            ClientMessage::Parse { text, .. } => text.is_some_and(|text| text.is_done()),
            ClientMessage::Bind { statement, .. } => statement.is_whole(),
            ClientMessage::Execute(portal) => portal.is_whole(),
            ClientMessage::Close(kind, name) => kind.is_some() && name.is_whole(),
            ClientMessage::Other | ClientMessage::FunctionCall | ClientMessage::Sync | ClientMessage::CopyEnd => true,
        }
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        match self {
            ClientMessage::Query(text) => text.read(bytes, PROTOCOL),
            ClientMessage::Parse { text: Some(text), .. } => text.read(bytes, PROTOCOL),
            ClientMessage::Parse { name, text } => {
                if let Some(end) = name.read(bytes) {
                    let mut word = FirstWord::new();
                    word.read(bytes.get(end..).unwrap_or_default(), PROTOCOL);
                    *text = Some(word);
                }
            }
            ClientMessage::Bind { portal, statement } => {
                if let MessageName::Awaited = statement {
                    let Some(end) = portal.read(bytes) else { return };
                    bytes = bytes.get(end..).unwrap_or_default();
                    *statement = MessageName::EMPTY;
                }
                statement.read(&mut bytes);
            }
            ClientMessage::Execute(portal) => portal.read(&mut bytes),
            ClientMessage::Close(kind, name) => {
                if kind.is_none() {
                    let Some((first, rest)) = bytes.split_first() else { return };
                    *kind = Some(*first);
                    bytes = rest;
                }
                name.read(&mut bytes);
            }
            ClientMessage::Other | ClientMessage::FunctionCall | ClientMessage::Sync | ClientMessage::CopyEnd => {}
        }
    }
}
