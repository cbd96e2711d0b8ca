//! TLS.
pub mod stream;
