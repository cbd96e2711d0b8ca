//! Responses of the admin interface and their bodies.

use std::convert::Infallible;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

/// A body: whole, or one event after the other.
pub(super) type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is known as a whole. Such a response also has it among its extensions, so that it can be sent twice.
#[derive(Clone, Debug)]
pub(super) struct FullBody(pub(super) Bytes);

impl FullBody {
    pub(super) fn into_body(self) -> ResponseBody {
        Full::new(self.0).boxed_unsync()
    }
}

/// A response with a whole body.
pub(super) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let body = FullBody(body.into());
    let mut response = Response::new(body.clone().into_body());
    response.extensions_mut().insert(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A response of one line.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    whole(status, "text/plain; charset=utf-8", text)
}
