//! TLS from a pool to its backends: verification, SNI, ALPN, a client certificate (mTLS).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, CommonState, Error};

use super::authorities;
use super::certificate::{Certificate, CertificateInfo};
use super::clock::SystemClock;
use super::engine::{self, ClientEngine};
use super::explain::explain;
use super::files::LoadError;
use super::provider::{provider, versions};
use super::reload::{PollOutcome, PollTime, ReloadOutcome, ReloadStatus, ReloadableFiles};
use super::sessions::{OwnSessions, Sessions};
use super::sources;
use super::stream::{HandshakeError, TlsStream};
use super::trust::Trust;
use super::verify::ServerVerifier;
use crate::config::model::{Authorities, BackendAddress, NameSource, PoolTls, TlsVersion, Verify};
use crate::net::name::normal;
use crate::worker::Socket;

/// TLS from one pool to its backends. A reload replaces what connections use.
pub struct Connector {
    name: Arc<str>,
    tls: PoolTls,
    backend_name: Option<BackendName>,
    current: ArcSwap<InService>,
    files: Mutex<ConnectorFiles>,
    reload_status: ArcSwap<ReloadStatus>,
    clock: Arc<dyn TimeProvider>,
}

/// What is in service at a pool.
#[derive(Debug)]
struct InService {
    /// Without what each connection sets for itself: its ALPN protocols and its sessions.
    config: ClientConfig,
    sessions: Arc<Sessions>,
    /// `None`: nothing is verified.
    trust: Option<Arc<Trust>>,
}

/// The name or address that a backend's certificate must be for (RFC 9525: its reference identifier).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendName(pub(super) ServerName<'static>);

impl BackendName {
    /// `None` if no certificate could be for such a name.
    pub fn parse(text: &str) -> Option<BackendName> {
        ServerName::try_from(text.to_owned()).ok().map(BackendName)
    }
}

impl From<IpAddr> for BackendName {
    fn from(ip: IpAddr) -> BackendName {
        BackendName(ServerName::IpAddress(ip.into()))
    }
}

/// What a connection's sessions rest on.
#[derive(Debug)]
pub(super) struct Verified {
    sessions: OwnSessions,
    trust: Option<Arc<Trust>>,
}

impl Verified {
    /// Call it when the handshake has succeeded: no session of the connection is resumed before.
    pub(super) fn established(&self, connection: &CommonState) {
        self.sessions.rest_on(self.trust.as_deref(), connection.peer_certificates().unwrap_or_default());
    }
}

struct ConnectorFiles {
    /// Of a file; `None`: the system's, or nothing is verified.
    trust: Option<ReloadableFiles<Arc<Trust>>>,
    certificate: Option<ReloadableFiles<Certificate>>,
}

impl ConnectorFiles {
    fn facts(&self) -> Vec<CertificateInfo> {
        self.certificate.iter().map(|files| files.get().facts.clone()).collect()
    }

    fn faults(&self) -> Vec<String> {
        self.certificate
            .iter()
            .flat_map(ReloadableFiles::faults)
            .chain(self.trust.iter().flat_map(ReloadableFiles::faults))
            .collect()
    }
}

impl Connector {
    /// Reads the files and puts them in service; `name` is the pool's, for the log.
    ///
    /// # Errors
    /// What is wrong with the files or the name.
    pub fn new(name: &str, tls: &PoolTls) -> Result<Connector, LoadError> {
        Connector::with_clock(name, tls, Arc::new(SystemClock))
    }

