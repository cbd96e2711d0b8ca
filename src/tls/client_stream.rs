//! TLS to the admin interface of another process, for the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::authorities;
use super::explain::TlsError;
use super::files::{Content, LoadError, MAX_PEM};
use super::pem;
use super::provider::{provider, versions};
use super::reload::PollTime;
use super::sources;
use super::trust::Trust;
use super::verify::ServerVerifier;
use crate::config::model::{CertificateFiles, TlsVersion};

/// Whom a command trusts, and what it shows.
#[derive(Clone, Debug, Default)]
pub struct ClientTrust {
    /// File of authorities; replaces those of the system and the pins.
    pub ca: Option<PathBuf>,
    /// Files of certificates that are trusted as they are, whatever the name. One that cannot be read is left out.
    pub pins: Vec<PathBuf>,
    /// A certificate and its key, for interfaces with `client_auth`.
    pub certificate: Option<CertificateFiles>,
}

/// TLS of one command.
#[derive(Debug)]
pub struct CommandTls(Arc<ClientConfig>);

impl CommandTls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(trust: &ClientTrust) -> Result<CommandTls, LoadError> {
        let (pins, authorities) = match &trust.ca {
            Some(ca) => {
                let (trust, faults) = authorities::of_file(&Content::read(ca, MAX_PEM), SystemTime::now());
                (Vec::new(), Arc::new(trust.ok_or(LoadError { faults })?))
            }
            None => {
                let pins = trust.pins.iter().filter_map(|path| leaf(path)).collect();
                // A host without authorities trusts none but the pins.
                (pins, authorities::of_system().unwrap_or_else(|_| Arc::new(Trust::new(true))))
            }
        };
        let verifier = ServerVerifier { trust: Some(authorities), checks_name: true, accepted: pins };
        let failed = |error: Error| LoadError::of(TlsError::from(error).to_string(), "see the certificate and its key");
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(TlsVersion::V1_2, TlsVersion::V1_3))
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &trust.certificate {
            None => config.with_no_client_auth(),
            Some(files) => {
                let certificate = sources::certificate(files, PollTime::read())?;
                config.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                    certificate.get().key.as_ref().clone(),
                )))
            }
        };
        Ok(CommandTls(Arc::new(config)))
    }

    /// Completes a handshake with the host of this name or address.
    ///
    /// # Errors
    /// What failed.
    pub async fn connect<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<S>, io::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| io::Error::other(format!("`{host}` is no host")))?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}

/// A failure of TLS, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandTlsFailure {
    /// In words.
    pub reason: String,
    /// The cure.
    pub cure: Option<TlsCure>,
}

/// What mends a failure of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsCure {
    /// Trust an authority.
    Authority,
    /// Show a certificate, or another one.
    Certificate,
    /// Speak plain HTTP.
    Plain,
}

impl CommandTlsFailure {
    /// What TLS said, if it is the cause of an error. A server with TLS 1.3 refuses a client after the handshake.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<CommandTlsFailure> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let inner = |error: &(dyn std::error::Error + 'static)| {
            error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Error>().cloned()
        };
        let error = causes.find_map(inner)?;
        let cure = match &error {
            Error::InvalidCertificate(_) => Some(TlsCure::Authority),
            Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::HandshakeFailure,
            ) => Some(TlsCure::Certificate),
            Error::InvalidMessage(_) => Some(TlsCure::Plain),
            _ => None,
        };
        Some(CommandTlsFailure { reason: TlsError::from(error).to_string(), cure })
    }
}

/// The certificate of a server, without those that vouch for it.
fn leaf(path: &Path) -> Option<CertificateDer<'static>> {
    pem::certificates(&Content::read(path, MAX_PEM)).ok()?.into_iter().next()
}
