//! The fields that say where a body ends.

use super::characters::{TOKEN, VALUE, is_one, span};
use super::{GateState, MAX_FIELDS, RequestGate, Violation};

/// The greatest Content-Length. Peers keep it in signed integers.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// Names that the gate knows, in lower case. The place of each is its bit in `candidates`.
const KNOWN: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
const CONTENT_LENGTH: usize = 0;
const TRANSFER_ENCODING: usize = 1;

impl RequestGate {
    /// The first byte of a field, or of the end of the section.
    pub(super) fn line_start(&mut self, byte: u8) -> Result<usize, Violation> {
        match byte {
            b'\r' => self.state = GateState::SectionLf,
            b'\n' => return Err(Violation::BareLf),
            b' ' | b'\t' => return Err(Violation::ObsoleteFold),
            byte if !is_one(byte, TOKEN) => return Err(Violation::BadFieldName),
            _ if self.fields == MAX_FIELDS => return Err(Violation::TooManyFields),
            _ => {
                self.fields += 1;
                self.state = GateState::Name;
                (self.candidates, self.progress, self.name) = ((1 << KNOWN.len()) - 1, 0, 0);
                return Ok(0);
            }
        }
        Ok(1)
    }

    /// A field's name, up to its colon.
    pub(super) fn name(&mut self, window: &[u8]) -> Result<usize, Violation> {
        let length = span(window, TOKEN);
        // A longer one is none to http's `HeaderName`.
        let whole = u16::try_from(length).ok().and_then(|length| self.name.checked_add(length));
        self.name = whole.ok_or(Violation::HeadTooLong)?;
        for byte in &window[..length] {
            if self.candidates == 0 {
                break;
            }
            for (bit, known) in KNOWN.iter().enumerate() {
                if known.get(usize::from(self.progress)) != Some(&byte.to_ascii_lowercase()) {
                    self.candidates &= !(1 << bit);
                }
            }
            self.progress += 1;
        }
        match window.get(length) {
            None => return Ok(length),
            Some(b':') => self.begin_value()?,
            Some(b' ' | b'\t') => return Err(Violation::SpaceBeforeColon),
            Some(_) => return Err(Violation::BadFieldName),
        }
        Ok(length + 1)
    }

    fn begin_value(&mut self) -> Result<(), Violation> {
        let is = |bit: usize| self.candidates & 1 << bit != 0 && KNOWN[bit].len() == usize::from(self.progress);
        let known = (0..KNOWN.len()).find(|bit| is(*bit));
        self.progress = 0;
        self.state = match known {
            None => GateState::Value,
            Some(_) if self.in_trailers => return Err(Violation::ForbiddenTrailer),
            Some(CONTENT_LENGTH) if self.is_chunked => return Err(Violation::LengthAndTransferEncoding),
            Some(CONTENT_LENGTH) if self.has_length => return Err(Violation::SeveralLengths),
            Some(CONTENT_LENGTH) => {
                self.has_length = true;
                GateState::LengthValue
            }
            Some(TRANSFER_ENCODING) if self.is_http10 => return Err(Violation::TransferEncodingOnHttp10),
            Some(TRANSFER_ENCODING) if self.has_length => return Err(Violation::LengthAndTransferEncoding),
            Some(TRANSFER_ENCODING) if self.is_chunked => return Err(Violation::SeveralTransferEncodings),
            Some(TRANSFER_ENCODING) => {
                self.is_chunked = true;
                GateState::CodingValue
            }
            Some(_) => GateState::Value,
        };
        Ok(())
    }

    pub(super) fn length_value(&mut self, byte: u8) -> Result<usize, Violation> {
        match (self.progress, byte) {
            (0 | 2, b' ' | b'\t') => {}
            (1, b' ' | b'\t') => self.progress = 2,
            (0 | 1, b'0'..=b'9') => {
                let digit = u64::from(byte - b'0');
                let longer = self.left.checked_mul(10).and_then(|length| length.checked_add(digit));
                self.left = longer.filter(|length| *length <= MAX_LENGTH).ok_or(Violation::BadLength)?;
                self.progress = 1;
            }
            (1 | 2, b'\r') => self.state = GateState::LineLf,
            (_, b'\n') => return Err(Violation::BareLf),
            (1 | 2, b',') => return Err(Violation::SeveralLengths),
            _ => return Err(Violation::BadLength),
        }
        Ok(1)
    }

    pub(super) fn coding_value(&mut self, byte: u8) -> Result<usize, Violation> {
        match (self.progress, byte) {
            (0 | 8, b' ' | b'\t') => {}
            (7, b' ' | b'\t') => self.progress = 8,
            (7 | 8, b'\r') => self.state = GateState::LineLf,
            (place @ 0..=6, _) if byte.to_ascii_lowercase() == b"chunked"[usize::from(place)] => self.progress += 1,
            (_, b'\n') => return Err(Violation::BareLf),
            (_, byte) if byte != b'\r' && !is_one(byte, VALUE) => return Err(Violation::BadFieldValue),
            _ => return Err(Violation::BadTransferEncoding),
        }
        Ok(1)
    }
}