    pub(super) fn with_clock(name: &str, tls: &PoolTls, clock: Arc<dyn TimeProvider>) -> Result<Connector, LoadError> {
        let now = PollTime::read();
        let trust = match (&tls.ca, tls.verify) {
            (Authorities::System, _) | (_, Verify::Off) => None,
            (Authorities::File(path), _) => Some(sources::backend_trust(path, now)?),
        };
        let certificate = tls.client_certificate.as_ref().map(|files| sources::certificate(files, now)).transpose()?;
        let backend_name = match &tls.server_name {
            NameSource::Fixed(name) => Some(backend_name(name).map_err(|message| {
                LoadError::of(message, "server_name is a host's name or an IP address, without a port")
            })?),
            NameSource::Backend | NameSource::Client => None,
        };
        let files = ConnectorFiles { trust, certificate };
        let current = ArcSwap::from_pointee(configure(tls, &files, &clock)?);
        let reload_status = ArcSwap::from_pointee(ReloadStatus { facts: files.facts(), ..ReloadStatus::default() });
        let (name, tls, files) = (name.into(), tls.clone(), Mutex::new(files));
        Ok(Connector { name, tls, backend_name, current, files, reload_status, clock })
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Establishes TLS with a backend that must be `name`, offering these protocols (ALPN).
    ///
    /// # Errors
    /// Those of [`HandshakeError`].
    pub async fn connect(
        &self,
        socket: Socket,
        name: BackendName,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Box<TlsStream<ClientEngine>>, HandshakeError> {
        let (config, verified) = self.config(protocols);
        let engine = engine::client(config, name.0).map_err(|error| HandshakeError::Tls(error.into()))?;
        let stream = Box::new(TlsStream::new(socket, engine, Vec::new()));
        stream.handshake().await?;
        stream.with_common(|common| verified.established(common));
        Ok(stream)
    }

    /// The configuration of one connection.
    pub(super) fn config(&self, protocols: Vec<Vec<u8>>) -> (Arc<ClientConfig>, Verified) {
        let in_service: Guard<Arc<InService>> = self.current.load();
        let sessions = OwnSessions::new(in_service.sessions.clone(), self.clock.clone());
        let mut config = in_service.config.clone();
        config.alpn_protocols = protocols;
        config.resumption = match self.tls.resumption {
            true => Resumption::store(Arc::new(sessions.clone())),
            false => Resumption::disabled(),
        };
        (Arc::new(config), Verified { sessions, trust: in_service.trust.clone() })
    }

    /// The configuration of a connection that begins now, and offers the protocols that are configured.
    #[cfg(test)]
    pub(super) fn current(&self) -> Arc<ClientConfig> {
        self.config(self.tls.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()).0
    }

    /// Whether backends are verified by the name that the client asked for (`server_name: sni`).
    pub fn takes_clients_name(&self) -> bool {
        self.tls.server_name == NameSource::Client
    }

    /// The name that a backend is verified by and asked for (SNI): the one configured, or else its host. An address is
    /// not sent (RFC 6066, 3).
    ///
    /// # Errors
    /// The backend lacks a name to verify, or no certificate could be for its host.
    pub fn backend_name(&self, backend: &BackendAddress) -> Result<BackendName, String> {
        if let Some(configured) = &self.backend_name {
            return Ok(configured.clone());
        }
        match backend {
            BackendAddress::Ip(address) => Ok(BackendName::from(address.ip().to_canonical())),
            BackendAddress::Name { host, .. } => backend_name(host),
            BackendAddress::Unix(path) if self.tls.verify == Verify::Full => Err(format!(
                "{} has no host name to verify its certificate by: set tls.server_name in pool {}",
                path.display(),
                self.name
            )),
            // The name is not verified, and an address is not sent.
            BackendAddress::Unix(_) => Ok(BackendName::from(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        }
    }

    /// The state of the files.
    pub fn reload_status(&self) -> Arc<ReloadStatus> {
        self.reload_status.load_full()
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let certificate = files.certificate.iter().flat_map(ReloadableFiles::paths);
        certificate.chain(files.trust.iter().flat_map(ReloadableFiles::paths)).cloned().collect()
    }

    /// Reloads files that changed, and logs it.
    pub fn poll(&self, now: PollTime) -> ReloadOutcome {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = format!("pool {}", self.name);
        let certificate = files.certificate.as_mut().map(|files| files.poll(now));
        let trust = files.trust.as_mut().map(|files| files.poll(now));
        if certificate.iter().chain(&trust).any(|poll| matches!(poll, PollOutcome::Replaced(_))) {
            match configure(&self.tls, &files, &self.clock) {
                Ok(config) => self.current.store(Arc::new(config)),
                Err(failure) => tracing::error!(owner, %failure, "TLS: new files cannot be put in service"),
            }
        }
        // Last, so that what is logged as replaced is in service.
        let mut outcomes = Vec::new();
        if let (Some(poll), Some(files)) = (&certificate, &files.certificate) {
            outcomes.push(poll.log(&owner, Some(&files.get().facts), now.wall));
        }
        outcomes.extend(trust.iter().map(|poll| poll.log(&owner, None, now.wall)));
        self.reload_status.store(Arc::new(self.reload_status.load().after(&outcomes, files.facts(), files.faults())));
        ReloadOutcome::worst(&outcomes)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

fn backend_name(text: &str) -> Result<BackendName, String> {
    BackendName::parse(&normal(text))
        .ok_or_else(|| format!("{} is no name that a certificate could be for", text.escape_debug()))
}

/// A new configuration with sessions of its own: none is resumed that other authorities or another client certificate
/// made.
fn configure(tls: &PoolTls, files: &ConnectorFiles, clock: &Arc<dyn TimeProvider>) -> Result<InService, LoadError> {
    let impossible =
        |failure: Error| LoadError::of(format!("TLS cannot be set up: {}", explain(&failure)), "see pools[].tls");
    let trust = match (tls.verify, &files.trust) {
        (Verify::Off, _) => None,
        (_, Some(files)) => Some(files.get().as_ref().clone()),
        (_, None) => Some(authorities::of_system()?),
    };
    let verifier =
        ServerVerifier { trust: trust.clone(), checks_name: tls.verify == Verify::Full, accepted: Vec::new() };
    let builder = ClientConfig::builder_with_details(provider(), clock.clone())
        .with_protocol_versions(versions(TlsVersion::V1_2, TlsVersion::V1_3))
        .map_err(impossible)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &files.certificate {
        Some(files) => {
            let own = SingleCertAndKey::from(files.get().key.as_ref().clone());
            builder.with_client_cert_resolver(Arc::new(own))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(InService { config, sessions: Arc::default(), trust })
}
