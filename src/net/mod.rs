//! Addresses as types of their own, sockets that listen or connect, and the one home of `unsafe`.

pub mod addr;
pub mod dial;
pub mod errno;
pub mod interfaces;
pub mod listen;
pub mod name;
mod socket;
pub mod socket_file;
pub mod sys;
