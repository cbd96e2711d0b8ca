//! What a server answers.

#![forbid(unsafe_code)]

use super::responses::{ErrorFields, PgServerState, is_answer};
use super::watch::{PgAwaited, PostgresWatcher};
use super::wire::{MALFORMED, PROTOCOL, body_length};
use crate::sniff::queries::event::{Ended, Micros, WatchEvent};
use crate::sniff::queries::framing::take;
use crate::stats::queries::PassthroughReason;

impl PostgresWatcher {
    pub(super) fn read_server(
        &mut self,
        mut bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        while let Some(first) = bytes.first() {
            if self.asks_encryption {
                match first {
                    b'N' => self.asks_encryption = false,
                    b'S' | b'G' => return Err(Some(PassthroughReason::Encrypted)),
                    _ => return Err(MALFORMED),
                }
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            match &mut self.server {
                PgServerState::Header(header) => {
                    if header.fill(&mut bytes, 5) {
                        let [kind, length @ ..] = header.whole();
                        let left = body_length(length)?;
                        if is_answer(kind)? {
                            self.outstanding.begins(now);
                        }
                        self.server = match kind {
                            b'E' => PgServerState::Error(left, ErrorFields::Type),
                            kind => PgServerState::Body(left, kind),
                        };
                        if left == 0 {
                            self.server_message(now, out);
                        }
                    }
                }
                PgServerState::Body(left, _) => {
                    *left -= take(&mut bytes, *left).len() as u64;
                    if *left == 0 {
                        self.server_message(now, out);
                    }
                }
                PgServerState::Error(left, fields) => {
                    let part = take(&mut bytes, *left);
                    *left -= part.len() as u64;
                    fields.read(part);
                    if *left == 0 {
                        self.server_message(now, out);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn skip_server(
        &mut self,
        count: u64,
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        if let PgServerState::Body(left, _) | PgServerState::Error(left, _) = &mut self.server {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.server_message(now, out);
            }
        }
        Ok(())
    }

    /// All of a message has come.
    fn server_message(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        let front = self.outstanding.front().copied();
        match std::mem::take(&mut self.server) {
            PgServerState::Body(_, b'C' | b'I' | b's') => {
                self.copies_in = false;
                if let Some(entry) = front.filter(|entry| entry.kind == PgAwaited::Complete) {
                    self.outstanding.answered(entry.statement, now, out);
                }
            }
            PgServerState::Body(_, b'Z') => self.becomes_ready(now, out),
            PgServerState::Body(_, b'G') => {
                self.copies_in = true;
                // It reads those that came with the Execute while it copies.
                self.outstanding.drop_marks_behind_front();
            }
            PgServerState::Error(_, fields) => {
                out(WatchEvent::Failed(PROTOCOL.error_class(fields.class())));
                self.copies_in = false;
                if self.is_ready {
                    self.fails(now, out);
                }
            }
            PgServerState::Body(..) | PgServerState::Header(_) => {}
        }
    }

    fn becomes_ready(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        if !std::mem::replace(&mut self.is_ready, true) {
            return;
        }
        self.copies_in = false;
        if !self.outstanding.any(|kind| kind != PgAwaited::Complete) {
            return;
        }
        while let Some(entry) = self.outstanding.front().copied() {
            match entry.kind {
                PgAwaited::Complete => self.outstanding.skipped(out),
                PgAwaited::Ready | PgAwaited::Sync => return self.outstanding.answered(entry.statement, now, out),
            }
        }
    }

    /// An error, to what is answered next.
    fn fails(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        match self.outstanding.front().copied() {
            Some(entry) if entry.kind == PgAwaited::Ready => return self.outstanding.fails(),
            Some(entry) if entry.kind == PgAwaited::Complete => {
                self.outstanding.fails();
                self.outstanding.answered(entry.statement, now, out);
            }
            _ => {}
        }
        // Of an extended query: all is ignored up to the next Sync.
        while self.outstanding.front().is_some_and(|entry| entry.kind != PgAwaited::Sync) {
            self.outstanding.skipped(out);
        }
        self.skips = self.outstanding.front().is_none();
    }
}
