//! A request's body on its way to a backend: nothing of it is held but what hyper has read.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::super::connection::ConnectionState;
use super::interim::Interim;
use crate::worker::{self, Timer, with_waker};

/// Time that a client which expects 100 (Continue) waits for a backend that says nothing.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client's request body on its way to a backend.
pub(super) struct RequestBody {
    /// `None` is empty.
    incoming: Option<Incoming>,
    connection: Option<Rc<ConnectionState>>,
    hold: Option<Hold>,
    /// Whether the client is late: it was asked for more, and has sent none. `None` without a body.
    is_awaited: Option<Rc<Cell<bool>>>,
}

/// A body that waits until the backend asks for it.
struct Hold {
    interim: Arc<Interim>,
    until: Instant,
    timer: Timer,
}

impl RequestBody {
    pub(super) fn empty() -> RequestBody {
        RequestBody { incoming: None, connection: None, hold: None, is_awaited: None }
    }

    pub(super) fn of(incoming: Incoming, connection: &Rc<ConnectionState>) -> RequestBody {
        match incoming.is_end_stream() {
            true => RequestBody::empty(),
            false => RequestBody {
                incoming: Some(incoming),
                connection: Some(Rc::clone(connection)),
                hold: None,
                is_awaited: Some(Rc::default()),
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    /// Tells whether the client is late with it, now and later.
    pub(super) fn is_awaited(&self) -> Option<Rc<Cell<bool>>> {
        self.is_awaited.clone()
    }

    /// Holds the body back until the backend asks for it, or has been silent for [`CONTINUE_TIMEOUT`]. hyper asks the client when
    /// the body is first read.
    pub(super) fn hold(&mut self, interim: Arc<Interim>) {
        self.hold = Some(Hold { interim, until: worker::now() + CONTINUE_TIMEOUT, timer: Timer::default() });
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = &mut *self;
        let Some(incoming) = &mut body.incoming else { return Poll::Ready(None) };
        if let Some(hold) = &mut body.hold {
            if !hold.interim.wants_body() {
                ready!(with_waker(cx, |_| hold.timer.poll_expired(hold.until)));
            }
            body.hold = None;
        }
        let frame = Pin::new(incoming).poll_frame(cx);
        body.is_awaited.iter().for_each(|it| it.set(frame.is_pending()));
        let frame = ready!(frame);
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
