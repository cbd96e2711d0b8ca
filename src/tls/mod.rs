//! TLS on both sides: certificates and authorities from files, what rustls is told to do with them, and their
//! replacement while connections go on.
//!
//! A file's content is read once and judged whole ([`certificate`](Certificate), `authorities`): what cannot be used
//! is never in service. Dates alone do not keep a certificate from it at the start, with a warning; what replaces one
//! in service must be valid. [`ServerTls`] is what a listener holds, [`ClientTls`] what a pool
//! holds; both hand out the configuration of the moment, and [`watch`] replaces it.

mod authorities;
mod certificate;
mod certificates;
mod client;
mod clock;
mod explain;
mod files;
mod pem;
mod provider;
mod reload;
mod report;
mod server;
mod sessions;
pub mod stream;
mod tickets;
mod trust;
mod unfit;
mod verify;
pub mod watch;
mod x509;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use certificate::{Certificate, Facts, KeyKind, common_name};
pub use certificates::Certificates;
pub use client::{ClientTls, Connecting, Verified};
pub use explain::{explain, remedy};
pub use files::{LoadError, OnDisk};
pub use provider::provider;
pub use reload::{Now, Outcome, Standing};
pub use report::{CertificateReport, describe};
pub use server::{ServerTls, Serving};
