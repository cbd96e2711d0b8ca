//! Replies of a server.

#![forbid(unsafe_code)]

use super::resp::{Bulk, MALFORMED, Number, Word};
use crate::sniff::queries::event::Ended;

/// Bytes of an error's first word, and of a push message's kind, that are kept.
const MAX_WORD: usize = 16;

/// What a server sends next.
#[derive(Debug, Default)]
pub(super) struct RedisServerState {
    pub(super) next: Element,
    /// Elements to come of the reply, those within others included: how deep they lie does not matter.
    pub(super) left: u64,
    /// What the reply is.
    pub(super) kind: ReplyKind,
    /// The first word of an error, or the kind of a push message.
    pub(super) word: Word<MAX_WORD>,
    /// That word is complete.
    has_word: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ReplyKind {
    #[default]
    Value,
    Error,
    /// It answers no command.
    Push,
}

/// The next element.
#[derive(Debug, Default)]
pub(super) enum Element {
    /// Its type.
    #[default]
    Type,
    /// The rest of a line.
    Line,
    /// The length of a string.
    Length(Number),
    String(Bulk),
    /// The number of elements of an aggregate, and values that make up one of them.
    Count(Number, Aggregate),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    List,
    Map,
    /// Attributes, which come before the element that they are of.
    Attributes,
}

impl RedisServerState {
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

    pub(super) fn text(&mut self, part: &[u8]) {
        if self.wants_word() {
            let end = part.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
            self.word.push(part.get(..end.unwrap_or(part.len())).unwrap_or_default());
            self.has_word = end.is_some();
        }
    }

    /// An element begins with this byte.
    pub(super) fn begins(&mut self, first: u8) -> Result<(), Ended> {
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

    /// An element has come, with this count of others in it. True at the end of the reply.
    pub(super) fn element(&mut self, within: u64, is_one: bool) -> Result<bool, Ended> {
        self.next = Element::Type;
        self.has_word |= self.word.get() != b"";
        self.left = (self.left - u64::from(is_one)).checked_add(within).ok_or(MALFORMED)?;
        Ok(self.left == 0)
    }
}
