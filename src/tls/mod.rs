//! TLS termination at listeners and TLS to backends, both with mTLS: certificates and authorities from files, and their
//! reload while connections go on.
//!
//! A file is read once and checked as a whole (`certificate`, `authorities`): what is unusable is never in service. At
//! the start, an expired certificate only causes a warning; a replacement must be valid. A listener holds an
//! [`Acceptor`], a pool a [`Connector`]. Both begin connections with the present configuration, and [`watch`] replaces it.
//!
//! No other room names a type of rustls. Passthrough needs nothing of this: see `sniff::client_hello`.

mod acceptor;
mod alert;
mod authorities;
mod backend_stream;
mod backlog;
mod certificate;
mod certificates;
mod client_stream;
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
mod server_stream;
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
pub use certificate::{CertificateInfo, KeyKind};
pub use client_stream::{ClientTrust, CommandTls, CommandTlsFailure, TlsCure};
pub use connector::{BackendName, Connector};
pub use engine::{ClientEngine, Engine, ServerEngine};
pub use explain::TlsError;
pub use files::LoadError;
pub use negotiated::{Negotiated, PeerCertificate};
pub use on_disk::OnDisk;
pub use reload::{PollTime, ReloadOutcome, ReloadStatus};
pub use report::{CertificateReport, describe};
pub use server_stream::FailedHandshake;
pub use stream::{HandshakeError, TlsStream};
