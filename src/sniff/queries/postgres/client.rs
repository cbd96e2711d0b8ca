//! What a client asks for.

#![forbid(unsafe_code)]

use super::messages::{ClientMessage, PgClientState};
use super::startup::FirstRequest;
use super::watch::{PgAwaited, PostgresWatcher};
use super::wire::{MALFORMED, PROTOCOL, body_length};
use crate::sniff::queries::event::{Ended, Micros, WatchEvent};
use crate::sniff::queries::framing::take;
use crate::stats::queries::StatementKind;

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
                PgClientState::First(_) if self.asks_encryption => return Err(MALFORMED),
                PgClientState::First(message) => match message.read(&mut bytes, out)? {
                    None => {}
                    Some(FirstRequest::AsksEncryption) => {
                        self.asks_encryption = true;
                        self.client = PgClientState::default();
                    }
                    Some(FirstRequest::Startup(0)) => self.client = PgClientState::next(),
                    Some(FirstRequest::Startup(left)) => self.client = PgClientState::Body(left, ClientMessage::Other),
                },
                PgClientState::Header(header) => {
                    if header.fill(&mut bytes, 5) {
                        let [kind, length @ ..] = header.whole();
                        let (message, left) = (ClientMessage::of(kind)?, body_length(length)?);
                        self.client = PgClientState::Body(left, message);
                        if left == 0 {
                            self.client_message(message, now, out)?;
                        }
                    }
                }
                PgClientState::Body(left, message) => {
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
        if let PgClientState::Body(left, message) = &mut self.client {
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
        self.client = PgClientState::next();
        match message {
            ClientMessage::Query(text) => self.asks(text.statement(PROTOCOL), PgAwaited::Ready, now, out),
            ClientMessage::FunctionCall => self.asks(StatementKind::OTHER, PgAwaited::Ready, now, out),
            ClientMessage::Parse { name, text } => {
                self.statements.insert(name, text.ok_or(MALFORMED)?.statement(PROTOCOL));
                Ok(())
            }
            ClientMessage::Bind { portal, statement } => {
                self.portals.insert(portal, self.statements.get(statement.hash()?));
                Ok(())
            }
            ClientMessage::Execute(portal) => {
                self.asks(self.portals.get(portal.hash()?), PgAwaited::Complete, now, out)
            }
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
                self.outstanding.push(StatementKind::OTHER, PgAwaited::Sync, now)
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
        awaited: PgAwaited,
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
