//! Answers to requests that are not served.

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::guard::Denied;
use super::slots::ConnectionKind;
use crate::admin::changes;
use crate::admin::response::{FullBody, ResponseBody, plain, whole};

/// Seconds after which a client that is turned away may try again.
const RETRY_AFTER: &str = "1";

/// Why a request gets no answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    Denied(Denied),
    Method,
    NotFound,
    /// No answer can be made in time.
    Busy,
    /// As many event streams as there may be are open.
    Streams,
    /// A body that is too large, or does not come.
    Body,
    /// A large body, while another one is carried out.
    LargeBodies,
}

impl From<Denied> for Rejection {
    fn from(denied: Denied) -> Rejection {
        Rejection::Denied(denied)
    }
}

impl Rejection {
    /// As changes are refused: a client of these reads problems.
    pub(super) fn problem(self) -> Response<ResponseBody> {
        let mut plain = self.response();
        let text = plain.extensions_mut().remove::<FullBody>().map(|body| body.0).unwrap_or_default();
        let mut response = changes::problem(plain.status(), String::from_utf8_lossy(&text).trim_end(), None);
        for name in [header::WWW_AUTHENTICATE, header::ALLOW, header::RETRY_AFTER] {
            if let Some(value) = plain.headers_mut().remove(&name) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    pub(super) fn response(self) -> Response<ResponseBody> {
        let (status, text) = match self {
            Rejection::Denied(Denied::Token) => {
                (StatusCode::UNAUTHORIZED, "send the token of admin.token_file: Authorization: Bearer ...\n")
            }
            Rejection::Denied(Denied::Host) => (
                StatusCode::FORBIDDEN,
                "the stats port is asked for by a name that is not this machine's: use its address or localhost\n",
            ),
            Rejection::Denied(Denied::Origin) => {
                (StatusCode::FORBIDDEN, "pages of other sites may not read the stats port: open it by itself\n")
            }
            Rejection::Denied(Denied::ReadOnly) => (
                StatusCode::FORBIDDEN,
                "changes over TCP require admin.token_file; a unix socket in admin.bind requires none\n",
            ),
            Rejection::Body => {
                (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 16 MiB, or did not come within 4 s\n")
            }
            Rejection::LargeBodies => (
                StatusCode::SERVICE_UNAVAILABLE,
                "another large change is under way: try again in a second; those up to 256 KiB are not held up\n",
            ),
            Rejection::Method => (StatusCode::METHOD_NOT_ALLOWED, "this page is read-only: GET and HEAD\n"),
            Rejection::NotFound => (StatusCode::NOT_FOUND, "there is no such page\n"),
            Rejection::Busy => (StatusCode::SERVICE_UNAVAILABLE, "the stats port is busy: try again in a second\n"),
            Rejection::Streams => {
                let text = format!(
                    "{} dashboards are open, which is the limit: close one of them\n",
                    ConnectionKind::Stream.limit()
                );
                return with_header(
                    whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", text),
                    header::RETRY_AFTER,
                    RETRY_AFTER,
                );
            }
        };
        let response = plain(status, text);
        match self {
            Rejection::Denied(Denied::Token) => with_header(response, header::WWW_AUTHENTICATE, "Bearer"),
            Rejection::Method => with_header(response, header::ALLOW, "GET, HEAD"),
            Rejection::Busy | Rejection::LargeBodies => with_header(response, header::RETRY_AFTER, RETRY_AFTER),
            _ => response,
        }
    }
}

fn with_header(mut response: Response<ResponseBody>, name: HeaderName, value: &'static str) -> Response<ResponseBody> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
