//! The files that a configuration names, as `check` and the start judge them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{Content, LoadReason, MAX_CRL, MAX_PEM};
use super::{authorities, certificate};
use crate::config::files::{Diagnostic, Files, Part, host};
use crate::config::model::CertificateFiles;

/// Looks into the files themselves.
#[derive(Clone, Copy, Debug)]
pub struct OnDisk;

impl Files for OnDisk {
    fn certificate(&self, files: &CertificateFiles) -> Vec<(Part, Diagnostic)> {
        let cert = Content::read(&files.cert, MAX_PEM);
        let key = Content::read(files.key.reveal(), MAX_PEM);
        certificate::read(&cert, &key, LoadReason::Start, SystemTime::now()).faults
    }

    fn authorities(&self, path: &Path) -> Vec<Diagnostic> {
        let (_, faults) = authorities::of_file(&Content::read(path, MAX_PEM), SystemTime::now());
        faults
    }

    fn revocations(&self, path: &Path) -> Vec<Diagnostic> {
        let (_, faults) = authorities::revocations(&Content::read(path, MAX_CRL), SystemTime::now());
        faults
    }

    fn log(&self, path: &Path) -> Vec<Diagnostic> {
        host::log(path)
    }

    fn secret(&self, path: &Path) -> Vec<Diagnostic> {
        host::secret(path)
    }

    fn country_database(&self, path: &Path) -> Vec<Diagnostic> {
        host::country_database(path)
    }

    fn socket(&self, path: &Path) -> Vec<Diagnostic> {
        host::socket(path)
    }

    fn real(&self, path: &Path) -> PathBuf {
        host::real(path)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        host::is_own(ip)
    }

    fn can_bind(&self, ip: IpAddr) -> bool {
        host::can_bind(ip)
    }
}
