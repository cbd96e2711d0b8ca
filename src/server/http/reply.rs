//! Responses of tidegate itself.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::client::UnderWay;
use super::response_body::HttpResponseBody;
use crate::stats::termination::Termination;

/// Why a request gets no response of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalReply {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) retry_after: Option<Duration>,
    /// Whether the connection cannot go on.
    pub(super) closes: bool,
}

impl LocalReply {
    pub(super) fn new(status: u16, reason: impl Into<String>) -> LocalReply {
        LocalReply { status, reason: reason.into(), retry_after: None, closes: false }
    }

    pub(super) fn retry_after(self, wait: Duration) -> LocalReply {
        LocalReply { retry_after: Some(wait), ..self }
    }

    fn json(&self) -> String {
        serde_json::json!({ "error": self.reason }).to_string()
    }

    /// For hyper to send; without a body to HEAD.
    pub(super) fn into_response(self, is_head: bool, under_way: UnderWay) -> Response<HttpResponseBody> {
        let json = if is_head { Bytes::new() } else { Bytes::from(self.json()) };
        let body = HttpResponseBody::own(json, under_way);
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The bytes of a response that ends a connection of HTTP/1.
    pub(super) fn to_last_bytes(&self) -> Vec<u8> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let (phrase, body) = (status.canonical_reason().unwrap_or("Error"), self.json());
        let length = body.len();
        format!(
            "HTTP/1.1 {} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}",
            self.status
        )
        .into_bytes()
    }
}

/// Rounded up, and at least one: a client that comes too early is refused again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Retry-After of a response that says no backend can take the request.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(1);

/// What becomes of a request that no backend has answered.
pub(super) enum Unanswered {
    /// tidegate answers.
    Reply(LocalReply, Termination),
    /// The connection, or the stream, is reset.
    Reset(Termination),
}

/// What an end of the request from outside means.
pub(super) fn aborted(ending: Termination) -> Unanswered {
    match ending {
        Termination::BackendDown => {
            Unanswered::Reply(LocalReply::new(502, "the backend has gone down"), Termination::BackendDown)
        }
        ending => Unanswered::Reset(ending),
    }
}

/// The answer to a request for which no backend was found.
pub(super) fn of_dial(ending: Termination) -> Unanswered {
    let answer = match ending {
        Termination::ConnectFailed => LocalReply::new(502, "no backend could be reached"),
        Termination::NoBackend => {
            LocalReply::new(503, "no backend can take the request now").retry_after(RETRY_AFTER_UNAVAILABLE)
        }
        Termination::QueueFull => {
            LocalReply::new(503, "too many requests wait for a backend").retry_after(RETRY_AFTER_UNAVAILABLE)
        }
        Termination::QueueTimeout => {
            LocalReply::new(503, "no backend could take the request in time").retry_after(RETRY_AFTER_UNAVAILABLE)
        }
        Termination::OutOfResources => LocalReply::new(503, "the load balancer has no resources left for the request")
            .retry_after(RETRY_AFTER_UNAVAILABLE),
        Termination::BackendDown => LocalReply::new(502, "the backend has gone down"),
        ending => return Unanswered::Reset(ending),
    };
    Unanswered::Reply(answer, ending)
}
