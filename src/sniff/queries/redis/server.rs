//! What a server replies.

#![forbid(unsafe_code)]

use super::replies::{Aggregate, Element, ReplyKind};
use super::resp::{Bulk, MALFORMED, PROTOCOL, line};
use super::watch::{RedisChange, RedisWatcher};
use crate::sniff::queries::event::{Ended, Micros, WatchEvent};
use crate::stats::queries::PassthroughReason;

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
            (ReplyKind::Push, RedisChange::Channels) if word.ends_with(b"subscribe") => self.outstanding.begins(now),
            (ReplyKind::Push, _) => return Ok(()),
            // It is not RESP3 that is spoken.
            (ReplyKind::Value, RedisChange::Channels) => return Err(Some(PassthroughReason::Streaming)),
            (ReplyKind::Value, changes) => self.changed(changes, out),
            (ReplyKind::Error, changes) => {
                self.asked_resp3 &= changes != RedisChange::Protocol;
                if changes != RedisChange::Nothing {
                    self.asked = None;
                }
            }
        }
        self.outstanding.answered(entry.statement, now, out);
        Ok(())
    }

    fn changed(&mut self, changes: RedisChange, out: &mut dyn FnMut(WatchEvent<'_>)) {
        if changes == RedisChange::Nothing {
            return;
        }
        let Some(asked) = &mut self.asked else { return };
        if matches!(changes, RedisChange::User | RedisChange::Protocol | RedisChange::Reset) {
            asked.user.take().into_iter().for_each(|user| out(WatchEvent::User(&user)));
        }
        if matches!(changes, RedisChange::Database | RedisChange::Reset) {
            asked.database.take().into_iter().for_each(|database| out(WatchEvent::Database(&database)));
        }
        if asked.user.is_none() && asked.database.is_none() {
            self.asked = None;
        }
    }
}
