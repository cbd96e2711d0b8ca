//! HTTP/1.1 of the load: one kind of request, one kind of response, one at a time on a connection.

use std::io;

/// Eight fields, as a browser sends them for a page's data.
pub(crate) const REQUEST: &str = "GET /api/v2/orders/48213?fields=id,state,total HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json\r\n\
    Accept-Language: en-US,en;q=0.8,de;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://shop.example.com/orders\r\n\
    Cookie: session=6f1c0a94d3be4f7fa0c8e2b51d7790ac; theme=dark\r\n\
    Cache-Control: no-cache\r\n\r\n";

/// A head larger than any that a balancer makes of [`REQUEST`] or [`response`].
pub(crate) const MAX_HEAD: usize = 4 << 10;

/// A response with eight fields and a body of this length.
pub(crate) fn response(body: usize) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\n\
         Date: Sat, 28 Nov 2026 07:00:00 GMT\r\n\
         Server: compare\r\n\
         Content-Type: application/json\r\n\
         Content-Length: {body}\r\n\
         Cache-Control: private, max-age=0\r\n\
         ETag: \"5f2c-61a9b04c7e1d3\"\r\n\
         Vary: Accept-Encoding\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n"
    )
    .into_bytes();
    bytes.resize(bytes.len() + body, b'.');
    bytes
}

/// The fields of [`REQUEST`] by name and value, `Host` first.
pub(crate) fn request_fields() -> impl Iterator<Item = &'static str> {
    REQUEST.lines().skip(1).filter(|line| !line.is_empty())
}

/// The target of [`REQUEST`].
pub(crate) fn request_target() -> &'static str {
    REQUEST.split(' ').nth(1).unwrap_or("/")
}

/// The value of a field.
pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// A head that arrives.
#[derive(Default)]
pub(crate) struct Head {
    /// Empty, and without memory, unless a head comes in pieces.
    partial: Vec<u8>,
}

impl Head {
    /// Whether nothing of a head has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// Adds what was received. Once the head is complete, returns what is made of it and of the number of bytes
    /// that follow it.
    pub(crate) fn add<T>(
        &mut self,
        bytes: &[u8],
        complete: impl FnOnce(&[u8], usize) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        if self.partial.is_empty()
            && let Some(end) = end(bytes)
        {
            return complete(&bytes[..end], bytes.len() - end).map(Some);
        }
        self.partial.extend_from_slice(bytes);
        let Some(end) = end(&self.partial) else {
            let received = self.partial.len();
            return if received < MAX_HEAD { Ok(None) } else { wrong(format!("no end of a head in {received} bytes")) };
        };
        let completed = complete(&self.partial[..end], self.partial.len() - end);
        self.partial.clear();
        completed.map(Some)
    }
}

fn wrong<T>(what: String) -> io::Result<T> {
    Err(io::Error::other(what))
}

fn end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The response that a client reads.
#[derive(Default)]
pub(crate) struct ResponseReader {
    head: Head,
    /// Bytes of the body that are still to come.
    left: usize,
}

impl ResponseReader {
    /// Whether what comes next is body: its bytes need not be seen.
    pub(crate) fn in_body(&self) -> bool {
        self.left > 0
    }

    /// Adds this number of bytes of the body.
    pub(crate) fn add_body(&mut self, count: usize) -> io::Result<()> {
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => return wrong(format!("a client received {} bytes behind a response", count - self.left)),
        }
        Ok(())
    }

    /// Adds what was received of a response with a body of this length; returns how much of it is body.
    pub(crate) fn add(&mut self, bytes: &[u8], body: usize) -> io::Result<usize> {
        let completed = self.head.add(bytes, |head, rest| {
            let length = field(head, "content-length").and_then(|value| str::from_utf8(value).ok()?.parse().ok());
            if !head.starts_with(b"HTTP/1.1 200 ") || length != Some(body) {
                return wrong(format!("a client received {:?}", String::from_utf8_lossy(head)));
            }
            Ok(rest)
        })?;
        let Some(rest) = completed else { return Ok(0) };
        self.left = body;
        self.add_body(rest)?;
        Ok(rest)
    }
}
