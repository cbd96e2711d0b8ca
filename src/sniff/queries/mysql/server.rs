//! Packets of a server.

#![forbid(unsafe_code)]

use super::login::{self, capability};
use super::packet::{PacketHeader, Piece};
use super::{MALFORMED, MysqlWatcher, PROTOCOL, Phase};
use crate::sniff::queries::framing::Beginning;
use crate::sniff::queries::{Ended, Micros, WatchEvent};

/// Bytes of an answer's packet that are looked at: a number in front, two numbers of 9 bytes, and the status.
const MAX_LOOKED_AT: usize = 21;

pub(super) const OK: u8 = 0x00;
pub(super) const FILE: u8 = 0xfb;
pub(super) const EOF: u8 = 0xfe;
pub(super) const ERR: u8 = 0xff;

/// An error number that is none, but tells how far a statement of MariaDB is.
const PROGRESS: u16 = 0xffff;

/// What a packet of a server is, as far as it is read.
#[derive(Debug)]
pub(super) enum FromServer {
    Greeting(Vec<u8>),
    Answer {
        begin: Beginning<MAX_LOOKED_AT>,
        length: u32,
        /// Only its first byte tells whether it matters.
        may_be_row: bool,
    },
    /// What it says does not matter.
    Other,
}

impl Default for FromServer {
    fn default() -> FromServer {
        FromServer::Other
    }
}

/// A packet of a server: the beginning of its payload, and how long that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerPacket<'a> {
    pub(super) begin: &'a [u8],
    pub(super) length: u32,
}

impl AnswerPacket<'_> {
    pub(super) fn first(&self) -> u8 {
        self.begin.first().copied().unwrap_or_default()
    }

    /// Whether it ends rows: no row begins so but one of 16 MiB and more.
    pub(super) fn is_end(&self) -> bool {
        self.first() == EOF && self.length < 0xff_ffff
    }

    pub(super) fn is_progress(&self) -> bool {
        self.first() == ERR && self.error_number() == Some(PROGRESS)
    }

    fn error_number(&self) -> Option<u16> {
        self.begin.get(1..)?.first_chunk::<2>().map(|it| u16::from_le_bytes(*it))
    }

    /// The class of an error. Before the login some servers send none, so that the number tells it.
    pub(super) fn error_class(&self) -> &[u8] {
        match self.begin.get(3) {
            Some(b'#') => self.begin.get(4..6).unwrap_or_default(),
            _ if self.error_number() == Some(TOO_MANY_CONNECTIONS) => b"08",
            _ => b"HY",
        }
    }
}

const TOO_MANY_CONNECTIONS: u16 = 1040;

impl FromServer {
    pub(super) fn is_read(&self) -> bool {
        match self {
            FromServer::Greeting(seen) => seen.len() >= login::MAX_SEEN,
            FromServer::Answer { begin, length, may_be_row } => {
                let is_row = *may_be_row && begin.get().first().is_some_and(|first| !matches!(*first, EOF | ERR));
                is_row || begin.get().len() >= MAX_LOOKED_AT.min(*length as usize)
            }
            FromServer::Other => true,
        }
    }

    fn read(&mut self, mut bytes: &[u8]) {
        match self {
            FromServer::Greeting(seen) => {
                let count = login::MAX_SEEN.saturating_sub(seen.len()).min(bytes.len());
                seen.extend_from_slice(bytes.get(..count).unwrap_or_default());
            }
            FromServer::Answer { begin, .. } => _ = begin.fill(&mut bytes, MAX_LOOKED_AT),
            FromServer::Other => {}
        }
    }
}

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
                        Phase::Greeting => FromServer::Greeting(Vec::new()),
                        _ if self.answer.is_definition() => FromServer::Other,
                        _ => {
                            let may_be_row = self.answer.may_be_row();
                            FromServer::Answer { begin: Beginning::default(), length, may_be_row }
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
            FromServer::Greeting(seen) => self.greets(&seen, out),
            FromServer::Answer { begin, length, .. } => {
                let packet = AnswerPacket { begin: begin.get(), length };
                match self.phase {
                    Phase::Authentication | Phase::Login => self.authenticates(packet, out),
                    Phase::Greeting | Phase::Commands | Phase::File => self.answers(packet, now, out),
                }
            }
            FromServer::Other => {
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
