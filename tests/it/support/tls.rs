//! TLS of the tests' own: authorities and certificates made on the spot, rustls at either end, openssl as a program.

use std::collections::VecDeque;
use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::backend::{Backend, Scripted, in_thread};
use super::client::{Place, try_connect};
use super::process::{bound, require};
use super::tidegate::{Tidegate, forward};

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

    /// A server's certificate for these names; the first is also its common name.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.sign(params.expect("names"), names[0], ExtendedKeyUsagePurpose::ServerAuth)
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
        client_builder(rustls::ALL_VERSIONS).with_root_certificates(self.roots()).with_no_client_auth()
    }

    /// As [`Authority::client`], offering these protocols (ALPN).
    pub(crate) fn client_offering(&self, protocols: &[&str]) -> ClientConfig {
        let mut config = self.client();
        config.alpn_protocols = names(protocols);
        config
    }

    /// A client of TLS 1.2.
    pub(crate) fn old_client(&self) -> ClientConfig {
        client_builder(&[&rustls::version::TLS12]).with_root_certificates(self.roots()).with_no_client_auth()
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

    fn private_key(&self) -> PrivateKeyDer<'static> {
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
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).expect("versions")
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions")
}

/// One end of a TLS connection. Two threads may use it at once, one to read and one to write: `&Tls` does both.
pub(crate) struct Tls {
    socket: TcpStream,
    connection: Mutex<Connection>,
    /// What was read of it, and not yet asked for.
    opened: Mutex<VecDeque<u8>>,
    /// Held from the sealing of records to the end of their writing: they must not overtake each other.
    writing: Mutex<()>,
}

impl Tls {
    /// Connects, with a handshake.
    pub(crate) fn connect(place: &Place, config: &ClientConfig, name: &str) -> Tls {
        Tls::try_connect(place, config, name).unwrap_or_else(|error| panic!("TLS to {place} as {name}: {error}"))
    }

    /// As [`Tls::connect`], when it may fail.
    pub(crate) fn try_connect(place: &Place, config: &ClientConfig, name: &str) -> io::Result<Tls> {
        Tls::on(try_connect(place)?, client_connection(config, name))
    }

    /// The handshake of a server.
    pub(crate) fn accept(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Tls> {
        let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Tls::on(socket, connection)
    }

    /// The handshake, on a socket on which it may have begun.
    pub(crate) fn on(mut socket: TcpStream, connection: impl Into<Connection>) -> io::Result<Tls> {
        let mut connection = connection.into();
        while connection.is_handshaking() {
            if let (0, 0) = connection.complete_io(&mut socket)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        while connection.wants_write() {
            connection.write_tls(&mut socket)?;
        }
        Ok(Tls { socket, connection: Mutex::new(connection), opened: Mutex::default(), writing: Mutex::default() })
    }

    /// Below TLS.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Sends a close_notify, and no FIN.
    pub(crate) fn close_notify(&self) -> io::Result<()> {
        self.write_records(|connection| {
            connection.send_close_notify();
            Ok(())
        })
    }

    /// Sends a close_notify and a FIN.
    pub(crate) fn finish(&self) {
        self.close_notify().expect("a close_notify");
        self.socket.shutdown(Shutdown::Write).expect("FIN");
    }

    /// What is known of the connection.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.connection.lock().expect("no panic under it"))
    }

    /// The certificate of the other side.
    pub(crate) fn peer(&self) -> Option<CertificateDer<'static>> {
        self.look(|connection| Some(connection.peer_certificates()?.first()?.clone().into_owned()))
    }

    /// Seals bytes without sending them.
    pub(crate) fn seal(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connection.lock().expect("no panic under it");
        connection.writer().write_all(bytes).expect("room");
        let mut sealed = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut sealed).expect("a Vec");
        }
        sealed
    }

    fn write_records(&self, say: impl FnOnce(&mut Connection) -> io::Result<()>) -> io::Result<()> {
        let _writing = self.writing.lock().expect("no panic under it");
        let mut records = Vec::new();
        {
            let mut connection = self.connection.lock().expect("no panic under it");
            say(&mut connection)?;
            while connection.wants_write() {
                connection.write_tls(&mut records)?;
            }
        }
        (&self.socket).write_all(&records)
    }
}

