//! An HTTP/1.1 request, and the status and perhaps the body of its answer.
//!
//! Reads are bounded: heads by [`MAX_HEAD`], the body by [`MAX_BODY`], both by the probe's timeout. Reading stops as soon as
//! the outcome is known.
//!
//! The parser is our own. hyper's client (1.12, with every lenient option) gives other outcomes for the answers in `tests.rs`:
//! it drops a malformed header, on which the body's framing may depend, or fails without quoting it. It fails a check of the
//! status alone for a head above 16 KiB, a bad Content-Length or a NUL in a header. It reads interim (1xx) answers without a
//! limit, loses the status of a head that is cut short, refuses chunk lines that end with LF, and sends header names in lower case.

use std::io::ErrorKind;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::ProbeFailure;
use super::tcp::Connection;
use crate::config::model::{BackendAddress, HttpCheck, Redacted};
use crate::net::addr::Address;

/// Bytes of the answer's head, with those of interim (1xx) answers before it.
const MAX_HEAD: usize = 16 * 1024;

/// Bytes of the body that are searched, with the framing of its chunks.
const MAX_BODY: usize = 64 * 1024;

/// Passes once the status is right and the body, if that is asked for, has the right text in it.
pub(super) async fn probe(mut connection: Connection, host: &str, check: &HttpCheck) -> Result<(), ProbeFailure> {
    match connection.write_all(&request(host, check)).await {
        // Closed already: what the backend sent before says more.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        sent => sent?,
    }

    let mut answer = ResponseParser::new(check);
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

/// The value of `Host`: as configured, or else the host of the backend's address. Default ports are left out, as browsers do.
pub(super) fn host(check: &HttpCheck, configured: &BackendAddress, probed: &Address) -> String {
    let Address::Tcp(probed) = probed else {
        return check.host.as_ref().map(Redacted::reveal).cloned().unwrap_or_else(|| "localhost".to_owned());
    };
    let host = match (check.host.as_ref().map(Redacted::reveal), configured) {
        (Some(host), _) => return host.clone(),
        // The final dot of a fully qualified name belongs to DNS, not to HTTP.
        (None, BackendAddress::Name { host, .. }) => host.strip_suffix('.').unwrap_or(host).to_owned(),
        (None, _) => match probed.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        },
    };
    match probed.port() {
        80 => host,
        port => format!("{host}:{port}"),
    }
}

fn request(host: &str, check: &HttpCheck) -> Vec<u8> {
    let mut request = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", check.method, check.path.reveal()).into_bytes();
    let mut field = |name: &str, value: &[u8]| {
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    };
    for (name, value) in [("User-Agent", "tidegate"), ("Accept", "*/*")] {
        if !check.headers.reveal().iter().any(|header| header.name.eq_ignore_ascii_case(name)) {
            field(name, value.as_bytes());
        }
    }
    for header in check.headers.reveal() {
        field(&header.name, &header.value);
    }
    field("Connection", b"close");
    request.extend_from_slice(b"\r\n");
    request
}

/// Parses an answer as it arrives. Pure: bytes in, outcome out.
struct ResponseParser<'a> {
    check: &'a HttpCheck,
    stage: ResponsePart<'a>,
}

enum ResponsePart<'a> {
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
    Chunked(ChunkPart),
}

