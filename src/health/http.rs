//! An HTTP/1.1 request, and the status and perhaps the body of its answer.
//!
//! What is read is bounded: the heads by [`MAX_HEAD`] and [`MAX_HEADERS`], the body by [`MAX_BODY`], and all of it by the probe's
//! timeout. Reading stops as soon as the outcome is known.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::Failure;
use super::tcp::Connection;
use crate::config::model::HttpCheck;
use crate::net::addr::Address;

/// Bytes of the answer's head, with those of interim (1xx) answers before it.
const MAX_HEAD: usize = 16 * 1024;

/// Header fields of one head.
const MAX_HEADERS: usize = 100;

/// Bytes of the body that are searched, with the framing of its chunks.
const MAX_BODY: usize = 64 * 1024;

/// Passes once the status is right and the body, if that is asked for, has the right text in it.
pub(super) async fn probe(mut connection: Connection, address: &Address, check: &HttpCheck) -> Result<(), Failure> {
    match connection.write_all(request(address, check).as_bytes()).await {
        // Closed already; what was said before that tells more.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        sent => sent?,
    }

    let mut answer = Answer::new(check);
    let mut part = [0; 4096];
    loop {
        let count = connection.read(&mut part).await?;
        if count == 0 {
            return Err(answer.end());
        }
        if answer.take(&part[..count])? {
            return Ok(());
        }
    }
}

fn request(address: &Address, check: &HttpCheck) -> String {
    let host = match (&check.host, address) {
        (Some(host), _) => host.clone(),
        (None, Address::Tcp(address)) => address.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    };
    format!(
        "{} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        check.method, check.path
    )
}

/// An answer as it comes in. Pure: bytes in, verdict out.
struct Answer<'a> {
    check: &'a HttpCheck,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Head {
        /// What came of the head so far.
        bytes: Vec<u8>,
        /// Bytes of interim answers before it.
        skipped: usize,
    },
    Body {
        framing: Framing,
        search: Search<'a>,
        /// Bytes that may still be looked at.
        budget: usize,
    },
}

/// How the end of a body is known.
enum Framing {
    /// The connection closes, or as many bytes as this have come.
    Length(usize),
    Chunked(Chunk),
}

/// Where in a chunked body (RFC 9112, section 7.1) the next byte is.
enum Chunk {
    Size {
        size: usize,
        digits: u32,
    },
    Extension {
        size: usize,
    },
    Data {
        left: usize,
    },
    /// The line end after the data.
    AfterData,
}

impl<'a> Answer<'a> {
    fn new(check: &'a HttpCheck) -> Answer<'a> {
        Answer { check, stage: Stage::Head { bytes: Vec::new(), skipped: 0 } }
    }

    /// Takes what was read; true as soon as the check has passed.
    fn take(&mut self, part: &[u8]) -> Result<bool, Failure> {
        match &mut self.stage {
            Stage::Body { framing, search, budget } => look(framing, search, budget, part),
            Stage::Head { bytes, skipped } => {
                let room = MAX_HEAD - *skipped - bytes.len();
                // Bytes beyond the limit may be the body's.
                let (head, rest) = part.split_at(part.len().min(room));
                bytes.extend_from_slice(head);
                // Heads end with a line, so that it is enough to parse when one has ended: a head in single bytes
                // would otherwise be parsed as often as it has bytes. Not so at the start, to see early
                // that this is something else.
                if bytes.len() > 16 && !head.contains(&b'\n') && rest.is_empty() {
                    return Ok(false);
                }
                self.parse(rest)
            }
        }
    }

    /// Looks at the head, or heads, that came so far. A loop and not a recursion: interim answers may be many.
    fn parse(&mut self, beyond: &[u8]) -> Result<bool, Failure> {
        let Stage::Head { bytes, skipped } = &mut self.stage else {
            return Ok(false);
        };
        let (status, mut framing, length) = loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut head = httparse::Response::new(&mut fields);
            let length = match head.parse(bytes) {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) if *skipped + bytes.len() < MAX_HEAD => {
                    return Ok(false);
                }
                Ok(httparse::Status::Partial) => {
                    return Err(Failure::theirs("head is longer than 16 KiB"));
                }
                Err(httparse::Error::TooManyHeaders) => {
                    return Err(Failure::theirs("head has more than 100 fields"));
                }
                Err(_) => return Err(Failure::theirs("answer is not HTTP")),
            };
            let status = head.code.unwrap_or(0);
            if !(100..200).contains(&status) || status == 101 {
                break (status, framing(head.headers), length);
            }
            *skipped += length;
            bytes.drain(..length);
        };
        if !self.check.status.contains(&status) {
            return Err(Failure::Theirs(format!("status {status}")));
        }
        let Some(text) = &self.check.body else {
            return Ok(true);
        };

