//! Messages of a client.

#![forbid(unsafe_code)]

use super::startup::{Began, FirstMessage};
use super::{Awaited, MALFORMED, PROTOCOL, PostgresWatcher, body_length};
use crate::sniff::queries::first_word::FirstWord;
use crate::sniff::queries::framing::{Beginning, take};
use crate::sniff::queries::memory::NameHash;
use crate::sniff::queries::{Ended, Micros, WatchEvent};
use crate::stats::queries::StatementKind;

/// What a client sends next.
#[derive(Debug)]
pub(super) enum FromClient {
    First(FirstMessage),
    /// Type and length.
    Header(Beginning<5>),
    /// So many bytes of a message are to come.
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
        statement: Part,
    },
    Execute(Part),
    /// Of a statement (`S`) or a portal (`P`), which its first byte says.
    Close(Option<u8>, Part),
    Sync,
    /// CopyDone or CopyFail.
    CopyEnd,
}

/// A name, as far as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// What lies before it is being read.
    Awaited,
    Begun(NameHash),
    Whole(NameHash),
}

impl Part {
    const EMPTY: Part = Part::Begun(NameHash::EMPTY);

    /// Takes the name's bytes off `bytes`.
    fn read(&mut self, bytes: &mut &[u8]) {
        if let Part::Begun(hash) = self {
            match hash.read(bytes) {
                Some(end) => {
                    *bytes = bytes.get(end..).unwrap_or_default();
                    *self = Part::Whole(*hash);
                }
                None => *bytes = &[],
            }
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Part::Whole(_))
    }

    fn hash(self) -> Result<NameHash, Ended> {
        match self {
            Part::Whole(hash) => Ok(hash),
            Part::Awaited | Part::Begun(_) => Err(MALFORMED),
        }
    }
}

impl Default for FromClient {
    fn default() -> FromClient {
        FromClient::First(FirstMessage::default())
    }
}

impl FromClient {
    fn next() -> FromClient {
        FromClient::Header(Beginning::default())
    }

    pub(super) fn skippable(&self) -> u64 {
        match self {
            FromClient::Body(left, message) if message.is_read() => *left,
            _ => 0,
        }
    }
}

impl ClientMessage {
    fn of(kind: u8) -> Result<ClientMessage, Ended> {
        Ok(match kind {
            b'Q' => ClientMessage::Query(FirstWord::new()),
            b'F' => ClientMessage::FunctionCall,
            b'P' => ClientMessage::Parse { name: NameHash::EMPTY, text: None },
            b'B' => ClientMessage::Bind { portal: NameHash::EMPTY, statement: Part::Awaited },
            b'E' => ClientMessage::Execute(Part::EMPTY),
            b'C' => ClientMessage::Close(None, Part::EMPTY),
            b'S' => ClientMessage::Sync,
            b'c' | b'f' => ClientMessage::CopyEnd,
            // Describe, Flush, Terminate, CopyData, and the answers to requests for authentication.
            b'D' | b'H' | b'X' | b'd' | b'p' => ClientMessage::Other,
            _ => return Err(MALFORMED),
        })
    }

    /// Whether what follows of it does not matter.
    fn is_read(&self) -> bool {
        match self {
            ClientMessage::Query(text) => text.is_done(),
            ClientMessage::Parse { text, .. } => text.is_some_and(|text| text.is_done()),
            ClientMessage::Bind { statement, .. } => statement.is_whole(),
            ClientMessage::Execute(portal) => portal.is_whole(),
            ClientMessage::Close(kind, name) => kind.is_some() && name.is_whole(),
            ClientMessage::Other | ClientMessage::FunctionCall | ClientMessage::Sync | ClientMessage::CopyEnd => true,
        }
    }

    fn read(&mut self, mut bytes: &[u8]) {
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
                if let Part::Awaited = statement {
                    let Some(end) = portal.read(bytes) else { return };
                    bytes = bytes.get(end..).unwrap_or_default();
                    *statement = Part::EMPTY;
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

impl PostgresWatcher {
    pub(super) fn read_client(
        &mut self,
        mut bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        while !bytes.is_empty() {
            match &mut self.client {
                // It has to wait for the answer, which may begin something else.
                FromClient::First(_) if self.asks_encryption => return Err(MALFORMED),
                FromClient::First(message) => match message.read(&mut bytes, out)? {
                    None => {}
                    Some(Began::AsksEncryption) => {
                        self.asks_encryption = true;
                        self.client = FromClient::default();
                    }
                    Some(Began::Startup(0)) => self.client = FromClient::next(),
                    Some(Began::Startup(left)) => self.client = FromClient::Body(left, ClientMessage::Other),
                },
                FromClient::Header(header) => {
                    if header.fill(&mut bytes, 5) {
                        let [kind, length @ ..] = header.whole();
                        let (message, left) = (ClientMessage::of(kind)?, body_length(length)?);
                        self.client = FromClient::Body(left, message);
                        if left == 0 {
                            self.client_message(message, now, out)?;
                        }
                    }
                }
                FromClient::Body(left, message) => {
                    let part = take(&mut bytes, *left);
                    *left -= part.len() as u64;
                    if !message.is_read() {
                        message.read(part);
                    }
                    if *left == 0 {
                        let message = *message;
                        self.client_message(message, now, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn skip_client(
        &mut self,
        count: u64,
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        if let FromClient::Body(left, message) = &mut self.client {
            *left = left.saturating_sub(count);
            if *left == 0 {
                let message = *message;
                return self.client_message(message, now, out);
            }
        }
        Ok(())
    }

    /// All of a message has come.
    fn client_message(
        &mut self,
        message: ClientMessage,
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        self.client = FromClient::next();
        match message {
            ClientMessage::Query(text) => self.asks(text.statement(PROTOCOL), Awaited::Ready, now, out),
            ClientMessage::FunctionCall => self.asks(StatementKind::OTHER, Awaited::Ready, now, out),
            ClientMessage::Parse { name, text } => {
                self.statements.insert(name, text.ok_or(MALFORMED)?.statement(PROTOCOL));
                Ok(())
            }
            ClientMessage::Bind { portal, statement } => {
                self.portals.insert(portal, self.statements.get(statement.hash()?));
                Ok(())
            }
            ClientMessage::Execute(portal) => self.asks(self.portals.get(portal.hash()?), Awaited::Complete, now, out),
            ClientMessage::Close(kind, name) => {
                match kind {
                    Some(b'S') => self.statements.remove(name.hash()?),
                    Some(b'P') => self.portals.remove(name.hash()?),
                    _ => return Err(MALFORMED),
                }
                Ok(())
            }
            ClientMessage::Sync if self.copies_in => Ok(()),
            ClientMessage::Sync => {
                self.skips = false;
                self.outstanding.push(StatementKind::OTHER, Awaited::Sync, now)
            }
            ClientMessage::CopyEnd => {
                self.copies_in = false;
                Ok(())
            }
            ClientMessage::Other => Ok(()),
        }
    }

    fn asks(
        &mut self,
        statement: StatementKind,
        awaited: Awaited,
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        if self.skips {
            out(WatchEvent::Unanswered);
            return Ok(());
        }
        self.outstanding.push(statement, awaited, now)
    }
}
