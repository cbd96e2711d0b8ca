//! The protocol of MySQL and MariaDB ("Client/Server Protocol" of MySQL's internals), as far as a login goes: packets, methods of
//! authentication, and the login of a client whose TLS ends here. Pure.

#![forbid(unsafe_code)]

pub mod auth;
pub mod login;
pub mod method;
pub mod packet;
