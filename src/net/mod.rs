//! Addresses as types of their own, sets of networks, countries, protocols, sockets that listen or connect, and the one home of `unsafe`.

pub mod addr;
pub mod country;
pub mod datagrams;
pub mod dial;
pub mod errno;
pub mod inherited;
pub mod interfaces;
pub mod listen;
pub mod memory_file;
pub mod name;
pub mod networks;
pub mod passing;
pub mod protocol;
mod socket;
pub mod socket_file;
pub mod sys;
