//! The room as its users see it: files in, handshakes out.

mod client_hello;
mod faults;
mod handshakes;
mod reloads;
mod resumption;
