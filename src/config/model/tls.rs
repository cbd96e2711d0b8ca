//! `listeners[].tls` and `pools[].tls`.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::redacted::Redacted;

/// `listeners[].tls`: TLS ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// What a client gets that names a server none of the certificates fits.
    pub unknown_sni: UnknownSni,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Application protocols, the preferred one first; each of 1 to 255 bytes. Empty: none is negotiated.
    pub alpn: Vec<Arc<str>>,
    /// Whether clients show a certificate; `None` is off.
    pub client_auth: Option<ClientAuth>,
    /// The protocol's own TLS request, answered first.
    pub starttls: Option<StartTls>,
    /// With `starttls`: what becomes of clients that do not ask for TLS.
    pub plaintext: Plaintext,
    /// Whether clients get tickets by which they resume.
    pub session_tickets: bool,
}

/// A certificate chain and its private key, PEM files both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The key, not encrypted.
    pub key: Redacted<PathBuf>,
}

/// `listeners[].tls.unknown_sni`. A client that names no server at all counts as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownSni {
    /// The first certificate.
    Default,
    /// The alert unrecognized_name.
    Refuse,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// `listeners[].tls.client_auth`, when it is not off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// PEM file of the authorities that may have signed it.
    pub ca: PathBuf,
    /// PEM file of revocation lists.
    pub crl: Option<PathBuf>,
}

/// `starttls`, when it is not off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// SSLRequest.
    Postgres,
}

/// `listeners[].tls.plaintext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Plaintext {
    Refuse,
    Allow,
}

/// `pools[].tls`: TLS to the backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTls {
    /// What is verified of a backend's certificate.
    pub verify: Verify,
    /// Who may have signed it.
    pub ca: Authorities,
    /// The name it must be for, which is also asked for (SNI).
    pub server_name: NameSource,
    /// Application protocols that are offered.
    pub alpn: Vec<Arc<str>>,
    /// What backends that ask for one get.
    pub client_certificate: Option<CertificateFiles>,
    /// The protocol's own TLS request, sent first.
    pub starttls: Option<StartTls>,
}

/// `pools[].tls.server_name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The backend's host.
    Backend,
    /// This one.
    Fixed(Arc<str>),
    /// What the client has asked for; the backend's host, if it asked for none.
    Client,
}

/// `pools[].tls.verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Its signature and its name.
    Full,
    /// Its signature.
    Ca,
    /// Nothing.
    Off,
}

/// `pools[].tls.ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// Those that this host trusts.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}