        if self.check.method == "HEAD" || matches!(status, 101 | 204 | 304) {
            framing = Ok(Framing::Length(0));
        }
        let mut framing = framing?;
        let mut search = Search { text: text.as_bytes(), tail: Vec::new() };
        let mut budget = MAX_BODY;
        let started = bytes.split_off(length);
        if look(&mut framing, &mut search, &mut budget, &started)? {
            return Ok(true);
        }
        self.stage = Stage::Body { framing, search, budget };
        // What did not fit into the head's limit any more.
        if beyond.is_empty() { Ok(false) } else { self.take(beyond) }
    }

    /// The connection was closed before the check has passed.
    fn end(&mut self) -> Failure {
        match &self.stage {
            Stage::Body { search, .. } => return search.lacks(),
            Stage::Head { bytes, skipped: 0 } if bytes.is_empty() => return Failure::no_answer(),
            Stage::Head { .. } => {}
        }
        // The last line was not looked at yet, as it has no end.
        let partial = Failure::theirs("closed in the middle of the answer's head");
        self.parse(&[]).err().unwrap_or(partial)
    }
}

fn framing(fields: &[httparse::Header<'_>]) -> Result<Framing, Failure> {
    let value = |name: &str| {
        let field = fields.iter().rfind(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(field.value).trim().to_ascii_lowercase())
    };
    // Chunked is the last coding when it is one at all, and wins over a length (RFC 9112, section 6.3).
    if value("transfer-encoding").is_some_and(|codings| codings.ends_with("chunked")) {
        return Ok(Framing::Chunked(Chunk::Size { size: 0, digits: 0 }));
    }
    match value("content-length") {
        None => Ok(Framing::Length(usize::MAX)),
        Some(length) => match length.parse() {
            Ok(length) => Ok(Framing::Length(length)),
            Err(_) => Err(Failure::theirs("answer is not HTTP")),
        },
    }
}

/// Looks for the text in what came of the body; true when it is there.
fn look(framing: &mut Framing, search: &mut Search<'_>, budget: &mut usize, part: &[u8]) -> Result<bool, Failure> {
    let seen = &part[..part.len().min(*budget)];
    *budget -= seen.len();
    let (found, ended) = match framing {
        Framing::Length(left) => {
            let body = &seen[..seen.len().min(*left)];
            *left -= body.len();
            (search.push(body), *left == 0)
        }
        Framing::Chunked(chunk) => chunked(chunk, search, seen)?,
    };
    if found {
        return Ok(true);
    }
    if ended {
        return Err(search.lacks());
    }
    if *budget == 0 {
        let Failure::Theirs(lacks) = search.lacks() else {
            return Ok(false);
        };
        return Err(Failure::Theirs(format!("{lacks} in its first 64 KiB")));
    }
    Ok(false)
}

/// Takes the framing of chunks away and searches the rest: whether the text was found, and whether the body has ended.
fn chunked(chunk: &mut Chunk, search: &mut Search<'_>, mut bytes: &[u8]) -> Result<(bool, bool), Failure> {
    let malformed = || Failure::theirs("chunks of the body are malformed");
    while let Some((&byte, rest)) = bytes.split_first() {
        match chunk {
            Chunk::Data { left } => {
                let (data, rest) = bytes.split_at(bytes.len().min(*left));
                *left -= data.len();
                if search.push(data) {
                    return Ok((true, false));
                }
                if *left == 0 {
                    *chunk = Chunk::AfterData;
                }
                bytes = rest;
                continue;
            }
            Chunk::Size { size, digits } => match char::from(byte).to_digit(16) {
                Some(digit) if *digits < 8 => {
                    *size = *size * 16 + digit as usize;
                    *digits += 1;
                }
                None if *digits > 0 && b"; \t\r\n".contains(&byte) => {
                    *chunk = Chunk::Extension { size: *size };
                    continue; // with the same byte
                }
                _ => return Err(malformed()),
            },
            Chunk::Extension { size } => match (byte, *size) {
                (b'\n', 0) => return Ok((false, true)), // trailers are of no interest
                (b'\n', left) => *chunk = Chunk::Data { left },
                _ => {}
            },
            Chunk::AfterData => match byte {
                b'\r' => {}
                b'\n' => *chunk = Chunk::Size { size: 0, digits: 0 },
                _ => return Err(malformed()),
            },
        }
        bytes = rest;
    }
    Ok((false, false))
}

/// Looks for a text in a body that comes in parts.
struct Search<'a> {
    text: &'a [u8],
    /// The end of what came before: what the text may have begun in.
    tail: Vec<u8>,
}

impl Search<'_> {
    fn push(&mut self, part: &[u8]) -> bool {
        self.tail.extend_from_slice(part);
        // The configuration refuses an empty text; it would be found in anything.
        let found = self.text.is_empty() || self.tail.windows(self.text.len()).any(|w| w == self.text);
        let keep = self.text.len().saturating_sub(1);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
        found
    }

    fn lacks(&self) -> Failure {
        Failure::Theirs(format!("body lacks {}", super::failure::quoted(self.text)))
    }
}

#[cfg(test)]
mod tests;
