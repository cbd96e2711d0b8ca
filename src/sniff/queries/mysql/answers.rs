//! Answers to commands.

#![forbid(unsafe_code)]

use super::answer_packet::{AnswerPacket, AnswerPlace, Behind, ERR, FILE, OK};
use super::capability;
use super::packet::{FULL, length_encoded};
use super::watch::{AwaitedAnswer, MysqlWatcher, Phase};
use super::wire::{MALFORMED, PROTOCOL};
use crate::sniff::queries::event::{Ended, Micros, WatchEvent};
use crate::stats::queries::PassthroughReason;

/// SERVER_MORE_RESULTS_EXISTS
const MORE_RESULTS: u16 = 0x0008;
/// SERVER_STATUS_CURSOR_EXISTS
const CURSOR_EXISTS: u16 = 0x0040;

impl MysqlWatcher {
    /// A definition has come.
    pub(super) fn defines(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        if let AnswerPlace::Definitions(left, behind) = self.answer {
            match left.saturating_sub(1) {
                0 if self.deprecates_eof() => self.behind_definitions(behind, now, out),
                0 => self.answer = AnswerPlace::DefinitionsEnd(behind),
                left => self.answer = AnswerPlace::Definitions(left, behind),
            }
        }
    }

    /// A packet that is no definition has come.
    pub(super) fn answers(
        &mut self,
        packet: AnswerPacket<'_>,
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        if packet.is_progress() {
            return Ok(());
        }
        let Some(awaited) = self.outstanding.front().map(|entry| entry.kind) else {
            return match packet.first() {
                // It closes the connection, and says why.
                ERR => {
                    self.fails(packet, out);
                    Ok(())
                }
                _ => Err(MALFORMED),
            };
        };
        if packet.first() == ERR && packet.length < FULL {
            self.fails(packet, out);
            self.outstanding.fails();
            if matches!(awaited, AwaitedAnswer::Database | AwaitedAnswer::User) {
                self.asked = None;
            }
            self.is_answered(now, out);
            return Ok(());
        }
        match (self.answer, awaited) {
            (AnswerPlace::First, AwaitedAnswer::Results) => self.result_begins(packet, now, out)?,
            (AnswerPlace::First, AwaitedAnswer::Prepared) => self.is_prepared(packet, now, out)?,
            (AnswerPlace::First, AwaitedAnswer::Packet) => self.is_answered(now, out),
            (AnswerPlace::First, AwaitedAnswer::Database) => self.is_renamed(now, out),
            (AnswerPlace::First, AwaitedAnswer::User) if packet.first() == OK => self.is_renamed(now, out),
            (AnswerPlace::First, AwaitedAnswer::User) => {}
            (AnswerPlace::First, AwaitedAnswer::Rows | AwaitedAnswer::Fields) | (AnswerPlace::Rows, _) => {
                if packet.is_end() {
                    let status = self.end_status(packet);
                    self.result_ends(status, now, out);
                }
            }
            (AnswerPlace::DefinitionsEnd(behind), _) => match self.end_status(packet) & CURSOR_EXISTS {
                // Rows are fetched by commands of their own.
                1.. if behind == Behind::Rows => self.is_answered(now, out),
                _ => self.behind_definitions(behind, now, out),
            },
            (AnswerPlace::Definitions(..), _) => return Err(MALFORMED),
        }
        Ok(())
    }

    fn result_begins(
        &mut self,
        packet: AnswerPacket<'_>,
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        match packet.first() {
            OK => self.result_ends(ok_status(packet.begin), now, out),
            // It is behind a command that was sent before: whether what followed that is the file, cannot be said.
            FILE if self.outstanding.is_pipelined() => return Err(Some(PassthroughReason::Unsupported)),
            FILE => self.phase = Phase::File,
            _ if packet.is_end() => self.result_ends(self.end_status(packet), now, out),
            _ => {
                let mut rest = packet.begin;
                let columns = length_encoded(&mut rest).and_then(|count| u32::try_from(count).ok()).ok_or(MALFORMED)?;
                let defines = !self.can(capability::CACHE_METADATA) || rest.first() != Some(&0);
                self.answer = match (defines, self.deprecates_eof()) {
                    (true, _) => AnswerPlace::Definitions(columns, Behind::Rows),
                    (false, false) => AnswerPlace::DefinitionsEnd(Behind::Rows),
                    (false, true) => AnswerPlace::Rows,
                };
            }
        }
        Ok(())
    }

    fn is_prepared(
        &mut self,
        packet: AnswerPacket<'_>,
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        let (Some([OK, a, b, c, d, columns_low, columns_high, low, high]), Some(entry)) =
            (packet.begin.first_chunk::<9>(), self.outstanding.front())
        else {
            return Err(MALFORMED);
        };
        self.statements.insert(u32::from_le_bytes([*a, *b, *c, *d]), entry.statement);
        let (columns, parameters) =
            (u16::from_le_bytes([*columns_low, *columns_high]), u16::from_le_bytes([*low, *high]));
        match parameters {
            0 => self.behind_definitions(Behind::Columns(columns), now, out),
            parameters => self.answer = AnswerPlace::Definitions(parameters.into(), Behind::Columns(columns)),
        }
        Ok(())
    }

    fn behind_definitions(&mut self, behind: Behind, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        match behind {
            Behind::Rows => self.answer = AnswerPlace::Rows,
            Behind::Columns(0) => self.is_answered(now, out),
            Behind::Columns(columns) => self.answer = AnswerPlace::Definitions(columns.into(), Behind::Columns(0)),
        }
    }

    fn result_ends(&mut self, status: u16, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        match status & MORE_RESULTS {
            0 => self.is_answered(now, out),
            _ => self.answer = AnswerPlace::First,
        }
    }

    /// The status in a packet that ends rows: OK, where there is no EOF any more.
    fn end_status(&self, packet: AnswerPacket<'_>) -> u16 {
        match packet.begin {
            // EOF has warnings in front.
            [_, _, _, low, high] if packet.length == 5 && !self.deprecates_eof() => u16::from_le_bytes([*low, *high]),
            begin => ok_status(begin),
        }
    }

    fn is_renamed(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        if let Some(names) = self.asked.take() {
            self.names(*names, out);
        }
        self.is_answered(now, out);
    }

    fn is_answered(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) {
        self.answer = AnswerPlace::First;
        if let Some(entry) = self.outstanding.front() {
            let statement = match entry.kind {
                AwaitedAnswer::Prepared => PROTOCOL.statement(b"PREPARE"),
                _ => entry.statement,
            };
            self.outstanding.answered(statement, now, out);
        }
    }
}

/// The status of an OK packet, behind the counts of rows and of the last id.
fn ok_status(packet: &[u8]) -> u16 {
    let mut rest = packet.get(1..).unwrap_or_default();
    let counts = (length_encoded(&mut rest), length_encoded(&mut rest));
    match (counts, rest.first_chunk::<2>()) {
        ((Some(_), Some(_)), Some(status)) => u16::from_le_bytes(*status),
        _ => 0,
    }
}
