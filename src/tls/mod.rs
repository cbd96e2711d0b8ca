//! TLS on both sides: certificates and authorities from files, what rustls is told to do with them, and their
//! replacement while connections go on.
//!
//! A file's content is read once and judged whole ([`certificate`](Certificate), `authorities`): what cannot be used
//! is never in service. Dates alone do not keep a certificate from it at the start, with a warning; what replaces one
//! in service must be valid. A listener holds an [`Acceptor`], a pool a [`Connector`]. Both begin connections with the
//! configuration of the moment, and [`watch`] replaces it.
//!
//! No other room names a type of rustls.

mod acceptor;
mod alert;
mod authorities;
mod certificate;
mod certificates;
mod clock;
mod connector;
mod dates;
mod engine;
mod explain;
mod files;
mod negotiated;
mod on_disk;
mod pem;
mod provider;
mod reload;
mod report;
mod sessions;
mod sources;
mod stream;
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

pub use acceptor::Acceptor;
pub use alert::Alert;
pub use certificate::{Facts, KeyKind};
pub use connector::{BackendName, Connector};
pub use engine::{ClientEngine, Engine, ServerEngine};
pub use explain::TlsError;
pub use files::LoadError;
pub use negotiated::{Negotiated, PeerCertificate};
pub use on_disk::OnDisk;
pub use reload::{Now, Outcome, Standing};
pub use report::{CertificateReport, describe};
pub use stream::{HandshakeError, TlsStream};
