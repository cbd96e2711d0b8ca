//! Bodies on their way through: nothing of them is held but what hyper has read.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::super::connection::ConnectionState;
use super::client::UnderWay;
use super::link::HttpLink;
use super::record::RequestRecord;
use crate::stats::termination::{Side, Termination};
use crate::worker::{self, Timer, with_waker};

/// Time that a client which expects 100 (Continue) waits for a backend that says nothing.
const CONTINUE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// A client's request body on its way to a backend.
pub(super) struct RequestBody {
    /// `None` is empty.
    incoming: Option<Incoming>,
    connection: Option<Rc<ConnectionState>>,
    hold: Option<Hold>,
}

/// A body that waits until the backend asks for it.
struct Hold {
    is_wanted: Arc<AtomicBool>,
    until: std::time::Instant,
    timer: Timer,
}

impl RequestBody {
    pub(super) fn empty() -> RequestBody {
        RequestBody { incoming: None, connection: None, hold: None }
    }

    pub(super) fn of(incoming: Incoming, connection: &Rc<ConnectionState>) -> RequestBody {
        match incoming.is_end_stream() {
            true => RequestBody::empty(),
            false => RequestBody { incoming: Some(incoming), connection: Some(Rc::clone(connection)), hold: None },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    /// Holds the body back until the cell is set, or the backend has been silent for [`CONTINUE_TIMEOUT`].
    pub(super) fn hold(&mut self, is_wanted: Arc<AtomicBool>) {
        self.hold = Some(Hold { is_wanted, until: worker::now() + CONTINUE_TIMEOUT, timer: Timer::default() });
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = &mut *self;
        let Some(incoming) = &mut body.incoming else { return Poll::Ready(None) };
        if let Some(hold) = &mut body.hold {
            if !hold.is_wanted.load(Ordering::Relaxed) {
                ready!(with_waker(cx, |_| hold.timer.poll_expired(hold.until)));
            }
            body.hold = None;
        }
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if let (Some(Ok(frame)), Some(connection)) = (&frame, &body.connection)
            && let Some(data) = frame.data_ref()
        {
            let (moved_in, moved_out) = (connection.bytes_in(), connection.bytes_out());
            connection.moved(moved_in + data.len() as u64, moved_out, worker::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// The body of a response to a client.
pub(super) enum ResponseBody {
    /// Of tidegate itself.
    Own(Option<Bytes>, #[allow(dead_code, reason = "counts the request until its response is sent")] UnderWay),
    Forwarded(Box<ForwardedBody>),
}

/// A backend's response body on its way to the client.
pub(super) struct ForwardedBody {
    incoming: Incoming,
    /// The connection that it comes from, which nothing else polls. `None` once it is kept for others.
    link: Option<HttpLink>,
    record: RequestRecord,
    under_way: UnderWay,
}

/// A response that cannot be completed.
pub(super) type ForwardError = Box<dyn std::error::Error + Send + Sync>;

impl ForwardedBody {
    pub(super) fn new(incoming: Incoming, link: HttpLink, record: RequestRecord, under_way: UnderWay) -> ResponseBody {
        ResponseBody::Forwarded(Box::new(ForwardedBody { incoming, link: Some(link), record, under_way }))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        if let Some(abort) = self.record.aborted() {
            self.record.ending = abort.into();
            return Poll::Ready(Some(Err("the request was ended".into())));
        }
        if let Some(link) = &mut self.link {
            link.drive(cx);
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.record.sent(data.len() as u64);
                }
            }
            Some(Err(_)) => self.record.ending = Termination::Reset(Side::Backend),
            None => self.record.is_whole = true,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl Drop for ForwardedBody {
    /// The connection is kept only after a response that came whole.
    fn drop(&mut self) {
        if !self.record.is_whole && self.incoming.is_end_stream() {
            self.record.is_whole = true;
        }
        self.under_way.client().responds(!self.record.is_whole);
        if let (true, Some(mut link)) = (self.record.is_whole, self.link.take()) {
            super::kept::settle(&mut link);
            if let Some(backend) = self.record.backend() {
                self.under_way.client().state.kept_links.keep(&backend, link);
            }
        }
    }
}

impl ResponseBody {
    pub(super) fn own(bytes: Bytes, under_way: UnderWay) -> ResponseBody {
        ResponseBody::Own(Some(bytes).filter(|bytes| !bytes.is_empty()), under_way)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        match &mut *self {
            ResponseBody::Own(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ResponseBody::Forwarded(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Own(bytes, _) => bytes.is_none(),
            ResponseBody::Forwarded(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Own(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            ResponseBody::Forwarded(body) => body.incoming.size_hint(),
        }
    }
}
