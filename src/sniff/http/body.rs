//! Where a message's body ends (RFC 9112, 6 and 7).

#![forbid(unsafe_code)]

/// The rest of a body, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Content-Length: this many bytes.
    Sized(u64),
    /// Chunks, up to the empty one and the trailer behind it.
    Chunked(Chunk),
    /// Everything until the sender's FIN.
    UntilClose,
}

/// Where in the chunked coding the next byte is (RFC 9112, 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Among the digits of a chunk's size, or before the first of them.
    Size(Option<u64>),
    /// Behind them: extensions, and the line's end.
    Extension(u64),
    /// In its data, of which this many bytes are to come.
    Data(u64),
    /// At the line's end that follows the data; with `true`, behind its CR.
    DataEnd(bool),
    /// In a line of the trailer; with `true`, nothing of that line has come but CR.
    Trailer(bool),
}

/// Bytes that are not in the chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadChunk;

impl Body {
    /// Of bytes in the chunked coding.
    pub(super) const CHUNKED: Body = Body::Chunked(Chunk::Size(None));

    /// Bytes that can be skipped: the end of the body does not depend on them.
    pub(super) fn unseen(self) -> u64 {
        match self {
            Body::Sized(left) | Body::Chunked(Chunk::Data(left)) => left,
            Body::Chunked(_) => 0,
            Body::UntilClose => u64::MAX,
        }
    }

    /// Skips `count` bytes, at most [`Body::unseen`]. True at the end of the body.
    pub(super) fn pass(&mut self, count: u64) -> bool {
        debug_assert!(count <= self.unseen(), "{count} bytes went by of {self:?}");
        match self {
            Body::Sized(left) => {
                *left = left.saturating_sub(count);
                *left == 0
            }
            Body::Chunked(state) => {
                if let Chunk::Data(left) = *state {
                    *state = match left.saturating_sub(count) {
                        0 => Chunk::DataEnd(false),
                        left => Chunk::Data(left),
                    };
                }
                false
            }
            Body::UntilClose => false,
        }
    }

    /// Takes the next bytes. Returns how many were the rest of the body, if it ends in them.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadChunk> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = match self {
                Body::Chunked(state) if !matches!(state, Chunk::Data(_)) => {
                    let (count, ended) = state.read(rest)?;
                    if ended {
                        return Ok(Some(bytes.len() - rest.len() + count));
                    }
                    count
                }
                _ => {
                    let count = usize::try_from(self.unseen()).unwrap_or(usize::MAX).min(rest.len());
                    if self.pass(count as u64) {
                        return Ok(Some(bytes.len() - rest.len() + count));
                    }
                    count
                }
            };
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(None)
    }
}

impl Chunk {
    /// Takes what comes next that is no data: how many bytes, and whether the body ends with them. A line ends with LF,
    /// with or without CR before it, as those servers have it that are lenient; what no server takes ends the connection.
    fn read(&mut self, bytes: &[u8]) -> Result<(usize, bool), BadChunk> {
        let Some(&next) = bytes.first() else { return Ok((0, false)) };
        *self = match *self {
            Chunk::Size(size) => match ((next as char).to_digit(16), size) {
                (Some(digit), size) => {
                    let tens = size.unwrap_or(0).checked_mul(16).ok_or(BadChunk)?;
                    Chunk::Size(Some(tens + u64::from(digit)))
                }
                (None, Some(size)) if matches!(next, b';' | b' ' | b'\t' | b'\r' | b'\n') => {
                    // What this byte is, the next look says.
                    *self = Chunk::Extension(size);
                    return Ok((0, false));
                }
                (None, _) => return Err(BadChunk),
            },
            Chunk::Extension(size) => {
                let Some(end) = line_end(bytes) else { return Ok((bytes.len(), false)) };
                *self = if size == 0 { Chunk::Trailer(true) } else { Chunk::Data(size) };
                return Ok((end, false));
            }
            Chunk::DataEnd(false) if next == b'\r' => Chunk::DataEnd(true),
            Chunk::DataEnd(_) if next == b'\n' => Chunk::Size(None),
            Chunk::DataEnd(_) => return Err(BadChunk),
            Chunk::Data(_) => return Ok((0, false)),
            Chunk::Trailer(blank) => match next {
                b'\n' if blank => return Ok((1, true)),
                b'\r' if blank => Chunk::Trailer(true),
                _ => {
                    let end = line_end(bytes);
                    *self = Chunk::Trailer(end.is_some());
                    return Ok((end.unwrap_or(bytes.len()), false));
                }
            },
        };
        Ok((1, false))
    }
}

/// Bytes up to the end of the line.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In whatever portions, the body ends there, and what needs not be seen is this.
    fn ends(coded: &str, data: u64) {
        let bytes = coded.as_bytes();
        let behind = [bytes, b"\n0\r\n\r\n"].concat();
        for portion in 1..=bytes.len() {
            let (mut body, mut here) = (Body::CHUNKED, 0);
            let ended = loop {
                let end = (here + portion).min(behind.len());
                match body.read(&behind[here..end]).unwrap() {
                    Some(used) => break here + used,
                    None => here = end,
                }
            };
            assert_eq!(ended, bytes.len(), "{coded:?} in portions of {portion}");
        }
        let (mut body, mut here, mut unseen) = (Body::CHUNKED, 0, 0);
        loop {
            let count = body.unseen();
            unseen += count;
            assert!(!body.pass(count));
            here += count as usize;
            if body.read(&bytes[here..=here]).unwrap().is_some() {
                break;
            }
            here += 1;
        }
        assert_eq!((here + 1, unseen), (bytes.len(), data), "{coded:?}");
    }

    #[test]
    fn a_chunked_body_ends_with_its_trailer() {
        ends("0\r\n\r\n", 0);
        ends("5\r\n0\r\n\r\n\r\n0\r\n\r\n", 5);
        ends("000000000000000000000005;a;b=\"0; 0\"\r\nhello\r\n1 \t\r\n\n\r\n00 ;x\r\n\r\n", 6);
        ends(
            "aF\n0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
              012345678901234567890123456789012345678901234567890123456789012345678901234\n0\nA: b\n\n",
            175,
        );
        ends("0\r\nA: \r\nB: c\r\n 0\r\n\r\n", 0);
    }

    #[test]
    fn what_is_not_in_the_coding_is_refused() {
        for wrong in ["\r\n", " 5\r\n", "x", "-1", "5x\r\n", "1\r\nab", "1\r\na\rb", "10000000000000000", ";\r\n"] {
            let mut body = Body::CHUNKED;
            assert_eq!(body.read(wrong.as_bytes()), Err(BadChunk), "{wrong:?}");
        }
        let mut body = Body::CHUNKED;
        assert_eq!(body.read(b"ffffffffffffffff\r\n"), Ok(None));
        assert_eq!(body.unseen(), u64::MAX);
    }

    #[test]
    fn a_sized_body_ends_by_itself_and_another_never() {
        let mut body = Body::Sized(3);
        assert_eq!((body.read(b"ab"), body.unseen()), (Ok(None), 1));
        assert_eq!(body.read(b"cd"), Ok(Some(1)));
        let mut body = Body::Sized(u64::MAX);
        assert!(!body.pass(u64::MAX - 1) && body.pass(1));
        let mut body = Body::UntilClose;
        assert_eq!((body.read(b"0\r\n\r\n"), body.unseen()), (Ok(None), u64::MAX));
        assert!(!body.pass(u64::MAX));
    }
}
