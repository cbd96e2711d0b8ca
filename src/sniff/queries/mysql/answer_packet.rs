//! Packets of a server, and their places in an answer.

#![forbid(unsafe_code)]

use super::login;
use super::packet::FULL;
use crate::sniff::queries::framing::Prefix;

/// Bytes of an answer's packet that are looked at: a number in front, two numbers of 9 bytes, and the status.
pub(super) const MAX_LOOKED_AT: usize = 21;

pub(super) const OK: u8 = 0x00;
pub(super) const FILE: u8 = 0xfb;
pub(super) const EOF: u8 = 0xfe;
pub(super) const ERR: u8 = 0xff;

/// An error number that is none, but tells how far a statement of MariaDB is.
const PROGRESS: u16 = 0xffff;

/// What a packet of a server is, as far as it is read.
#[derive(Debug, Default)]
pub(super) enum MysqlServerState {
    Greeting(Vec<u8>),
    Packet {
        begin: Prefix<MAX_LOOKED_AT>,
        length: u32,
        /// Only its first byte tells whether it matters.
        may_be_row: bool,
    },
    /// What it says does not matter.
    #[default]
    Other,
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
        self.first() == EOF && self.length < FULL
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

impl MysqlServerState {
    pub(super) fn is_read(&self) -> bool {
        match self {
            MysqlServerState::Greeting(seen) => seen.len() >= login::MAX_SEEN,
            MysqlServerState::Packet { begin, length, may_be_row } => {
                let may_end = |first: &u8| matches!(*first, EOF | ERR) && *length < FULL;
                let is_row = *may_be_row && begin.get().first().is_some_and(|first| !may_end(first));
                is_row || begin.get().len() >= MAX_LOOKED_AT.min(*length as usize)
            }
            MysqlServerState::Other => true,
        }
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        match self {
            MysqlServerState::Greeting(seen) => {
                let count = login::MAX_SEEN.saturating_sub(seen.len()).min(bytes.len());
                seen.extend_from_slice(bytes.get(..count).unwrap_or_default());
            }
            MysqlServerState::Packet { begin, .. } => _ = begin.fill(&mut bytes, MAX_LOOKED_AT),
            MysqlServerState::Other => {}
        }
    }
}

/// Where in the answer to the oldest command the next packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AnswerPlace {
    /// At its beginning, or at that of another result.
    #[default]
    First,
    /// Definitions that are still to come.
    Definitions(u32, Behind),
    /// The end of definitions.
    DefinitionsEnd(Behind),
    Rows,
}

/// What comes behind definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Rows,
    /// Definitions of a prepared statement's columns that are still to come.
    Columns(u16),
}

impl AnswerPlace {
    pub(super) fn is_definition(self) -> bool {
        matches!(self, AnswerPlace::Definitions(..))
    }

    pub(super) fn may_be_row(self) -> bool {
        self == AnswerPlace::Rows
    }
}
