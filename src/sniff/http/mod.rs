//! HTTP/1.x (RFC 9110 and 9112): a connection's first request, for routes, and all of its requests and responses as
//! they go by, for what they took.

#![forbid(unsafe_code)]

mod body;
mod head;
mod limits;
mod opaque;
mod request;
mod watch;

pub use limits::LIMIT;
pub use opaque::Why;
pub use request::{NotHttp, RequestHead, looks_like_http, recognise};
pub use watch::{Event, MAX_OUTSTANDING, Watcher};