/// Where in a chunked body (RFC 9112, section 7.1) the next byte is.
enum ChunkPart {
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

impl<'a> ResponseParser<'a> {
    fn new(check: &'a HttpCheck) -> ResponseParser<'a> {
        ResponseParser { check, stage: ResponsePart::Head { bytes: Vec::new(), skipped: 0 } }
    }

    /// Takes what was read; true as soon as the check has passed.
    fn take(&mut self, part: &[u8]) -> Result<bool, ProbeFailure> {
        match &mut self.stage {
            ResponsePart::Body { framing, search, budget } => look(framing, search, budget, part),
            ResponsePart::Head { bytes, skipped } => {
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
    fn parse(&mut self, beyond: &[u8]) -> Result<bool, ProbeFailure> {
        let ResponsePart::Head { bytes, skipped } = &mut self.stage else {
            return Ok(false);
        };
        let (status, length) = loop {
            let is_full = *skipped + bytes.len() >= MAX_HEAD;
            let too_long = || Err(ProbeFailure::backend("head is longer than 16 KiB"));
            let Some(status) = status(bytes)? else {
                return if is_full { too_long() } else { Ok(false) };
            };
            let is_interim = (100..200).contains(&status) && status != 101;
            if !is_interim && !self.check.status.contains(&status) {
                return Err(ProbeFailure::Backend(format!("status {status}")));
            }
            match end_of_head(bytes) {
                Some(length) if is_interim => {
                    *skipped += length;
                    bytes.drain(..length);
                }
                Some(length) => break (status, length),
                None if !is_full => return Ok(false),
                None if !is_interim && self.check.body.is_none() => return Ok(true),
                None => return too_long(),
            }
        };
        let Some(text) = self.check.body.as_ref().map(Redacted::reveal) else {
            return Ok(true);
        };

        let mut framing = match self.check.method == "HEAD" || matches!(status, 101 | 204 | 304) {
            true => Framing::Length(0),
            false => framing(&bytes[..length])?,
        };
        let mut search = Search { text, tail: Vec::new() };
        let mut budget = MAX_BODY;
        let started = bytes.split_off(length);
        if look(&mut framing, &mut search, &mut budget, &started)? {
            return Ok(true);
        }
        self.stage = ResponsePart::Body { framing, search, budget };
        // What did not fit into the head's limit any more.
        if beyond.is_empty() { Ok(false) } else { self.take(beyond) }
    }

    /// The connection was closed before the check has passed.
    fn end(&mut self) -> ProbeFailure {
        match &self.stage {
            ResponsePart::Body { search, .. } => return search.lacks(),
            ResponsePart::Head { bytes, skipped: 0 } if bytes.is_empty() => return ProbeFailure::no_answer(),
            ResponsePart::Head { .. } => {}
        }
        // The last line was not looked at yet, as it has no end.
        let partial = ProbeFailure::backend("closed in the middle of the answer's head");
        self.parse(&[]).err().unwrap_or(partial)
    }
}

/// The status of an answer whose first line is complete.
fn status(head: &[u8]) -> Result<Option<u16>, ProbeFailure> {
    const VERSION: &[u8] = b"HTTP/1.";
    let not_http = || ProbeFailure::backend("answer is not HTTP");
    // Empty lines before the first one are skipped, as most clients do.
    let head = head.trim_ascii_start();
    let known = head.len().min(VERSION.len());
    if head[..known] != VERSION[..known] {
        return Err(not_http());
    }
    let Some(line) = head.split_inclusive(|&byte| byte == b'\n').next().and_then(|line| line.strip_suffix(b"\n"))
    else {
        return Ok(None);
    };
    let mut words = line.strip_suffix(b"\r").unwrap_or(line).splitn(3, |&byte| byte == b' ');
    let version = words.next().and_then(|word| word.strip_prefix(VERSION));
    match (version, words.next()) {
        (Some([b'0'..=b'9']), Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'])) => {
            Ok(Some([a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))))
        }
        _ => Err(not_http()),
    }
}

/// How long the head is, with the empty line at its end.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    let mut began = false;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        length += line.len();
        let is_empty = matches!(line, b"\n" | b"\r\n");
        if is_empty && began {
            return Some(length);
        }
        began |= !is_empty;
    }
    None
}

/// How the body that follows a complete head ends (RFC 9112, section 6.3).
fn framing(head: &[u8]) -> Result<Framing, ProbeFailure> {
    let (mut chunked, mut length) = (false, None);
    for HeaderField { name, value } in fields(head)? {
        let members = || value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Chunked is the last coding when it is one at all.
            chunked = members().next_back().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        } else if name.eq_ignore_ascii_case(b"content-length") {
            for member in members() {
                let number = std::str::from_utf8(member).ok().and_then(|text| text.parse::<usize>().ok());
                if number.is_none() || length.is_some_and(|other| number != Some(other)) {
                    let value = super::failure::quoted(&value);
                    return Err(ProbeFailure::Backend(format!("Content-Length of the answer is {value}")));
                }
                length = number;
            }
        }
    }
    Ok(match length {
        // It wins over a length.
        _ if chunked => Framing::Chunked(ChunkPart::Size { size: 0, digits: 0 }),
        length => Framing::Length(length.unwrap_or(usize::MAX)),
    })
}

/// A header of the answer.
struct HeaderField<'a> {
    name: &'a [u8],
    value: Vec<u8>,
}

