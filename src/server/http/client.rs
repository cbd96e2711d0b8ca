//! The client's side of `protocol: http`: its bytes on their way into hyper, and what its requests share.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::rt::{Read, ReadBufCursor, Write};

use super::super::connection::ConnectionState;
use super::super::transport::ClientConn;
use super::super::worker_state::WorkerState;
use super::tunnel::Tunnel;
use crate::http::gate::{RequestGate, Violation};
use crate::relay::Stream;
use crate::worker::{self, with_waker};

/// Bytes read at a time.
const PORTION: usize = 16 * 1024;

thread_local! {
    /// Where bytes are looked at before hyper has them: its own buffer is not initialised, and takes copies only.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PORTION].into());
}

/// A client's connection. hyper and the requests on it share it.
pub(super) struct HttpClient {
    pub(super) conn: ClientConn,
    pub(super) connection: Rc<ConnectionState>,
    pub(super) state: Rc<WorkerState>,
    /// Whether TLS ends here.
    pub(super) is_tls: bool,
    /// Whether requests are streams of one connection (HTTP/2), each with a task of its own.
    pub(super) is_http2: bool,
    /// Bytes that were read before hyper was there.
    ahead: RefCell<Vec<u8>>,
    /// HTTP/1: what may pass.
    gate: RefCell<RequestGate>,
    violation: Cell<Option<Violation>>,
    has_finished: Cell<bool>,
    /// Whether hyper has bytes for the client that the socket had no room for.
    is_writing: Cell<bool>,
    /// Interim responses that the socket had no room for.
    interim: RefCell<Vec<u8>>,
    under_way: Cell<u32>,
    /// Whether a response has begun and is not whole.
    is_responding: Cell<bool>,
    /// When the last request ended, or the connection began.
    idle_since: Cell<Instant>,
    /// When the first byte of the present head came.
    head_since: Cell<Option<Instant>>,
    /// A backend that has switched protocols, for the session to relay.
    tunnel: RefCell<Option<Tunnel>>,
}

impl HttpClient {
    pub(super) fn new(
        conn: ClientConn,
        connection: &Rc<ConnectionState>,
        state: &Rc<WorkerState>,
        ahead: Vec<u8>,
        is_http2: bool,
        max_head: u32,
    ) -> HttpClient {
        HttpClient {
            is_tls: matches!(conn, ClientConn::Tls(_)),
            conn,
            connection: Rc::clone(connection),
            state: Rc::clone(state),
            is_http2,
            ahead: RefCell::new(ahead),
            gate: RefCell::new(RequestGate::new(max_head)),
            violation: Cell::default(),
            has_finished: Cell::default(),
            is_writing: Cell::default(),
            interim: RefCell::default(),
            under_way: Cell::default(),
            is_responding: Cell::default(),
            idle_since: Cell::new(worker::now()),
            head_since: Cell::default(),
            tunnel: RefCell::default(),
        }
    }

    /// What is wrong with the bytes after the last request.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }

    /// Whether the client has sent FIN.
    pub(super) fn has_finished(&self) -> bool {
        self.has_finished.get()
    }

