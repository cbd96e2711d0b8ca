//! What happens between accept and relay: TLS, routes, the PROXY protocol.

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::{PoolIndex, Redacted};
use crate::net::name::NamePattern;

/// One entry of `listeners[].routes`. Everything that is given must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Server names of which one must fit; empty: any, and none.
    pub sni: Vec<NamePattern>,
    /// Application protocols of which one must be the connection's; empty: any, and none.
    pub alpn: Vec<Arc<str>>,
    /// Hosts of which one must fit that of the first request; empty: any, and none.
    pub host: Vec<NamePattern>,
    /// With one of these the path of the first request must begin; empty: any, and none.
    pub path_prefix: Vec<Arc<str>>,
    /// Where what matches goes.
    pub pool: PoolIndex,
}

impl RouteConfig {
    /// Whether it takes only connections whose ClientHello is known.
    pub fn needs_tls(&self) -> bool {
        !(self.sni.is_empty() && self.alpn.is_empty())
    }

    /// Whether it takes only connections whose first request is known.
    pub fn needs_request(&self) -> bool {
        !(self.host.is_empty() && self.path_prefix.is_empty())
    }
}

/// `listeners[].sniff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniff {
    /// Nothing is looked at.
    Off,
    /// HTTP/1.x is watched as it goes by.
    Http,
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Plaintext {
    Refuse,
    Allow,
}

/// `listeners[].proxy_protocol`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Peers whose headers are believed; a unix socket's always are. At least one.
    pub trusted: Vec<IpNet>,
    /// Whether these must send one.
    pub required: bool,
}

/// `pools[].send_proxy`, when it is not off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SendProxy {
    V1,
    V2,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
