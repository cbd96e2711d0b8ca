//! A connection to a backend that takes requests.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::{Request, Response};

use super::super::transport::BackendConn;
use super::request_body::RequestBody;
use crate::config::model::HttpVersion;
use crate::pool::Backend;
use crate::relay::Stream;
use crate::worker::{self, poll_fn, with_waker};

/// Bytes read at a time.
const PORTION: usize = 32 * 1024;

/// Bytes of a stream that wait to be read: the default of RFC 9113, 6.9.2. The window of a connection has room for those of all
/// streams: one that is not read holds back no other.
pub(super) const STREAM_WINDOW: u32 = 65_535;

/// The largest window of a connection (RFC 9113, 6.9.1). Streams bound what waits.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Bytes of a response's head, and of what is buffered of a body.
const MAX_BUFFER: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PORTION].into());
}

/// A connection to a backend, between or under requests.
pub(super) enum HttpLink {
    Http1(Box<Http1Link>),
    Http2(Http2Link),
}

/// HTTP/1.1: one request at a time. The task of the request polls the connection too: no other task is between the two sockets.
pub(super) struct Http1Link {
    sender: http1::SendRequest<RequestBody>,
    conn: http1::Connection<BackendIo, RequestBody>,
    has_ended: bool,
    socket: Rc<BackendSocket>,
    /// When the last request on it ended.
    used: Instant,
}

/// HTTP/2: a handle on the connection, which has a task of its own.
#[derive(Clone)]
pub(super) struct Http2Link {
    sender: http2::SendRequest<RequestBody>,
    /// When the last request on it ended. Each handle shares it: with one handle left, no request is under way.
    used: Rc<Cell<Instant>>,
}

/// A request that got no response.
pub(super) struct SendFailed {
    pub(super) error: hyper::Error,
    /// The request, where nothing of it was sent.
    pub(super) request: Option<Request<RequestBody>>,
}

/// The socket, and where its bytes are counted.
pub(super) struct BackendSocket {
    conn: BackendConn,
    backend: Arc<Backend>,
    worker: usize,
}

impl HttpLink {
    /// Begins HTTP on a new connection.
    pub(super) async fn begin(
        version: HttpVersion,
        conn: BackendConn,
        backend: &Arc<Backend>,
        worker: usize,
    ) -> Result<HttpLink, hyper::Error> {
        let socket = Rc::new(BackendSocket { conn, backend: Arc::clone(backend), worker });
        let io = BackendIo(Rc::clone(&socket));
        match version {
            HttpVersion::Http1 => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(MAX_BUFFER);
                let (sender, conn) = builder.handshake(io).await?;
                let used = worker::now();
                Ok(HttpLink::Http1(Box::new(Http1Link { sender, conn, has_ended: false, socket, used })))
            }
            HttpVersion::Http2 => {
                let mut builder = http2::Builder::new(WorkerExecutor);
                builder
                    .max_header_list_size(MAX_BUFFER as u32)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW);
                let (sender, conn) = builder.handshake(io).await?;
                worker::spawn(async move {
                    let _ = conn.await;
                });
                Ok(HttpLink::Http2(Http2Link { sender, used: Rc::new(Cell::new(worker::now())) }))
            }
        }
    }

    /// Sends a request. Returns the head of the response.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendFailed> {
        match self {
            HttpLink::Http1(link) => {
                let mut sending = std::pin::pin!(link.sender.try_send_request(request));
                let (conn, has_ended) = (&mut link.conn, &mut link.has_ended);
                poll_fn(|cx| {
                    if !*has_ended {
                        *has_ended = conn.poll_without_shutdown(cx).is_ready();
                    }
                    sending.as_mut().poll(cx).map_err(failed)
                })
                .await
            }
            HttpLink::Http2(link) => link.sender.try_send_request(request).await.map_err(failed),
        }
    }

    /// Moves what there is to move.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let HttpLink::Http1(link) = self
            && !link.has_ended
        {
            link.has_ended = with_waker(cx, |cx| link.conn.poll_without_shutdown(cx).is_ready());
        }
    }

    /// Polls it once, so that hyper sees that the last response is whole.
    pub(super) fn settle(&mut self) {
        self.drive(&mut Context::from_waker(std::task::Waker::noop()));
    }

    /// A request on it has ended.
    pub(super) fn touch(&mut self) {
        match self {
            HttpLink::Http1(link) => link.used = worker::now(),
            HttpLink::Http2(link) => link.used.set(worker::now()),
        }
    }

    /// Since when a kept link has no request; `None` while others have handles on it.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self {
            HttpLink::Http1(link) => Some(link.used),
            HttpLink::Http2(link) => (Rc::strong_count(&link.used) == 1).then(|| link.used.get()),
        }
    }

    /// Whether HTTP has ended on it.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            HttpLink::Http1(link) => link.has_ended,
            HttpLink::Http2(link) => link.sender.is_closed(),
        }
    }

    /// Whether it can take the next request.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            HttpLink::Http1(link) => !link.has_ended && link.sender.is_ready() && !link.socket.is_finished(),
            HttpLink::Http2(link) => !link.sender.is_closed(),
        }
    }

    /// The socket, and what was read of it beyond the response, after a switch of protocols.
    pub(super) fn into_socket(self) -> Option<(BackendConn, Vec<u8>)> {
        let HttpLink::Http1(link) = self else { return None };
        let Http1Link { conn, socket, sender, .. } = *link;
        let parts = conn.into_parts();
        drop((parts.io, sender));
        let socket = Rc::into_inner(socket)?;
        Some((socket.conn, parts.read_buf.to_vec()))
    }
}

fn failed(mut error: TrySendError<Request<RequestBody>>) -> SendFailed {
    let request = error.take_message();
    SendFailed { error: error.into_error(), request }
}

impl BackendSocket {
    /// Whether the backend has closed it.
    fn is_finished(&self) -> bool {
        self.conn.poll_finished().is_ready()
    }

    fn poll_read(&self, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let room = scratch.len().min(buf.remaining());
            let portion = scratch.get_mut(..room).unwrap_or_default();
            let count = ready!(self.conn.poll_read(portion))?;
            if count == 0 && self.conn.is_truncated() {
                // Without close_notify, the end may be anybody's (RFC 9112, 9.8).
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            buf.put_slice(portion.get(..count).unwrap_or_default());
            self.backend.traffic().add(self.worker, 0, count as u64);
            Poll::Ready(Ok(()))
        })
    }

    fn poll_write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.conn.poll_write(bytes))?;
        self.backend.traffic().add(self.worker, count as u64, 0);
        Poll::Ready(Ok(count))
    }
}

/// A backend's connection as hyper sees it.
pub(super) struct BackendIo(Rc<BackendSocket>);

impl Read for BackendIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        with_waker(cx, |_| self.0.poll_read(buf))
    }
}

impl Write for BackendIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_waker(cx, |_| self.0.poll_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_waker(cx, |_| self.0.conn.poll_flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_waker(cx, |_| self.0.conn.poll_shutdown(false))
    }
}

/// Runs hyper's tasks on this worker.
#[derive(Clone, Copy)]
pub(super) struct WorkerExecutor;

impl<F: Future<Output = ()> + 'static> Executor<F> for WorkerExecutor {
    fn execute(&self, task: F) {
        worker::spawn(task);
    }
}
