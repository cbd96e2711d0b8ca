//! What a server sends, up to the end of the login.

#![forbid(unsafe_code)]

use super::answer_packet::{AnswerPacket, ERR, MysqlServerState, OK};
use super::packet::{PacketHeader, Piece};
use super::watch::{MysqlWatcher, Phase};
use super::wire::{MALFORMED, PROTOCOL};
use super::{capability, login};
use crate::sniff::queries::event::{Ended, Micros, WatchEvent};
use crate::sniff::queries::framing::Prefix;

impl MysqlWatcher {
    pub(super) fn read_server(
        &mut self,
        mut bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        while let Some(piece) = self.from_server.next(&mut bytes) {
            let ends = match piece {
                Piece::Header { header: PacketHeader { length, .. }, ends } => {
                    self.outstanding.begins(now);
                    self.server = match self.phase {
                        Phase::Greeting => MysqlServerState::Greeting(Vec::new()),
                        _ if self.answer.is_definition() => MysqlServerState::Other,
                        _ => {
                            let may_be_row = self.answer.may_be_row();
                            MysqlServerState::Packet { begin: Prefix::default(), length, may_be_row }
                        }
                    };
                    ends
                }
                Piece::Payload { bytes, ends } => {
                    self.server.read(bytes);
                    ends
                }
            };
            if ends {
                self.server_packet(now, out)?;
            }
        }
        Ok(())
    }

    /// All of a packet has come.
    pub(super) fn server_packet(&mut self, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        match std::mem::take(&mut self.server) {
            MysqlServerState::Greeting(seen) => self.greets(&seen, out),
            MysqlServerState::Packet { begin, length, .. } => {
                let packet = AnswerPacket { begin: begin.get(), length };
                match self.phase {
                    Phase::Authentication | Phase::Login => self.authenticates(packet, out),
                    Phase::Greeting | Phase::Commands | Phase::File => self.answers(packet, now, out),
                }
            }
            MysqlServerState::Other => {
                self.defines(now, out);
                Ok(())
            }
        }
    }

    fn greets(&mut self, seen: &[u8], out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        if seen.first() == Some(&ERR) {
            // It closes.
            self.fails(AnswerPacket { begin: seen, length: 0 }, out);
            return Err(None);
        }
        self.capabilities = login::greeting(seen).ok_or(MALFORMED)?;
        self.phase = Phase::Login;
        Ok(())
    }

    fn authenticates(&mut self, packet: AnswerPacket<'_>, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        match packet.first() {
            OK if packet.length > 0 => self.phase = Phase::Commands,
            ERR => self.fails(packet, out),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn fails(&self, packet: AnswerPacket<'_>, out: &mut dyn FnMut(WatchEvent<'_>)) {
        out(WatchEvent::Failed(PROTOCOL.error_class(packet.error_class())));
    }

    /// Whether no packet of its own follows definitions of columns.
    pub(super) fn deprecates_eof(&self) -> bool {
        self.can(capability::DEPRECATE_EOF)
    }
}
