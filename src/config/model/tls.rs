//! `listeners[].tls` and `pools[].tls`.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::redacted::Redacted;

/// `listeners[].tls`: TLS termination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// Clients whose SNI matches no certificate.
    pub unknown_sni: UnknownSni,
    /// Minimum version.
    pub min_version: TlsVersion,
    /// Maximum version.
    pub max_version: TlsVersion,
    /// Application protocols in order of preference, 1 to 255 bytes each. Empty for no ALPN.
    pub alpn: Vec<Arc<str>>,
    /// Mutual TLS; `None` is off.
    pub client_auth: Option<ClientAuth>,
    /// The protocol's own TLS request, accepted first.
    pub starttls: Option<StartTls>,
    /// With `starttls`: clients that do not request TLS.
    pub plaintext: Plaintext,
    /// Session resumption by tickets.
    pub session_tickets: bool,
    /// Sessions that are kept for clients that use no tickets.
    pub session_cache: u32,
}

/// PEM files of a certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, leaf certificate first.
    pub cert: PathBuf,
    /// The key, unencrypted.
    pub key: Redacted<PathBuf>,
}

/// `listeners[].tls.unknown_sni`. A client without SNI counts as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownSni {
    /// Serve the first certificate.
    Default,
    /// Abort with the alert unrecognized_name.
    Refuse,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// `listeners[].tls.client_auth`, when it is not off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Certificates are requested, and none is verified. The PROXY header says so.
    Request,
    /// Certificates are verified.
    Verify(VerifiedClients),
}

impl ClientAuth {
    /// Whether a client without a certificate is rejected.
    pub fn is_required(&self) -> bool {
        self.verified().is_some_and(|clients| clients.required)
    }

    /// The rules by which certificates are verified, if they are.
    pub fn verified(&self) -> Option<&VerifiedClients> {
        match self {
            ClientAuth::Request => None,
            ClientAuth::Verify(clients) => Some(clients),
        }
    }
}

/// Clients that authenticate themselves by certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedClients {
    /// Whether a client without a certificate is rejected.
    pub required: bool,
    /// PEM file of the CAs that sign client certificates.
    pub ca: PathBuf,
    /// PEM file of certificate revocation lists.
    pub crl: Option<PathBuf>,
}

/// `starttls`, when it is not off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// PostgreSQL's SSLRequest.
    Postgres,
    /// MySQL's SSLRequest, which comes after the server's greeting.
    Mysql,
}

impl StartTls {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            StartTls::Postgres => "postgres",
            StartTls::Mysql => "mysql",
        }
    }
}

/// `listeners[].tls.plaintext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Plaintext {
    /// Reject with an error that asks for TLS.
    Refuse,
    /// Serve without TLS.
    Allow,
}

/// `pools[].tls`: TLS to the backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTls {
    /// Verification of the backends' certificates.
    pub verify: Verify,
    /// Trusted CAs.
    pub ca: Authorities,
    /// Name to verify and to send as SNI.
    pub server_name: NameSource,
    /// Application protocols to offer, in order of preference.
    pub alpn: Vec<Arc<str>>,
    /// For backends that require mTLS.
    pub client_certificate: Option<CertificateFiles>,
    /// The protocol's own TLS request, sent first.
    pub starttls: Option<StartTls>,
    /// Whether sessions are resumed.
    pub resumption: bool,
}

/// `pools[].tls.server_name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The backend's host.
    Backend,
    /// A configured name.
    Fixed(Arc<str>),
    /// The client's SNI; the backend's host if the client sent none.
    Client,
}

/// `pools[].tls.verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Certificate chain and name.
    Full,
    /// Certificate chain, any name.
    Ca,
    /// None; logged as a warning at every start.
    Off,
}

/// `pools[].tls.ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// The CAs that this host trusts.
    System,
    /// The CAs in a PEM file.
    File(PathBuf),
}
