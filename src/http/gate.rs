//! The bytes that a client sends on an HTTP/1.x connection, checked before hyper parses them.
//!
//! hyper accepts some requests that RFC 9112 calls ambiguous: it drops Content-Length beside Transfer-Encoding, takes
//! equal repeated lengths, and lines that end in LF alone. Peers that read them differently disagree on where a request
//! ends (request smuggling). [`RequestGate`] refuses them. It follows heads, bodies and pipelined requests byte by byte,
//! keeps no bytes, and its verdict does not depend on the portions in which they come.

mod characters;
mod fields;
mod target;
#[cfg(test)]
mod tests;
mod violation;

pub use violation::Violation;

use characters::{EXTENSION, PATH, QUERY, TOKEN, VALUE, is_one, span};
use target::TargetAuthority;

/// Fields of a head, and of a trailer section. hyper's own default.
pub const MAX_FIELDS: u8 = 100;

/// Empty lines before a request, which RFC 9112 2.2 has a server ignore.
pub const MAX_EMPTY_LINES: u8 = 4;

/// Bytes of one chunk's extensions.
pub const MAX_EXTENSION: u32 = 256;

/// Bytes of all chunk extensions of a body: below hyper's limit of 16 KiB.
pub const MAX_EXTENSIONS: u32 = 16_000;

/// Bytes of a trailer section, where `max_head` is not less: below hyper's limit of 16 KiB.
pub const MAX_TRAILERS: u32 = 16_000;

/// Bytes of a method and a target with their spaces: a `Uri` of http holds as many.
pub const MAX_TARGET: u32 = 65_534;

/// Digits of a chunk's size: what 64 bits hold.
const MAX_CHUNK_DIGITS: u8 = 16;

/// Checks an HTTP/1.x connection's requests. 48 bytes, no allocation.
#[derive(Clone, Debug)]
pub struct RequestGate {
    state: GateState,
    max_head: u32,
    /// Bytes so far of the head, or of the trailer section.
    section: u32,
    /// Content-Length; then bytes left of the body or of the chunk.
    left: u64,
    heads: u64,
    /// Bytes of the chunk's extensions, and of all in the body.
    extension: u32,
    extensions: u32,
    /// Bytes of the present field's name.
    name: u16,
    fields: u8,
    empty_lines: u8,
    /// Bytes of the current token that are behind; its meaning is the state's own.
    progress: u8,
    /// Which of the known names the field's name may still become: a bit for each.
    candidates: u8,
    is_http10: bool,
    has_length: bool,
    is_chunked: bool,
    in_trailers: bool,
    refused: Option<Violation>,
}

/// The first violation on a connection. The gate stays shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How many of the bytes may pass: those up to the end of the last request that is complete in them.
    pub passes: usize,
    /// The rule that is broken.
    pub why: Violation,
    /// The parser has the request's head from an earlier call: its body ends here, incomplete. Otherwise the parser
    /// never sees the request.
    pub cuts_body: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateState {
    /// A request, or an empty line.
    Between,
    /// The LF of an empty line.
    EmptyLineLf,
    Method,
    TargetStart,
    Authority(TargetAuthority),
    Path,
    Query,
    Version,
    /// The LF of a request line or a field.
    LineLf,
    LineStart,
    Name,
    Value,
    /// Progress: 0 before the digits, 1 in them, 2 behind.
    LengthValue,
    /// Progress: letters of `chunked`, 8 behind them.
    CodingValue,
    /// The LF of a head or a trailer section.
    SectionLf,
    Body,
    ChunkSize,
    ChunkExtension,
    ChunkSizeLf,
    ChunkData,
    ChunkDataCr,
    ChunkDataLf,
    /// Another protocol.
    Open,
}

impl RequestGate {
    /// For a new connection. `max_head` bounds a request line with its fields, in bytes; so do 16,000 and it a trailer section.
    pub fn new(max_head: u32) -> RequestGate {
        RequestGate {
            state: GateState::Between,
            max_head,
            section: 0,
            left: 0,
            heads: 0,
            extension: 0,
            extensions: 0,
            name: 0,
            fields: 0,
            empty_lines: 0,
            progress: 0,
            candidates: 0,
            is_http10: false,
            has_length: false,
            is_chunked: false,
            in_trailers: false,
            refused: None,
        }
    }

