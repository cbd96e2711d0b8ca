//! Targets that begin with no slash: `*`, `host:port`, and `scheme://host:port` with a path. A target that passes is one
//! that http's `Uri` takes: hyper would refuse any other by itself.

use super::characters::{HOST, SCHEME, is_one};

/// Bytes of a scheme: what a `Uri` of http holds.
const MAX_SCHEME: u8 = 64;

/// Colons of an IPv6 address.
const MAX_COLONS: u8 = 7;

/// Where in an authority the gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TargetAuthority {
    part: AuthorityPart,
    /// Behind a scheme.
    is_absolute: bool,
    colons: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthorityPart {
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

impl TargetAuthority {
    /// By the first byte of the target; `None` if no target begins so.
    pub(super) fn first(byte: u8) -> Option<TargetAuthority> {
        let part = match byte {
            b'*' => AuthorityPart::Asterisk,
            b'[' => AuthorityPart::Brackets,
            byte if is_one(byte, SCHEME) => AuthorityPart::SchemeOrHost,
            byte if is_one(byte, HOST) => AuthorityPart::Host,
            _ => return None,
        };
        Some(TargetAuthority { part, is_absolute: false, colons: 0 })
    }

    /// By the next byte, before which there were `length`; `None` if it is not one of a target.
    pub(super) fn then(self, byte: u8, length: u8) -> Option<TargetAuthority> {
        let part = match (self.part, byte) {
            (AuthorityPart::SchemeOrHost, byte) if is_one(byte, SCHEME) => AuthorityPart::SchemeOrHost,
            (AuthorityPart::SchemeOrHost, b':') if length <= MAX_SCHEME => AuthorityPart::Colon,
            (AuthorityPart::SchemeOrHost | AuthorityPart::Host, b':') => AuthorityPart::Port,
            (AuthorityPart::SchemeOrHost | AuthorityPart::Host | AuthorityPart::Empty, byte) if is_one(byte, HOST) => {
                AuthorityPart::Host
            }
            (AuthorityPart::Colon, b'/') => AuthorityPart::Slash,
            (AuthorityPart::Colon | AuthorityPart::Port, b'0'..=b'9') => AuthorityPart::Port,
            (AuthorityPart::Slash, b'/') => {
                return Some(TargetAuthority { part: AuthorityPart::Empty, is_absolute: true, colons: 0 });
            }
            (AuthorityPart::Empty, b'[') => AuthorityPart::Brackets,
            (AuthorityPart::Brackets, b':') if self.colons < MAX_COLONS => {
                return Some(TargetAuthority { colons: self.colons + 1, ..self });
            }
            (AuthorityPart::Brackets, byte) if byte.is_ascii_hexdigit() || byte == b'.' => AuthorityPart::Brackets,
            (AuthorityPart::Brackets, b']') => AuthorityPart::BracketsClosed,
            (AuthorityPart::BracketsClosed, b':') => AuthorityPart::Port,
            _ => return None,
        };
        Some(TargetAuthority { part, ..self })
    }

    /// Whether the target may end here.
    pub(super) fn may_end(self) -> bool {
        !matches!(self.part, AuthorityPart::Slash | AuthorityPart::Empty | AuthorityPart::Brackets)
    }

    /// Whether a path or a query may follow.
    pub(super) fn may_have_path(self) -> bool {
        self.is_absolute && self.may_end()
    }
}
