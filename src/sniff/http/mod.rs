//! HTTP/1.x (RFC 9110 and 9112): the head of a connection's first request, for routes; and all requests and
//! responses in passing, to count and time them.

#![forbid(unsafe_code)]

mod body;
mod head;
mod limits;
mod opaque;
mod request;
mod watch;

pub use limits::MAX_HEAD;
pub use opaque::OpaqueReason;
pub use request::{NotHttp, RequestHead, host, looks_like_http, recognise, recognise_request_line};
pub use watch::{Event, MAX_OUTSTANDING, Watcher};
