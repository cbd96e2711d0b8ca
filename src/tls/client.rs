//! What a pool needs to speak TLS to its backends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::authorities;
use super::certificate::{Certificate, Facts};
use super::files::{Content, LoadError, MAX_PEM};
use super::provider::{provider, versions};
use super::reload::{Now, Outcome, Piece, Standing};
use super::server::certificate_piece;
use super::watch::{tell, worst};
use crate::config::model::{Authorities, BackendAddress, PoolTls, TlsVersion, Verify};
use crate::net::name::normal;

/// Names of servers whose sessions are kept, each with at most eight tickets.
const SESSIONS: usize = 256;

/// TLS from one pool to its backends. Connections read what is in service; a change of files replaces it.
pub struct ClientTls {
    name: Arc<str>,
    tls: PoolTls,
    server_name: Option<ServerName<'static>>,
    current: ArcSwap<ClientConfig>,
    files: Mutex<Sources>,
    standing: ArcSwap<Standing>,
}

struct Sources {
    /// Of a file; `None`: the system's, or nothing is verified.
    roots: Option<Piece<Arc<RootCertStore>>>,
    certificate: Option<Piece<Certificate>>,
}

impl Sources {
    fn facts(&self) -> Vec<Facts> {
        self.certificate.iter().map(|piece| piece.get().facts.clone()).collect()
    }

    fn faults(&self) -> Vec<String> {
        self.certificate.iter().flat_map(Piece::faults).chain(self.roots.iter().flat_map(Piece::faults)).collect()
    }
}

impl ClientTls {
    /// Reads the files and puts them in service; `name` is the pool's, for the log.
    ///
    /// # Errors
    /// What is wrong with the files or the name.
    pub fn new(name: &str, tls: &PoolTls) -> Result<ClientTls, LoadError> {
        let now = Now::read();
        let roots = match (&tls.ca, tls.verify) {
            (Authorities::System, _) | (_, Verify::Off) => None,
            (Authorities::File(path), _) => {
                let make = |contents: &[Content], _, now| match contents {
                    [file] => authorities::roots(file, now),
                    _ => (None, Vec::new()),
                };
                Some(Piece::load(vec![(path.clone(), MAX_PEM)], make, now)?)
            }
        };
        let certificate = tls.client_certificate.as_ref().map(|files| certificate_piece(files, now)).transpose()?;
        let server_name = tls.server_name.as_deref().map(server_name).transpose().map_err(|message| {
            LoadError::of(message, "server_name is a host's name or an IP address, without a port")
        })?;
        let files = Sources { roots, certificate };
        let current = ArcSwap::new(configure(tls, &files)?);
        let standing = ArcSwap::from_pointee(Standing { facts: files.facts(), ..Standing::default() });
        Ok(ClientTls { name: name.into(), tls: tls.clone(), server_name, current, files: Mutex::new(files), standing })
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is in service, without touching the count of those who hold it.
    pub fn load(&self) -> Guard<Arc<ClientConfig>> {
        self.current.load()
    }

    /// The configuration for a connection that begins now.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// Whom a backend must be, and the name that it is asked for: the one configured, or else the backend's own
    /// host. An address is not sent (RFC 6066, 3).
    ///
    /// # Errors
    /// The backend has no name and one is to be verified, or its host is none that a certificate could be for.
    pub fn server_name(&self, backend: &BackendAddress) -> Result<ServerName<'static>, String> {
        if let Some(configured) = &self.server_name {
            return Ok(configured.clone());
        }
        match backend {
            BackendAddress::Ip(address) => Ok(ServerName::IpAddress(address.ip().to_canonical().into())),
            BackendAddress::Name { host, .. } => server_name(host),
            BackendAddress::Unix(path) if self.tls.verify == Verify::Full => Err(format!(
                "{} has no host name to verify its certificate by: set tls.server_name in pool {}",
                path.display(),
                self.name
            )),
            // No name is looked at, and of an address none is sent.
            BackendAddress::Unix(_) => Ok(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into())),
        }
    }

    /// How the files stand.
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let certificate = files.certificate.iter().flat_map(Piece::paths);
        certificate.chain(files.roots.iter().flat_map(Piece::paths)).cloned().collect()
    }

    /// Looks whether files have changed. What is new and good goes into service, what is not is logged.
    pub fn refresh(&self, now: Now) -> Outcome {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = format!("pool {}", self.name);
        let mut outcomes = Vec::new();
        if let Some(piece) = &mut files.certificate {
            let look = piece.refresh(now);
            outcomes.push(tell(&owner, &look, Some(&piece.get().facts), now.wall));
        }
        if let Some(piece) = &mut files.roots {
            outcomes.push(tell(&owner, &piece.refresh(now), None, now.wall));
        }
        self.standing.store(Arc::new(self.standing.load().after(&outcomes, files.facts(), files.faults())));
        if outcomes.contains(&Outcome::Replaced) {
            match configure(&self.tls, &files) {
                Ok(config) => self.current.store(config),
                Err(failure) => tracing::error!(owner, %failure, "TLS: new files cannot be put in service"),
            }
        }
        worst(&outcomes)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(normal(text).into_owned())
        .map_err(|_| format!("{} is no name that a certificate could be for", text.escape_debug()))
}

/// What rustls is told. Sessions are kept anew each time: one that was made under other authorities, or as
/// another client, is not resumed.
fn configure(tls: &PoolTls, files: &Sources) -> Result<Arc<ClientConfig>, LoadError> {
    let impossible = |failure: Error| LoadError::of(format!("TLS cannot be set up: {failure}"), "see pools[].tls");
    let roots = || match &files.roots {
        Some(piece) => Ok(piece.get().as_ref().clone()),
        None => authorities::of_system(),
    };
    let algorithms = provider().signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(TlsVersion::V1_2))
        .map_err(impossible)?;
    let builder = match tls.verify {
        Verify::Full => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots()?, provider())
                .build()
                .map_err(|failure| LoadError::of(format!("backends cannot be verified: {failure}"), "check `ca`"))?;
            builder.with_webpki_verifier(verifier)
        }
        Verify::Ca => {
            let verifier = Arc::new(Lenient { roots: Some(roots()?), algorithms });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        Verify::Off => {
            let verifier = Arc::new(Lenient { roots: None, algorithms });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let mut config = match &files.certificate {
        Some(piece) => {
            let own = SingleCertAndKey::from(piece.get().key.as_ref().clone());
            builder.with_client_cert_resolver(Arc::new(own))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Asks for less than TLS does: `verify: ca` and `verify: off`. That the peer has the key of its certificate is
/// verified all the same.
#[derive(Debug)]
struct Lenient {
    /// Who must have signed the certificate; `None`: anybody may.
    roots: Option<Arc<RootCertStore>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Lenient {
    /// Chain, dates and purpose as rustls does it, and not the name.
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let parsed = ParsedCertificate::try_from(certificate)?;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, self.algorithms.all)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
