//! Addresses as types of their own, socket options, and the one unsafe system call.

pub mod addr;
