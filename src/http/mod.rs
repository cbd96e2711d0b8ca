//! Rules of `protocol: http`: which requests are let in, and which fields are forwarded.
//!
//! Pure functions over bytes and header fields. hyper parses; what it repairs in silence, [`gate`] refuses before.

#![forbid(unsafe_code)]

pub mod forward;
pub mod gate;
pub mod request;
pub mod response;
pub mod target;
