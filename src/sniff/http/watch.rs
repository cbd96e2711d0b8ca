//! Requests and responses of a connection in passing.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::body::{BadChunk, Body};
use super::head::{self, RequestFraming, ResponseFraming};
use super::opaque::OpaqueReason;
use crate::stats::http::{Method, StatusClass};

/// Pipelined requests without a response, at most; with more, the connection turns opaque.
pub const MAX_OUTSTANDING: usize = 256;

/// Places for outstanding requests that a quiet connection keeps.
const KEPT_PLACES: usize = 4;

/// An event of a connection. Each request with a complete head ends as one of the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request got its response. Both times count from the end of the request's head; with pipelining they include the
    /// responses before it, as the client waits for these too. A response without a request (such as 408 on an idle
    /// connection) makes no event.
    Responded {
        /// The request's.
        method: Method,
        /// The response's.
        class: StatusClass,
        /// Until the first byte of the response; those of interim ones (1xx) before it do not count.
        first_byte: Duration,
        /// Until its last byte.
        took: Duration,
    },
    /// A request without a complete response, on a connection that ended or turned opaque.
    Unanswered,
    /// Messages from the client are no longer followed, nor those from the backend after the outstanding responses. At
    /// most once on a connection.
    Opaque(OpaqueReason),
}

impl From<BadChunk> for OpaqueReason {
    fn from(BadChunk: BadChunk) -> OpaqueReason {
        OpaqueReason::Chunk
    }
}

/// Watches one connection. While it is quiet, nothing of it is held.
///
/// The order of the calls is the order of what happened: a request is seen before it is passed on.
#[derive(Debug)]
pub struct Watcher {
    client: FromClient,
    backend: FromBackend,
    /// Those to which no final response has begun, oldest first.
    outstanding: VecDeque<WatchedRequest>,
}

/// What the client sends next.
#[derive(Debug)]
enum FromClient {
    /// A request's head, of which this has come.
    Head(Vec<u8>),
    Body(Body),
    /// Nothing: it has asked for a tunnel, and waits for the answer.
    Tunnel,
    Opaque,
}

/// What the backend sends next.
#[derive(Debug)]
enum FromBackend {
    /// A response's head, of which this has come.
    Head {
        kept: Vec<u8>,
        began: Option<Began>,
    },
    Body(Body, Option<Response>),
    /// Bytes that are not followed, or nothing more: the backend has finished.
    Opaque,
}

/// A request whose head was complete then.
#[derive(Clone, Copy, Debug)]
struct WatchedRequest {
    method: Method,
    since: Instant,
}

/// A response has begun.
#[derive(Clone, Copy, Debug)]
struct Began {
    at: Instant,
    /// What it answers.
    to: Option<WatchedRequest>,
}

/// A response whose head is known.
#[derive(Clone, Copy, Debug)]
struct Response {
    to: WatchedRequest,
    class: StatusClass,
    first_byte: Duration,
}

impl Response {
    fn ended(self, now: Instant) -> Event {
        let Response { to: WatchedRequest { method, since }, class, first_byte } = self;
        Event::Responded { method, class, first_byte, took: now.saturating_duration_since(since) }
    }
}

impl Default for Watcher {
    fn default() -> Watcher {
        Watcher { client: FromClient::Head(Vec::new()), backend: FromBackend::NEXT, outstanding: VecDeque::new() }
    }
}

impl FromBackend {
    const NEXT: FromBackend = FromBackend::Head { kept: Vec::new(), began: None };
}

impl Watcher {
    /// The client has sent these next.
    pub fn client_sent(&mut self, bytes: &[u8], now: Instant, out: &mut impl FnMut(Event)) {
        if let Err(why) = self.read_client(bytes, now) {
            out(Event::Opaque(why));
            self.client = FromClient::Opaque;
            self.settle();
        }
    }

    /// The backend has sent these next.
    pub fn backend_sent(&mut self, bytes: &[u8], now: Instant, out: &mut impl FnMut(Event)) {
        match self.read_backend(bytes, now, out) {
            Ok(()) => self.settle(),
            Err(why) => self.turn_opaque(why, out),
        }
    }

    /// How many bytes come next from the client of which none needs to be seen.
    pub fn unseen_from_client(&self) -> u64 {
        match self.client {
            FromClient::Head(_) | FromClient::Tunnel => 0,
            FromClient::Body(body) => body.unseen(),
            FromClient::Opaque => u64::MAX,
        }
    }

    /// How many bytes come next from the backend of which none needs to be seen.
    pub fn unseen_from_backend(&self) -> u64 {
        match self.backend {
            FromBackend::Head { .. } => 0,
            FromBackend::Body(body, _) => body.unseen(),
            FromBackend::Opaque => u64::MAX,
        }
    }

    /// Skips `count` bytes from the client, at most [`Watcher::unseen_from_client`].
    pub fn passed_from_client(&mut self, count: u64) {
        if let FromClient::Body(body) = &mut self.client
            && body.pass(count)
        {
            self.client = FromClient::Head(Vec::new());
        }
    }

    /// Skips `count` bytes from the backend, at most [`Watcher::unseen_from_backend`].
    pub fn passed_from_backend(&mut self, count: u64, now: Instant, out: &mut impl FnMut(Event)) {
        if let FromBackend::Body(body, response) = &mut self.backend
            && body.pass(count)
        {
            if let Some(response) = response {
                out(response.ended(now));
            }
            self.backend = FromBackend::NEXT;
            self.settle();
        }
    }