impl Read for &Tls {
    /// `Ok(0)` is a close_notify; a FIN without one is the error `UnexpectedEof`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut opened = self.opened.lock().expect("no panic under it");
        let mut received = vec![0; 64 * 1024];
        loop {
            if !opened.is_empty() {
                return opened.read(buffer);
            }
            match self.connection.lock().expect("no panic under it").reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            let count = (&self.socket).read(&mut received)?;
            let mut rest = &received[..count];
            let mut connection = self.connection.lock().expect("no panic under it");
            // Nothing is how it learns of the FIN.
            while connection.read_tls(&mut rest)? > 0 {
                connection.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                // rustls keeps little of it, and takes no more before that is gone.
                let mut portion = [0; 16 * 1024];
                while let Ok(count @ 1..) = connection.reader().read(&mut portion) {
                    opened.extend(&portion[..count]);
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
}

impl Write for &Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut count = 0;
        self.write_records(|connection| {
            count = connection.writer().write(bytes)?;
            Ok(())
        })?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client that is about to say its first word.
pub(crate) fn client_connection(config: &ClientConfig, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(Arc::new(config.clone()), name).expect("a connection")
}

/// What a client begins with: its ClientHello, as one record.
pub(crate) fn client_hello(connection: &mut ClientConnection) -> Vec<u8> {
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("a Vec");
    }
    hello
}

/// A record of the handshake cut into several, with at most so many bytes of it each.
pub(crate) fn split_record(record: &[u8], size: usize) -> Vec<u8> {
    let (header, message) = record.split_at(5);
    let parts = message.chunks(size).map(|part| {
        let length = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&header[..3], &length, part].concat()
    });
    parts.flatten().collect()
}

/// The configuration of one listener, `in`, that terminates TLS for one plain backend, `b`.
pub(crate) fn terminate(to: impl Display, certificates: &[&Issued], tls: &str, listener: &str) -> String {
    let certificates: Vec<String> = certificates.iter().map(|issued| issued.yaml()).collect();
    let certificates = certificates.join(", ");
    forward(to, &format!("tls: {{ certificates: [{certificates}], {tls} }}, {listener}"), "")
}

/// Both ends of a connection through the balancer: TLS to it, and what it makes of it for the backend.
pub(crate) struct Terminated {
    pub(crate) tidegate: Tidegate,
    pub(crate) client: Tls,
    pub(crate) backend: TcpStream,
}

/// As [`Terminated`] says, for a client of the newest version; `listener` is more keys of it.
pub(crate) fn one_tls_connection(listener: &str) -> Terminated {
    one_tls_connection_of(listener, Authority::client)
}

/// As [`one_tls_connection`], for this client.
pub(crate) fn one_tls_connection_of(listener: &str, client: impl Fn(&Authority) -> ClientConfig) -> Terminated {
    let (scripted, authority) = (Scripted::start(), Authority::new());
    let certificate = authority.issue(&["a.example"]);
    let tidegate = Tidegate::start(&terminate(scripted.place(), &[&certificate], "", listener));
    let client = Tls::connect(&tidegate.at("in"), &client(&authority), "a.example");
    let backend = scripted.accept();
    Terminated { tidegate, client, backend }
}

/// A backend that speaks TLS: after each handshake, its connection goes to a closure, in a thread of its own. Handshakes that
/// fail are left.
pub(crate) fn tls_backend(config: ServerConfig, serve: impl Fn(Tls) + Send + Sync + 'static) -> Backend {
    let config = Arc::new(config);
    Backend::start(in_thread(move |socket| {
        if let Ok(tls) = Tls::accept(socket, &config) {
            serve(tls);
        }
    }))
}

/// Sends its name and a close_notify, and waits for the end.
pub(crate) fn send_name_over_tls(name: &str) -> impl Fn(Tls) + Send + Sync + 'static {
    let name = name.to_owned();
    move |tls| {
        _ = (&tls).write_all(name.as_bytes());
        _ = tls.close_notify();
        _ = (&tls).read(&mut [0]);
    }
}

/// All bytes up to the close_notify.
pub(crate) fn read_all(tls: &Tls) -> String {
    let mut bytes = Vec::new();
    let mut tls = tls;
    tls.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("after {:?}: {error}", String::from_utf8_lossy(&bytes)));
    String::from_utf8(bytes).expect("text")
}

/// `openssl s_client` until the server closes: all that it prints, and whether it was content.
pub(crate) fn s_client(place: &Place, arguments: &[&str]) -> (String, bool) {
    require("openssl", "openssl");
    let mut command = bound("openssl", "KILL");
    command.args(["s_client", "-ign_eof", "-connect", &place.tcp().to_string()]).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("openssl");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (text, output.status.success())
}
