//! Classes of bytes, by a table: one look for each byte.

/// RFC 9110 5.6.2.
pub(super) const TOKEN: u8 = 1;
/// A path: of visible ASCII, what browsers send and http's `Uri` takes. No `#`: a fragment is never sent (RFC 9112 3.2).
pub(super) const PATH: u8 = 2;
/// A query.
pub(super) const QUERY: u8 = 16;
/// A host's name in a target.
pub(super) const HOST: u8 = 32;
/// A scheme, or a host's name that is one too.
pub(super) const SCHEME: u8 = 64;
/// RFC 9110 5.5, with obs-text.
pub(super) const VALUE: u8 = 4;
/// A chunk extension: visible ASCII and white space.
pub(super) const EXTENSION: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        let is_separator = matches!(
            letter,
            b'"' | b'('
                | b')'
                | b','
                | b'/'
                | b':'
                | b';'
                | b'<'
                | b'='
                | b'>'
                | b'?'
                | b'@'
                | b'['
                | b'\\'
                | b']'
                | b'{'
                | b'}'
        );
        if letter.is_ascii_graphic() {
            classes[byte] |= VALUE | EXTENSION;
            if !is_separator {
                classes[byte] |= TOKEN;
            }
            if !matches!(letter, b'#' | b'<' | b'>' | b'?' | b'`') {
                classes[byte] |= PATH;
            }
            if !matches!(letter, b'"' | b'#' | b'<' | b'>') {
                classes[byte] |= QUERY;
            }
            if letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.') {
                classes[byte] |= HOST | SCHEME;
            }
            if matches!(letter, b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=') {
                classes[byte] |= HOST;
            }
        }
        if letter == b' ' || letter == b'\t' {
            classes[byte] |= VALUE | EXTENSION;
        }
        if letter >= 0x80 {
            classes[byte] |= VALUE;
        }
        byte += 1;
    }
    classes
};

/// Whether the byte is of the class.
pub(super) fn is_one(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// How many of the first bytes are of the class.
pub(super) fn span(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| !is_one(*byte, class)).unwrap_or(bytes.len())
}
