//! The certificate of the scenarios with TLS: ECDSA P-256, signed by itself, made anew for each comparison.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

/// Whose it is, and what clients ask for.
pub(crate) const NAME: &str = "localhost";

/// Where it is.
pub(crate) struct Certificate {
    /// The certificate.
    pub(crate) cert: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Both in one, as HAProxy wants it.
    pub(crate) pair: PathBuf,
}

impl Certificate {
    /// Makes one and writes it into this directory.
    pub(crate) fn make(dir: &Path) -> io::Result<Certificate> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
        let params = CertificateParams::new([NAME.to_owned()]).map_err(io::Error::other)?;
        let cert = params.self_signed(&key).map_err(io::Error::other)?.pem();
        let key = key.serialize_pem();
        Ok(Certificate {
            cert: write(dir.join("tls.crt"), &cert)?,
            pair: write(dir.join("tls.pem"), &(cert + &key))?,
            key: write(dir.join("tls.key"), &key)?,
        })
    }
}

/// Readable by nobody else, and not what may have been there before.
fn write(path: PathBuf, text: &str) -> io::Result<PathBuf> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(text.as_bytes())?;
    Ok(path)
}
