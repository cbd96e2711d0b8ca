//! An authority of the test's own: the certificates that it signs, and the clients and servers that trust it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

/// A client's connection with TLS over any stream.
pub(crate) type TlsOver<S> = StreamOwned<ClientConnection, S>;

/// Issues certificates, and keeps them as files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate, its key, and their files.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: CertificateDer<'static>,
    key_der: Vec<u8>,
    serial: u64,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        // Two authorities of one name could not be told apart.
        params.distinguished_name.push(DnType::CommonName, format!("Test authority {}", next_number()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("write");
        Authority { issuer, directory }
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A server's certificate for these names and addresses; the first is also its common name.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    /// As [`Authority::issue`], with what else is to be in it.
    pub(crate) fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut params = params.expect("names");
        change(&mut params);
        self.sign(params, names[0], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    pub(crate) fn issue_client(&self, common_name: &str) -> Issued {
        self.sign(CertificateParams::default(), common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, name: &str, usage: ExtendedKeyUsagePurpose) -> Issued {
        let (key, serial) = (KeyPair::generate().expect("a key"), next_number());
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |ending: &str| self.directory.path().join(format!("{serial}.{ending}"));
        let issued = Issued {
            cert: file("pem"),
            key: file("key"),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
            serial,
        };
        fs::write(&issued.cert, certificate.pem()).expect("write");
        write_key(&issued.key, &key.serialize_pem());
        issued
    }

    /// The file of a revocation list with these on it.
    pub(crate) fn revoke(&self, revoked: &[&Issued]) -> PathBuf {
        let revoked_certs = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(4096, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.directory.path().join(format!("{}.crl", next_number()));
        fs::write(&path, list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")).expect("write");
        path
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, &[], None)
    }

    /// As [`Authority::client`], offering these protocols (ALPN).
    pub(crate) fn client_offering(&self, protocols: &[&str]) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, protocols, None)
    }

    /// As [`Authority::client_offering`], about to ask for this name.
    pub(crate) fn client_for(&self, name: &str, protocols: &[&str]) -> ClientConnection {
        client_connection(&self.client_offering(protocols), name)
    }

    /// A client of these versions that offers these protocols and shows this certificate.
    pub(crate) fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
        own: Option<&Issued>,
    ) -> ClientConfig {
        let builder = client_builder(versions).with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_auth_cert(vec![own.der.clone()], own.private_key()).expect("a pair"),
        };
        config.alpn_protocols = names(protocols);
        config
    }

    /// A client of TLS 1.2.
    pub(crate) fn old_client(&self) -> ClientConfig {
        self.client_of(&[&rustls::version::TLS12], &[], None)
    }

    /// A server that wants a certificate of this authority from its clients.
    pub(crate) fn strict_server(&self, issued: &Issued) -> ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let builder = server_builder().with_client_cert_verifier(verifier.build().expect("a verifier"));
        builder.with_single_cert(vec![issued.der.clone()], issued.private_key()).expect("a pair")
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        roots
    }
}

impl Issued {
    /// An entry of `certificates` in the configuration.
    pub(crate) fn yaml(&self) -> String {
        format!("{{ cert: {}, key: {} }}", self.cert.display(), self.key.display())
    }

    /// A server with this certificate.
    pub(crate) fn server(&self) -> ServerConfig {
        let builder = server_builder().with_no_client_auth();
        builder.with_single_cert(vec![self.der.clone()], self.private_key()).expect("a pair")
    }

    /// As [`Issued::server`], for these protocols (ALPN).
    pub(crate) fn server_for(&self, protocols: &[&str]) -> ServerConfig {
        let mut config = self.server();
        config.alpn_protocols = names(protocols);
        config
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key_der.clone().into())
    }
}

fn names(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

/// Writes a private key as one should be kept.
pub(crate) fn write_key(path: &Path, pem: &str) {
    fs::write(path, pem).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn client_builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).expect("versions")
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions")
}

/// A client that is about to say its first word.
pub(crate) fn client_connection(config: &ClientConfig, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(Arc::new(config.clone()), name).expect("a connection")
}

/// Begins with TLS, and ends the handshake.
pub(crate) fn handshake<S: Read + Write>(mut client: ClientConnection, mut stream: S) -> io::Result<TlsOver<S>> {
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(client, stream))
}
