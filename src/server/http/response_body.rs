//! A response's body on its way to the client: nothing of it is held but what hyper has read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::client::UnderWay;
use super::kept::KeptLinks;
use super::link::HttpLink;
use super::record::RequestRecord;
use crate::stats::termination::{Side, Termination};

/// The body of a response to a client.
pub(super) enum HttpResponseBody {
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
    has_trailers: bool,
}

/// A response that cannot be completed.
pub(super) type ForwardError = Box<dyn std::error::Error + Send + Sync>;

impl ForwardedBody {
    pub(super) fn forwarded(
        incoming: Incoming,
        link: HttpLink,
        record: RequestRecord,
        under_way: UnderWay,
    ) -> HttpResponseBody {
        let link = Some(link);
        HttpResponseBody::Forwarded(Box::new(ForwardedBody { incoming, link, record, under_way, has_trailers: false }))
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
                self.has_trailers |= frame.is_trailers();
            }
            Some(Err(_)) => self.record.ending = Termination::Reset(Side::Backend),
            None if self.is_cut() => {
                self.record.ending = Termination::Reset(Side::Backend);
                return Poll::Ready(Some(Err("the backend has reset the stream".into())));
            }
            None => self.record.is_whole = true,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl ForwardedBody {
    /// hyper takes RST_STREAM with NO_ERROR for the end of a body, also where END_STREAM was not there (RFC 9113, 8.1).
    fn is_cut(&self) -> bool {
        matches!(self.link, Some(HttpLink::Http2(_)))
            && !self.incoming.is_end_stream()
            && !self.has_trailers
            && self.incoming.size_hint().exact() != Some(0)
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
            link.settle();
            if let Some(backend) = self.record.backend() {
                KeptLinks::keep(&self.record.pool, &backend, link);
            }
        }
    }
}

impl HttpResponseBody {
    pub(super) fn own(bytes: Bytes, under_way: UnderWay) -> HttpResponseBody {
        HttpResponseBody::Own(Some(bytes).filter(|bytes| !bytes.is_empty()), under_way)
    }
}

impl Body for HttpResponseBody {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        match &mut *self {
            HttpResponseBody::Own(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            HttpResponseBody::Forwarded(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            HttpResponseBody::Own(bytes, _) => bytes.is_none(),
            HttpResponseBody::Forwarded(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            HttpResponseBody::Own(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            HttpResponseBody::Forwarded(body) => body.incoming.size_hint(),
        }
    }
}
