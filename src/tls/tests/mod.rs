//! The room as its users see it: files in, handshakes out.

mod faults;
mod handshakes;
mod reloads;
mod resumption;
