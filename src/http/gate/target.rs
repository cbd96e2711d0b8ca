//! Targets that begin with no slash: `*`, `host:port`, and `scheme://host:port` with a path. A target that passes is one
//! that http's `Uri` takes: hyper would refuse any other by itself.

use super::characters::{HOST, SCHEME, is_one};

/// Bytes of a scheme: what a `Uri` of http holds.
const MAX_SCHEME: u8 = 64;

/// Colons of an IPv6 address.
const MAX_COLONS: u8 = 7;

/// Where in an authority the gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    part: Part,
    /// Behind a scheme.
    is_absolute: bool,
    colons: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Asterisk,
    /// A scheme, or a host. Only the latter where it is too long.
    SchemeOrHost,
    /// The first colon: a port follows, or two slashes.
    Colon,
    Slash,
    /// Behind both slashes.
    Empty,
    Host,
    Port,
    Brackets,
    BracketsClosed,
}

impl Authority {
    /// By the first byte of the target; `None` if no target begins so.
    pub(super) fn first(byte: u8) -> Option<Authority> {
        let part = match byte {
            b'*' => Part::Asterisk,
            b'[' => Part::Brackets,
            byte if is_one(byte, SCHEME) => Part::SchemeOrHost,
            byte if is_one(byte, HOST) => Part::Host,
            _ => return None,
        };
        Some(Authority { part, is_absolute: false, colons: 0 })
    }

    /// By the next byte, before which there were `length`; `None` if it is not one of a target.
    pub(super) fn then(self, byte: u8, length: u8) -> Option<Authority> {
        let part = match (self.part, byte) {
            (Part::SchemeOrHost, byte) if is_one(byte, SCHEME) => Part::SchemeOrHost,
            (Part::SchemeOrHost, b':') if length <= MAX_SCHEME => Part::Colon,
            (Part::SchemeOrHost | Part::Host, b':') => Part::Port,
            (Part::SchemeOrHost | Part::Host | Part::Empty, byte) if is_one(byte, HOST) => Part::Host,
            (Part::Colon, b'/') => Part::Slash,
            (Part::Colon | Part::Port, b'0'..=b'9') => Part::Port,
            (Part::Slash, b'/') => return Some(Authority { part: Part::Empty, is_absolute: true, colons: 0 }),
            (Part::Empty, b'[') => Part::Brackets,
            (Part::Brackets, b':') if self.colons < MAX_COLONS => {
                return Some(Authority { colons: self.colons + 1, ..self });
            }
            (Part::Brackets, byte) if byte.is_ascii_hexdigit() || byte == b'.' => Part::Brackets,
            (Part::Brackets, b']') => Part::BracketsClosed,
            (Part::BracketsClosed, b':') => Part::Port,
            _ => return None,
        };
        Some(Authority { part, ..self })
    }

    /// Whether the target may end here.
    pub(super) fn may_end(self) -> bool {
        !matches!(self.part, Part::Slash | Part::Empty | Part::Brackets)
    }

    /// Whether a path or a query may follow.
    pub(super) fn may_have_path(self) -> bool {
        self.is_absolute && self.may_end()
    }
}
