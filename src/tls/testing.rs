//! Certificates of every kind, and handshakes in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::connector::Connector;
use crate::config::model::{
    Authorities, CertificateFiles, ListenerTls, NameSource, Plaintext, PoolTls, TlsVersion, UnknownSni,
    VerifiedClients, Verify,
};

/// A certificate with its chain, and its key, in PEM.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

/// Issues certificates.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        Authority::with(name, |_| {})
    }

    pub(super) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer }
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// For these names, valid for long, with a key of ECDSA P-256.
    pub(super) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, &KeyPair::generate().unwrap(), |_| {})
    }

    pub(super) fn issue_with(
        &self,
        names: &[&str],
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a common name");
        change(&mut params);
        let cert = params.signed_by(key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// For a client, with this serial number.
    pub(super) fn issue_client(&self, serial: u64) -> Pair {
        self.issue_with(&[], &KeyPair::generate().unwrap(), |params| {
            params.serial_number = Some(SerialNumber::from(serial));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A list of serial numbers that are revoked, to be replaced in the year `next`.
    pub(super) fn revoke(&self, serials: &[u64], next: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A temporary directory with files of TLS.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Replaces a file as a careful program does: by a rename.
    pub(super) fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = self.write("new", content);
        fs::rename(new, self.path(name)).unwrap();
    }

    pub(super) fn pair(&self, name: &str, pair: &Pair) -> CertificateFiles {
        let cert = self.write(&format!("{name}.pem"), &pair.cert);
        CertificateFiles { cert, key: self.write(&format!("{name}.key"), &pair.key).into() }
    }

    pub(super) fn replace_pair(&self, name: &str, pair: &Pair) {
        self.replace(&format!("{name}.pem"), &pair.cert);
        self.replace(&format!("{name}.key"), &pair.key);
    }

    pub(super) fn listener(&self, certificates: Vec<CertificateFiles>) -> ListenerTls {
        ListenerTls {
            certificates,
            unknown_sni: UnknownSni::Default,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            alpn: Vec::new(),
            client_auth: None,
            starttls: None,
            plaintext: Plaintext::Refuse,
            session_tickets: true,
            session_cache: 0,
        }
    }

    pub(super) fn client_auth(&self, authority: &Authority, required: bool) -> VerifiedClients {
        let ca = self.write("clients.pem", authority.pem());
        VerifiedClients { required, ca, crl: None }
    }

    pub(super) fn pool(&self, verify: Verify, authority: &Authority) -> PoolTls {
        PoolTls {
            verify,
            ca: Authorities::File(self.write("servers.pem", authority.pem())),
            server_name: NameSource::Backend,
            alpn: Vec::new(),
            client_certificate: None,
            starttls: None,
            resumption: true,
        }
    }
}

/// Both ends of a connection whose handshake is over.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) client: ClientConnection,
    pub(super) server: ServerConnection,
}

/// Which end refused, and why.
#[derive(Debug, PartialEq)]
pub(super) enum HandshakeFailure {
    Client(Error),
    Server(Error),
}

/// A clock that shows what it is set to.
#[derive(Debug)]
pub(super) struct SetClock(AtomicU64);

impl SetClock {
    pub(super) fn at(seconds: u64) -> Arc<SetClock> {
        Arc::new(SetClock(AtomicU64::new(seconds)))
    }

    pub(super) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for SetClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// A handshake of a pool's connection, after which its sessions may be resumed.
pub(super) fn pool_handshake(
    client: &Connector,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Established, HandshakeFailure> {
    let (config, verified) = client.config(Vec::new());
    let ends = handshake(&config, server, name)?;
    verified.established(&ends.client);
    Ok(ends)
}

/// A handshake in memory, and a byte to the client, with which the tickets of TLS 1.3 come.
pub(super) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Established, HandshakeFailure> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).map_err(HandshakeFailure::Client)?;
    let mut server = ServerConnection::new(server.clone()).map_err(HandshakeFailure::Server)?;
    let mut is_greeted = false;
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(HandshakeFailure::Server)?;
        }
        if !server.is_handshaking() && !is_greeted {
            is_greeted = true;
            std::io::Write::write_all(&mut server.writer(), b"!").unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(HandshakeFailure::Client)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Established { client, server })
}
