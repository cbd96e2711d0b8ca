//! Messages of a server.

#![forbid(unsafe_code)]

use super::{Awaited, MALFORMED, PROTOCOL, PostgresWatcher, body_length};
use crate::sniff::queries::framing::{Beginning, take};
use crate::sniff::queries::{Ended, Micros, WatchEvent};
use crate::stats::queries::PassthroughReason;

/// What a server sends next.
#[derive(Debug)]
pub(super) enum FromServer {
    /// Type and length.
    Header(Beginning<5>),
    /// So many bytes of a message of this type are to come.
    Body(u64, u8),
    /// The same of an ErrorResponse.
    Error(u64, ErrorFields),
}

/// Fields of an ErrorResponse, as far as they are read: a type, a text and NUL each.
#[derive(Clone, Copy, Debug)]
pub(super) enum ErrorFields {
    /// At a field's type.
    Type,
    /// In a text that does not matter.
    Text,
    /// In an SQLSTATE.
    Code(Beginning<2>),
}

impl ErrorFields {
    fn is_read(&self) -> bool {
        matches!(self, ErrorFields::Code(code) if code.get().len() == 2)
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match self {
                ErrorFields::Type => {
                    *self = if *first == b'C' { ErrorFields::Code(Beginning::default()) } else { ErrorFields::Text };
                    bytes = rest;
                }
                ErrorFields::Text => {
                    let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return };
                    *self = ErrorFields::Type;
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                }
                ErrorFields::Code(code) => {
                    code.fill(&mut bytes, 2);
                    return;
                }
            }
        }
    }

    fn class(&self) -> &[u8] {
        match self {
            ErrorFields::Code(code) => code.get(),
            ErrorFields::Type | ErrorFields::Text => &[],
        }
    }
}

impl Default for FromServer {
    fn default() -> FromServer {
        FromServer::Header(Beginning::default())
    }
}

impl FromServer {
    pub(super) fn skippable(&self) -> u64 {
        match self {
            FromServer::Header(_) => 0,
            FromServer::Body(left, _) => *left,
            FromServer::Error(left, fields) => {
                if fields.is_read() {
                    *left
                } else {
                    0
                }
            }
        }
    }
}

/// Whether a message of this type belongs to the answer of a query; the others come at any time.
fn is_answer(kind: u8) -> Result<bool, Ended> {
    match kind {
        b'1' | b'2' | b'3' | b'C' | b'D' | b'E' | b'G' | b'H' | b'I' | b'T' | b'V' | b'Z' | b'c' | b'd' | b'n'
        | b's' | b't' => Ok(true),
        // Authentication, BackendKeyData, NegotiateProtocolVersion; ParameterStatus, NoticeResponse, NotificationResponse.
        b'R' | b'K' | b'v' | b'S' | b'N' | b'A' => Ok(false),
        b'W' => Err(Some(PassthroughReason::Replication)),
        _ => Err(MALFORMED),
    }
}

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
                FromServer::Header(header) => {
                    if header.fill(&mut bytes, 5) {
                        let [kind, length @ ..] = header.whole();
                        let left = body_length(length)?;
                        if is_answer(kind)? {
                            self.outstanding.begins(now);
                        }
                        self.server = match kind {
                            b'E' => FromServer::Error(left, ErrorFields::Type),
                            kind => FromServer::Body(left, kind),
                        };
                        if left == 0 {
                            self.server_message(now, out);
                        }
                    }
                }
                FromServer::Body(left, _) => {
                    *left -= take(&mut bytes, *left).len() as u64;
                    if *left == 0 {
                        self.server_message(now, out);
                    }
                }
                FromServer::Error(left, fields) => {
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
        if let FromServer::Body(left, _) | FromServer::Error(left, _) = &mut self.server {
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
            FromServer::Body(_, b'C' | b'I' | b's') => {
                self.copies_in = false;
                if let Some(entry) = front.filter(|entry| entry.kind == Awaited::Complete) {
                    self.outstanding.answered(entry.statement, now, out);
                }
            }
            FromServer::Body(_, b'Z') => self.becomes_ready(now, out),
            FromServer::Body(_, b'G') => {
                self.copies_in = true;
                // It reads those that came with the Execute while it copies.
                self.outstanding.drop_marks_behind_front();
            }
            FromServer::Error(_, fields) => {
                out(WatchEvent::Failed(PROTOCOL.error_class(fields.class())));
                self.copies_in = false;
                if self.is_ready {
                    self.fails(now, out);
                }
            }
            FromServer::Body(..) | FromServer::Header(_) => {}
        }
    }

    fn becomes_ready(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        if !std::mem::replace(&mut self.is_ready, true) {
            return;
        }
        self.copies_in = false;
        if !self.outstanding.any(|kind| kind != Awaited::Complete) {
            return;
        }
        while let Some(entry) = self.outstanding.front().copied() {
            match entry.kind {
                Awaited::Complete => self.outstanding.skipped(out),
                Awaited::Ready | Awaited::Sync => return self.outstanding.answered(entry.statement, now, out),
            }
        }
    }

    /// An error, to what is answered next.
    fn fails(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        match self.outstanding.front().copied() {
            Some(entry) if entry.kind == Awaited::Ready => return self.outstanding.fails(),
            Some(entry) if entry.kind == Awaited::Complete => {
                self.outstanding.fails();
                self.outstanding.answered(entry.statement, now, out);
            }
            _ => {}
        }
        // Of an extended query: all is ignored up to the next Sync.
        while self.outstanding.front().is_some_and(|entry| entry.kind != Awaited::Sync) {
            self.outstanding.skipped(out);
        }
        self.skips = self.outstanding.front().is_none();
    }
}
