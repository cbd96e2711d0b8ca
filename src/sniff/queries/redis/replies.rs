//! Replies of a server.

#![forbid(unsafe_code)]

use super::commands::Word;
use super::resp::{Bulk, Number, line};
use super::{Changes, MALFORMED, PROTOCOL, RedisWatcher};
use crate::sniff::queries::{Ended, Micros, WatchEvent};
use crate::stats::queries::PassthroughReason;

/// Bytes of an error's first word, and of a push message's kind, that are kept.
const MAX_WORD: usize = 16;

/// What a server sends next.
#[derive(Debug, Default)]
pub(super) struct FromServer {
    next: Element,
    /// Elements to come of the reply, those within others included: how deep they lie does not matter.
    left: u64,
    /// What the reply is.
    kind: ReplyKind,
    /// The first word of an error, or the kind of a push message.
    word: Word<MAX_WORD>,
    /// That word is complete.
    has_word: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ReplyKind {
    #[default]
    Value,
    Error,
    /// It answers no command.
    Push,
}

/// The next element.
#[derive(Debug, Default)]
enum Element {
    /// Its type.
    #[default]
    Type,
    /// The rest of a line.
    Line,
    /// The length of a string.
    Length(Number),
    String(Bulk),
    /// The number of elements of an aggregate, each of which is so many.
    Count(Number, Aggregate),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    List,
    Map,
    /// Attributes, which come before the element that they are of.
    Attributes,
}

impl FromServer {
    pub(super) fn skippable(&self) -> u64 {
        match &self.next {
            Element::String(bulk) if !self.wants_word() => bulk.skippable(),
            _ => 0,
        }
    }

    pub(super) fn skip(&mut self, count: u64) {
        if let Element::String(bulk) = &mut self.next {
            bulk.skip(count);
        }
    }

    fn wants_word(&self) -> bool {
        self.kind != ReplyKind::Value && !self.has_word
    }

    fn text(&mut self, part: &[u8]) {
        if self.wants_word() {
            let end = part.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
            self.word.push(part.get(..end.unwrap_or(part.len())).unwrap_or_default());
            self.has_word = end.is_some();
        }
    }

    /// An element begins with this byte.
    fn begins(&mut self, first: u8) -> Result<(), Ended> {
        let outermost = self.left == 0;
        if outermost {
            self.left = 1;
            self.kind = match first {
                b'-' | b'!' => ReplyKind::Error,
                b'>' => ReplyKind::Push,
                _ => ReplyKind::Value,
            };
            (self.word, self.has_word) = (Word::default(), false);
        }
        let number = Number::default();
        self.next = match first {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Element::Line,
            b'$' | b'=' | b'!' => Element::Length(number),
            b'*' | b'~' => Element::Count(number, Aggregate::List),
            b'>' if outermost => Element::Count(number, Aggregate::List),
            b'%' => Element::Count(number, Aggregate::Map),
            b'|' => Element::Count(number, Aggregate::Attributes),
            _ => return Err(MALFORMED),
        };
        Ok(())
    }

    /// An element with so many others in it has come. True at the end of the reply.
    fn element(&mut self, within: u64, is_one: bool) -> Result<bool, Ended> {
        self.next = Element::Type;
        self.has_word |= self.word.get() != b"";
        self.left = (self.left - u64::from(is_one)).checked_add(within).ok_or(MALFORMED)?;
        Ok(self.left == 0)
    }
}

impl RedisWatcher {
    pub(super) fn read_server(
        &mut self,
        mut bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        while let Some(first) = bytes.first() {
            let server = &mut self.server;
            let ends = match &mut server.next {
                Element::Type => {
                    server.begins(*first)?;
                    bytes = bytes.get(1..).unwrap_or_default();
                    if server.kind != ReplyKind::Push {
                        self.outstanding.begins(now);
                    }
                    continue;
                }
                Element::Line => {
                    let (part, ends) = line(&mut bytes);
                    server.text(part);
                    ends && server.element(0, true)?
                }
                Element::Length(length) => match length.read(&mut bytes)? {
                    None => false,
                    Some(None) => server.element(0, true)?,
                    Some(Some(length)) => {
                        server.next = Element::String(Bulk::new(length));
                        false
                    }
                },
                Element::String(bulk) => {
                    let (part, ends) = bulk.read(&mut bytes);
                    server.text(part);
                    ends && server.element(0, true)?
                }
                Element::Count(count, aggregate) => {
                    let aggregate = *aggregate;
                    match count.read(&mut bytes)? {
                        None => false,
                        Some(count) => {
                            let count = count.unwrap_or_default();
                            let within = match aggregate {
                                Aggregate::List => Some(count),
                                Aggregate::Map | Aggregate::Attributes => count.checked_mul(2),
                            };
                            server.element(within.ok_or(MALFORMED)?, aggregate != Aggregate::Attributes)?
                        }
                    }
                }
            };
            if ends {
                self.reply(now, out)?;
            }
        }
        Ok(())
    }

    /// All of a reply, or of a push message, has come.
    fn reply(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        let (kind, word) = (self.server.kind, self.server.word.get());
        let front = self.outstanding.front().copied();
        if kind == ReplyKind::Error {
            out(WatchEvent::Failed(PROTOCOL.error_class(word)));
            self.outstanding.fails();
        }
        let Some(entry) = front else {
            return match kind {
                // Such as one that says that there are too many clients.
                ReplyKind::Error | ReplyKind::Push => Ok(()),
                ReplyKind::Value => Err(MALFORMED),
            };
        };
        match (kind, entry.kind) {
            (ReplyKind::Push, Changes::Channels) if word.ends_with(b"subscribe") => self.outstanding.begins(now),
            (ReplyKind::Push, _) => return Ok(()),
            // It is not RESP3 that is spoken.
            (ReplyKind::Value, Changes::Channels) => return Err(Some(PassthroughReason::Streaming)),
            (ReplyKind::Value, changes) => self.changed(changes, out),
            (ReplyKind::Error, changes) => {
                self.asked_resp3 &= changes != Changes::Protocol;
                if changes != Changes::Nothing {
                    self.asked = None;
                }
            }
        }
        self.outstanding.answered(entry.statement, now, out);
        Ok(())
    }

    fn changed(&mut self, changes: Changes, out: &mut dyn FnMut(WatchEvent<'_>)) {
        if changes == Changes::Nothing {
            return;
        }
        let Some(asked) = &mut self.asked else { return };
        if matches!(changes, Changes::User | Changes::Protocol | Changes::Reset) {
            asked.user.take().into_iter().for_each(|user| out(WatchEvent::User(&user)));
        }
        if matches!(changes, Changes::Database | Changes::Reset) {
            asked.database.take().into_iter().for_each(|database| out(WatchEvent::Database(&database)));
        }
        if asked.user.is_none() && asked.database.is_none() {
            self.asked = None;
        }
    }
}