    /// Whether no request is under way, and the socket has all responses.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.get() == 0 && !self.is_writing.get()
    }

    /// Whether the client has not acknowledged all that was sent.
    pub(super) fn is_sending(&self) -> bool {
        self.conn.unacknowledged() > 0
    }

    /// Whether nothing has moved for `timeouts.idle`.
    pub(super) fn is_stalled(&self) -> bool {
        let idle = self.connection.listener.config().timeouts.idle;
        idle.is_some_and(|idle| worker::now().saturating_duration_since(self.connection.last_moved()) >= idle)
    }

    /// Restarts the wait for the next request.
    pub(super) fn restart_idle(&self) {
        self.idle_since.set(worker::now());
    }

    /// Whether the client has a part of a response (HTTP/1).
    pub(super) fn is_responding(&self) -> bool {
        self.is_responding.get()
    }

    pub(super) fn responds(&self, responds: bool) {
        self.is_responding.set(responds);
    }

    /// When the last request ended, or the connection began.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }

    /// When the first byte of an incomplete head came.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// Whether a head has come whole.
    pub(super) fn has_requested(&self) -> bool {
        self.is_http2 || self.gate.borrow().heads() > 0
    }

    /// A backend has switched protocols in answer to a request.
    pub(super) fn switch(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(tunnel));
    }

    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    /// The connection alone, once nothing else has it.
    pub(super) fn into_conn(self) -> ClientConn {
        self.conn
    }

    fn poll_read(&self, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.violation.get().is_some() || self.has_finished.get() || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let ahead = std::mem::take(&mut *self.ahead.borrow_mut());
        if !ahead.is_empty() {
            let (now, later) = ahead.split_at(ahead.len().min(buf.remaining()));
            *self.ahead.borrow_mut() = later.to_vec();
            self.admit(now, &mut buf);
            return Poll::Ready(Ok(()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let room = scratch.len().min(buf.remaining());
            let portion = scratch.get_mut(..room).unwrap_or_default();
            let count = ready!(self.conn.poll_read(portion))?;
            if count == 0 {
                self.has_finished.set(true);
            }
            self.admit(portion.get(..count).unwrap_or_default(), &mut buf);
            Poll::Ready(Ok(()))
        })
    }

    /// Gives hyper the bytes that may pass.
    fn admit(&self, bytes: &[u8], buf: &mut ReadBufCursor<'_>) {
        let passes = if self.is_http2 { bytes } else { self.screen(bytes) };
        buf.put_slice(passes);
        let (moved_in, moved_out) = (self.connection.bytes_in(), self.connection.bytes_out());
        let count = bytes.len() as u64;
        self.connection.moved(moved_in + count, moved_out, worker::now());
        self.connection.listener.traffic().add(self.state.worker, count, 0);
    }

    fn screen<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let mut gate = self.gate.borrow_mut();
        let heads = gate.heads();
        let passes = match gate.take(bytes) {
            Ok(()) => bytes,
            Err(refused) => {
                self.violation.set(Some(refused.why));
                bytes.get(..refused.passes).unwrap_or_default()
            }
        };
        if !gate.is_in_head() {
            self.head_since.set(None);
        } else if self.head_since.get().is_none() || gate.heads() > heads {
            self.head_since.set(Some(worker::now()));
        }
        passes
    }

    /// Forwards interim responses, unless a part of the response before still waits for room: they may be lost, and must not be
    /// mixed.
    pub(super) fn send_interim(&self, heads: Vec<u8>) {
        if self.is_writing.get() {
            return;
        }
        self.interim.borrow_mut().extend(heads);
        if self.interim.borrow().is_empty() {
            return;
        }
        // What fails or waits here does so again at the next write.
        if self.poll_interim().is_ready() {
            let _ = self.conn.poll_flush();
        }
    }

    fn poll_interim(&self) -> Poll<io::Result<()>> {
        let mut interim = self.interim.borrow_mut();
        while !interim.is_empty() {
            let count = ready!(self.write(&interim))?;
            interim.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim())?;
        let written = self.write(bytes);
        if self.is_writing.get() {
            self.restart_idle();
        }
        self.is_writing.set(!matches!(written, Poll::Ready(Ok(count)) if count == bytes.len()));
        written
    }

    fn write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.conn.poll_write(bytes))?;
        let (moved_in, moved_out) = (self.connection.bytes_in(), self.connection.bytes_out());
        self.connection.moved(moved_in, moved_out + count as u64, worker::now());
        self.connection.listener.traffic().add(self.state.worker, 0, count as u64);
        Poll::Ready(Ok(count))
    }
}

/// Counts a request from its head to the end of its response.
pub(super) struct UnderWay(Rc<HttpClient>);

impl UnderWay {
    pub(super) fn new(client: &Rc<HttpClient>) -> UnderWay {
        client.under_way.set(client.under_way.get() + 1);
        client.connection.listener.requests().begin(client.state.worker);
        UnderWay(Rc::clone(client))
    }

    pub(super) fn client(&self) -> &Rc<HttpClient> {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
        self.0.connection.listener.requests().end(self.0.state.worker);
        self.0.idle_since.set(worker::now());
    }
}

/// The client's connection as hyper sees it.
pub(super) struct ClientIo(pub(super) Rc<HttpClient>);

impl Read for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        with_waker(cx, |_| self.0.poll_read(buf))
    }
}

impl Write for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_waker(cx, |_| self.0.poll_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_waker(cx, |_| self.0.conn.poll_flush())
    }

    /// FIN is left to who closes the connection: an answer may come before it. hyper asks for it while it still has bytes for
    /// the client: the end waits for them.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.is_writing.get() {
            true => Poll::Pending,
            false => self.poll_flush(cx),
        }
    }
}