    /// The backend has finished: with it, a response that lasts until then.
    pub fn backend_finished(&mut self, now: Instant, out: &mut impl FnMut(Event)) {
        if let FromBackend::Body(Body::UntilClose, response) = self.backend {
            if let Some(response) = response {
                out(response.ended(now));
            }
            self.backend = FromBackend::Opaque;
        }
    }

    /// The connection has ended.
    pub fn ended(&mut self, out: &mut impl FnMut(Event)) {
        self.client = FromClient::Opaque;
        if let FromBackend::Body(_, Some(_)) = std::mem::replace(&mut self.backend, FromBackend::Opaque) {
            out(Event::Unanswered);
        }
        std::mem::take(&mut self.outstanding).into_iter().for_each(|_| out(Event::Unanswered));
    }

    fn read_client(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), OpaqueReason> {
        loop {
            match &mut self.client {
                FromClient::Head(kept) => {
                    skip_empty_lines(kept, &mut bytes);
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    let Some(RequestFraming { method, body }) = head::read(kept, &mut bytes, head::request)? else {
                        return Ok(());
                    };
                    if self.outstanding.len() >= MAX_OUTSTANDING {
                        return Err(OpaqueReason::Pipelined);
                    }
                    self.outstanding.push_back(WatchedRequest { method, since: now });
                    self.client = match body {
                        _ if method == Method::Connect => FromClient::Tunnel,
                        Some(body) => FromClient::Body(body),
                        None => FromClient::Head(Vec::new()),
                    };
                }
                FromClient::Body(body) => {
                    let Some(used) = body.read(bytes)? else { return Ok(()) };
                    bytes = bytes.get(used..).unwrap_or_default();
                    self.client = FromClient::Head(Vec::new());
                }
                // It does not wait: whether these are of the tunnel, only the answer would tell.
                FromClient::Tunnel if !bytes.is_empty() => return Err(OpaqueReason::Tunnel),
                FromClient::Tunnel | FromClient::Opaque => return Ok(()),
            }
        }
    }

    fn read_backend(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        out: &mut impl FnMut(Event),
    ) -> Result<(), OpaqueReason> {
        loop {
            match &mut self.backend {
                FromBackend::Head { kept, began } => {
                    skip_empty_lines(kept, &mut bytes);
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    // What begins before a request's head is complete, is no answer to that.
                    let Began { at, to } =
                        *began.get_or_insert_with(|| Began { at: now, to: self.outstanding.front().copied() });
                    let method = to.map(|request| request.method);
                    let parse = |bytes: &[u8]| head::response(bytes, method);
                    let Some(ResponseFraming { status, body }) = head::read(kept, &mut bytes, parse)? else {
                        return Ok(());
                    };
                    *began = None;
                    if (100..200).contains(&status) && status != 101 {
                        continue;
                    }
                    if to.is_some() {
                        self.outstanding.pop_front();
                    }
                    let first_byte = |request: WatchedRequest| at.saturating_duration_since(request.since);
                    // What is in no class is to be taken for 5xx (RFC 9110, 15).
                    let class = StatusClass::of(status).unwrap_or(StatusClass::ServerError);
                    let response = to.map(|to| Response { to, class, first_byte: first_byte(to) });
                    if let Some(body) = body {
                        self.backend = FromBackend::Body(body, response);
                    } else if let Some(response) = response {
                        out(response.ended(now));
                    }
                    match (status, method) {
                        (101, _) => return Err(OpaqueReason::Upgraded),
                        (200..300, Some(Method::Connect)) => return Err(OpaqueReason::Tunnel),
                        // It was refused, and the client goes on as before.
                        (_, Some(Method::Connect)) if matches!(self.client, FromClient::Tunnel) => {
                            self.client = FromClient::Head(Vec::new());
                        }
                        _ => {}
                    }
                }
                FromBackend::Body(body, response) => {
                    let Some(used) = body.read(bytes)? else { return Ok(()) };
                    bytes = bytes.get(used..).unwrap_or_default();
                    if let Some(response) = response {
                        out(response.ended(now));
                    }
                    self.backend = FromBackend::NEXT;
                }
                FromBackend::Opaque => return Ok(()),
            }
        }
    }

    /// Gives up both directions.
    fn turn_opaque(&mut self, why: OpaqueReason, out: &mut impl FnMut(Event)) {
        if !matches!(self.client, FromClient::Opaque) {
            out(Event::Opaque(why));
        }
        self.ended(out);
    }

    /// After a response: gives back the room of many requests, and of what no request is known to, looks at no response.
    fn settle(&mut self) {
        if !self.outstanding.is_empty() {
            return;
        }
        if self.outstanding.capacity() > KEPT_PLACES {
            self.outstanding = VecDeque::new();
        }
        if matches!((&self.client, &self.backend), (FromClient::Opaque, FromBackend::Head { began: None, .. })) {
            self.backend = FromBackend::Opaque;
        }
    }
}

/// Empty lines may come before a request (RFC 9112, 2.2), and do come before responses.
fn skip_empty_lines(kept: &[u8], bytes: &mut &[u8]) {
    if kept.is_empty() {
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        *bytes = bytes.get(start..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