    /// Takes the next bytes. All of them may pass to the parser when this is Ok.
    ///
    /// # Errors
    ///
    /// The first violation, and what may pass before it. A head that breaks a rule is never passed to its end. All later
    /// calls return the same violation.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if let Some(why) = self.refused {
            return Err(Refused { passes: 0, why, cuts_body: false });
        }
        let has_body_open = !self.is_between_requests() && !self.is_in_head();
        let (mut at, mut passes, mut heads_passed) = (0, 0, self.heads);
        while at < bytes.len() {
            match self.step(&bytes[at..]) {
                Ok(taken) => at += taken,
                Err(why) => {
                    self.refused = Some(why);
                    self.heads = heads_passed;
                    return Err(Refused { passes, why, cuts_body: has_body_open && passes == 0 });
                }
            }
            if self.state == GateState::Between && self.empty_lines == 0 {
                (passes, heads_passed) = (at, self.heads);
            }
        }
        Ok(())
    }

    /// No byte of a head has come since the last request ended. Empty lines count as nothing.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, GateState::Between | GateState::EmptyLineLf)
    }

    /// A head has begun and is incomplete.
    pub fn is_in_head(&self) -> bool {
        use GateState::{
            Authority, CodingValue, LengthValue, LineLf, LineStart, Method, Name, Path, Query, SectionLf, TargetStart,
            Value, Version,
        };
        let in_section = matches!(
            self.state,
            Method
                | TargetStart
                | Authority(_)
                | Path
                | Query
                | Version
                | LineLf
                | LineStart
                | Name
                | Value
                | LengthValue
                | CodingValue
                | SectionLf
        );
        in_section && !self.in_trailers
    }

    /// Complete heads that have passed.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Lets all pass from here: the connection has changed to another protocol (101).
    pub fn open(&mut self) {
        self.state = GateState::Open;
    }

    /// Takes at least one byte of `rest`, or changes the state.
    fn step(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        match self.state {
            GateState::Between => self.between(rest[0]),
            GateState::EmptyLineLf => {
                self.expect(rest[0], b'\n', GateState::Between, Violation::BareCr)?;
                self.empty_lines += 1;
                Ok(1)
            }
            GateState::Body => Ok(self.skip(rest, GateState::Between)),
            GateState::ChunkSize => self.chunk_size(rest[0]),
            GateState::ChunkExtension => self.chunk_extension(rest),
            GateState::ChunkSizeLf => {
                self.expect(rest[0], b'\n', GateState::ChunkData, Violation::BareCr)?;
                if self.left == 0 {
                    self.begin_section(GateState::LineStart);
                    self.in_trailers = true;
                }
                Ok(1)
            }
            GateState::ChunkData => Ok(self.skip(rest, GateState::ChunkDataCr)),
            GateState::ChunkDataCr => self.expect(rest[0], b'\r', GateState::ChunkDataLf, Violation::BadChunk),
            GateState::ChunkDataLf => {
                self.progress = 0;
                self.expect(rest[0], b'\n', GateState::ChunkSize, Violation::BadChunk)
            }
            GateState::Open => Ok(rest.len()),
            _ => self.section(rest),
        }
    }

    fn between(&mut self, byte: u8) -> Result<usize, Violation> {
        match byte {
            b'\r' if self.empty_lines == MAX_EMPTY_LINES => Err(Violation::TooManyEmptyLines),
            b'\r' => {
                self.state = GateState::EmptyLineLf;
                Ok(1)
            }
            b'\n' => Err(Violation::BareLf),
            byte if !is_one(byte, TOKEN) => Err(Violation::BadMethod),
            _ => {
                self.begin_section(GateState::Method);
                (self.has_length, self.is_chunked, self.left) = (false, false, 0);
                Ok(0)
            }
        }
    }

    fn begin_section(&mut self, state: GateState) {
        self.state = state;
        (self.section, self.fields) = (0, 0);
    }

    /// A head or a trailer section, within its limit.
    fn section(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        let limit = if self.in_trailers { self.max_head.min(MAX_TRAILERS) } else { self.max_head };
        let room = limit.saturating_sub(self.section) as usize;
        if room == 0 {
            return Err(match self.state {
                _ if self.in_trailers => Violation::TrailersTooLong,
                GateState::Method
                | GateState::TargetStart
                | GateState::Authority(_)
                | GateState::Path
                | GateState::Query
                | GateState::Version => Violation::UriTooLong,
                _ => Violation::HeadTooLong,
            });
        }
        let window = &rest[..room.min(rest.len())];
        self.section += u32::try_from(window.len()).unwrap_or(u32::MAX);
        let is_target = matches!(self.state, GateState::Authority(_) | GateState::Path | GateState::Query);
        let taken = self.token(window)?;
        // Less than was added before.
        self.section -= u32::try_from(window.len() - taken).unwrap_or(0);
        if is_target && self.state == GateState::Version && self.section > MAX_TARGET {
            return Err(Violation::UriTooLong);
        }
        Ok(taken)
    }

    /// A part of a line.
    fn token(&mut self, window: &[u8]) -> Result<usize, Violation> {
        let first = window[0];
        match self.state {
            GateState::Method => {
                let length = span(window, TOKEN);
                match window.get(length) {
                    None => return Ok(length),
                    Some(b' ') => self.state = GateState::TargetStart,
                    Some(b'\r' | b'\n') => return Err(Violation::BadRequestLine),
                    Some(_) => return Err(Violation::BadMethod),
                }
                Ok(length + 1)
            }
            GateState::TargetStart => {
                if first == b' ' {
                    return Err(Violation::BadRequestLine);
                }
                self.progress = 0;
                self.state = match first {
                    b'/' => GateState::Path,
                    _ => GateState::Authority(TargetAuthority::first(first).ok_or(Violation::BadTarget)?),
                };
                Ok(1)
            }
            GateState::Authority(at) => {
                self.state = match first {
                    b' ' if at.may_end() => GateState::Version,
                    b'/' if at.may_have_path() => GateState::Path,
                    b'?' if at.may_have_path() => GateState::Query,
                    b' ' | b'\r' | b'\n' => return Err(Violation::BadRequestLine),
                    _ => {
                        self.progress = self.progress.saturating_add(1);
                        GateState::Authority(at.then(first, self.progress).ok_or(Violation::BadTarget)?)
                    }
                };
                if self.state == GateState::Version {
                    self.progress = 0;
                }
                Ok(1)
            }
            GateState::Path | GateState::Query => {
                let is_path = self.state == GateState::Path;
                let length = span(window, if is_path { PATH } else { QUERY });
                match window.get(length) {
                    None => return Ok(length),
                    Some(b' ') => (self.state, self.progress) = (GateState::Version, 0),
                    Some(b'?') if is_path => self.state = GateState::Query,
                    Some(b'\r' | b'\n') => return Err(Violation::BadRequestLine),
                    Some(_) => return Err(Violation::BadTarget),
                }
                Ok(length + 1)
            }
            GateState::Version => self.version(first),
            GateState::LineLf => self.expect(first, b'\n', GateState::LineStart, Violation::BareCr),
            GateState::LineStart => self.line_start(first),
            GateState::Name => self.name(window),
            GateState::Value => {
                let length = span(window, VALUE);
                match window.get(length) {
                    None => return Ok(length),
                    Some(b'\r') => self.state = GateState::LineLf,
                    Some(b'\n') => return Err(Violation::BareLf),
                    Some(_) => return Err(Violation::BadFieldValue),
                }
                Ok(length + 1)
            }
            GateState::LengthValue => self.length_value(first),
            GateState::CodingValue => self.coding_value(first),
            _ => {
                self.expect(first, b'\n', GateState::Between, Violation::BareCr)?;
                self.end_section();
                Ok(1)
            }
        }
    }

    fn version(&mut self, byte: u8) -> Result<usize, Violation> {
        match (self.progress, byte) {
            (place @ 0..=4, _) if byte == b"HTTP/"[usize::from(place)] => {}
            (5, b'1') | (6, b'.') => {}
            (7, b'0' | b'1') => self.is_http10 = byte == b'0',
            // At once: hyper answers by itself what it sees of another version.
            (5 | 7, b'0'..=b'9') => return Err(Violation::UnsupportedVersion),
            (8, b'\r') => self.state = GateState::LineLf,
            (8, b'\n') => return Err(Violation::BareLf),
            _ => return Err(Violation::BadRequestLine),
        }
        self.progress += 1;
        Ok(1)
    }

    /// The state is Between: the request ends here, unless a body follows.
    fn end_section(&mut self) {
        self.empty_lines = 0;
        if self.in_trailers {
            self.in_trailers = false;
            return;
        }
        self.heads += 1;
        if self.is_chunked {
            self.state = GateState::ChunkSize;
            (self.extensions, self.progress) = (0, 0);
        } else if self.left > 0 {
            self.state = GateState::Body;
        }
    }

    fn chunk_size(&mut self, byte: u8) -> Result<usize, Violation> {
        match byte {
            b'\r' if self.progress > 0 => self.state = GateState::ChunkSizeLf,
            b';' if self.progress > 0 => (self.state, self.extension) = (GateState::ChunkExtension, 0),
            b'\n' => return Err(Violation::BareLf),
            _ => {
                let digit = char::from(byte).to_digit(16).filter(|_| self.progress < MAX_CHUNK_DIGITS);
                self.left = self.left << 4 | u64::from(digit.ok_or(Violation::BadChunk)?);
                self.progress += 1;
            }
        }
        Ok(1)
    }

    fn chunk_extension(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        let length = span(rest, EXTENSION);
        let added = u32::try_from(length).unwrap_or(u32::MAX);
        self.extension = self.extension.saturating_add(added);
        self.extensions = self.extensions.saturating_add(added);
        if self.extension > MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
            return Err(Violation::ChunkExtensionsTooLong);
        }
        match rest.get(length) {
            None => return Ok(length),
            Some(b'\r') => self.state = GateState::ChunkSizeLf,
            Some(b'\n') => return Err(Violation::BareLf),
            Some(_) => return Err(Violation::BadChunkExtension),
        }
        Ok(length + 1)
    }

    /// Takes what is left of a body or a chunk.
    fn skip(&mut self, rest: &[u8], then: GateState) -> usize {
        let taken = usize::try_from(self.left).map_or(rest.len(), |left| left.min(rest.len()));
        self.left -= taken as u64;
        if self.left == 0 {
            self.state = then;
        }
        taken
    }

    fn expect(&mut self, byte: u8, wanted: u8, then: GateState, otherwise: Violation) -> Result<usize, Violation> {
        if byte != wanted {
            return Err(otherwise);
        }
        self.state = then;
        Ok(1)
    }
}