/// The headers after the first line, folded lines joined (RFC 9112, section 5.2).
fn fields(head: &[u8]) -> Result<Vec<HeaderField<'_>>, ProbeFailure> {
    let is_token = |&byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let mut fields: Vec<HeaderField<'_>> = Vec::new();
    for line in head.trim_ascii().split(|&byte| byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_printable = line.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t');
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
        let (name, value) = line.split_at(colon);
        match fields.last_mut() {
            Some(HeaderField { value: folded, .. }) if is_printable && matches!(line.first(), Some(b' ' | b'\t')) => {
                folded.push(b' ');
                folded.extend_from_slice(line.trim_ascii());
            }
            _ if is_printable && !name.is_empty() && name.iter().all(is_token) => {
                fields.push(HeaderField { name, value: value[1..].trim_ascii().to_vec() });
            }
            _ => {
                let line = super::failure::quoted(line);
                return Err(ProbeFailure::Backend(format!("answer has a malformed header: {line}")));
            }
        }
    }
    Ok(fields)
}

/// Looks for the text in what came of the body; true when it is there.
fn look(framing: &mut Framing, search: &mut Search<'_>, budget: &mut usize, part: &[u8]) -> Result<bool, ProbeFailure> {
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
        let ProbeFailure::Backend(lacks) = search.lacks() else {
            return Ok(false);
        };
        return Err(ProbeFailure::Backend(format!("{lacks} in its first 64 KiB")));
    }
    Ok(false)
}

/// Takes the framing of chunks away and searches the rest: whether the text was found, and whether the body has ended.
fn chunked(chunk: &mut ChunkPart, search: &mut Search<'_>, mut bytes: &[u8]) -> Result<(bool, bool), ProbeFailure> {
    let malformed = || ProbeFailure::backend("chunks of the body are malformed");
    while let Some((&byte, rest)) = bytes.split_first() {
        match chunk {
            ChunkPart::Data { left } => {
                let (data, rest) = bytes.split_at(bytes.len().min(*left));
                *left -= data.len();
                if search.push(data) {
                    return Ok((true, false));
                }
                if *left == 0 {
                    *chunk = ChunkPart::AfterData;
                }
                bytes = rest;
                continue;
            }
            ChunkPart::Size { size, digits } => match char::from(byte).to_digit(16) {
                Some(digit) if *digits < 8 => {
                    *size = *size * 16 + digit as usize;
                    *digits += 1;
                }
                None if *digits > 0 && b"; \t\r\n".contains(&byte) => {
                    *chunk = ChunkPart::Extension { size: *size };
                    continue; // with the same byte
                }
                _ => return Err(malformed()),
            },
            ChunkPart::Extension { size } => match (byte, *size) {
                (b'\n', 0) => return Ok((false, true)), // trailers are of no interest
                (b'\n', left) => *chunk = ChunkPart::Data { left },
                _ => {}
            },
            ChunkPart::AfterData => match byte {
                b'\r' => {}
                b'\n' => *chunk = ChunkPart::Size { size: 0, digits: 0 },
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

    fn lacks(&self) -> ProbeFailure {
        ProbeFailure::Backend(format!("body lacks {}", super::failure::quoted(self.text)))
    }
}

#[cfg(test)]
mod tests;
