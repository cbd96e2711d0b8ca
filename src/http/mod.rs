//! HTTP/1 and HTTP/2 as a proxy must treat them: what is refused, and which fields pass. Pure.

pub mod forward;
pub mod gate;
pub mod request;
