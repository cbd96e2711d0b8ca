//! The certificate of the demo's listener, made for this one run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use tidegate::tls::{ClientTrust, CommandTls};

use super::directory::DemoDirectory;
use super::load::HOST;

/// Names of the listener: also the address, for curl.
const NAMES: [&str; 2] = [HOST, "127.0.0.1"];

/// Files of a certificate that vouches for itself, and of its key.
pub(super) struct DemoCertificate {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl DemoCertificate {
    /// Makes them.
    ///
    /// # Errors
    /// Those of writing the files.
    pub(super) fn create(directory: &DemoDirectory) -> io::Result<DemoCertificate> {
        let failed = |error: rcgen::Error| io::Error::other(format!("cannot make a certificate: {error}"));
        let mut params = CertificateParams::new(NAMES.map(str::to_owned)).map_err(failed)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let cert = directory.write("cert.pem", &certificate.pem())?;
        Ok(DemoCertificate { cert, key: directory.write("key.pem", &key.serialize_pem())? })
    }

    /// TLS of a client that trusts it, and nothing else.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn client(cert: &Path) -> io::Result<Arc<CommandTls>> {
        let trust = ClientTrust { ca: Some(cert.to_owned()), ..ClientTrust::default() };
        CommandTls::new(&trust).map(Arc::new).map_err(|error| io::Error::other(error.to_string()))
    }
}
